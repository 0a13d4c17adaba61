# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named network namespaces, as ip-netns(8) makes them: a bind mount of each on a file under /run/netns."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from ..kernel import mount, namespace
from .declared import NETNS

_OWN = "/proc/thread-self/ns/net"


def exists(path: str) -> bool:
    """Whether a namespace is mounted at ``path``, not only the file that it was to be mounted on."""
    try:
        return os.stat(path).st_dev == os.stat(_OWN).st_dev
    except FileNotFoundError:
        return False


def make(path: str) -> None:
    """Makes the namespace ``path``, in place of a mere file there. All or nothing. Raises OSError."""
    with _directory():
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o000))
        try:
            with namespace.inside(_OWN, "net"):
                namespace.unshare("net")
                mount.bind(_OWN, path)
        except OSError:
            os.unlink(path)
            raise


def remove(path: str) -> None:
    """Removes the name; the namespace itself goes with its last process. With the last name goes the
    directory.

    Raises OSError.
    """
    with _directory(), contextlib.suppress(FileNotFoundError):
        while exists(path):
            mount.unmount(path)
        os.unlink(path)
    _remove_directory()


def _remove_directory() -> None:
    """Leaves the directory of names where there are others, or where it is somebody's file system of its
    own."""
    own = os.stat(NETNS).st_dev != os.stat(os.path.dirname(NETNS)).st_dev
    if own or os.listdir(NETNS):
        return
    # A name made meanwhile, or somebody in there, keeps it: both calls then fail.
    with contextlib.suppress(OSError):
        mount.unmount(NETNS, 0)
        os.rmdir(NETNS)


@contextlib.contextmanager
def _directory() -> Iterator[None]:
    """The directory of names, made and shared with all mount namespaces, and locked as ip-netns(8) does."""
    os.makedirs(NETNS, 0o755, exist_ok=True)
    descriptor = os.open(NETNS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _share()
        yield
    finally:
        os.close(descriptor)


def _share() -> None:
    """Makes the directory a shared mount (mount_namespaces(7)), mounted on itself if it is no mount yet."""
    try:
        mount.set_propagation(NETNS, "shared", recursive=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount.mount(NETNS, NETNS, "none", mount.MS_BIND | mount.MS_REC)
        mount.set_propagation(NETNS, "shared", recursive=True)

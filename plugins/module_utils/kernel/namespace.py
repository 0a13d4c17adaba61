# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces: making them, entering them, telling them apart (namespaces(7))."""

from __future__ import annotations

import os

from .syscall import call

FLAGS = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
"""The clone flag of each namespace, by its file in /proc/PID/ns (include/uapi/linux/sched.h)."""


def flags(*names: str) -> int:
    """The clone flags of these namespaces together."""
    return sum(FLAGS[name] for name in set(names))


def unshare(*names: str) -> None:
    """Moves the calling thread into new namespaces; with pid, its next child (unshare(2)). Raises OSError."""
    call("unshare", flags(*names))


def enter(descriptor: int, *names: str) -> None:
    """Moves the calling thread into the namespaces of ``descriptor``, an open namespace file or a pidfd.

    A pidfd enters all the ``names`` at once or none (setns(2), since Linux 5.8). Raises OSError.
    """
    call("setns", descriptor, flags(*names))


def open_file(path: str) -> int:
    """Opens a namespace's file, ``/run/netns/NAME`` or ``/proc/PID/ns/NAME``, for enter(). Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class inside:
    """Context manager: the calling thread is in another namespace of this kind, and comes back.

    Not for mnt, pid and user, whose entering is not undone so simply. Raises OSError.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name

    def __enter__(self) -> None:
        self._own = open_file(f"/proc/thread-self/ns/{self._name}")
        other = open_file(self._path)
        try:
            enter(other, self._name)
        finally:
            os.close(other)

    def __exit__(self, *_exception: object) -> None:
        enter(self._own, self._name)
        os.close(self._own)


def identity(path: str) -> tuple[int, int]:
    """Device and inode of a namespace's file, which tell it from all others. Raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino

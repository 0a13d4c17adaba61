# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking an archive that nobody vouches for.

It is done by a child process whose root is the directory to be filled: there is no path, no link and no
``..`` by which an entry could name anything of the host (CVE-2007-4559 and those after it). What an archive
can do is fill the directory up to its limits, and the directory is thrown away when anything is wrong with
it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..converge import Failure
from ..kernel import child, mount, namespace
from .archive import Archive, Limits, Read, Refused, Stream, decompressed
from .changeset import Below, Changeset, mount_over
from .tree import Tree
from .watch import Watch

_LONGEST_REASON = 4000


def unpack(descriptor: int, target: Path, limits: Limits, watch: Watch, below: Below | None = None) -> Read:
    """Unpacks the archive in an open file into the empty directory ``target``, and returns what it was.

    An image's layer lies on what is ``below``; in any other archive a whiteout is a name like others. Raises
    Refused for the archive's fault, Failure, OSError. What ``target`` then holds is not to be used.
    """

    def where() -> str:
        # What reads it shares our place in the file (open(2)).
        done = os.lseek(descriptor, 0, os.SEEK_CUR)
        return f"unpacked {watch.amount(done, os.fstat(descriptor).st_size)}"

    with decompressed(descriptor) as stream:
        return unpack_stream(stream, target, limits, watch, where, below)


def unpack_stream(
    stream: Stream,
    target: Path,
    limits: Limits,
    watch: Watch,
    where: Callable[[], str],
    below: Below | None = None,
) -> Read:
    """The same with a tar archive that comes as a stream; ``where`` says how far it is."""
    try:
        report = child.result(
            lambda: _attempt(stream, os.fspath(target), limits, below),
            lambda reports: watch.wait(reports, where),
        )
    except child.Ended as ended:
        raise Failure(f"The process that unpacks {ended}; nothing was changed.") from None
    if "refused" in report:
        raise Refused(report["refused"])
    return Read(**report)


def _attempt(stream: Stream, target: str, limits: Limits, below: Below | None) -> dict[str, Any]:
    """What the archive was, or ``refused``: what is wrong with it."""
    try:
        _enter(target, below)
        tree = Tree() if below is None else Changeset()
        archive = Archive(stream, limits)
        for entry in archive.entries():
            tree.add(entry, archive)
        tree.finish()
        return dataclasses.asdict(archive.read)
    except Refused as refused:
        reason = str(refused)
    # What hostile input raises from the depths of a parser is not for us to list.
    except Exception as error:
        reason = f"is damaged or no tar archive ({type(error).__name__}: {error})"
        if isinstance(error, OSError) and error.errno is not None:
            where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
            reason = f"can't be unpacked: {error.strerror}{where}"
    return {"refused": reason[:_LONGEST_REASON]}


def _enter(target: str, below: Below | None = None) -> None:
    """Makes ``target``, over what is below, the root of all paths, for this process alone (pivot_root(2),
    NOTES)."""
    os.umask(0o022)
    namespace.unshare("mnt")
    mount.set_propagation("/", "private", recursive=True)
    if below is not None and below.trees:
        mount_over(target, below)
    else:
        mount.bind(target, target)
    os.chdir(target)
    mount.pivot_root(".", ".")
    mount.unmount(".", mount.MNT_DETACH)
    os.chdir("/")
    # From here on a module that is not loaded yet would come out of the archive.
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()

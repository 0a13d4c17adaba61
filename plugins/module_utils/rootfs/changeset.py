# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A layer of an image: the changes to what lies below it (OCI image spec, layer).

Its archive is unpacked over the layers below, on an overlay of them, and what overlayfs has then written to
the upper directory is the layer: directories that the archive left out have the owner and mode that they have
below, links may be to files from there, and what is removed leaves a whiteout or an opaque directory of the
kernel's own (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ..kernel import mount
from .archive import Archive, Refused
from .tree import DirectoryMetadata, Tree, is_directory, path_of, wanted

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."

# Options that a kernel may have by default and that a layer which is mounted elsewhere could not have.
_PLAIN = "index=off,metacopy=off,redirect_dir=off"


@dataclass(frozen=True)
class Below:
    """What a layer lies on: trees, lowest first, and an empty directory on the same file system for overlayfs
    to work in."""

    trees: Sequence[str]
    work: str


def mount_over(target: str, below: Below) -> None:
    """Mounts the layers below at ``target``, which is where changes go. Raises OSError.

    Through descriptors, as the names of many layers are longer than mount(2) takes.
    """
    DirectoryMetadata(os.fsencode(below.trees[-1])).give(os.fsencode(target))
    with contextlib.ExitStack() as opened:
        upper, work, *lower = (_open(directory, opened) for directory in (target, below.work, *below.trees))
        options = f"lowerdir={':'.join(reversed(lower))},upperdir={upper},workdir={work},{_PLAIN}"
        mount.mount("overlay", target, "overlay", 0, options)


def _open(directory: str, opened: contextlib.ExitStack) -> str:
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return f"/proc/self/fd/{descriptor}"


class Changeset(Tree):
    """The files below our root, where there are some already, and whiteouts that remove of those."""

    def __init__(self) -> None:
        super().__init__()
        self._own: set[int] = set()
        self._times: dict[int, tuple[bytes, int]] = {}

    def add(self, entry: tarfile.TarInfo, archive: Archive) -> None:
        path = path_of(entry.name)
        directory, name = os.path.split(path)
        if name.startswith(_WHITEOUT):
            self._remember(directory)
            self._apply(directory, name)
            return
        if entry.ischr() and (entry.devmajor, entry.devminor) == (0, 0):
            raise Refused(f"has a device 0:0, which is a whiteout to overlayfs: {entry.name!r}")
        super().add(entry, archive)
        with contextlib.suppress(FileNotFoundError):
            self._own.add(os.lstat(path).st_ino)

    def finish(self) -> None:
        """A directory that the archive says nothing of has the time that it had."""
        for path, moment in self._times.values():
            if os.path.isdir(path):
                os.utime(path, ns=(moment, moment))
        super().finish()

    def _apply(self, directory: bytes, whiteout: bytes) -> None:
        if whiteout == _OPAQUE:
            if os.path.isdir(directory):
                self._empty(directory)
        elif not whiteout.startswith(_RESERVED):
            name = whiteout[len(_WHITEOUT) :]
            if name in (b"", b".", b".."):
                raise Refused(f"has a whiteout of nothing that has a name: {os.fsdecode(whiteout)!r}")
            self._hide(os.path.join(directory, name))

    def _empty(self, directory: bytes) -> None:
        """Removes what is in it from below, and itself where nothing is left: the directory that is made anew
        is opaque, and needs no whiteout for each that was in the other."""
        for name in os.listdir(directory):
            self._hide(os.path.join(directory, name))
        if os.listdir(directory) or directory == b"/" or os.path.islink(directory):
            return
        self._remember(os.path.dirname(directory))
        metadata, before = DirectoryMetadata(directory), os.stat(directory).st_ino
        os.rmdir(directory)
        os.mkdir(directory)
        metadata.give(directory)
        after = os.stat(directory).st_ino
        self._times[after] = self._times.pop(before)
        if before in self._own:
            self._own.add(after)

    def _hide(self, path: bytes) -> None:
        """Removes what is there from below; what this archive itself has put there stays ("Whiteouts")."""
        _remove(path, self._own)

    def _add_directory(self, path: bytes, entry: tarfile.TarInfo) -> None:
        super()._add_directory(path, entry)
        for name in filter(wanted, os.listxattr(path)):
            os.removexattr(path, name)

    def _make_way(self, path: bytes) -> None:
        """A directory gives way with all that is in it."""
        self._remember(os.path.dirname(path))
        if is_directory(path):
            _remove(path, set())
        super()._make_way(path)

    def _remember(self, directory: bytes) -> None:
        """By inode, as links may lead to a directory in several ways."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(directory)
            self._times.setdefault(status.st_ino, (directory, status.st_mtime_ns))


def _remove(top: bytes, keep: AbstractSet[int]) -> None:
    """Removes what is at ``top``, if anything, but for these inodes and the directories that they are in."""
    found = [top] if os.path.lexists(top) else []
    for path in found:
        if is_directory(path):
            found += [os.path.join(path, name) for name in os.listdir(path)]
    for path in reversed(found):
        if os.lstat(path).st_ino in keep:
            continue
        if not is_directory(path):
            os.unlink(path)
        elif not os.listdir(path):
            os.rmdir(path)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of an archive as files, below the root of whoever unpacks it."""

from __future__ import annotations

import os
import stat
import tarfile
from fractions import Fraction

from .archive import Archive, Refused

_NO_ID = 0xFFFFFFFF  # chown(2): leaves the owner as it is
_XATTR = "SCHILY.xattr."
_KINDS = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
_VOLUME_LABEL = b"V"


class Tree:
    """The files below our root. An entry replaces what an earlier one has put under its name, as with GNU
    tar."""

    def __init__(self) -> None:
        self._directories: dict[bytes, tarfile.TarInfo] = {}

    def add(self, entry: tarfile.TarInfo, archive: Archive) -> None:
        """Raises Refused, OSError, ValueError."""
        if entry.type == _VOLUME_LABEL:
            return
        path = path_of(entry.name)
        if entry.isdir():
            self._add_directory(path, entry)
            return
        if path == b"/":
            raise Refused("has an entry for the root that is no directory")
        if entry.islnk():
            self._add_link(path, path_of(entry.linkname))
            return
        self._make_way(path)
        if entry.isreg():
            _write_file(path, entry, archive)
        elif entry.issym():
            os.symlink(_encode(entry.linkname), path)
            _set_metadata(path, entry)
        elif entry.type in _KINDS:
            os.mknod(path, _KINDS[entry.type] | 0o600, os.makedev(entry.devmajor, entry.devminor))
            _set_metadata(path, entry)
        else:
            raise Refused(f"has an entry of the unknown type {entry.type!r}: {entry.name!r}")

    def finish(self) -> None:
        """The directories' own metadata, when nothing more is written into them. Raises OSError."""
        for path, entry in self._directories.items():
            if is_directory(path):
                _set_metadata(path, entry)

    def _add_directory(self, path: bytes, entry: tarfile.TarInfo) -> None:
        if not is_directory(path):
            self._make_way(path)
            os.mkdir(path)
        self._directories[path] = entry

    def _add_link(self, path: bytes, target: bytes) -> None:
        if path == target:
            return
        self._make_way(path)
        os.link(target, path, follow_symlinks=False)

    def _make_way(self, path: bytes) -> None:
        """Has the directory that ``path`` is in exist, and nothing be there."""
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            os.makedirs(parent)
        if is_directory(path):
            os.rmdir(path)
            self._directories.pop(path, None)
        elif os.path.lexists(path):
            os.unlink(path)


def path_of(name: str) -> bytes:
    """The absolute path of an entry; raises Refused for one that steps up."""
    parts = [part for part in _encode(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Refused(f"has an entry that leads out of it: {name!r}")
    return b"/" + b"/".join(parts)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def is_directory(path: bytes) -> bool:
    """Whether there is a directory, and no link to one. Raises OSError."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _write_file(path: bytes, entry: tarfile.TarInfo, archive: Archive) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        archive.copy(entry, descriptor)
    finally:
        os.close(descriptor)
    _set_metadata(path, entry)


def _set_metadata(path: bytes, entry: tarfile.TarInfo) -> None:
    """Owner first: changing it clears set-ID bits and capabilities (chown(2), capabilities(7))."""
    for number in (entry.uid, entry.gid):
        if not 0 <= number < _NO_ID:
            raise Refused(f"has an entry with the owner {number}: {entry.name!r}")
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR) and wanted(key[len(_XATTR) :]):
            os.setxattr(path, key[len(_XATTR) :], _encode(value), follow_symlinks=False)
    if not entry.issym():
        os.chmod(path, stat.S_IMODE(entry.mode))
    moment = _nanoseconds(entry)
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


class DirectoryMetadata:
    """Owner, mode, times and wanted attributes of a directory. Raises OSError."""

    def __init__(self, path: bytes) -> None:
        self._status = os.stat(path)
        self._attributes = {name: os.getxattr(path, name) for name in filter(wanted, os.listxattr(path))}

    def give(self, path: bytes) -> None:
        """Gives another directory the same."""
        os.chown(path, self._status.st_uid, self._status.st_gid)
        os.chmod(path, stat.S_IMODE(self._status.st_mode))
        for name, value in self._attributes.items():
            os.setxattr(path, name, value)
        os.utime(path, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))


def wanted(attribute: str) -> bool:
    """File capabilities and what users set; not overlayfs's own, which would make one layer see into
    another."""
    return attribute == "security.capability" or (
        attribute.startswith("user.") and not attribute.startswith("user.overlay.")
    )


def _nanoseconds(entry: tarfile.TarInfo) -> int:
    """The exact time where the archive has it: a float has not the digits for it."""
    return int(Fraction(entry.pax_headers.get("mtime", entry.mtime)) * 10**9 // 1)

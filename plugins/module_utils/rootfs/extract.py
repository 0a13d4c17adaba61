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
import json
import os
import stat
import sys
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..converge import Failure
from ..kernel import mount, namespace, process
from .archive import Archive, Limits, Read, Refused, Stream, decompressed

_NO_ID = 0xFFFFFFFF  # chown(2): leaves the owner as it is
_XATTR = "SCHILY.xattr."
_KINDS = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
_VOLUME_LABEL = b"V"
_LONGEST_REASON = 4000


def unpack(descriptor: int, target: Path, limits: Limits) -> Read:
    """Unpacks the archive in an open file into the empty directory ``target``, and returns what it was.

    Raises Refused for the archive's fault, Failure, OSError. What ``target`` then holds is not to be used.
    """
    with decompressed(descriptor) as stream:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(stream, os.fspath(target), limits, writer)
        os.close(writer)
        with open(reader, "rb") as messages:
            message = messages.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0 or not message:
            raise Failure(f"The process that unpacks ended with status {status}; nothing was changed.")
        report = json.loads(message)
        if "refused" in report:
            raise Refused(report["refused"])
        return Read(**report)


def _child(stream: Stream, target: str, limits: Limits, report: int) -> None:
    """Unpacks and ends; writes what the archive was, or what is wrong with it, to ``report``."""
    try:
        process.die_with_parent()
        os.write(report, json.dumps(_attempt(stream, target, limits)).encode())
        os._exit(0)
    finally:
        os._exit(1)


def _attempt(stream: Stream, target: str, limits: Limits) -> dict[str, Any]:
    """What the archive was, or ``refused``: what is wrong with it."""
    try:
        _enter(target)
        tree = _Tree()
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
    return {"refused": reason[:_LONGEST_REASON].encode("utf-8", "replace").decode()}


def _enter(target: str) -> None:
    """Makes ``target`` the root of all paths, for this process alone (pivot_root(2), NOTES)."""
    os.umask(0o022)
    namespace.unshare("mnt")
    mount.set_propagation("/", "private", recursive=True)
    mount.bind(target, target)
    os.chdir(target)
    mount.pivot_root(".", ".")
    mount.unmount(".", mount.MNT_DETACH)
    os.chdir("/")
    # From here on a module that is not loaded yet would come out of the archive.
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


class _Tree:
    """The files below our root. An entry replaces what an earlier one has put under its name, as with GNU
    tar."""

    def __init__(self) -> None:
        self._directories: dict[bytes, tarfile.TarInfo] = {}

    def add(self, entry: tarfile.TarInfo, archive: Archive) -> None:
        """Raises Refused, OSError, ValueError."""
        if entry.type == _VOLUME_LABEL:
            return
        path = _path(entry.name)
        if entry.isdir():
            self._add_directory(path, entry)
            return
        if path == b"/":
            raise Refused("has an entry for the root that is no directory")
        if entry.islnk():
            self._add_link(path, _path(entry.linkname))
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
            if _is_directory(path):
                _set_metadata(path, entry)

    def _add_directory(self, path: bytes, entry: tarfile.TarInfo) -> None:
        if not _is_directory(path):
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
        if _is_directory(path):
            os.rmdir(path)
            self._directories.pop(path, None)
        elif os.path.lexists(path):
            os.unlink(path)


def _path(name: str) -> bytes:
    """The absolute path of an entry; raises Refused for one that steps up."""
    parts = [part for part in _encode(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Refused(f"has an entry that leads out of it: {name!r}")
    return b"/" + b"/".join(parts)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_directory(path: bytes) -> bool:
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
        if key.startswith(_XATTR) and _wanted(key[len(_XATTR) :]):
            os.setxattr(path, key[len(_XATTR) :], _encode(value), follow_symlinks=False)
    if not entry.issym():
        os.chmod(path, stat.S_IMODE(entry.mode))
    moment = _nanoseconds(entry)
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


def _wanted(attribute: str) -> bool:
    """File capabilities and what users set; not overlayfs's own, which would make one layer see into
    another."""
    return attribute == "security.capability" or (
        attribute.startswith("user.") and not attribute.startswith("user.overlay.")
    )


def _nanoseconds(entry: tarfile.TarInfo) -> int:
    """The exact time where the archive has it: a float has not the digits for it."""
    return int(Fraction(entry.pax_headers.get("mtime", entry.mtime)) * 10**9 // 1)

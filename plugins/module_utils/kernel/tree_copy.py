# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of all that is in a directory, whoever may be changing that meanwhile.

Each name is opened once, without following it, and what it is then decides what is done: a link that takes
the place of a file leads nowhere, and nothing but directories and ordinary files is opened for reading.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from .path import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FICLONE = 0x40049409
_NO_CLONES = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY)
_CHUNK = 1 << 20
_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LABELS = "security."
_CAPABILITY = "security.capability"


def copy_tree(source: int, target: int, *, devices: bool, originals: Sequence[int] = ()) -> None:
    """Copies what is in the directory ``source`` into the empty directory ``target``, both descriptors.

    Owners, modes, times, extended attributes, hard links and holes are those of the source, of ``target``
    itself too; the labels that a security module gives are its own. Blocks are shared where the file system
    can (ioctl_ficlone(2)). ``target`` is for nobody else to write to meanwhile. Without ``devices`` a device
    node is EPERM. ``originals`` are the layers, topmost first, that nobody changes and ``source`` shows as an
    overlay, whose own files have no blocks to share. Raises OSError, with the path inside ``target`` where it
    is about one file.
    """
    _Copy(target, devices, originals).run(source)


class _Copy:
    def __init__(self, target: int, devices: bool, originals: Sequence[int]) -> None:
        self._target = target
        self._devices = devices
        self._originals = originals
        self._clones = True
        self._linked: dict[tuple[int, int], str] = {}
        """Where in the target the first of several names of a file is, by its device and inode."""

    def run(self, source: int) -> None:
        """Depth first, as a directory's times and mode are given to it after what is in it."""
        folders: list[_Folder] = []
        try:
            folders.append(_Folder(source, ".", self._target, ".", "."))
            while folders:
                folder = folders[-1]
                for entry in folder.entries:
                    inner = self._copy_entry(folder, entry.name)
                    if inner is not None:
                        folders.append(inner)
                        break
                else:
                    _give(folder.source, folder.target, ".")
                    folders.pop().close()
        finally:
            for folder in folders:
                folder.close()

    def _copy_entry(self, folder: _Folder, name: str) -> _Folder | None:
        """Copies what ``name`` is; a directory is made, and returned for what is in it."""
        place = f"{folder.place}/{name}"
        try:
            entry = os.open(name, _NAME, dir_fd=folder.source)
        except FileNotFoundError:
            # Gone since its name was read.
            return None
        try:
            status = os.fstat(entry)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=folder.target)
                return _Folder(entry, ".", folder.target, name, place)
            first = self._linked.get((status.st_dev, status.st_ino))
            if first is not None:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=folder.target, follow_symlinks=False)
                return None
            self._make(entry, status, folder, name)
            _give(entry, folder.target, name)
            if status.st_nlink > 1:
                self._linked[status.st_dev, status.st_ino] = place
        except OSError as error:
            raise OSError(error.errno, error.strerror, place) from None
        finally:
            os.close(entry)
        return None

    def _make(self, entry: int, status: os.stat_result, folder: _Folder, name: str) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            # By its descriptor it is this file, whatever has its name by now.
            readable = os.open(f"/proc/self/fd/{entry}", os.O_RDONLY | os.O_CLOEXEC)
            written = os.open(name, flags, 0o600, dir_fd=folder.target)
            try:
                if not self._share(readable, written, f"{folder.place}/{name}"):
                    _fill(readable, written, status.st_size)
            finally:
                os.close(readable)
                os.close(written)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink("", dir_fd=entry), name, dir_fd=folder.target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK) and not self._devices:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=folder.target)

    def _share(self, source: int, target: int, place: str) -> bool:
        """Whether ``target`` has the blocks of ``source`` now, or of the topmost file at its ``place`` in a
        layer."""
        if not self._clones:
            return False
        original = _open_topmost(self._originals, place)
        try:
            fcntl.ioctl(target, _FICLONE, source if original is None else original)
            return True
        except OSError as error:
            self._clones = error.errno not in _NO_CLONES
            return False
        finally:
            if original is not None:
                os.close(original)


class _Folder:
    """A directory on its way: both descriptors, the entries still to come, its path in the target."""

    def __init__(self, source: int, source_name: str, target: int, target_name: str, place: str) -> None:
        self.place = place
        self.source = os.open(source_name, _DIRECTORY, dir_fd=source)
        self.target = os.open(target_name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
        self.entries = os.scandir(self.source)

    def close(self) -> None:
        self.entries.close()
        os.close(self.source)
        os.close(self.target)


def _open_topmost(layers: Sequence[int], place: str) -> int | None:
    for layer in layers:
        try:
            return open_in_root(layer, place, os.O_RDONLY | os.O_NOFOLLOW, symlinks=False)
        except OSError:
            # Not in this one, or no file.
            continue
    return None


def _fill(source: int, target: int, size: int) -> None:
    os.truncate(target, size)
    for first, last in _data(source, size):
        while first < last:
            chunk = os.pread(source, min(_CHUNK, last - first), first)
            if not chunk:
                # It has got shorter.
                return
            first += os.pwrite(target, chunk, first)


def _data(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes, up to ``size`` (lseek(2), SEEK_DATA)."""
    last = 0
    while last < size:
        try:
            first = os.lseek(file, last, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        last = min(os.lseek(file, first, os.SEEK_HOLE), size)
        yield first, last


def _give(source: int, folder: int, name: str) -> None:
    """Gives what is ``name`` in ``folder`` the metadata of ``source``, in the order in which none of it is
    lost again: a new owner takes capabilities and set-user-ID bits away (chown(2))."""
    status = os.fstat(source)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
    copied, original = f"/proc/self/fd/{folder}/{name}", f"/proc/self/fd/{source}"
    for attribute in _attributes(original):
        try:
            value = os.getxattr(original, attribute)
            os.setxattr(copied, attribute, value, follow_symlinks=False)
        except OSError as error:
            # Gone meanwhile, or nothing that the file system of the copy has.
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=folder)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=folder, follow_symlinks=False)


def _attributes(path: str) -> list[str]:
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
    return [name for name in names if name == _CAPABILITY or not name.startswith(_LABELS)]

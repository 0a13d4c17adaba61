# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, written so that a reader or a crash never sees half of one, and locks that the kernel releases with
the process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path


def read_text(path: Path) -> str | None:
    """The file's text, or None where there is no such file. Raises OSError."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_atomically(path: Path, text: str | bytes, mode: int = 0o644) -> None:
    """Writes ``text`` so that the path holds the old content or the new, also after a power cut; makes the
    parents.

    Written beside, fsync, rename, fsync of the folder (rename(2), fsync(2)). The name beside is fixed,
    ``.NAME.new``: what a killed writer left is overwritten by the next. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = beside(path)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        data = memoryview(text if isinstance(text, bytes) else text.encode())
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    sync_directory(path.parent)


def beside(path: Path) -> Path:
    """Where write_atomically() has a file until it is whole."""
    return path.parent / f".{path.name}.new"


def remove(path: Path) -> None:
    """Removes a file and what a killed writer left beside it; none is fine. Raises OSError."""
    for each in (path, beside(path)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            each.unlink()


def remove_empty(directory: Path, *, up_to: Path) -> None:
    """Removes ``directory`` and its parents below ``up_to`` as long as they are empty. Raises OSError."""
    while directory != up_to:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return
            raise
        directory = directory.parent


def remove_tree(directory: Path) -> None:
    """Removes ``directory`` with all that is in it, however deep; none is fine. Raises OSError.

    A folder found inside is moved up before it is emptied, so no path gets longer than one name, and no link
    that is in it is ever followed.
    """
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for number in itertools.count():
            folders = [entry.name for entry in os.scandir(top) if not _unlink(entry, top)]
            if not folders:
                break
            for folder in folders:
                _lift(top, folder, f".{number}.")
                os.rmdir(folder, dir_fd=top)
    finally:
        os.close(top)
    directory.rmdir()


def _unlink(entry: os.DirEntry[str], directory: int) -> bool:
    """Removes an entry of ``directory`` unless it is a folder."""
    if entry.is_dir(follow_symlinks=False):
        return False
    os.unlink(entry.name, dir_fd=directory)
    return True


def _lift(top: int, folder: str, prefix: str) -> None:
    """Removes the files of a folder in ``top`` and moves its folders up beside it, under names not taken
    there."""
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        names = (f"{prefix}{number}" for number in itertools.count())
        free = (name for name in names if not _exists(top, name))
        for entry in list(os.scandir(inside)):
            if not _unlink(entry, inside):
                os.rename(entry.name, next(free), src_dir_fd=inside, dst_dir_fd=top)
    finally:
        os.close(inside)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def sync_directory(directory: Path) -> None:
    """Makes a rename in ``directory`` durable (fsync(2)). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Locked(Exception):
    """Somebody else holds the lock. ``pid`` is the holder's, or None when /proc/locks does not show it."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid


@contextlib.contextmanager
def lock(path: Path, *, timeout: float) -> Iterator[None]:
    """Holds an exclusive lock (flock(2)) on ``path``, which exists only as long as it is held.

    Waits ``timeout`` seconds at most, then raises Locked. The file goes with the lock, so who gets it checks
    that the path still names the file that was locked.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # The folder went with another lock.
            continue
        try:
            _wait_for_flock(descriptor, path, deadline)
            if _names(path, descriptor):
                try:
                    yield
                finally:
                    path.unlink()
                return
        finally:
            os.close(descriptor)


def _wait_for_flock(descriptor: int, path: Path, deadline: float) -> None:
    """flock(2) has no timeout and a signal would be the whole process's, hence the polling."""
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Locked(path, _holder(descriptor)) from None
            time.sleep(0.02)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> int | None:
    """The PID in the line of /proc/locks that has our inode: ``1: FLOCK ADVISORY WRITE 123 00:1a:456 0 EOF``
    (proc(5))."""
    inode = os.fstat(descriptor).st_ino
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None

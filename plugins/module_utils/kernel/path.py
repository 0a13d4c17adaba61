# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths looked up inside a directory as if it were the root: nothing in it can lead out (openat2(2))."""

from __future__ import annotations

import ctypes
import errno
import os

from .syscall import call

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10


class _How(ctypes.Structure):
    """struct open_how (openat2(2))."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: str, flags: int, mode: int = 0, *, symlinks: bool = True) -> int:
    """Opens ``path`` with the directory ``root`` as its root: ``..`` and symlinks of any kind stay inside.

    Magic links of /proc are never followed; without ``symlinks`` no link at all, which then is ELOOP.
    Raises OSError.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if symlinks else RESOLVE_NO_SYMLINKS)
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        try:
            return call("openat2", root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)
        except BlockingIOError:
            # EAGAIN: a rename or mount elsewhere raced with a ".." in the path; the kernel asks to try again.
            continue


def make_directories(root: int, path: str, mode: int = 0o755, *, symlinks: bool = True) -> int:
    """Opens the directory ``path`` inside ``root`` (O_PATH), making it and its parents where missing.

    A new directory is made in the descriptor of its parent, so it lies where that was looked up. A dangling
    symlink on the way is ENOENT. Raises OSError.
    """
    walked = ""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    for part in path.split("/"):
        if part in ("", "."):
            continue
        walked = f"{walked}/{part}"
        try:
            there = _enter(root, walked, here, part, mode, symlinks)
        finally:
            os.close(here)
        here = there
    return here


def _enter(root: int, walked: str, parent: int, name: str, mode: int, symlinks: bool) -> int:
    """Opens the directory ``walked``, which is ``name`` in ``parent``, and makes it there if missing."""
    try:
        return open_in_root(root, walked, os.O_PATH | os.O_DIRECTORY, symlinks=symlinks)
    except FileNotFoundError:
        _make_directory(parent, name, mode)
        return open_in_root(root, walked, os.O_PATH | os.O_DIRECTORY, symlinks=symlinks)


def _make_directory(parent: int, name: str, mode: int) -> None:
    if name == "..":
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return

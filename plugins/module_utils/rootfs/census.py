# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The census of a tree: one digest of all that is in it and of all that an archive can say of each entry."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import digest


@dataclass(frozen=True)
class Census:
    """What was found: bytes in the files, each of several names counted once, and the sha256 of all, in
    hexadecimal digits."""

    size: int
    digest: str


def take(top: Path) -> Census:
    """Reads everything below ``top``, following no link. Raises OSError.

    Part of the digest are names, types, modes, owners, modification times, contents, targets, device numbers,
    extended attributes, and which names are of one file; when something was read or linked to last is not.
    """
    start = len(os.fsencode(top))
    total = hashlib.sha256()
    first: dict[int, bytes] = {}
    size = 0
    directories = [os.fsencode(top)]
    while directories:
        directory = directories.pop()
        total.update(_describe(directory, os.lstat(directory), directory[start:]))
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path, status = entry.path, entry.stat(follow_symlinks=False)
                same = first.setdefault(status.st_ino, path)
                if stat.S_ISDIR(status.st_mode):
                    directories.append(path)
                elif same != path:
                    total.update(repr((path[start:], same[start:])).encode())
                else:
                    total.update(_describe(path, status, path[start:]))
                    size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Census(size, total.hexdigest())


def _describe(path: bytes, status: os.stat_result, name: bytes) -> bytes:
    kind = stat.S_IFMT(status.st_mode)
    content: Any = None
    if kind == stat.S_IFREG:
        content = (status.st_size, _digest(path))
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = status.st_rdev
    attributes = [
        (attribute, os.getxattr(path, attribute, follow_symlinks=False))
        for attribute in sorted(os.listxattr(path, follow_symlinks=False))
    ]
    what = (name, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, attributes)
    return repr(what).encode()


def _digest(path: bytes) -> str:
    """The sha256 of a file's content."""
    with open(path, "rb", buffering=0) as opened:
        return digest("sha256", opened)

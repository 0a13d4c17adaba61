# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on the managed host that root file systems are made from, and their digests."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

from ..converge import Failure

_CHUNK = 1 << 20

Kept = Mapping[str, Any]
"""A declaration as it was kept by an earlier run: options, ``digest``, ``layers``, and what record() gave; or
empty."""


class HashedFile:
    """A file whose digest is computed once: in this run, and in later ones as long as it was not touched.

    Touched is what has another inode, size, modification or status change time; the last one can't be set by
    hand.
    """

    def __init__(self, option: str, path: str) -> None:
        self._option = option
        self._path = path
        self._known: dict[str, Any] = {}

    def sha256(self, kept: Kept) -> str:
        """Raises Failure, OSError."""
        with open_file(self._option, self._path) as opened:
            status = os.fstat(opened.fileno())
            identity = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            for known in (self._known, kept.get("file", {})):
                if known.get("identity") == identity:
                    self._known = known
                    return str(known["sha256"])
            self._known = {"identity": identity, "sha256": digest("sha256", opened)}
            return str(self._known["sha256"])

    def record(self) -> dict[str, Any]:
        return {"file": self._known} if self._known else {}


def open_file(option: str, path: str) -> BinaryIO:
    """Raises Failure unless there is such a file, OSError."""
    try:
        # Without O_NONBLOCK a pipe would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(f"{option}: there is no file {path} on this host; nothing was changed.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Failure(f"{option}: {path} is not a regular file; nothing was changed.")
    return os.fdopen(descriptor, "rb")


def digest(algorithm: str, opened: BinaryIO) -> str:
    """The digest of a file from where it is to its end."""
    total = hashlib.new(algorithm)
    for data in iter(lambda: opened.read(_CHUNK), b""):
        total.update(data)
    return total.hexdigest()

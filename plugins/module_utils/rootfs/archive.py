# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a tar archive (tar(5), pax(1)) from start to end, however it is compressed and whoever made it.

The headers are parsed by Python's tarfile, which is given nothing but bytes in order: what it reads is
limited and only goes forward, and it never touches a file system. What tarfile lets pass in silence is
refused here: an archive that breaks off, or has a damaged header in its midst.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

from ..converge import Failure
from . import program
from .watch import readable

_BLOCK = 512
_CHUNK = 1 << 18
_LARGEST_HEADER = 1 << 20


class Refused(Exception):
    """What is wrong with an archive, in words that follow its name."""


@dataclass(frozen=True)
class Read:
    """What an archive was that has been read to its end: the sha256 of its bytes when decompressed, in
    hexadecimal digits, how many they are, and how many entries."""

    digest: str
    size: int
    entries: int

    def __str__(self) -> str:
        return f"{readable(self.size)} with {self.entries} entries"


@dataclass(frozen=True)
class Limits:
    """The most that an archive may come to: bytes, compressed and not, and entries; together with others that
    have ``used`` some."""

    size: int
    entries: int
    used: Read | None = None

    def less(self, read: Read) -> Limits:
        """The same for several archives together, of which one has been read."""
        used = self.used or Read("", 0, 0)
        return replace(self, used=Read("", used.size + read.size, used.entries + read.entries))


class Stream(Protocol):
    """Something that gives bytes in order."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Compression:
    """How a compressed file begins, the programs that decompress it, the fastest first, and what does it in
    their place."""

    name: str
    start: bytes
    programs: tuple[tuple[str, ...], ...]
    reader: Callable[[BinaryIO], AbstractContextManager[Stream]] | None


_COMPRESSIONS = (
    _Compression(
        "gzip", b"\x1f\x8b", (("pigz", "-dc"), ("gzip", "-dc")), lambda file: gzip.GzipFile(fileobj=file)
    ),
    _Compression("xz", b"\xfd7zXZ\0", (("xz", "-dc", "-T0"),), lzma.LZMAFile),
    _Compression("bzip2", b"BZh", (("lbzip2", "-dc"), ("pbzip2", "-dc"), ("bzip2", "-dc")), bz2.BZ2File),
    # Python reads it itself from 3.14 on only.
    _Compression("zstd", b"\x28\xb5\x2f\xfd", (("zstd", "-dcq", "-T0"),), None),
)


def decompressed(descriptor: int) -> AbstractContextManager[Stream]:
    """The content of an open file from its start, by its first bytes: gzip, xz, bzip2, zstd, or as it is.

    A program does it where there is one, so that it is done on another processor than what is made of it, or
    on several. Leaving it raises Refused for what the program found wrong. Raises Failure, OSError.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    start = os.pread(descriptor, 8, 0)
    for compression in _COMPRESSIONS:
        if start.startswith(compression.start):
            return _decompressed(descriptor, compression)
    return open(descriptor, "rb", closefd=False)  # which leaves nothing open


def _decompressed(descriptor: int, compression: _Compression) -> AbstractContextManager[Stream]:
    for name, *options in compression.programs:
        path = shutil.which(name)
        if path is not None:
            return program.output(
                [path, *options], functools.partial(_damaged, compression.name, name), stdin=descriptor
            )
    if compression.reader is None:
        raise Failure(
            f"The archive is compressed with {compression.name}: install the package zstd, or take one that "
            "is compressed with gzip, xz or bzip2; nothing was changed."
        )
    return compression.reader(open(descriptor, "rb", closefd=False))  # which leaves nothing open


def _damaged(compression: str, name: str, status: int, said: list[str]) -> Refused:
    how = f"was ended by signal {-status}" if status < 0 else f"has ended with status {status}"
    return Refused(f"is no whole {compression} file: {said[-1] if said else f'{name} {how}'}")


class Archive:
    """A tar archive's entries, in order. ``entry``'s data is read before the next entry is asked for.

    ``read`` is there when all entries are.
    """

    read: Read

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._bytes = _Forward(stream, limits)
        self._limits = limits

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """Raises Refused, and whatever tarfile and the decompressors raise."""
        archive = tarfile.TarFile(
            fileobj=self._bytes,  # type: ignore[arg-type]
            encoding="utf-8",
            errors="surrogateescape",
        )
        count, before = 0, self._limits.used.entries if self._limits.used else 0
        while True:
            entry = archive.next()
            if entry is None:
                break
            count += 1
            if before + count > self._limits.entries:
                raise Refused(f"has more than the {self._limits.entries} entries that max_entries allows")
            archive.members.clear()  # type: ignore[attr-defined]
            yield entry
        if not self._bytes.ended:
            raise Refused("breaks off, or is damaged, before the end that a tar archive has")
        self._bytes.drain()
        self.read = Read(self._bytes.digest.hexdigest(), self._bytes.tell(), count)

    def copy(self, entry: tarfile.TarInfo, target: int) -> None:
        """Writes a regular file's data to a descriptor, holes as holes. Raises OSError, Refused."""
        self._bytes.seek(entry.offset_data)
        sparse: Any = entry.sparse  # None, or offset and length of each piece of data
        for offset, length in [(0, entry.size)] if sparse is None else sparse:
            os.lseek(target, offset, os.SEEK_SET)
            self._copy(length, target)
        os.ftruncate(target, entry.size)

    def _copy(self, length: int, target: int) -> None:
        while length > 0:
            data = memoryview(self._bytes.read(min(length, _CHUNK)))
            if not data:
                raise Refused("breaks off in the middle of a file")
            length -= len(data)
            while data:
                data = data[os.write(target, data) :]


class _Forward:
    """The file that tarfile reads: it goes forward only, by pieces that fit in memory, up to a limit.

    ``ended`` is whether the last piece was the block of zeros that ends an archive (tar(5)), ``digest`` the
    sha256 of all that was read.
    """

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limit = limits.size
        self._before = limits.used.size if limits.used else 0
        self._position = 0
        self.digest = hashlib.sha256()
        self.ended = False

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise Refused(f"has a header of {size} bytes")
        pieces = []
        while size:
            piece = self._stream.read(size)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        data = b"".join(pieces)
        self._position += len(data)
        self.digest.update(data)
        if self._before + self._position > self._limit:
            raise Refused(f"has more than the {self._limit} bytes that max_size allows")
        self.ended = data == bytes(_BLOCK)
        return data

    def seek(self, position: int) -> None:
        if position < self._position:
            raise Refused("has an entry of negative size")
        while self._position < position:
            if not self.read(min(position - self._position, _CHUNK)):
                raise Refused("breaks off in the middle of an entry")

    def drain(self) -> None:
        """Reads what follows the end, so that a decompressor comes to its checksum."""
        while self.read(_CHUNK):
            pass

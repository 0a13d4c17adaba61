# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where root file systems come from: each source says which image it gives, and can make it.

A source is asked for its image on every run, so it must be cheap to tell; what it read to find out is kept
with the declaration and believed as long as the file has not been touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..converge import Failure
from ..shell import command
from . import busybox, store
from .archive import Limits, Refused
from .extract import unpack
from .image import Image
from .store import Content, Layer, Place

_CHUNK = 1 << 20

Kept = Mapping[str, Any]
"""A declaration as it was kept by an earlier run, or empty: options, ``digest``, ``layers``, and what
record() gave."""


class Source(Protocol):
    """One place that a root file system comes from."""

    def image(self, kept: Kept) -> str | None:
        """The name of the image that this source gives, None where only fetching can tell. Raises Failure,
        OSError."""

    def record(self) -> dict[str, Any]:
        """What image() has read and wants to see again in ``kept`` (plain data)."""

    def fetch(self, temporary: Path) -> contextlib.AbstractContextManager[Content]:
        """Gets the content, putting aside what it must in ``temporary``. Raises Failure, OSError."""

    def commands(self) -> tuple[str, ...]:
        """The shell commands that make the image, in the store's directory."""


def source(entry: Mapping[str, Any]) -> Source:
    """The one that an entry declares."""
    if entry.get("busybox"):
        return Busybox()
    limits = Limits(entry["max_size"], entry["max_entries"])
    if "image" in entry:
        return Image(entry, limits)
    if "path" in entry:
        return Tarball(entry["path"], entry.get("checksum"), limits)
    return Download(entry, limits)


class Busybox:
    """The host's own static busybox."""

    def __init__(self) -> None:
        self._file = _HashedFile("busybox", busybox.PROGRAM)

    def image(self, kept: Kept) -> str:
        busybox.require_static(busybox.PROGRAM)
        return f"sha256-{busybox.digest(self._file.sha256(kept))}"

    def record(self) -> dict[str, Any]:
        return self._file.record()

    @contextlib.contextmanager
    def fetch(self, temporary: Path) -> Iterator[Content]:
        image = self.image({})

        def build(place: Place) -> str:
            busybox.build(place.tree)
            return image

        yield Content(image, [Layer(image, build)])

    def commands(self) -> tuple[str, ...]:
        image = self.image({})
        make = (
            f"layer={store.directory(image)}",
            'mkdir -p "$layer/tree"',
            'cd "$layer/tree"',
            *busybox.commands(),
            "cd /",
        )
        return store.commands(image, make)


class Tarball:
    """A tar archive on the managed host."""

    def __init__(self, path: str, checksum: str | None, limits: Limits) -> None:
        self._path = path
        self._checksum = checksum
        self._limits = limits
        self._file = _HashedFile("path", path)

    def image(self, kept: Kept) -> str:
        if self._checksum:
            return _image(self._checksum)
        return f"sha256-{self._file.sha256(kept)}"

    def record(self) -> dict[str, Any]:
        return self._file.record()

    @contextlib.contextmanager
    def fetch(self, temporary: Path) -> Iterator[Content]:
        with _open("path", self._path) as archive:
            yield _content(f"path: {self._path}", archive, self._checksum, self._limits)

    def commands(self) -> tuple[str, ...]:
        image = self.image({})
        return (_verify(image, self._path), *store.commands(image, _extract(self._path)))


class Download:
    """A tar archive on a web server."""

    def __init__(self, entry: Mapping[str, Any], limits: Limits) -> None:
        self._url = entry["url"]
        self._checksum = entry.get("checksum")
        self._force = entry["force"]
        self._timeout = entry["timeout"]
        self._validate_certs = entry["validate_certs"]
        self._limits = limits
        self._fetched: str | None = None

    def image(self, kept: Kept) -> str | None:
        if self._checksum:
            return _image(self._checksum)
        if not self._force and kept.get("url") == self._url and store.has(store.image_of(kept)):
            return store.image_of(kept)
        return self._fetched

    def record(self) -> dict[str, Any]:
        return {}

    @contextlib.contextmanager
    def fetch(self, temporary: Path) -> Iterator[Content]:
        # It has no name there, so it goes with us however we end.
        with tempfile.TemporaryFile(dir=temporary) as archive:
            for data in self._chunks():
                archive.write(data)
            archive.seek(0)
            content = _content(f"url: {masked(self._url)}", archive, self._checksum, self._limits)
            self._fetched = content.image
            yield content

    def commands(self) -> tuple[str, ...]:
        archive = str(store.root() / "archive")
        insecure = [] if self._validate_certs else ["--insecure"]
        fetch = command(["curl", "-fsSL", *insecure, "-o", archive, masked(self._url)])
        if self._checksum:
            image, name = _image(self._checksum), _verify(_image(self._checksum), archive)
        else:
            image, name = "$image", f"image=sha256-$(sha256sum < {archive} | cut -d ' ' -f 1)"
        return (fetch, name, *store.commands(image, _extract(archive)), command(["rm", archive]))

    def _chunks(self) -> Iterator[bytes]:
        """What the server sends, piece by piece. Raises Failure."""
        # Slow to import, and not needed by a run that has everything.
        from ansible.module_utils.urls import open_url

        where = f"url: {masked(self._url)} could not be fetched"
        try:
            with open_url(
                self._url, validate_certs=self._validate_certs, timeout=self._timeout, decompress=False
            ) as response:
                yield from self._checked(response)
        except Failure as failure:
            raise Failure(f"{where}: {failure}; nothing was changed.") from None
        # Beside OSError there are http.client's errors and Ansible's own, which have no base in common.
        except Exception as error:
            cause = getattr(error, "reason", None)
            reason = cause if isinstance(cause, Exception) else error
            raise Failure(f"{where}: {reason}; nothing was changed.") from None

    def _checked(self, response: Any) -> Iterator[bytes]:
        """The body, of the length that was announced, within the limit, and not from an unencrypted address
        that nobody asked for."""
        if not self._checksum and not response.geturl().startswith("https:"):
            raise Failure("it leads to an address without encryption, which takes a checksum")
        got = 0
        for data in iter(lambda: response.read(_CHUNK), b""):
            got += len(data)
            if got > self._limits.size:
                raise Failure(f"it has more than the {self._limits.size} bytes that max_size allows")
            yield data
        announced = response.headers.get("Content-Length") or str(got)
        if announced != str(got):
            raise Failure(f"it broke off after {got} of {announced} bytes")


class _HashedFile:
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
        with _open(self._option, self._path) as opened:
            status = os.fstat(opened.fileno())
            identity = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            for known in (self._known, kept.get("file", {})):
                if known.get("identity") == identity:
                    self._known = known
                    return str(known["sha256"])
            self._known = {"identity": identity, "sha256": _digest("sha256", opened)}
            return str(self._known["sha256"])

    def record(self) -> dict[str, Any]:
        return {"file": self._known} if self._known else {}


def masked(url: str) -> str:
    """The address without the password that may be in it, for people to see."""
    return re.sub(r"(//[^/@:]*:)[^/?#]*@", r"\1********@", url)


def _image(checksum: str) -> str:
    return checksum.replace(":", "-", 1)


def _open(option: str, path: str) -> BinaryIO:
    """Raises Failure unless there is such a file, OSError."""
    try:
        # Without O_NONBLOCK a pipe would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(f"{option}: there is no file {path} on this host; nothing was changed.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Failure(f"{option}: {path} is not a regular file, it takes an archive; nothing was changed.")
    return os.fdopen(descriptor, "rb")


def _digest(algorithm: str, opened: BinaryIO) -> str:
    """The digest of a file from where it is to its end."""
    digest = hashlib.new(algorithm)
    for data in iter(lambda: opened.read(_CHUNK), b""):
        digest.update(data)
    return digest.hexdigest()


def _content(label: str, archive: BinaryIO, checksum: str | None, limits: Limits) -> Content:
    """An archive that is open at its start, once its checksum is right. Raises Failure, OSError."""
    algorithm = checksum.partition(":")[0] if checksum else "sha256"
    found = f"{algorithm}:{_digest(algorithm, archive)}"
    if checksum and found != checksum:
        raise Failure(f"{label} has the checksum {found}, declared is {checksum}; nothing was changed.")

    def into(place: Place) -> str:
        os.lseek(archive.fileno(), 0, os.SEEK_SET)
        try:
            return store.chain(None, unpack(archive.fileno(), place.tree, limits).digest)
        except Refused as refused:
            raise Failure(f"{label} {refused}; nothing was changed.") from None

    return Content(_image(found), [Layer(None, into)])


def _verify(image: str, path: str) -> str:
    algorithm, _dash, digest = image.partition("-")
    return f"echo {shlex.quote(f'{digest}  {path}')} | {algorithm}sum --check --quiet -"


def _extract(archive: str) -> tuple[str, ...]:
    attributes = "--xattrs --xattrs-include='user.*' --xattrs-include=security.capability"
    content = store.content_of(shlex.quote(archive))
    return (
        f"layer={store.directory('sha256-')}$({content} | sha256sum | cut -d ' ' -f 1)",
        'mkdir -p "$layer/tree"',
        f"tar --extract --numeric-owner --preserve-permissions {attributes} --file {shlex.quote(archive)} "
        '-C "$layer/tree"',
    )

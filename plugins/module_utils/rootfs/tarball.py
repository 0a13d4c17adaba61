# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar archives, from the managed host or from a web server."""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..converge import Failure
from ..shell import command
from . import store
from .archive import Limits, Refused
from .extract import unpack
from .files import HashedFile, Kept, open_file
from .proof import Proof
from .store import Content, Layer, Place
from .watch import Watch, readable
from .web import Web, masked


class Tarball:
    """One on the managed host."""

    def __init__(self, entry: Mapping[str, Any], limits: Limits) -> None:
        self._path: str = entry["path"]
        self.what = f"path: {self._path}"
        self._force = entry["force"]
        self._limits = limits
        self._proof = Proof(entry, posixpath.basename(self._path), Web(entry))
        self._file = HashedFile("path", self._path)
        self._checked: str | None = None

    def image(self, kept: Kept) -> str | None:
        if self._proof.image:
            return self._proof.image
        content = self._file.sha256(kept)
        if not self._proof:
            return f"sha256-{content}"
        same = kept.get("path") == self._path and self._proof.was_declared(kept)
        if same and not self._force and kept.get("file", {}).get("sha256") == content:
            return store.image_of(kept)
        return self._checked

    def record(self) -> dict[str, Any]:
        return self._file.record()

    @contextlib.contextmanager
    def fetch(self, temporary: Path, watch: Watch) -> Iterator[Content]:
        with open_file("path", self._path) as archive:
            image = self._proof.check(self.what, archive, temporary, watch)
            yield content_of(image, archive, self._limits, watch)
            self._checked = image

    def commands(self) -> tuple[str, ...]:
        return (*self._proof.commands(self._path), *store.commands("$image", extract(self._path)))


class Download:
    """One on a web server."""

    def __init__(self, entry: Mapping[str, Any], limits: Limits) -> None:
        self._url: str = entry["url"]
        self.what = f"url: {masked(self._url)}"
        self._force = entry["force"]
        self._limits = limits
        self._web = Web(entry)
        self._proof = Proof(entry, posixpath.basename(unquote(urlsplit(self._url).path)), self._web)
        self._fetched: str | None = None

    def image(self, kept: Kept) -> str | None:
        if self._proof.image:
            return self._proof.image
        same = kept.get("url") == self._url and self._proof.was_declared(kept)
        if same and not self._force and store.has(store.image_of(kept)):
            return store.image_of(kept)
        return self._fetched

    def record(self) -> dict[str, Any]:
        return {}

    @contextlib.contextmanager
    def fetch(self, temporary: Path, watch: Watch) -> Iterator[Content]:
        # It has no name there, so it goes with us however we end.
        with tempfile.TemporaryFile(dir=temporary) as archive:
            anyhow = bool(self._proof)
            self._web.download("url", self._url, archive, self._limits.size, watch, anyhow=anyhow)
            watch.done(f"fetched {readable(archive.tell())}")
            image = self._proof.check(self.what, archive, temporary, watch)
            yield content_of(image, archive, self._limits, watch)
            self._fetched = image

    def commands(self) -> tuple[str, ...]:
        archive = str(store.root() / "archive")
        return (
            command(self._web.curl(self._url, archive)),
            *self._proof.commands(archive),
            *store.commands("$image", extract(archive)),
            command(["rm", archive]),
        )


def content_of(image: str, archive: BinaryIO, limits: Limits, watch: Watch) -> Content:
    """An open archive as what this image is made of."""

    def into(place: Place) -> str:
        try:
            read = unpack(archive.fileno(), place.tree, limits, watch)
        except Refused as refused:
            raise Failure(f"{watch.what} {refused}; nothing was changed.") from None
        watch.done(f"unpacked {read}")
        return store.chain(None, read.digest)

    return Content(image, [Layer(None, into)])


def extract(archive: str) -> tuple[str, ...]:
    """The shell commands that make a layer's tree of an archive, and say in ``$layer`` where."""
    attributes = "--xattrs --xattrs-include='user.*' --xattrs-include=security.capability"
    content = store.content_of(shlex.quote(archive))
    return (
        f"layer={store.directory('sha256-')}$({content} | sha256sum | cut -d ' ' -f 1)",
        'mkdir -p "$layer/tree"',
        f"tar --extract --numeric-owner --preserve-permissions {attributes} --file {shlex.quote(archive)} "
        '-C "$layer/tree"',
    )

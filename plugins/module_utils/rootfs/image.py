# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of registries, and of the files that container tools keep them in, as root file systems."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from . import oci, store
from .archive import Limits, Refused
from .changeset import Below
from .extract import unpack
from .files import HashedFile, Kept
from .skopeo import Reference, Skopeo
from .store import Content, Layer, Place
from .watch import Watch


class Image:
    """An image by its name.

    A name stands for something else from time to time. What it stood for when it was fetched is kept as
    ``resolved``: the digest of a manifest, of the index of several platforms', or of the file that it is in.
    """

    def __init__(self, entry: Kept, limits: Limits) -> None:
        self._reference = Reference(entry["image"])
        self._platform = entry.get("platform")
        self._always = entry["pull"] == "always"
        self._skopeo = Skopeo(entry, self._reference, limits.size)
        self._limits = limits
        file = self._reference.file
        self._file = None if file is None else HashedFile("image", file)
        self._resolved: str | None = None
        self._fetched: str | None = None

    def image(self, kept: Kept) -> str | None:
        """One that any container has by the same name will do, unless the name has to be asked for."""
        if self._fetched is not None:
            return self._fetched
        wanted = self._resolve(kept)
        for declaration in (kept, *self._declarations):
            image = store.image_of(declaration)
            if self._is_meant(declaration, wanted) and store.has(image):
                self._resolved = declaration["resolved"]
                return image
        self._resolved = wanted
        return None

    def record(self) -> dict[str, Any]:
        resolved = {} if self._resolved is None else {"resolved": self._resolved}
        return {**resolved, **(self._file.record() if self._file else {})}

    @contextlib.contextmanager
    def fetch(self, temporary: Path) -> Iterator[Content]:
        resolved = self._resolve({}) or self._skopeo.resolve(temporary)
        directory = temporary / "image"
        self._skopeo.copy(resolved, directory, temporary)
        with self._refusing():
            found = oci.read(directory)
        content = Content(f"sha256-{found.digest}", self._layers(found, directory), found.config)
        yield content
        self._fetched, self._resolved = content.image, resolved

    def commands(self) -> tuple[str, ...]:
        return ()

    def _resolve(self, kept: Kept) -> str | None:
        """What the name stands for, where that is to be found out on every run. Raises Failure, OSError."""
        if self._reference.digest is not None:
            return self._reference.digest
        if self._file is not None:
            return f"sha256:{self._file.sha256(kept)}"
        return self._asked if self._always else None

    @functools.cached_property
    def _asked(self) -> str:
        with tempfile.TemporaryDirectory() as temporary:
            return self._skopeo.resolve(Path(temporary))

    @functools.cached_property
    def _declarations(self) -> list[dict[str, Any]]:
        """Those of all containers that can be read."""
        found = []
        for name in host.declared_names("rootfs"):
            with contextlib.suppress(Failure):
                found.append(host.Declaration(name, "rootfs").read() or {})
        return found

    def _is_meant(self, declaration: Kept, wanted: str | None) -> bool:
        if declaration.get("platform") != self._platform or "resolved" not in declaration:
            return False
        if wanted is None:
            return bool(declaration.get("image") == self._reference.text)
        return bool(declaration["resolved"] == wanted)

    def _layers(self, found: oci.Image, directory: Path) -> list[Layer]:
        """Each is unpacked within what the limits of the whole image leave for it."""
        left = self._limits
        watch = Watch(f"image: {self._reference.text}", left.seconds)

        def unpack_one(name: str, blob: str, digest: str, place: Place) -> str:
            nonlocal left
            below = Below([str(tree) for tree in place.lower], str(place.work))
            with self._refusing(), open(directory / oci.check(directory, blob), "rb") as archive:
                read = unpack(archive.fileno(), place.tree, left, watch, below)
                if read.digest != digest:
                    found = f"sha256:{read.digest} when decompressed, in place of sha256:{digest}"
                    raise Refused(f"has a layer that is {found}")
            left = left.less(read)
            return name

        names: list[str] = []
        for digest in found.layers:
            names.append(store.chain(names[-1] if names else None, digest))
        return [
            Layer(name, functools.partial(unpack_one, name, blob, digest))
            for name, blob, digest in zip(names, found.blobs, found.layers)
        ]

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            raise Failure(f"image: {self._reference.text} {refused}; nothing was changed.") from None

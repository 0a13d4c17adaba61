# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of registries, and of the files that container tools keep them in, as root file systems."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from . import image_commands, oci, store
from .archive import Limits, Refused
from .changeset import Below
from .extract import unpack
from .files import HashedFile, Kept
from .skopeo import Reference, Skopeo, size
from .store import Content, Layer, Place
from .watch import Watch, readable


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
        self.what = f"image: {self._reference.text}"
        self._limits = limits
        self._seconds = entry["max_time"]
        file = self._reference.file
        self._file = None if file is None else HashedFile("image", file)
        self._named = {"image": self._reference.text, "platform": self._platform}
        self._missing = True
        self._resolved: str | None = None
        self._fetched: str | None = None

    def image(self, kept: Kept) -> str | None:
        """One that any container has by the same name will do, unless the name has to be asked for."""
        if self._fetched is not None:
            return self._fetched
        self._resolved = self._resolve(kept)
        found = self._by_name(kept) if self._resolved is None else store.by_origin(self._origin)
        self._missing = found is None
        return found

    def _by_name(self, kept: Kept) -> str | None:
        """What any container has by the same name."""
        for declaration in (kept, *self._declarations):
            image = store.image_of(declaration)
            same = all(declaration.get(name) == value for name, value in self._named.items())
            if same and "resolved" in declaration and store.has(image):
                self._resolved = declaration["resolved"]
                return image
        return None

    @property
    def _origin(self) -> str:
        return f"{self._resolved} {self._platform or ''}".rstrip()

    def record(self) -> dict[str, Any]:
        resolved = {} if self._resolved is None else {"resolved": self._resolved}
        return {**resolved, **(self._file.record() if self._file else {})}

    @contextlib.contextmanager
    def fetch(self, temporary: Path, watch: Watch) -> Iterator[Content]:
        self._resolved = self._resolve({}) or self._skopeo.resolve(temporary, watch)
        # Another run may have had it while we waited for that.
        image = store.by_origin(self._origin) if self._missing else None
        content = Content(image, []) if image else self._content(temporary, watch)
        yield content
        self._fetched = content.image

    def _content(self, temporary: Path, watch: Watch) -> Content:
        blobs = _Blobs(temporary / "image", lambda layout: self._copy(layout, temporary, watch))
        with self._refusing():
            found = oci.read(blobs.layout)
        there = len(blobs.spared.intersection(found.blobs))
        spared = f" ({there} of its {len(found.blobs)} layers were there)" if there else ""
        watch.done(f"fetched {readable(size(blobs.layout))}{spared}")
        layers = self._layers(found, blobs, watch)
        return Content(f"sha256-{found.digest}", layers, found.config, self._origin, found.blobs)

    def _copy(self, layout: Path, temporary: Path, watch: Watch) -> None:
        self._skopeo.copy(self._resolved, layout, temporary, watch)

    def commands(self) -> tuple[str, ...]:
        known = self._resolve({}) if self._always or self._reference.registry is None else None
        resolved = known or self._reference.digest
        origin = resolved or f"sha256:$({self._skopeo.raw_command()} | sha256sum | cut -d ' ' -f 1)"
        fetch = self._skopeo.command(str(image_commands.directory()))
        return image_commands.commands(fetch, f"{origin} {self._platform or ''}".rstrip())

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
            return self._skopeo.resolve(Path(temporary), Watch(self.what, self._seconds))

    @functools.cached_property
    def _declarations(self) -> list[dict[str, Any]]:
        """Those of all containers that can be read."""
        found = []
        for name in host.declared_names("rootfs"):
            with contextlib.suppress(Failure):
                found.append(host.Declaration(name, "rootfs").read() or {})
        return found

    def _layers(self, found: oci.Image, blobs: _Blobs, watch: Watch) -> list[Layer]:
        """Each is unpacked within what the limits of the whole image leave for it."""
        left = [self._limits]

        def unpack_one(name: str, blob: str, digest: str, place: Place) -> str:
            below = Below([str(tree) for tree in place.lower], str(place.work))
            with self._refusing(), open(blobs.get(blob), "rb") as archive:
                read = unpack(archive.fileno(), place.tree, left[-1], watch, below)
                if read.digest != digest:
                    found = f"sha256:{read.digest} when decompressed, in place of sha256:{digest}"
                    raise Refused(f"has a layer that is {found}")
            left.append(left[-1].less(read))
            watch.done(f"unpacked a layer, {read},")
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


class _Blobs:
    """What ``copy`` puts into a ``layout``, without those ``spared`` whose layers are in the store: one comes
    when it is asked for after all."""

    def __init__(self, layout: Path, copy: Callable[[Path], None]) -> None:
        self.layout = layout
        self.spared = store.blobs()
        self._copy = copy
        oci.stand_in(layout, self.spared)
        copy(layout)

    def get(self, blob: str) -> Path:
        """The file of a blob that is what it is called. Raises Refused, Failure, OSError."""
        if blob in self.spared:
            oci.remove(self.layout, blob)
            self.spared.remove(blob)
            self._copy(self.layout)
        return oci.check(self.layout, blob)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's root file system as the engine wants it: an image in the store, and the container's reference
to it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure, Resource, State, Step
from ..shell import command
from . import store
from .files import Kept
from .options import OPTIONS, SOURCES
from .proof import is_foreseeable
from .source import Source, source
from .store import Content
from .watch import Watch
from .web import without_passwords

_COMPLETE = """import json, sys
store, image, path = sys.argv[1:]
made, kept = (json.load(open(name)) for name in (f"{store}/images/{image}.json", path))
kept["digest"] = image.replace("-", ":", 1)
kept["layers"] = [f"{store}/layers/{layer}/tree" for layer in made["layers"]]
if made["config"]:
    kept["config"] = made["config"]
if "origins" in made:
    kept["resolved"] = made["origins"][0].split()[0]
print(json.dumps(kept, indent=2, sort_keys=True), file=open(path, "w"))"""

_OF_THE_ENTRY = ("name", "state", "gc", "verify")


def build(entries: Sequence[Mapping[str, Any]]) -> list[Resource]:
    """The resources of a batch; entries that declare the same source share it, and so the work it is."""
    sources: dict[str, Source] = {}
    leaving = {entry["name"] for entry in entries if entry["state"] == "absent"}
    made: list[Resource] = []
    for entry in entries:
        if entry["state"] == "absent":
            made.append(Absent(entry["name"], leaving if entry["gc"] else None))
            continue
        key = repr(sorted((name, value) for name, value in entry.items() if name not in _OF_THE_ENTRY))
        if key not in sources:
            sources[key] = source(entry)
        made.append(Present(entry, sources[key]))
    return made


class Present:
    """A container that has a root file system."""

    def __init__(self, entry: Mapping[str, Any], source: Source) -> None:
        self.name: str = entry["name"]
        self._options = {name: value for name, value in OPTIONS.declaration(entry).items() if name != "name"}
        self._source = source
        self._key = hashlib.sha256(repr(sorted(self._options.items())).encode()).hexdigest()
        self._declaration = host.Declaration(self.name, "rootfs")
        self._verify: bool = entry["verify"]
        self._seconds: float = entry["max_time"]
        self._watch: Watch | None = None
        self._is_known = entry.get("pull") == "always"
        self._kept: Kept = {}
        self._image: str | None = None

    def read(self) -> State:
        declaration = self._declaration.read()
        self._kept = declaration or {}
        return {**_describe(declaration, is_known=self._is_known), **self._damage()}

    def expect(self, actual: State) -> State:
        self._image = self._source.image(self._kept)
        damage: dict[str, Any] = {"damaged": []} if self._verify else {}
        return {**_describe(self._declared(), is_known=self._is_known), "unpacked": True, **damage}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        steps = []
        damaged = [Path(path).name for path in actual.get("damaged", [])]
        if self._image is None or damaged or not store.has(self._image):
            steps.append(self._image_step(damaged))
        if self._image is None or _without_record(self._kept) != _without_record(self._declared()):
            steps.append(self._declaration_step())
        return steps

    def _damage(self) -> dict[str, Any]:
        """The layers that are not what was unpacked, by their paths, where they are to be looked at."""
        layers = store.damaged(store.image_of(self._kept)) if self._verify else []
        return {"damaged": [str(store.directory(layer)) for layer in layers]} if self._verify else {}

    def facts(self, actual: State) -> Mapping[str, Any]:
        image, trees = self._image, self._trees()
        return {
            "layers": trees,
            "path": trees[0] if len(trees) == 1 else None,
            "digest": None if image is None else _digest(image),
            "size": None if image is None else store.size(image),
            "config": {} if image is None else store.config(image),
            "progress": self._watch.said if self._watch else [],
        }

    def _declared(self) -> dict[str, Any]:
        """What is kept: the options, the image, its layers and configuration for who starts the container,
        and the source's record."""
        image: dict[str, Any] = {} if self._image is None else {"digest": _digest(self._image)}
        config = {} if self._image is None else store.config(self._image)
        if config:
            image["config"] = config
        return {**self._options, **image, "layers": self._trees(), **self._source.record()}

    def _trees(self) -> list[str]:
        layers = [] if self._image is None else store.layers(self._image)
        return [str(store.tree(layer)) for layer in layers]

    def _image_step(self, damaged: Sequence[str]) -> Step:
        """Fetches and unpacks: once for all that share the source, and only by one run at a time."""
        key = self._image or f"source-{self._key}"
        # As long as it is not known, another source of the same declaration has to find it for itself.
        shared = self._image or id(self._source)

        def apply() -> None:
            store.add(key, self._fetch, damaged)

        remove = [command(["rm", "-rf", *map(store.directory, damaged)])] if damaged else []
        commands = (*store.prepare_commands(), *remove, *self._source.commands())
        return Step("damaged" if damaged else "unpacked", commands, apply, shared=f"image {shared}")

    def _fetch(self, temporary: Path) -> AbstractContextManager[Content]:
        """Its time begins when nobody else is at work on the same any more."""
        self._watch = Watch(self._source.what, self._seconds)
        return self._source.fetch(temporary, self._watch)

    def _declaration_step(self) -> Step:
        """Refers to the image, which may be known only when this is done."""

        def apply() -> None:
            self._image = self._source.image(self._kept)
            if self._image is None:
                raise Failure("The image was removed by another run meanwhile; run this one again.")
            with store.pinned(self._image):
                self._declaration.write_step(self._declared()).apply()
            # A run that was killed when all layers were in their place leaves nothing else to do to the next.
            store.sweep()

        return Step("rootfs declaration", self._declaration_commands(), apply)

    def _declaration_commands(self) -> tuple[str, ...]:
        """What is known of the image only when it is made is completed then, by what the store says of it."""
        declared = without_passwords(self._declared())
        written = self._declaration.write_step(declared).commands
        if declared["layers"]:
            return written
        complete = (
            f"{shlex.quote(_COMPLETE)} {store.root()} {self._image or '$image'} {self._declaration.path}"
        )
        return (*written, f"python3 -c {complete}")


class Absent:
    """A container that has none.

    ``leaving`` are all that have none after this run, itself among them, where what nobody uses is to be
    removed from the store; else None.
    """

    def __init__(self, name: str, leaving: set[str] | None) -> None:
        self.name = name
        self._leaving = leaving
        self._declaration = host.Declaration(name, "rootfs")

    def read(self) -> State:
        state = _describe(self._declaration.read())
        if state["state"] == "absent" and self._declaration.is_left():
            state["leftovers"] = True
        return {**state, **({} if self._leaving is None else {"unused": store.unused(self._leaving)})}

    def expect(self, actual: State) -> State:
        return {**_describe(None), **({} if self._leaving is None else {"unused": []})}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        steps = []
        if actual["state"] == "present" or "leftovers" in actual:
            steps.append(self._declaration.remove_step())
        if actual.get("unused"):
            steps.append(_collect_step(actual["unused"]))
        return steps

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}


def _describe(declaration: Mapping[str, Any] | None, *, is_known: bool = False) -> dict[str, Any]:
    """A declaration as state, with what is in the store for it.

    The digest is left out where nobody can know it before the source has been fetched. What an image's name
    stands for is in it where that ``is_known``.
    """
    if declaration is None:
        return {"state": "absent"}
    shown = (*SOURCES, "platform", *(["resolved"] if is_known else []))
    state = {name: without_passwords(declaration[name]) for name in shown if declaration.get(name)}
    if "digest" in declaration and is_foreseeable(declaration):
        state["digest"] = declaration["digest"]
    return {"state": "present", **state, "unpacked": store.has(store.image_of(declaration))}


def _collect_step(unused: Sequence[str]) -> Step:
    return Step("unused", store.collect_commands(unused), store.collect, shared="unused layers")


def _without_record(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """A record that is out of date makes the next run read more; it is no change of the declaration."""
    return {key: value for key, value in declaration.items() if key != "file"}


def _digest(layer: str) -> str:
    return layer.replace("-", ":", 1)

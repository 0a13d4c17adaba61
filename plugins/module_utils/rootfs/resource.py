# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's root file system as the engine wants it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .. import host
from ..converge import State, Step
from . import store
from .options import OPTIONS, SOURCES
from .source import Kept, Source, masked, source

_SINGLE_RUN = ("name", "state", "gc")


def build(entries: Sequence[Mapping[str, Any]]) -> list[Rootfs]:
    """The resources of a batch; entries that declare the same source share it, and so the work it is."""
    sources: dict[str, Source] = {}
    leaving = {entry["name"] for entry in entries if entry["state"] == "absent"}
    made = []
    for entry in entries:
        key = repr(sorted((name, value) for name, value in entry.items() if name not in _SINGLE_RUN))
        if entry["state"] == "present" and key not in sources:
            sources[key] = source(entry)
        made.append(Rootfs(entry, key, sources.get(key), leaving))
    return made


class Rootfs:
    """One container's reference to a layer in the store, and that layer.

    ``source`` is None for one that is to be absent; ``key`` tells sources apart; ``leaving`` are the
    containers whose reference goes in this run.
    """

    def __init__(self, entry: Mapping[str, Any], key: str, source: Source | None, leaving: set[str]) -> None:
        self.name: str = entry["name"]
        self._entry = entry
        self._key = key
        self._source = source
        self._leaving = leaving
        self._declaration = host.Declaration(self.name, "rootfs")
        self._kept: Kept = {}
        self._layer: str | None = None

    def read(self) -> State:
        declaration = self._declaration.read()
        self._kept = declaration or {}
        state = {"state": "absent"} if declaration is None else self._describe(declaration)
        return {**state, **self._unused()}

    def expect(self, actual: State) -> State:
        if self._source is None:
            return {"state": "absent", **({"unused": []} if self._entry["gc"] else {})}
        self._layer = self._source.layer(self._kept)
        return {**self._describe(self._declared()), "unpacked": True}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if self._source is None:
            gone = actual["state"] == "absent"
            collect = [_collect_step(actual["unused"])] if actual.get("unused") else []
            return [*([] if gone else [self._declaration.remove_step()]), *collect]
        steps = []
        if self._layer is None or not store.has(self._layer):
            steps.append(self._layer_step(self._source))
        if self._layer is None or _without_record(self._kept) != _without_record(self._declared()):
            steps.append(self._declaration_step())
        return steps

    def facts(self, actual: State) -> Mapping[str, Any]:
        if self._source is None:
            return {}
        if self._layer is None:
            return {"layers": [], "path": None, "digest": None, "size": None}
        tree = str(store.tree(self._layer))
        size = store.size(self._layer)
        return {"layers": [tree], "path": tree, "digest": _digest(self._layer), "size": size}

    def _unused(self) -> dict[str, Any]:
        return {"unused": store.unused(self._leaving)} if self._entry["gc"] else {}

    def _describe(self, declaration: Mapping[str, Any]) -> dict[str, Any]:
        """A declaration as state, with what is in the store for it.

        The digest is left out where nobody can know it before the source has been fetched.
        """
        layers = store.names(declaration)
        state = {name: declaration[name] for name in SOURCES if declaration.get(name)}
        if "url" in state:
            state["url"] = masked(state["url"])
        if layers and ("url" not in state or "checksum" in declaration):
            state["digest"] = _digest(layers[0])
        return {"state": "present", **state, "unpacked": bool(layers) and all(map(store.has, layers))}

    def _declared(self) -> dict[str, Any]:
        """What is kept: the declaration, the layers for who starts the container, and the source's record."""
        assert self._source is not None
        options = {key: value for key, value in OPTIONS.declaration(self._entry).items() if key != "name"}
        layers = [] if self._layer is None else [str(store.tree(self._layer))]
        return {**options, "layers": layers, **self._source.record()}

    def _layer_step(self, source: Source) -> Step:
        """Fetches and unpacks: once for all that share the source, and only by one run at a time."""
        key = self._layer or f"url-{hashlib.sha256(self._key.encode()).hexdigest()}"

        def apply() -> None:
            store.add(key, source.fetch)

        return Step("unpacked", store.commands(source.commands(self._layer)), apply, shared=f"layer {key}")

    def _declaration_step(self) -> Step:
        """Refers to the layer, which is only now known for certain."""
        declared = self._declared()
        if self._layer is None:
            path = self._declaration.path
            written = self._declaration.write_step({**declared, "layers": ["@LAYER@"]}).commands
            commands = (*written, f'sed -i "s|@LAYER@|$layer/tree|" {path}')
        else:
            commands = self._declaration.write_step(declared).commands

        def apply() -> None:
            assert self._source is not None
            self._layer = self._source.layer(self._kept)
            assert self._layer is not None
            with store.pinned(self._layer):
                self._declaration.write_step(self._declared()).apply()

        return Step("rootfs declaration", commands, apply)


def _collect_step(unused: Sequence[str]) -> Step:
    return Step("unused", store.collect_commands(unused), store.collect, shared="unused layers")


def _without_record(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """A record that is out of date makes the next run read more; it is no change of the declaration."""
    return {key: value for key, value in declaration.items() if key != "file"}


def _digest(layer: str) -> str:
    return layer.replace("-", ":", 1)

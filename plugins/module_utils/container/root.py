# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories that a container has for its root: where that is mounted, the layer that it writes to, or
the root itself where it is a copy of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import file_steps, host
from ..converge import Failure, Needs, State, Step
from ..kernel import file, overlay
from ..shell import command, write_file
from . import config as configuration
from . import private_copy, spec

DIRECTORIES = ("rootfs", "upper", "work")

_COPIED = "copied.json"
"""The file of a bundle that tells which layers its root is a whole copy of."""


class Root:
    """Those of one container; a ``config`` is the bundle's (config.json)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._directory = host.directory(name)
        self._told = self._directory / _COPIED
        self._copy = self._directory / "rootfs"

    def read(self) -> dict[str, Any]:
        """``directories`` that are there, and the layers that the root is a copy of as ``copied``. Raises
        OSError."""
        there = [name for name in DIRECTORIES if (self._directory / name).is_dir()]
        return {"directories": there, "copied": host.read_json(self._told)}

    def trees(self) -> list[Path]:
        """Everything that there can be of them, with what a killed run leaves."""
        return [*(self._directory / name for name in DIRECTORIES), file.beside(self._copy)]

    def files(self) -> list[Path]:
        """What is told of them."""
        return [self._told]

    def is_another(self, config: spec.Config | None, wanted: spec.Config) -> bool:
        """Whether what was written for the one config does not go with the other."""
        return config is not None and _made_of(config) != _made_of(wanted)

    def is_kept(self, actual: State, config: spec.Config, wanted: spec.Config, upper: str) -> bool:
        """Whether what the container has written stays, though what is below it changes. Raises Failure where
        it should and can't."""
        if upper != "keep" or "upper" not in actual["directories"]:
            return False
        if _made_of(config)["ids"] != _made_of(wanted)["ids"]:
            raise Failure(
                f"upper: 'keep' can't be held, as the users of {self._name} get other IDs on the host "
                "(userns, uidmap, gidmap) than those who wrote what is kept; 'reset' drops that; nothing was "
                "changed."
            )
        return True

    def steps(self, actual: State, expected: State, fresh: bool) -> Iterator[Step]:
        """A ``fresh`` root starts without what was written above another one, or by users of other ids."""
        there, wanted = actual.get("directories", []), expected["directories"]
        told, layers = actual.get("copied"), expected["copied"]
        if layers is None and told is not None:
            # First, as it says that the copy is whole.
            yield file_steps.remove("copied", self._told)
        copied = [] if layers is None else ["rootfs"]
        if layers is not None and (fresh or told != layers or "rootfs" not in there):
            yield self._copy_step(layers)
        surplus = [name for name in there if (fresh or name not in wanted) and name not in copied]
        made = [name for name in wanted if (name in surplus or name not in there) and name not in copied]
        if surplus or made:
            yield self._directories_step(surplus, made, fresh)

    def _copy_step(self, layers: Sequence[str]) -> Step:
        """What is there goes when what takes its place is whole."""
        text = json.dumps(layers, indent=2) + "\n"

        def apply() -> None:
            private_copy.make(layers, file.beside(self._copy))
            file.remove(self._told)
            file.remove_tree(self._copy)
            file.beside(self._copy).rename(self._copy)
            file.write_atomically(self._told, text)

        commands = (*private_copy.commands(layers, self._copy), *write_file(self._told, text))
        return Step("copied", commands, apply, Needs.RECREATE)

    def _directories_step(self, surplus: Sequence[str], wanted: Sequence[str], fresh: bool) -> Step:
        removed = [self._directory / name for name in surplus]
        made = [self._directory / name for name in wanted]

        def apply() -> None:
            for path in removed:
                file.remove_tree(path)
            for path in made:
                path.mkdir(parents=True, exist_ok=True)

        commands = [command(["rm", "-rf", *removed])] if removed else []
        commands += [command(["mkdir", "-p", *made])] if made else []
        return Step("directories", tuple(commands), apply, Needs.RECREATE if fresh else Needs.RESTART)


def _made_of(config: spec.Config) -> Mapping[str, Any]:
    """What the root is made of, apart from the container's own layer: with other layers below it, or users of
    other ids, who can't have what those before them wrote, that layer is of no use."""
    mounts = configuration.root_mounts(config)
    layers = [layer for entry in mounts for layer in overlay.split(entry["options"])]
    ids = [config["linux"].get(name) for name in ("uidMappings", "gidMappings")] if layers else []
    return {"path": config["root"]["path"], "layers": layers, "ids": ids}

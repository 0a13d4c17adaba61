# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd manager: limits as properties of the container's unit, in a drop-in file of ours.

systemd is the only writer of the tree it owns (https://systemd.io/CGROUP_DELEGATION, "Two Key Design Rules"),
so no cgroup is made here. The drop-in may be there before the unit is; a daemon-reload applies it to a
running unit at once and puts back what was changed by hand. Tried with systemd 252.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import systemctl
from ..converge import Failure, Step
from ..kernel import cgroup, file
from ..shell import command, write_file
from . import files, hierarchy
from .files import CONTROLS, Value
from .live import Live

DEFAULT_SLICE = "system.slice"

# Those that systemd enables for a unit (systemd.resource-control(5), "Control Group Management").
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")

_HEADER = """\
# Kept by the module bare.containers.cgroup_v2, which undoes what is changed here.
[Service]
CPUAccounting=yes
IOAccounting=yes
MemoryAccounting=yes
TasksAccounting=yes
"""


def slice_name(name: str) -> str:
    """``name`` where it can be a slice's (systemd.slice(5)). Raises ValueError."""
    if name != "-.slice" and not re.fullmatch(r"[A-Za-z0-9_.:]+(-[A-Za-z0-9_.:]+)*\.slice", name):
        raise ValueError("under systemd the name of a slice such as machine.slice")
    return name


def slice_path(name: str) -> str:
    """Where a slice's cgroup is below the root: ``a-b.slice`` is a.slice/a-b.slice, ``-.slice`` the root."""
    parts = name[: -len(".slice")].split("-") if name != "-.slice" else []
    return "/".join("-".join(parts[:depth]) + ".slice" for depth in range(1, len(parts) + 1))


def require_expressible(values: Mapping[str, Value]) -> None:
    """Raises Failure for a value that no unit can have."""
    for control in CONTROLS:
        try:
            if control.file in values:
                control.properties(values[control.file])
        except ValueError as error:
            raise Failure(
                f"{control.option}: {values[control.file]!r} is not accepted, it takes {error}; nothing was "
                "changed."
            ) from None
    for name in values.keys() - files.BY_FILE.keys():
        controller = files.controller_of(name)
        if controller is not None and controller not in _CONTROLLERS:
            raise Failure(
                f"controls: {name} needs the controller {controller}, which systemd does not give to a "
                "unit; it takes manager: cgroupfs; nothing was changed."
            )


class Units:
    """Which drop-ins systemd has yet to load, asked with one program for all units of a batch."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._stale: set[str] = set()

    def watch(self, unit: str) -> None:
        self._names.add(unit)

    def stale(self, unit: str) -> bool:
        """Whether what systemd knows of the unit is older than its files."""
        return unit in self._stale

    def refresh(self) -> None:
        """Raises Failure."""
        units = sorted(unit for unit in self._names if drop_in(unit).exists())
        shown = systemctl.show(units, "NeedDaemonReload")
        self._stale = {unit for unit, properties in shown.items() if properties["NeedDaemonReload"] == "yes"}


def drop_in(unit: str) -> Path:
    return systemctl.UNITS / f"{unit}.d" / "10-cgroup.conf"


class Systemd:
    """The limits of one unit."""

    name = "systemd"

    def __init__(
        self,
        unit: str,
        path: Path,
        values: Mapping[str, Value],
        frozen: bool | None,
        slice_: str,
        units: Units,
    ) -> None:
        """``path`` is where the unit's cgroup is while it runs; ``values`` are those declared, by file."""
        self.path = path
        self._unit = unit
        self._slice = slice_
        self._values = values
        self._frozen = frozen
        self._units = units
        self._live = Live(path)
        self._drop_in = drop_in(unit)
        units.watch(unit)

    def read(self, other_files: Sequence[str]) -> dict[str, Any]:
        """``drop_in`` holds its lines; ``controls`` are there only while the unit runs."""
        text = file.read_text(self._drop_in)
        state: dict[str, Any] = {"state": "absent" if text is None else "present"}
        if text is not None:
            state["drop_in"] = text.splitlines()
            state["loaded"] = not self._units.stale(self._unit)
        if self._live.exists():
            state.update(self._live.read(other_files, self._frozen is not None))
        return state

    def expect(self, *, known: bool) -> dict[str, Any]:
        """Raises Failure."""
        wanted = files.beside_default(self._values)
        controllers = [(files.label(name), files.controller_of(name)) for name in wanted]
        hierarchy.require((label, controller) for label, controller in controllers if controller is not None)
        self._live.require_room(self._values)
        state: dict[str, Any] = {"state": "present", "drop_in": self._text().splitlines(), "loaded": True}
        if self._live.exists():
            state["controls"] = self._live.expect(self._values)
            if self._frozen is not None:
                state["frozen"] = self._frozen
        elif self._frozen:
            raise Failure(
                f"state: frozen takes a unit that runs, and {self._unit} does not; nothing was changed."
            )
        return state

    def steps(self, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Step]:
        before, after = actual.get("controls", {}), expected.get("controls", {})
        steps = []
        if actual.get("drop_in") != expected["drop_in"]:
            steps.append(self._write_step())
        differing = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        if steps or not actual["loaded"] or not all(self._leaves_alone(name) for name in differing):
            steps.append(systemctl.reload_step(", ".join(differing or ["drop_in"])))
        steps += [step for step in self._live.write_steps(before, after) if self._leaves_alone(step.changes)]
        if expected.get("frozen") != actual.get("frozen"):
            steps.append(systemctl.step("frozen", "freeze" if expected["frozen"] else "thaw", self._unit))
        return steps

    def removal_steps(self, actual: Mapping[str, Any]) -> list[Step]:
        """What ends the unit if it runs, and takes the drop-in away."""
        steps = [systemctl.step("processes", "stop", self._unit)] if self.processes() else []
        if actual["state"] == "present":
            steps.append(self._remove_step())
        return [*steps, systemctl.reload_step("drop_in")]

    def processes(self) -> list[int]:
        return cgroup.processes(self.path)

    def facts(self, other_files: Sequence[str]) -> dict[str, Any]:
        return self._live.facts(other_files)

    def _leaves_alone(self, name: str) -> bool:
        """Whether systemd does not write the file: it has no property for it, or it is a cpuset and without
        one, which systemd does not reset."""
        return name not in files.BY_FILE or (name in files.CPUSETS and name not in self._values)

    def _properties(self) -> dict[str, tuple[str, ...]]:
        """The lines of the drop-in for each file that has a unit property. Where TasksMax= is not said,
        systemd takes a share of the system's limit (DefaultTasksMax=)."""
        values = {"pids.max": "max", **self._values}
        return {
            control.file: control.properties(values[control.file])
            for control in CONTROLS
            if control.file in values
        }

    def _text(self) -> str:
        lines = [f"Slice={self._slice}"] if self._slice != DEFAULT_SLICE else []
        lines += [line for properties in self._properties().values() for line in properties]
        lines += [
            f"ExecStartPre=+/bin/sh -c 'echo {value} > {self.path}/{name}'"
            for name, value in self._values.items()
            if name not in files.BY_FILE
        ]
        return _HEADER + "".join(f"{line}\n" for line in lines)

    def _write_step(self) -> Step:
        text = self._text()
        return Step(
            "drop_in", write_file(self._drop_in, text), lambda: file.write_atomically(self._drop_in, text)
        )

    def _remove_step(self) -> Step:
        directory = self._drop_in.parent

        def apply() -> None:
            file.remove(self._drop_in)
            file.remove_empty(directory, up_to=systemctl.UNITS)

        removals = (
            command(["rm", "-f", self._drop_in]),
            command(["rmdir", "--ignore-fail-on-non-empty", directory]),
        )
        return Step("drop_in", removals, apply)

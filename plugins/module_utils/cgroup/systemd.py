# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd manager: limits as properties of the container's unit, in a drop-in file of ours.

systemd is the only writer of the tree it owns (https://systemd.io/CGROUP_DELEGATION, "Two Key Design Rules"),
so no cgroup is made here. The drop-in may be there before the unit is; a daemon-reload applies it to a
running unit at once and puts back what was changed by hand. Tried with systemd 252.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import file_steps, systemctl
from ..converge import Failure, Step
from ..kernel import cgroup, file
from ..options import differences
from ..shell import command, write_value
from . import files, hierarchy
from .kinds import Value
from .live import Live, delegate_command

DEFAULT_SLICE = "system.slice"

# Debian 12 has 252, no host has an older one.
_OLDEST = 252

# Those that systemd enables for a unit (systemd.resource-control(5), "Control Group Management").
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")

_NOT_FOR_UNITS = {
    "cgroup.type": "threaded takes manager: cgroupfs, a unit is a domain as its slice is",
    "io.bfq.weight": "systemd sets it together with io.weight; it takes io_weight, or manager: cgroupfs",
}

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
    for name, value in values.items():
        try:
            _properties(name, value)
        except ValueError as error:
            text = " ".join(files.writes(name, files.default(name), value))
            raise Failure(
                f"{files.label(name)}: {text!r} is not accepted, it takes {error}; nothing was changed."
            ) from None
        if name in _NOT_FOR_UNITS and value != files.default(name):
            raise Failure(f"{files.label(name)}: {_NOT_FOR_UNITS[name]}; nothing was changed.")
    for label, controller in files.controllers(values):
        if controller not in _CONTROLLERS:
            raise Failure(
                f"{label} needs the controller {controller}, which systemd does not give to units, and in "
                "its tree nobody else gives controllers; it takes manager: cgroupfs; nothing was changed."
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
        delegate: int | None,
        slice_: str,
        units: Units,
    ) -> None:
        """``path`` is where the unit's cgroup is while it runs; ``values`` are those declared, by file;
        ``delegate`` is the uid of the user that the cgroup is given to."""
        self.path = path
        self._unit = unit
        self._slice = slice_
        self._values = values
        self._frozen = frozen
        self._delegate = delegate
        self._units = units
        self._live = Live(path)
        self._drop_in = drop_in(unit)
        units.watch(unit)

    def read(self, other_files: Sequence[str], *, owners: bool) -> dict[str, Any]:
        """``drop_in`` holds its lines; ``controls`` are there only while the unit runs."""
        text = file.read_text(self._drop_in)
        state: dict[str, Any] = {"state": "absent" if text is None else "present"}
        if text is not None:
            state["drop_in"] = text.splitlines()
            state["loaded"] = not self._units.stale(self._unit)
        if self._live.exists():
            state.update(self._live.read(other_files, frozen=self._frozen is not None, owners=owners))
        return state

    def expect(self, actual: Mapping[str, Any], *, known: bool) -> dict[str, Any]:
        """Raises Failure."""
        hierarchy.require(files.controllers(files.beside_default(self._values)))
        controls = self._live.expect(self._values)
        state: dict[str, Any] = {"state": "present", "drop_in": self._text().splitlines(), "loaded": True}
        if self._live.exists():
            state["controls"] = controls
            if self._frozen is not None:
                state["frozen"] = self._frozen
            if self._delegate is not None or "owners" in actual:
                state["owners"] = [self._delegate or 0]
        elif self._frozen:
            raise Failure(
                f"state: frozen takes a unit that runs, and {self._unit} does not; nothing was changed."
            )
        return state

    def steps(self, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Step]:
        before, after = actual.get("controls", {}), expected.get("controls", {})
        reloaded = self._after_reload(before, after)
        released, set_ = self._live.write_steps(reloaded, after)
        steps = [self._write_step()] if actual.get("drop_in") != expected["drop_in"] else []
        steps += released
        if actual.get("drop_in") != expected["drop_in"] or not actual["loaded"] or reloaded != before:
            changes = sorted(differences(before, reloaded)) or ["drop_in"]
            steps.append(systemctl.reload_step(", ".join(changes)))
        steps += set_
        if expected.get("owners") != actual.get("owners"):
            steps.append(self._live.delegate_step(expected["owners"][0]))
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

    def _after_reload(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Value]:
        """What a daemon-reload makes of the values ``before`` where the drop-in says ``after``.

        systemd leaves alone what it has no property for; and where the drop-in does not say it, it neither
        empties a cpuset nor takes back what a device was given.
        """
        left: dict[str, Value | None] = {**before}
        for name in {*before, *after}:
            if not _has_property(name) or (name in files.CPUSETS and name not in self._values):
                continue
            value = after.get(name, files.default(name))
            control = files.control(name)
            if control is not None and control.by_device:
                value = {**_mapping(before.get(name)), **_mapping(value)}
            left[name] = value
        return files.beside_default(left)

    def _text(self) -> str:
        lines = [f"Slice={self._slice}"] if self._slice != DEFAULT_SLICE else []
        # Where TasksMax= is not said, systemd takes a share of the system's limit (DefaultTasksMax=).
        values = {"pids.max": "max", **self._values}
        for name in sorted(values, key=files.order):
            lines += self._lines(name, values[name])
        if self._delegate is not None:
            lines += ["Delegate=yes", _start_line(delegate_command(self.path, self._delegate))]
        return _HEADER + "".join(f"{line}\n" for line in lines)

    def _lines(self, name: str, value: Any) -> Iterable[str]:
        """The lines of the drop-in that set a control file."""
        if _has_property(name):
            return _properties(name, value)
        if value == files.default(name):
            return []
        texts = files.writes(name, files.default(name), value)
        return [_start_line(write_value(self.path / name, text)) for text in texts]

    def _write_step(self) -> Step:
        return file_steps.write("drop_in", self._drop_in, self._text())

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


def _properties(name: str, value: Any) -> tuple[str, ...]:
    """The lines that stand for a control file's value, where systemd has properties for it. Raises
    ValueError."""
    control = files.control(name)
    return control.properties(value) if control is not None and control.properties is not None else ()


def _has_property(name: str) -> bool:
    """Whether this systemd has properties for the control file, and so writes it itself."""
    control = files.control(name)
    if control is None or control.properties is None:
        return False
    return control.since <= _OLDEST or control.since <= _version()


@functools.cache
def _version() -> int:
    """systemd's, such as 252. Raises Failure."""
    return int(systemctl.systemctl("--version").split()[1].partition("~")[0].partition(".")[0])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _start_line(text: str) -> str:
    """What the unit does as root before its process starts, for whom it fails otherwise (systemd.service(5),
    "Command lines")."""
    escaped = text.replace("$", "$$").replace("%", "%%").replace('"', '\\"')
    return f'ExecStartPre=+/bin/sh -c "{escaped}"'

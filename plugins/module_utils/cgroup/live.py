# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control files of a cgroup that exists: its values, what was counted, and what it has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..converge import Failure, Step
from ..kernel import cgroup
from ..shell import write_value
from . import files
from .files import CONTROLS, Value


class Live:
    """The control files in the directory ``path``, under either manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.is_dir()

    def value(self, file: str) -> Value | None:
        """What the file reads, in normal form; without the file, which is without its controller, the
        default."""
        text = cgroup.read(self.path, file)
        return files.default(file) if text is None else files.parse(file, text)

    def read(self, other_files: Sequence[str], with_frozen: bool) -> dict[str, Any]:
        """The part of a state that is read here: the values that are not the kernel's default. Raises
        OSError."""
        values = {control.file: self.value(control.file) for control in CONTROLS}
        values.update({file: self.value(file) for file in other_files})
        state: dict[str, Any] = {"controls": files.beside_default(values)}
        if with_frozen:
            state["frozen"] = cgroup.read(self.path, "cgroup.freeze") == "1"
        return state

    def expect(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values that are to be read here when ``values`` are declared and the rest is at its default.

        A cpuset that has processes can't be emptied again (validate_change() in the kernel's cpuset.c):
        there, all that the parent has stands for the default, to the same effect. Raises OSError.
        """
        expected = files.beside_default(values)
        for name in files.CPUSETS:
            current = self.value(name)
            if name not in expected and current != "":
                whole = cgroup.read(self.path.parent, f"{name}.effective") or ""
                if current == whole or self._populated():
                    expected[name] = whole
        return files.beside_default(expected)

    def _populated(self) -> bool:
        events = cgroup.keyed(cgroup.read(self.path, "cgroup.events") or "")
        return events.get("populated") == 1

    def write_steps(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> list[Step]:
        """A step for each file whose value differs; what is in neither is at its default."""
        names = [*(control.file for control in CONTROLS), *sorted({*before, *after} - files.BY_FILE.keys())]
        return [
            self._write_step(
                name, before.get(name, files.default(name)), after.get(name, files.default(name))
            )
            for name in names
            if before.get(name) != after.get(name)
        ]

    def _write_step(self, file: str, before: Any, after: Any) -> Step:
        texts = files.writes(file, before, after)

        def apply() -> None:
            for text in texts:
                try:
                    cgroup.write(self.path, file, text)
                except FileNotFoundError:
                    raise Failure(
                        f"{files.label(file)}: this kernel has no control file {self.path / file}."
                    ) from None
                except OSError as error:
                    raise Failure(
                        f"{files.label(file)}: the kernel does not take {text!r} for {self.path / file}: "
                        f"{error.strerror}."
                    ) from None

        return Step(file, tuple(write_value(self.path / file, text) for text in texts), apply)

    def require_room(self, values: Mapping[str, Value]) -> None:
        """Raises Failure where memory.max would be lowered below what is in use.

        The kernel takes such a value, reclaims what it can, and then kills processes until the rest fits
        (cgroup-v2, memory.max). It can reclaim the page cache on its LRU lists and reclaimable slab
        (memory.stat); swapping is not counted on.
        """
        limit = values.get("memory.max", "max")
        current = cgroup.read(self.path, "memory.current")
        if not isinstance(limit, int) or current is None or int(current) <= limit:
            return
        stat = cgroup.keyed(cgroup.read(self.path, "memory.stat") or "")
        reclaimable = sum(stat.get(key, 0) for key in ("active_file", "inactive_file", "slab_reclaimable"))
        in_use = int(current) - reclaimable
        if in_use > limit and self.value("memory.max") != limit:
            raise Failure(
                f"memory_max: {limit} is below the {in_use} bytes in use that the kernel can't reclaim "
                f"(memory.current is {current}): it would kill processes to get there; it takes {in_use} or "
                "more until they use less; nothing was changed."
            )

    def facts(self, other_files: Sequence[str]) -> dict[str, Any]:
        """The values of all these control files that exist, and what was counted; empty without a cgroup.

        Raises OSError.
        """
        if not self.exists():
            return {}
        names = [*(control.file for control in CONTROLS), *other_files]
        texts = {name: cgroup.read(self.path, name) for name in names}
        found: dict[str, Any] = {
            "controls": {file: files.parse(file, text) for file, text in texts.items() if text is not None}
        }
        for fact, file in (("memory_events", "memory.events"), ("cpu_stat", "cpu.stat")):
            text = cgroup.read(self.path, file)
            if text is not None:
                found[fact] = cgroup.keyed(text)
        found["pressure"] = self._pressure()
        return found

    def _pressure(self) -> dict[str, Any]:
        """By resource, then ``some`` and ``full``: percent of time over 10, 60 and 300 s, and microseconds in
        all (Documentation/accounting/psi.rst); empty where the kernel has it switched off."""
        pressure = {}
        for resource in ("cpu", "io", "memory"):
            try:
                text = cgroup.read(self.path, f"{resource}.pressure")
            except OSError:  # EOPNOTSUPP, booted with psi=0
                text = None
            if text is not None:
                pressure[resource] = dict(_pressure_line(line) for line in text.splitlines())
        return pressure


def _pressure_line(line: str) -> tuple[str, dict[str, Any]]:
    """``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``."""
    kind, *fields = line.split()
    pairs = (field.split("=") for field in fields)
    return kind, {key: int(value) if key == "total" else float(value) for key, value in pairs}

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control files of a cgroup that exists: what they are set to, what they tell, and what it has
room for."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..converge import Failure, Step
from ..kernel import cgroup
from ..shell import write_value
from . import devices, files, hierarchy, statistics
from .kinds import Value


def settings(path: Path, names: Iterable[str]) -> dict[str, Value]:
    """What these control files of a cgroup are set to, in normal form; those that don't exist are left out.

    Raises OSError.
    """
    texts = {name: cgroup.read(path, name) for name in names}
    return {name: files.parse(name, text) for name, text in texts.items() if text is not None}


def told(path: Path, names: Iterable[str] = statistics.FILES) -> dict[str, Any]:
    """What these control files of a cgroup tell (statistics.parse()); those that don't exist, or are switched
    off, are left out. Raises OSError."""
    texts = {name: _read_told(path, name) for name in names}
    return {name: statistics.parse(name, text) for name, text in texts.items() if text is not None}


def pressure(path: Path) -> dict[str, Any]:
    """Pressure by resource; empty where the kernel has it switched off. Raises OSError."""
    found = told(path, [f"{resource}.pressure" for resource in statistics.PRESSURE])
    return {name.partition(".")[0]: value for name, value in found.items()}


def _read_told(path: Path, name: str) -> str | None:
    try:
        return cgroup.read(path, name)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # as pressure is with psi=0
            raise
        return None


class Live:
    """The control files in the directory ``path``, under either manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.is_dir()

    def value(self, file: str) -> Value | None:
        """What the file reads, in normal form; without the file, which is without its controller, the
        default."""
        return settings(self.path, [file]).get(file, files.default(file))

    def read(self, other_files: Sequence[str], *, frozen: bool, owners: bool) -> dict[str, Any]:
        """The part of a state that is read here: the values that are not the kernel's default; with
        ``frozen`` and ``owners`` those too. Raises OSError."""
        values = settings(self.path, self._names(other_files))
        if values.get("cpu.idle"):
            del values["cpu.weight"]  # which is 0 then, and no setting
        state: dict[str, Any] = {"controls": files.beside_default(values)}
        if frozen:
            state["frozen"] = cgroup.read(self.path, "cgroup.freeze") == "1"
        if owners:
            state["owners"] = cgroup.owners(self.path)
        return state

    def expect(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values that are to be read here when ``values`` are declared and the rest is at its default.

        A cpuset that has processes can't be emptied again (validate_change() in the kernel's cpuset.c):
        there, all that the parent has stands for the default, to the same effect. Raises Failure, OSError.
        """
        self._require_room(values)
        expected = files.beside_default(devices.resolve(values))
        hierarchy.require_files(expected, self.path)
        for name in files.CPUSETS:
            current = self.value(name)
            if name not in expected and current != "":
                whole = cgroup.read(self.path.parent, f"{name}.effective") or ""
                if current == whole or self._populated():
                    expected[name] = whole
        return files.beside_default(expected)

    def _names(self, other_files: Sequence[str]) -> list[str]:
        return [*dict.fromkeys([*files.with_option(cgroup.files(self.path)), *other_files])]

    def _populated(self) -> bool:
        events = cgroup.keyed(cgroup.read(self.path, "cgroup.events") or "")
        return events.get("populated") == 1

    def write_steps(
        self, before: Mapping[str, Value], after: Mapping[str, Value]
    ) -> tuple[list[Step], list[Step]]:
        """A step for each file whose value differs; what is in neither is at its default.

        First those that give way to what others are set to (files.releases()), then all others.
        """
        released: list[Step] = []
        set_: list[Step] = []
        for name in sorted({*before, *after}, key=files.order):
            old, new = before.get(name, files.default(name)), after.get(name, files.default(name))
            if old != new:
                steps = released if files.releases(name, old, new) else set_
                steps.append(self._write_step(name, old, new))
        return released[::-1], set_

    def _write_step(self, file: str, before: Any, after: Any) -> Step:
        texts = files.writes(file, before, after)

        def apply() -> None:
            for text in texts:
                self._write(file, text)

        return Step(file, tuple(write_value(self.path / file, text) for text in texts), apply)

    def _write(self, file: str, text: str) -> None:
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
        # As cpuset.cpus.partition does, which takes what it then can't do: "root invalid (REASON)".
        invalid = re.search(r" invalid \((.+)\)$", cgroup.read(self.path, file) or "")
        if invalid:
            raise Failure(
                f"{files.label(file)}: {text!r} in {self.path / file} is invalid, as the kernel says: "
                f"{invalid[1]}."
            )

    def delegate_step(self, uid: int) -> Step:
        """Gives the cgroup to a user."""
        return Step("owners", (delegate_command(self.path, uid),), lambda: cgroup.delegate(self.path, uid))

    def _require_room(self, values: Mapping[str, Value]) -> None:
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
        """What all these control files that exist are set to, and what others tell; empty without a cgroup.

        What is told goes by the file's name, ``memory_events`` for memory.events. Raises OSError.
        """
        if not self.exists():
            return {}
        return {
            "controls": settings(self.path, self._names(other_files)),
            **{name.replace(".", "_"): value for name, value in told(self.path).items()},
            "pressure": pressure(self.path),
        }


def delegate_command(path: Path, uid: int) -> str:
    """What a person would type to give a cgroup to a user."""
    quoted = shlex.quote(str(path))
    return (
        f"for file in . $(cat /sys/kernel/cgroup/delegate); do test ! -e {quoted}/$file || "
        f"chown {uid} {quoted}/$file; done"
    )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's cgroup as a resource: which manager has it, where it is, and what is kept of its
declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from .. import host, systemctl
from ..converge import Failure, State, Step
from ..kernel import file
from . import files, hierarchy, systemd
from .cgroupfs import OURS, Cgroupfs
from .options import OPTIONS
from .systemd import Systemd, Units

Entry = Mapping[str, Any]
Manager = Union[Cgroupfs, Systemd]

_SHOWN_PROCESSES = 5


def build(entries: Sequence[Entry], units: Units) -> list[CgroupResource]:
    """The resources of a batch; ``units`` is refreshed before they are read. Raises Failure."""
    return [CgroupResource(entry, units) for entry in entries]


def validate(entries: Sequence[Entry]) -> None:
    """Raises Failure for what the entry's manager can't do."""
    for entry in entries:
        if entry["state"] == "absent":
            continue
        _parent(entry)
        _require_consistent(entry)
        if _manager_name(entry) == "systemd":
            if not systemctl.systemd_is_init():
                raise Failure(
                    "manager: systemd takes a host where it is PID 1, and this one is not; take cgroupfs or "
                    "auto; nothing was changed."
                )
            systemd.require_expressible(files.declared_values(entry))


class CgroupResource:
    """One container's cgroup.

    Its state: ``state``, ``manager`` and ``path``; ``controls`` are the control files that are not at the
    kernel's default; ``declaration`` is what is kept on the host; ``frozen`` where that is declared;
    ``owners`` (uids) where it is or was delegated, ``controllers`` where cgroupfs has to provide them for
    that; and under systemd ``drop_in`` (lines) and ``loaded``, whether systemd knows them.
    """

    def __init__(self, entry: Entry, units: Units) -> None:
        self.name: str = entry["name"]
        self._units = units
        self._force: bool = entry["force"]
        self._kept = host.Declaration(self.name, "cgroup")
        self._wanted = None if entry["state"] == "absent" else _declaration(entry)
        self._target = None if self._wanted is None else self._manager(self._wanted)

    def read(self) -> State:
        kept = self._read_kept()
        declaration = kept or self._wanted
        if declaration is None:
            return {"state": "absent"}
        state = self._read_place(self._place(kept), kept)
        if state["state"] == "present":
            state.update(manager=declaration["manager"], path=declaration["path"])
        if kept is not None:
            state["declaration"] = kept
        return state

    def expect(self, actual: State) -> State:
        kept = actual.get("declaration")
        if kept is not None and self._leaves(kept):
            self._require_empty(kept)
        if self._target is None or self._wanted is None:
            return {"state": "absent"}
        self._require_defaults(kept)
        known = kept is not None and kept["path"] == self._wanted["path"]
        return {
            **self._target.expect(actual, known=known),
            "manager": self._wanted["manager"],
            "path": self._wanted["path"],
            "declaration": self._wanted,
        }

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if actual == expected:
            return []
        kept = actual.get("declaration")
        leaving = kept is not None and self._leaves(kept)
        steps = self._place(kept).removal_steps(actual) if leaving else []
        if self._target is None or self._wanted is None:
            return [*steps, self._kept.remove_step()]
        keep = [self._kept.write_step(self._wanted)] if kept != self._wanted else []
        if kept is None or leaving:
            # Before anything is made, so that whatever is half made is known as ours.
            now = self._read_place(self._target, kept) if leaving else actual
            return [*steps, *keep, *self._target.steps(now, expected)]
        return [*self._target.steps(actual, expected), *keep]

    def facts(self, actual: State) -> Mapping[str, Any]:
        kept = actual.get("declaration")
        declaration = kept or self._wanted
        if declaration is None:
            return {}
        # "path" would have Ansible add the owner, mode and size of what is there (add_path_info()).
        place = {"manager": declaration["manager"], "cgroup_path": declaration["path"]}
        return {**place, **self._place(kept).facts(self._other_files(kept))}

    def _read_place(self, manager: Manager, kept: Mapping[str, Any] | None) -> dict[str, Any]:
        delegated = any("delegate" in (declaration or {}) for declaration in (kept, self._wanted))
        return manager.read(self._other_files(kept), owners=delegated)

    def _read_kept(self) -> dict[str, Any] | None:
        kept = self._kept.read()
        if kept is not None and not {"state", "manager", "parent", "path"} <= kept.keys():
            raise Failure(f"{self._kept.path} is incomplete; remove it to have the cgroup declared anew.")
        return kept

    def _manager(self, declaration: Mapping[str, Any]) -> Manager:
        values = files.declared_values(declaration)
        frozen = {"frozen": True, "thawed": False}.get(declaration["state"])
        path, delegate = Path(declaration["path"]), declaration.get("delegate")
        if declaration["manager"] == "systemd":
            unit, slice_ = host.unit(self.name), declaration["parent"]
            return Systemd(unit, path, values, frozen, delegate, slice_, self._units)
        return Cgroupfs(path, values, frozen, delegate)

    def _place(self, kept: Mapping[str, Any] | None) -> Manager:
        """Where the cgroup is now: as it was declared last, or as it is declared, where that is the same."""
        if self._target is not None and (kept is None or not self._leaves(kept)):
            return self._target
        return self._manager(kept or {})

    def _leaves(self, kept: Mapping[str, Any]) -> bool:
        """Whether the declaration gives up the cgroup that was declared before. A unit stays itself in any
        slice; a threaded cgroup can't be made a domain again (cgroup-v2, "Threads")."""
        if self._wanted is None or kept["manager"] != self._wanted["manager"]:
            return True
        if kept["manager"] == "systemd":
            return False
        threaded = [declaration.get("type") == "threaded" for declaration in (kept, self._wanted)]
        return bool(kept["path"] != self._wanted["path"] or threaded == [True, False])

    def _other_files(self, kept: Mapping[str, Any] | None) -> list[str]:
        """The control files without an option that are declared, or were."""
        return sorted({*(kept or {}).get("controls", {}), *(self._wanted or {}).get("controls", {})})

    def _require_empty(self, kept: Mapping[str, Any]) -> None:
        if self._force:
            return
        pids = self._place(kept).processes()
        if pids:
            shown = ", ".join(f"{pid} ({_command(pid)})" for pid in pids[:_SHOWN_PROCESSES])
            more = f" and {len(pids) - _SHOWN_PROCESSES} more" if len(pids) > _SHOWN_PROCESSES else ""
            option = "state: absent" if self._wanted is None else "manager, parent, type: another cgroup"
            raise Failure(
                f"{option} takes a cgroup without processes, and in {kept['path']} there are {shown}{more}; "
                "end them, or set force to have them killed; nothing was changed."
            )

    def _require_defaults(self, kept: Mapping[str, Any] | None) -> None:
        """What is declared no longer goes back to the kernel's default, which has to be known."""
        declared = (self._wanted or {}).get("controls", {})
        for name in self._other_files(kept):
            if name not in declared and files.other_default(name) is None:
                raise Failure(
                    f"controls: {name} was declared before, and what the kernel's default for it is is not "
                    "known here; declare the value that it shall have; nothing was changed."
                )


def _manager_name(entry: Entry) -> str:
    if entry["manager"] == "auto":
        return "systemd" if systemctl.systemd_is_init() else "cgroupfs"
    return str(entry["manager"])


def _require_consistent(entry: Entry) -> None:
    """Raises Failure for options that the kernel does not take together."""
    weights = [
        name for name in ("cpu_weight", "cpu_weight_nice", "cpu_idle") if entry.get(name) not in (None, False)
    ]
    if len(weights) > 1:
        raise Failure(
            f"{weights[1]}: {entry[weights[1]]} is not accepted beside {weights[0]}, it takes the place of "
            "that; nothing was changed."
        )
    quota = entry.get("cpu_max", {}).get("quota", "max")
    if quota != "max" and entry.get("cpu_max_burst", 0) > quota:
        raise Failure(
            f"cpu_max_burst: {entry['cpu_max_burst']} is not accepted, it takes up to {quota} microseconds, "
            "the quota of cpu_max; nothing was changed."
        )


def _parent(entry: Entry) -> str:
    """The parent in normal form: a slice under systemd, else a cgroup below the root. Raises Failure."""
    under_systemd = _manager_name(entry) == "systemd"
    declared = entry.get("parent") or (systemd.DEFAULT_SLICE if under_systemd else OURS)
    try:
        return systemd.slice_name(declared) if under_systemd else hierarchy.relative(declared)
    except ValueError as error:
        raise Failure(
            f"parent: {declared!r} is not accepted, it takes {error}; nothing was changed."
        ) from None


def _declaration(entry: Entry) -> dict[str, Any]:
    """What is kept: the options, with the manager and the parent resolved, and the cgroup's directory."""
    declaration = {name: value for name, value in OPTIONS.declaration(entry).items() if name != "name"}
    manager, parent = _manager_name(entry), _parent(entry)
    if manager == "systemd":
        path = hierarchy.root() / systemd.slice_path(parent) / host.unit(entry["name"])
    else:
        path = hierarchy.root() / parent / entry["name"]
    resolved = {**declaration, "manager": manager, "parent": parent, "path": str(path)}
    return dict(json.loads(json.dumps(resolved, sort_keys=True)))  # in the order in which it is read again


def _command(pid: int) -> str:
    """The name of a process's command (proc(5), comm)."""
    return (file.read_text(Path(f"/proc/{pid}/comm")) or "ended").rstrip("\n")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroupfs manager: a cgroup of our own, made and written directly."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure, Step
from ..kernel import cgroup, file
from ..shell import command, write_value
from . import files, hierarchy
from .kinds import Value
from .live import Live

OURS = "bare"
"""The cgroup below the root under which cgroups of ours are by default: it is made, and goes with the last of
them."""

_SECONDS = 10.0
_NOT_GIVEN = {
    errno.EBUSY: "while it has processes of its own (cgroup-v2, No Internal Process Constraint)",
    errno.EOPNOTSUPP: f"as it is threaded, which none but {', '.join(files.THREADED)} can be",
}


class Cgroupfs:
    """One cgroup that is made, limited and removed by hand.

    A controller is enabled from the root down in the cgroup.subtree_control of every cgroup above, before the
    next one is made, and only when a declared value needs it (cgroup-v2, "Controlling Controllers"). It stays
    enabled in cgroups that are not ours, the root among them: others may have come to rely on it.
    """

    name = "cgroupfs"

    def __init__(
        self, path: Path, values: Mapping[str, Value], frozen: bool | None, delegate: int | None
    ) -> None:
        """``values`` are those declared, by file; the others are expected at the kernel's default.
        ``delegate`` is the uid of the user that the cgroup is given to, with all controllers."""
        self.path = path
        self._values = values
        self._frozen = frozen
        self._delegate = delegate
        self._live = Live(path)

    def read(self, other_files: Sequence[str], *, owners: bool) -> dict[str, Any]:
        if not self._live.exists():
            return {"state": "absent"}
        state = self._live.read(other_files, frozen=self._frozen is not None, owners=owners)
        if self._delegate is not None:
            state["controllers"] = sorted((cgroup.read(self.path, "cgroup.controllers") or "").split())
        return {"state": "present", **state}

    def expect(self, actual: Mapping[str, Any], *, known: bool) -> dict[str, Any]:
        """``known`` says that the cgroup is ours by its kept declaration. Raises Failure."""
        self._require_place(known)
        needs = files.controllers(files.beside_default(self._values))
        hierarchy.require(needs)
        self._require_type(needs)
        state: dict[str, Any] = {"state": "present", "controls": self._live.expect(self._values)}
        if self._frozen is not None:
            state["frozen"] = self._frozen
        if self._delegate is not None or "owners" in actual:
            state["owners"] = [self._delegate or 0]
        if self._delegate is not None:
            state["controllers"] = sorted(self._controllers())
        return state

    def steps(self, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Step]:
        new = actual["state"] == "absent"
        steps = []
        if new or any(actual.get(key) != expected.get(key) for key in ("controls", "controllers")):
            steps += self._making_steps(new)
        released, set_ = self._live.write_steps(actual.get("controls", {}), expected["controls"])
        steps += [*released, *set_]
        if actual.get("owners", [0]) != expected.get("owners", [0]):
            steps.append(self._live.delegate_step(expected["owners"][0]))
        if expected.get("frozen", False) != actual.get("frozen", False):
            steps.append(self._freeze_step(expected["frozen"]))
        return steps

    def removal_steps(self, actual: Mapping[str, Any]) -> list[Step]:
        """What takes the cgroup away, with the processes in it and the parents that are ours."""
        kill = [self._kill_step()] if cgroup.processes(self.path) else []
        return [*kill, *self._remove_steps()]

    def processes(self) -> list[int]:
        return cgroup.processes(self.path)

    def facts(self, other_files: Sequence[str]) -> dict[str, Any]:
        return self._live.facts(other_files)

    def _controllers(self) -> list[str]:
        """Those that the cgroup needs: for its limits, or all that it can have for its user to hand on."""
        if self._delegate is None:
            needs = files.controllers(files.beside_default(self._values))
            return [*dict.fromkeys(controller for __, controller in needs)]
        return [each for each in hierarchy.controllers() if not self._threaded or each in files.THREADED]

    @property
    def _threaded(self) -> bool:
        return self._values.get("cgroup.type") == "threaded"

    def _ancestors(self) -> list[Path]:
        """From the root to the parent."""
        root = hierarchy.root()
        above = [parent for parent in self.path.parents if root in parent.parents]
        return [root, *reversed(above)]

    def _require_place(self, known: bool) -> None:
        root = hierarchy.root()
        if root / OURS in self.path.parents:
            return
        if not self.path.parent.is_dir():
            raise Failure(
                f"parent: there is no cgroup {self.path.parent}; it takes one that exists, or one below "
                f"{OURS}, which is made when it is missing; nothing was changed."
            )
        if self.path.is_dir() and not known:
            raise Failure(
                f"name: the cgroup {self.path} exists and was not made by this module; choose another name "
                "or parent; nothing was changed."
            )

    def _require_type(self, needs: Sequence[tuple[str, str]]) -> None:
        """What the kernel makes of the parent's type (cgroup-v2, "Threads")."""
        parent = self.path.parent
        if not self._threaded:
            if cgroup.read(parent, "cgroup.type") in ("threaded", "domain invalid"):
                raise Failure(
                    f"type: domain is not accepted below {parent}, which is threaded, it takes threaded; "
                    "nothing was changed."
                )
            return
        for option, controller in needs:
            if controller not in files.THREADED:
                raise Failure(
                    f"{option} needs the controller {controller}, and a cgroup of type: threaded has none "
                    f"but {', '.join(files.THREADED)}; nothing was changed."
                )
        given = (cgroup.read(parent, "cgroup.subtree_control") or "").split()
        in_the_way = [controller for controller in given if controller not in files.THREADED]
        if in_the_way and parent != hierarchy.root():
            raise Failure(
                f"type: threaded takes a parent that gives those below it none but the controllers "
                f"{', '.join(files.THREADED)}, and {parent} gives {', '.join(in_the_way)}; "
                "nothing was changed."
            )

    def _making_steps(self, new: bool) -> list[Step]:
        """Every cgroup from the root to ours, and in each but ours the controllers that ours needs.

        What is below OURS may go until then, with the last cgroup in it, so for a new one it is all made.
        """
        needed = self._controllers()
        ours = hierarchy.root() / OURS
        steps = []
        for ancestor in self._ancestors():
            fleeting = new and ours in (ancestor, *ancestor.parents)
            if fleeting:
                steps.append(_make_step(ancestor))
            control = None if fleeting else cgroup.read(ancestor, "cgroup.subtree_control")
            enabled = (control or "").split()
            missing = [controller for controller in needed if controller not in enabled]
            if missing:
                steps.append(_enable_step(ancestor, missing))
        return [*steps, _make_step(self.path)] if new else steps

    def _freeze_step(self, frozen: bool) -> Step:
        def apply() -> None:
            if not cgroup.set_frozen(self.path, frozen, _SECONDS):
                raise Failure(
                    f"{self.path} did not become {'frozen' if frozen else 'thawed'} in {_SECONDS:.0f} "
                    "seconds."
                )

        return Step("frozen", (write_value(self.path / "cgroup.freeze", str(int(frozen))),), apply)

    def _kill_step(self) -> Step:
        def apply() -> None:
            if not cgroup.kill(self.path, _SECONDS):
                raise Failure(
                    f"Processes in {self.path} did not end within {_SECONDS:.0f} seconds of SIGKILL."
                )

        wait = f"until grep -qx 'populated 0' {self.path}/cgroup.events; do sleep 0.1; done"
        return Step("processes", (write_value(self.path / "cgroup.kill", "1"), wait), apply)

    def _remove_steps(self) -> list[Step]:
        """Ours, all below it, and those above it that are there for ours only and then without children."""
        below = cgroup.with_descendants(self.path)
        above = self._fleeting_parents()

        def apply() -> None:
            cgroup.remove(self.path)
            if above:
                file.remove_empty(above[0], up_to=above[-1].parent)

        commands = [command(["rmdir", *below])] if below else []
        commands += [command(["rmdir", "--ignore-fail-on-non-empty", parent]) for parent in above]
        return [Step("state", tuple(commands), apply)] if commands else []

    def _fleeting_parents(self) -> list[Path]:
        """From the parent up to OURS, or to one that another declaration has."""
        ours = hierarchy.root() / OURS
        parents = [parent for parent in self.path.parents if ours in (parent, *parent.parents)]
        kept = _declared_paths() if parents[1:] else set()
        fleeting = itertools.takewhile(lambda parent: str(parent) not in kept, parents)
        return [parent for parent in fleeting if parent.is_dir()]


def _declared_paths() -> set[str]:
    """Where all declared cgroups are."""
    declarations = (host.Declaration(name, "cgroup").read() for name in host.declared_names("cgroup"))
    return {declaration.get("path", "") for declaration in declarations if declaration}


def _make_step(path: Path) -> Step:
    return Step("state", (command(["mkdir", "-p", path]),), lambda: cgroup.make(path))


def _enable_step(path: Path, controllers: Sequence[str]) -> Step:
    text = " ".join(f"+{controller}" for controller in controllers)

    def apply() -> None:
        try:
            cgroup.write(path, "cgroup.subtree_control", text)
        except OSError as error:
            why = _NOT_GIVEN.get(error.errno or 0)
            if why is None:
                raise
            raise Failure(
                f"parent: {path} can't give the controllers {', '.join(controllers)} to the cgroups below "
                f"it {why}."
            ) from None

    return Step("controllers", (write_value(path / "cgroup.subtree_control", text),), apply)

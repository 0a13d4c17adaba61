# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's process as a resource: what is declared, what is kept on the host, what runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import file_steps, host, systemctl
from ..converge import Failure, Needs, State, Step
from ..kernel import cgroup, file, namespace
from ..shell import command, write_file
from . import bundle, health, image, installation, log, seccomp, seccomp_filter, spec, surroundings, units
from .options import OPTIONS, signal_number
from .recipe import recipe
from .root import Root
from .state import running
from .supervisor import Direct, Stop, Supervisor, Systemd
from .together import Together, settling

Entry = Mapping[str, Any]

ABSENT: State = {"state": "absent"}
RUNNING = ("started", "paused")

_UNKNOWN = ["(what its image says)"]
"""The command that check mode tells of a container whose root file system is still to be fetched."""


def check(entries: Sequence[Entry]) -> None:
    """Raises Failure for a declaration that this host can't fulfil, whatever state it is in."""
    for entry in entries:
        kind = _kind(entry)
        if kind == "systemd" and not systemctl.systemd_is_init():
            raise Failure(
                f"supervisor: 'systemd' is not PID 1 of this host, {entry['name']} takes 'direct' or 'auto'; "
                "nothing was changed."
            )
        if kind == "direct" and entry["restart_policy"] != "no":
            raise Failure(
                f"restart_policy: {entry['restart_policy']!r} needs someone who watches, and without systemd "
                f"nobody does; {entry['name']} takes 'no' on this host; nothing was changed."
            )
        for part in (units, health, log):
            part.check(entry, kind)


def _kind(entry: Entry) -> str:
    if entry["supervisor"] == "auto":
        return "systemd" if systemctl.systemd_is_init() else "direct"
    return str(entry["supervisor"])


class Processes:
    """The processes of a batch, and what is done for several of them at a time."""

    def __init__(self) -> None:
        self.supervisors: dict[str, Supervisor] = {"direct": Direct()}
        if systemctl.systemd_is_init():
            self.supervisors["systemd"] = Systemd()
        self.starts, self.stops = {}, {}
        for kind, supervisor in self.supervisors.items():
            self.starts[kind] = Together(f"start ({kind})", settling(supervisor.start))
            self.stops[kind] = Together(f"stop ({kind})", supervisor.stop)
        self.resources: list[Process] = []
        self.launcher: Failure | None = None

    def build(self, entries: Sequence[Entry]) -> Sequence[Process]:
        """The resources of a batch."""
        self.resources = [Process(entry, self) for entry in entries]
        return self.resources

    def refresh(self) -> None:
        """Asks once for all what is the same for all. Raises Failure."""
        self.launcher = installation.mismatch()
        for supervisor in self.supervisors.values():
            supervisor.refresh([resource.name for resource in self.resources])


class Process:
    """One container's process."""

    def __init__(self, entry: Entry, batch: Processes) -> None:
        self.name: str = entry["name"]
        self._pid: int | None = None
        self._entry = entry
        self._batch = batch
        self._directory = host.directory(self.name)
        self._declaration = host.Declaration(self.name, "process")
        self._root = Root(self.name)
        self._kept: Entry | None = None
        self._completed: dict[str, Any] | None = None
        self._config: spec.Config = {}
        self._made: tuple[Entry, spec.Host, spec.Config] | None = None
        self._restarted = False
        self._missing: Failure | None = None

    # What is there.

    def read(self) -> State:
        self._kept, self._completed = self._declaration.read(), None
        found = running(self.name)
        self._pid = found[0] if found else None
        active = any(supervisor.active(self.name) for supervisor in self._batch.supervisors.values())
        places = (str(path) for path in self._places() if os.path.lexists(path))
        # Only who removes them has to know them all.
        files = list(places if self._entry["state"] == "absent" else itertools.islice(places, 1))
        if not files and not found and not active and not self._has_failed():
            return ABSENT
        state: dict[str, Any] = {"state": "started" if found or active else "stopped"}
        if found and self._paused():
            state["state"] = "paused"
        if self._entry["state"] == "absent":
            return {**state, "files": files}
        config = _read_config(self._directory / "config.json")
        state["declaration"] = self._kept
        state.update(self._root.read())
        state["etc"] = {name: self._read_etc(name)[0] for name in spec.ETC_FILES}
        state["config"] = _shown(config)
        state["seccomp"] = _digest(_read_bytes(self._directory / bundle.FILTER))
        if systemctl.systemd_is_init():
            systemd = self._batch.supervisors["systemd"]
            state["units"] = {unit: file.read_text(units.path(unit)) for unit in units.names(self.name)}
            state["units_loaded"] = not systemd.stale(self.name)
            state["enabled"] = os.path.lexists(units.wants_path(self.name))
            state["checked"] = systemd.checked(self.name)
        state["health"] = host.read_json(self._directory / bundle.HEALTH)
        state["log_rotation"] = file.read_text(log.rotation_path(self.name))
        state["process"] = self._differences(found[0], config) if found else None
        return state

    def _has_failed(self) -> bool:
        """Whether its supervisor knows it as failed, which systemd does even without the unit's file."""
        return any(supervisor.failed(self.name) for supervisor in self._batch.supervisors.values())

    def _places(self) -> Iterator[Path]:
        """Everything that a container's process leaves on the host."""
        yield self._declaration.path
        for name in ("config.json", bundle.FILTER, bundle.HEALTH, "etc"):
            yield self._directory / name
        yield from (*self._root.files(), *self._root.trees())
        yield from map(units.path, units.names(self.name))
        yield from (units.wants_path(self.name), log.rotation_path(self.name), host.RUN / self.name)
        yield from log.files(self.name, self._kept)
        own_cgroup = surroundings.own_cgroup(self.name)
        if own_cgroup is not None:
            yield own_cgroup

    def _read_etc(self, name: str) -> tuple[str | None, str]:
        """A file of the container's own /etc as declared, and what the launcher has added to it."""
        try:
            # The container may have written anything to it, and any amount.
            with open(self._directory / "etc" / name, encoding="utf-8", errors="replace") as written:
                text = written.read(bundle.ETC_LIMIT)
        except FileNotFoundError:
            return None, ""
        declared, mark, own = text.partition(bundle.OWN_NAME)
        return declared, mark + own

    def _differences(self, pid: int, config: Entry | None) -> list[str]:
        """In which settings the running process is not what config.json says, by their path in it."""
        differs = sorted(_paths(_read_config(host.RUN / self.name / "config.json"), config))
        joined = None if config is None else bundle.joined_network(dict(config))
        if joined is not None and not differs:
            inside, named = (namespace.identity(path) for path in (f"/proc/{pid}/ns/net", joined))
            return [] if inside == named else ["network namespace"]
        return differs

    # What should be there.

    def expect(self, actual: State) -> State:
        if self._entry["state"] == "absent":
            return ABSENT
        declared = self._declared()
        kind = _kind(declared)
        given = surroundings.read(declared, kind)
        self._missing = surroundings.missing(self.name, given.layers)
        started = declared["state"] != "stopped"
        config = self._config = self._make_config(declared, given)
        expected = {
            "state": declared["state"],
            "declaration": _kept(declared),
            "directories": spec.directories(declared),
            "copied": spec.copied_layers(declared, given),
            "etc": spec.etc_files(declared, given),
            "config": _shown(config),
            "seccomp": _digest(_filter(config)),
        }
        if systemctl.systemd_is_init():
            texts = units.texts(declared, config) if kind == "systemd" else {}
            expected["units"] = {unit: texts.get(unit) for unit in units.names(self.name)}
            expected["units_loaded"] = True
            expected["enabled"] = kind == "systemd" and started
            expected["checked"] = self._checked(declared, actual)
        expected["health"] = health.spec(declared)
        expected["log_rotation"] = log.rotation(declared, kind)
        expected["process"] = [] if started else None
        return expected

    def _make_config(self, declared: Entry, given: spec.Host) -> spec.Config:
        """The engine asks three times for what only another host would change."""
        if self._made is None or self._made[:2] != (declared, given):
            config = spec.config(declared, given)
            if declared.get("oci", {}).get("linux", {}).get("seccomp"):
                config["linux"]["seccomp"] = _normal_filter(config)
            self._made = (declared, given, config)
        return self._made[2]

    def _checked(self, declared: Entry, actual: State) -> bool | None:
        """Whether a timer is to have it checked: one that systemd is just starting again has none as yet."""
        being_started = actual["state"] in RUNNING and actual["checked"] is None
        if being_started or declared["state"] not in RUNNING or _kind(declared) != "systemd":
            return None
        return health.interval(declared) > 0

    def _declared(self) -> dict[str, Any]:
        """The declaration with what the image says, which is read once each time that the host is."""
        if self._completed is None:
            self._completed = self._complete()
        return self._completed

    def _complete(self) -> dict[str, Any]:
        """To stop or restart, the declaration that is kept is enough."""
        state = self._entry["state"]
        if "command" not in self._entry and state not in RUNNING and self._kept is not None:
            entry: Entry = {**self._kept, "name": self.name}
        else:
            entry = image.completed(self._entry, surroundings.image_config(self._entry))
        if "command" not in entry and surroundings.layers(entry):
            raise Failure(
                "command: it is missing, a process takes one, and no image says which; nothing was changed."
            )
        return {"command": _UNKNOWN, **entry, "state": "started" if state == "restarted" else state}

    # From the one to the other.

    def plan(self, actual: State, expected: State) -> list[Step]:
        if expected == ABSENT:
            return [] if actual == ABSENT else self._absent(actual)
        differs = {key for key, value in expected.items() if actual.get(key) != value}
        runs = actual["state"] in RUNNING
        wanted = expected["state"] in RUNNING
        restart = self._entry["state"] == "restarted" and not self._restarted
        stop = runs and (restart or not wanted or bool({"config", "process", "copied"} & differs))
        start = wanted and (stop or not runs)
        other = self._root.is_another(actual.get("config"), self._config)
        fresh = other and not self._root.is_kept(
            actual, actual["config"], self._config, self._declared().get("upper", "reset")
        )
        keep = [self._declaration.write_step(expected["declaration"])] if "declaration" in differs else []
        new = actual.get("declaration") is None
        steps = [*keep] if new else []
        if "etc" in differs:
            steps += self._etc_steps(actual.get("etc", {}), expected["etc"])
        paused = actual["state"] == "paused"
        if paused and (stop or expected["state"] != "paused"):
            steps.append(self._freeze_step(False))
        if stop:
            steps += self._stop_steps()
        steps += self._unit_steps(actual, expected)
        steps += self._root.steps(actual, expected, fresh)
        if "config" in differs:
            steps.append(self._config_step(self._config, other))
        if "seccomp" in differs:
            steps.append(_file_step("seccomp", self._directory / bundle.FILTER, _filter(self._config)))
        steps += self._note_steps(differs, expected)
        if start:
            steps += self._start_steps(self._declared())
        elif "units" in expected:
            steps += self._timer_steps(actual, expected)
        if expected["state"] == "paused" and (start or not paused):
            steps.append(self._freeze_step(True))
        steps += keep if not new else []
        return [*self._obstacles(start), *steps] if steps else []

    def _obstacles(self, start: bool) -> list[Step]:
        """What has to be there first and is not: check mode goes on, as it may be an earlier task's to
        make."""
        obstacles = [self._missing, self._batch.launcher if start else None]
        return [Step("process", (), _raiser(obstacle)) for obstacle in obstacles if obstacle]

    def _etc_steps(self, actual: Mapping[str, Any], expected: Mapping[str, str]) -> Iterator[Step]:
        for name, text in expected.items():
            if actual.get(name) != text:
                path = self._directory / "etc" / name
                commands = write_file(path, text)
                if self._read_etc(name)[1]:
                    own = f"sed -n '/^{bundle.OWN_NAME.rstrip()}$/,$p' {shlex.quote(str(path))}"
                    commands = (f"own=$({own})", *commands, f'echo "$own" >> {shlex.quote(str(path))}')
                yield Step(f"etc/{name}", commands, _bound(self._write_etc, name, text))

    def _write_etc(self, name: str, text: str) -> None:
        """Keeps what was added to the file, which is the network's too."""
        _write_in_place(self._directory / "etc" / name, text + self._read_etc(name)[1])

    def _unit_steps(self, actual: State, expected: State) -> Iterator[Step]:
        there, wanted = actual.get("units", {}), expected.get("units", {})
        changed = [unit for unit, text in wanted.items() if there.get(unit) != text]
        own, *checks = units.names(self.name)
        link = units.wants_path(self.name)
        if own in changed and wanted[own] is None:
            yield from self._forget_steps()
        gone = [unit for unit in checks if unit in changed and wanted[unit] is None]
        if gone:
            yield systemctl.step("checked", "stop", *gone)
        for unit in changed:
            yield _file_step("units", units.path(unit), wanted[unit])
        enable = expected.get("enabled", False)
        turn = enable != actual.get("enabled", False)
        if turn and enable:
            target = units.path(own)
            commands = (command(["mkdir", "-p", link.parent]), command(["ln", "-sf", target, link]))
            yield Step("enabled", commands, _bound(_link, target, link))
        elif turn:
            yield _file_step("enabled", link, None)
        if changed or turn or not actual.get("units_loaded", True):
            yield systemctl.reload_step("units")

    def _timer_steps(self, actual: State, expected: State) -> Iterator[Step]:
        """Has the timer of one that runs on go as it is declared."""
        timer = units.check_timer(self.name)
        changed = actual.get("units", {}).get(timer) != expected["units"][timer]
        if expected["checked"] and (changed or not actual.get("checked")):
            yield systemctl.step("checked", "restart", timer)

    def _note_steps(self, differs: set[str], expected: State) -> Iterator[Step]:
        """What others than the process itself act on, which therefore goes on meanwhile."""
        if "health" in differs:
            text = None if expected["health"] is None else json.dumps(expected["health"], indent=2) + "\n"
            yield _file_step("health", self._directory / bundle.HEALTH, text)
        if "log_rotation" in differs:
            yield _file_step("log_rotation", log.rotation_path(self.name), expected["log_rotation"])

    def _config_step(self, config: spec.Config, other_root: bool) -> Step:
        text = json.dumps(config, indent=2) + "\n"
        needs = Needs.RECREATE if other_root else Needs.RESTART
        return file_steps.write("config", self._directory / "config.json", text, 0o600, needs)

    def _start_steps(self, declared: Entry) -> tuple[Step, ...]:
        kind, checked = _kind(declared), health.interval(declared) > 0
        commands = self._batch.supervisors[kind].start_commands(self.name, checked=checked)
        return self._batch.starts[kind].steps(self.name, self.name, commands, self._see_running)

    def _see_running(self) -> None:
        if running(self.name) is None:
            raise Failure(
                f"command: it ended as soon as it was started; {self._output()}, and {self.name} is stopped."
            )
        self._restarted = True

    def _output(self) -> str:
        """Where to look for the reason."""
        declared = self._declared()
        driver, path = log.driver(declared, _kind(declared)), log.path(declared, _kind(declared))
        if driver == "none":
            return "its output is not kept (log_driver)"
        return f"its output is in {path or repr(f'journalctl -u {host.unit(self.name)}')}"

    def _stop_steps(self) -> tuple[Step, ...]:
        """As the running process was declared; it is systemd's to stop where it has a unit."""
        stop, kind = self._stop()
        commands = self._batch.supervisors[kind].stop_commands(stop)
        return self._batch.stops[kind].steps(self.name, stop, commands, lambda: None)

    def _freeze_step(self, frozen: bool) -> Step:
        stop, kind = self._stop()
        commands = self._batch.supervisors[kind].freeze_commands(stop, frozen)

        def apply() -> None:
            stop, kind = self._stop()
            self._batch.supervisors[kind].freeze(stop, frozen)

        return Step("state", commands, apply)

    def _stop(self) -> tuple[Stop, str]:
        """How it is to be stopped, and by whom."""
        before = self._kept or self._entry
        number = signal_number(spec.stop_signal(before)) or int(signal.SIGTERM)
        systemd = self._batch.supervisors.get("systemd")
        kind = "systemd" if systemd and systemd.active(self.name) else "direct"
        place = surroundings.cgroup(self.name) if kind == "direct" else None
        return Stop(self.name, number, before.get("stop_timeout", 10), place), kind

    def _paused(self) -> bool:
        place = surroundings.cgroup(self.name)
        return place is not None and cgroup.read(place, "cgroup.freeze") == "1"

    def _forget_steps(self) -> Iterator[Step]:
        """Before the unit goes, as it would stay listed without its file."""
        if self._has_failed():
            yield systemctl.step("failure", "reset-failed", host.unit(self.name))

    def _absent(self, actual: State) -> list[Step]:
        steps: list[Step] = [self._freeze_step(False)] if actual["state"] == "paused" else []
        steps += self._stop_steps() if actual["state"] in RUNNING else ()
        steps += self._forget_steps()
        named = [("units", units.path(unit)) for unit in units.names(self.name)]
        for what, path in (*named, ("enabled", units.wants_path(self.name))):
            if str(path) in actual["files"]:
                steps.append(_file_step(what, path, None))
        if any(step.changes in ("units", "enabled") for step in steps):
            steps.append(systemctl.reload_step("units"))
        trees = [self._directory / "etc", *self._root.trees(), host.RUN / self.name]
        steps += [
            Step("files", (command(["rm", "-rf", path]),), _bound(_remove_tree, path))
            for path in trees
            if str(path) in actual["files"]
        ]
        for path in (
            self._directory / "config.json",
            self._directory / bundle.FILTER,
            self._directory / bundle.HEALTH,
            *self._root.files(),
            log.rotation_path(self.name),
            *log.files(self.name, self._kept),
        ):
            if str(path) in actual["files"]:
                steps.append(_file_step("files", path, None))
        own = surroundings.own_cgroup(self.name)
        if own is not None and str(own) in actual["files"]:
            steps.append(Step("cgroup", (command(["rmdir", own]),), _bound(_remove_cgroup, own)))
        return [*steps, self._declaration.remove_step()]

    # What is told.

    def facts(self, actual: State) -> Mapping[str, Any]:
        facts: dict[str, Any] = {"state": actual["state"], "pid": self._pid}
        if self._entry["state"] == "absent":
            return facts
        declared = self._declared()
        kind = _kind(declared)
        path = log.path(declared, kind)
        facts = {
            **facts,
            "supervisor": kind,
            "bundle": str(self._directory),
            "unit": host.unit(self.name) if kind == "systemd" else None,
            "log": None if path is None else str(path),
        }
        # A lesson is about one container; of many it would be most of the result.
        return {**facts, "recipe": self._recipe(declared)} if len(self._batch.resources) == 1 else facts

    def _recipe(self, declared: Entry) -> list[str]:
        config = spec.config(declared, surroundings.read(declared, _kind(declared)))
        top = surroundings.cgroup_mount()
        declared_path = config["linux"].get("cgroupsPath")
        place = f"{top}{declared_path}" if declared_path else None
        return recipe(str(self._directory), config, place)


def _kept(declared: Entry) -> dict[str, Any]:
    """What of a declaration is kept, in the order in which it is read back."""
    return dict(sorted((key, value) for key, value in OPTIONS.declaration(declared).items() if key != "name"))


def _raiser(failure: Failure) -> Callable[[], None]:
    def apply() -> None:
        raise failure

    return apply


def _bound(act: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: act(*arguments)


def _file_step(changes: str, path: Path, text: str | bytes | None) -> Step:
    """Writes a file, or removes it."""
    if text is None:
        return Step(changes, (command(["rm", "-f", path]),), lambda: _remove_file(path))
    return file_steps.write(changes, path, text)


def _remove_file(path: Path) -> None:
    file.remove(path)
    if path.parent == Path(bundle.LOGS):
        file.remove_empty(path.parent, up_to=path.parent.parent)


def _remove_tree(path: Path) -> None:
    file.remove_tree(path)
    if path.parent == host.RUN:
        file.remove_empty(host.RUN, up_to=host.RUN.parent)


def _remove_cgroup(path: Path) -> None:
    path.rmdir()
    file.remove_empty(path.parent, up_to=path.parent.parent)


def _write_in_place(path: Path, text: str) -> None:
    """Into the same file, as a running container has it mounted; what a kill leaves half is seen by the next
    run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.parent / f".{link.name}.new"
    file.remove(beside)
    beside.symlink_to(target)
    beside.rename(link)


def _read_config(path: Path) -> spec.Config | None:
    """The config at ``path``; a damaged one counts as none, and is written anew."""
    config = host.read_json(path)
    shape = {"root": dict, "process": dict, "mounts": list, "linux": dict}
    sound = isinstance(config, dict) and all(isinstance(config.get(key), shape[key]) for key in shape)
    return config if sound else None


def _shown(config: spec.Config | None) -> spec.Config | None:
    """A config as the state has it: in the place of its seccomp filter, which nobody reads in a diff, what
    tells it from another."""
    if config is None or "seccomp" not in config["linux"]:
        return config
    told = json.dumps(config["linux"]["seccomp"], sort_keys=True).encode()
    return {**config, "linux": {**config["linux"], "seccomp": _digest(told)}}


def _normal_filter(config: spec.Config) -> seccomp.Profile:
    """What is declared as ``linux.seccomp``, in normal form. Raises Failure."""
    bounding = config["process"].get("capabilities", {}).get("bounding", [])
    return seccomp.normalise(config["linux"]["seccomp"], seccomp.conditions(bounding))


def _filter(config: spec.Config) -> bytes | None:
    """What seccomp.bpf is to hold. Raises Failure."""
    profile = config["linux"].get("seccomp")
    return None if profile is None else seccomp_filter.compile_filter(profile)


def _digest(content: bytes | None) -> str | None:
    return None if content is None else f"sha256 {hashlib.sha256(content).hexdigest()}"


def _read_bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _paths(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where two plain values differ, as ``process.args``."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _paths(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
    elif before != after:
        yield where or "all"

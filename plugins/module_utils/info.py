# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers as the host sees them: what is declared, what the kernel has, and in what the two differ.

This is above the rooms, and the only place but the roles where they meet. What differs is found by running
each part from its kept declaration through the engine in check mode, so a container without drift is, by
construction, one that the next run leaves as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import host
from .cgroup import facts as cgroup_facts
from .cgroup import hierarchy
from .cgroup.options import OPTIONS as CGROUP
from .cgroup.resource import CgroupResource
from .cgroup.systemd import Units
from .container import facts as process_facts
from .container.options import OPTIONS as PROCESS
from .container.process import Process, Processes
from .converge import Failure, Outcome, Resource, State, Step, converge, sentence
from .network import dns
from .network import facts as network_facts
from .network.container import ContainerNetwork
from .network.declared import Network, namespace_path
from .network.dns import NameServers
from .network.firewall import Firewall
from .network.names import Names
from .network.namespace import exists
from .network.options import OPTIONS as NETWORK
from .network.shared import Host
from .network.survey import Survey
from .network.unit import BootUnit
from .options import Option, Options, differences
from .rootfs import resource as rootfs
from .rootfs.options import OPTIONS as ROOTFS
from .rootfs.web import without_passwords

Entry = Mapping[str, Any]


def _names(values: list[str]) -> list[str]:
    return [host.container_name(value) for value in values]


OPTIONS = Options(
    (
        Option("name", "list", elements="str", compare="set", normalise=_names),
        Option("size", "bool", default=False),
    )
)


def gather(names: Sequence[str] | None, *, size: bool) -> dict[str, dict[str, Any]]:
    """What there is to tell of these containers, or of all of ours, by name. Nothing is written.

    ``size`` adds what each has written to its root file system. What can't be found out about one is told in
    its ``errors``. Raises OSError where not even the names can be read.
    """
    found = _Inspection([_Container(name) for name in (host.names() if names is None else names)])
    found.compare()
    sizes = process_facts.disk_usage(each.upper for each in found.containers) if size else {}
    return {each.name: found.describe(each, sizes.get(str(each.upper))) for each in found.containers}


class _Container:
    """One container: what is kept of its declaration, and what has been found out about it so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = host.directory(name)
        self.upper = self.directory / ("rootfs" if (self.directory / "copied.json").exists() else "upper")
        self.errors: list[str] = []
        self.drift: list[dict[str, Any]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.declared: dict[str, dict[str, Any]] = {}
        for part in host.PARTS:
            with self.telling(part):
                kept = host.Declaration(name, part).read()
                if kept is not None:
                    self.declared[part] = kept
        if self.directory.is_dir() and not self.declared and not self.errors:
            self.errors.append(
                f"{self.directory} has no declaration in it, as after a run that was interrupted; declare it "
                "again, or have it absent."
            )

    @contextlib.contextmanager
    def telling(self, part: str) -> Iterator[None]:
        """Keeps what goes wrong in here for ``errors``."""
        try:
            with _making_sense_of(self.directory):
                yield
        except (Failure, OSError) as error:
            self.tell(part, error)

    def tell(self, part: str, error: Failure | OSError) -> None:
        told = f"{part}: {sentence(error) if isinstance(error, OSError) else error}"
        if told not in self.errors:
            self.errors.append(told)

    def take(self, part: str, outcome: Outcome) -> None:
        """What the engine found out about a part of it, or about what it shares with others."""
        if outcome.error:
            self.errors.append(f"{part}: {outcome.error}")
        elif outcome.changed:
            self.drift.append({"part": part, "name": outcome.name, **_drift(outcome)})

    def fact(self, part: str, name: str) -> Any:
        """One of the facts that the part's own module returns, or None."""
        outcome = self.outcomes.get(part)
        return None if outcome is None else outcome.facts.get(name)


class _Inspection:
    """The containers that are asked for, and what is read for all of them at once."""

    def __init__(self, containers: Sequence[_Container]) -> None:
        self.containers = containers
        self._survey = Survey()
        self._firewall = Firewall(self._survey)
        self._networks: dict[str, ContainerNetwork] = {}
        self._processes = Processes()
        self._units = Units()

    # What differs.

    def compare(self) -> None:
        """Has the engine compare every part that is declared, in check mode."""
        self._compare("rootfs", ROOTFS, _rootfs)
        self._compare("cgroup", CGROUP, self._cgroup, self._units.refresh)
        shared = [each(self._survey) for each in (Host, Names, NameServers, BootUnit)]
        self._compare("network", NETWORK, self._network, self._survey.refresh, [self._firewall, *shared])
        self._compare("process", PROCESS, self._process, self._processes.refresh)

    def _cgroup(self, entry: Entry) -> Resource:
        return CgroupResource(entry, self._units)

    def _network(self, entry: Entry) -> Resource:
        self._survey.task[entry["name"]] = Network.read_kept(entry["name"], entry)
        resource = ContainerNetwork(self._survey, entry["name"])
        self._networks[entry["name"]] = resource
        return resource

    def _process(self, entry: Entry) -> Resource:
        resource = Process(entry, self._processes)
        self._processes.resources.append(resource)
        return resource

    def _compare(
        self,
        part: str,
        options: Options,
        build: Callable[[Entry], Resource],
        refresh: Callable[[], None] = lambda: None,
        shared: Sequence[Resource] = (),
    ) -> None:
        """One part of all containers; what is ``shared`` concerns each of them that has it."""
        having: list[_Container] = []
        resources: list[Resource] = []
        for each in self.containers:
            if part in each.declared:
                with each.telling(part):
                    resource = build(options.entry(each.name, each.declared[part]))
                    resources.append(_Kept(resource, each.directory))
                    having.append(each)
        if not having:
            return
        try:
            with _making_sense_of(host.STATE):
                outcomes = converge([*resources, *shared], check=True, refresh=refresh)
        except (Failure, OSError) as error:
            for each in having:
                each.tell(part, error)
            return
        for each, outcome in zip(having, outcomes):
            each.outcomes[part] = outcome
            for concerning in (outcome, *outcomes[len(having) :]):
                each.take(part, concerning)

    # What is there.

    def describe(self, each: _Container, upper_size: int | None) -> dict[str, Any]:
        """All that is told of one container."""
        process = cgroup = network = health = None
        with each.telling("process"):
            process = process_facts.of(each.name)
            health = process_facts.health(each.name, each.declared.get("process", {}))
        with each.telling("cgroup"):
            cgroup = _describe_cgroup(each, process)
        with each.telling("network"):
            network = self._describe_network(each, process)
        with each.telling("process"):
            if process is not None and cgroup is not None:
                process["processes"] = process_facts.processes(Path(cgroup["path"]))
        supervisor = self._processes.supervisors.get(each.fact("process", "supervisor"))
        return {
            "state": _state(each, process, cgroup),
            "pid": None if process is None else process["pid"],
            **{name: each.fact("process", name) for name in ("supervisor", "unit", "bundle", "log")},
            **(supervisor.facts(each.name) if supervisor else {"restarts": None, "last_exit": None}),
            "health": health,
            "declared": {part: _shown(part, kept) for part, kept in each.declared.items()},
            "drift": each.drift,
            "errors": each.errors,
            "rootfs": _describe_rootfs(each, upper_size),
            "cgroup": cgroup,
            "network": network,
            "process": process,
        }

    def _describe_network(self, each: _Container, process: State | None) -> dict[str, Any]:
        """The namespace that the process is in, unless it is the host's, or else the one with its name."""
        named = namespace_path(each.name)
        path = named if exists(named) else None
        look = path if process is None else f"/proc/{process['pid']}/ns/net"
        if look is None or (process is not None and "net" in process["shared_namespaces"]):
            inside: dict[str, Any] = {"links": {}, "routes": [], "neighbours": []}
        else:
            inside = network_facts.inside(look, each.name, self._survey)
        own = self._networks[each.name].filter.counters if each.name in self._networks else []
        servers = dns.describe(self._survey.kept.get(each.name))
        return {
            "netns": path,
            **inside,
            "dns": servers,
            "rules": [*self._firewall.counters.get(each.name, []), *own],
        }


def _rootfs(entry: Entry) -> Resource:
    return rootfs.build([entry])[0]


class _Kept:
    """The resource of a kept declaration, in which there may be anything."""

    def __init__(self, resource: Resource, directory: Path) -> None:
        self.name = resource.name
        self._resource = resource
        self._directory = directory

    def read(self) -> State:
        with _making_sense_of(self._directory):
            return self._resource.read()

    def expect(self, actual: State) -> State:
        with _making_sense_of(self._directory):
            return self._resource.expect(actual)

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        with _making_sense_of(self._directory):
            return self._resource.plan(actual, expected)

    def facts(self, actual: State) -> Mapping[str, Any]:
        with _making_sense_of(self._directory):
            return self._resource.facts(actual)


@contextlib.contextmanager
def _making_sense_of(directory: Path) -> Iterator[None]:
    """A module writes only what it can read again; what people have made of it is told as damage."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Failure(f"What is kept in {directory} can't be made sense of: {error!r}.") from None


def _drift(outcome: Outcome) -> dict[str, Any]:
    before, after = _differing(outcome.before, outcome.after)
    return {
        "changes": list(dict.fromkeys(step.changes for step in outcome.steps)),
        "needs": max(step.needs for step in outcome.steps).name.lower(),
        "before": before,
        "after": after,
        "commands": outcome.commands,
    }


def _differing(before: State, after: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without what is the same in both, at any depth."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for name, (one, other) in differences(before, after).items():
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            left[name], right[name] = _differing(one, other)
        else:
            left[name], right[name] = one, other
    return left, right


def _state(each: _Container, process: State | None, cgroup: State | None) -> str:
    if process is not None:
        return "paused" if cgroup is not None and cgroup["frozen"] else "started"
    outcome = each.outcomes.get("process")
    found = {} if outcome is None else outcome.before
    if found.get("state") == "started":
        return "started"  # as far as systemd is concerned, which is about to start it again
    if found.get("config") is not None:
        return "stopped"
    return "half-made" if each.directory.is_dir() else "absent"


def _describe_rootfs(each: _Container, upper_size: int | None) -> dict[str, Any]:
    process = each.declared.get("process", {})
    return {
        "layers": [process["rootfs"]] if "rootfs" in process else each.fact("rootfs", "layers") or [],
        "mode": process.get("rootfs_mode"),
        "upper": str(each.upper) if each.upper.is_dir() else None,
        "upper_size": upper_size,
    }


def _describe_cgroup(each: _Container, process: State | None) -> dict[str, Any] | None:
    """The cgroup that the process is in, or else the declared one if it exists."""
    if process is not None:
        path = hierarchy.root() / process["cgroup"].lstrip("/")
    elif each.fact("cgroup", "cgroup_path"):
        path = Path(each.fact("cgroup", "cgroup_path"))
    else:
        return None
    return cgroup_facts.of(path, list(each.declared.get("cgroup", {}).get("controls", {})))


def _shown(part: str, kept: Entry) -> dict[str, Any]:
    """A declaration without the passwords that may be in the addresses of a root file system."""
    return dict(without_passwords(kept) if part == "rootfs" else kept)

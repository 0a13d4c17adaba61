# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing leaks: a host has what is declared and nothing else, whenever and however often a run is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import census
import pytest


class Host:
    """A machine with containers, counted and converged as the role does it."""

    def __init__(self, containers: Any, eventually: Any) -> None:
        self.containers = containers
        self.machine = containers.machine
        self.eventually = eventually

    def census(self) -> census.Census:
        return census.take(self.machine, self.containers.cgroups)

    def see(self, wanted: census.Census) -> None:
        """Waits until all is as in a census before: what the kernel ends is not gone at once."""
        with contextlib.suppress(AssertionError):
            self.eventually(lambda: self.census() == wanted, 10)
        assert census.difference(wanted, self.census()) == {}

    def converge(self, tasks: list[Task]) -> bool:
        """Runs modules one after the other; whether any of them changed something."""
        results = [self.machine.module(module, arguments) for module, arguments in tasks]
        assert [result["msg"] for result in results if result.get("failed")] == []
        return any(result["changed"] for result in results)

    def pids(self) -> dict[str, int]:
        """The first process of every container that runs, by name."""
        states = Path(f"/proc/{self.machine.pid}/root/run/bare-containers").glob("*/state.json")
        return {path.parent.name: json.loads(path.read_text())["pid"] for path in states}


Task = tuple[str, dict[str, Any]]
"""A module and its arguments."""


@pytest.fixture
def host(containers: Any, eventually: Any) -> Host:
    return Host(containers, eventually)


COUNT = 100


class Fleet:
    """Containers as the role declares them, in one batch for each module."""

    def __init__(self, containers: Any) -> None:
        self._name = containers.name

    def tasks(self, *entries: dict[str, Any]) -> list[Task]:
        """The role's tasks, in its order."""
        gone = [entry for entry in entries if entry["absent"]]
        tasks = [("container_process", gone)] if gone else []
        modules = ("rootfs_fetch", "cgroup_v2", "netns_veth")
        tasks += [(module, entries) for module in modules]
        tasks += [("container_process", [entry for entry in entries if not entry["absent"]])]
        return [(module, {"batch": [self._part(module, each) for each in of]}) for module, of in tasks if of]

    def _part(self, module: str, entry: dict[str, Any]) -> dict[str, Any]:
        """What one container says to one module."""
        number, name = entry["number"], self._name(f"c{entry['number']}")
        if entry["absent"]:
            return {"name": name, "state": "absent", **entry["more"].get(module, {})}
        parts: dict[str, Any] = {
            "rootfs_fetch": {"busybox": True},
            "cgroup_v2": {"controls": {"cgroup.max.depth": entry["depth"]}, "manager": "cgroupfs"},
            "netns_veth": {
                "bridge": "bare0",
                "address": f"10.200.{entry['depth']}.{number}/16",
                "publish": [f"{9000 + number}:80"],
            },
            "container_process": {
                "command": ["sleep", "1000"],
                "env": {"DEPTH": entry["depth"]},
                "stop_timeout": 0,
            },
        }
        return {"name": name, **parts[module]}


def declared(numbers: range, depth: int = 3, *, absent: bool = False, **more: Any) -> list[dict[str, Any]]:
    """Containers, each with a number; ``depth`` tells one declaration of them from another, ``more`` are
    options of a module's beside ``state: absent``."""
    return [{"number": number, "depth": depth, "absent": absent, "more": more} for number in numbers]


def test_a_hundred_containers_and_fifty_killed_runs_leave_nothing(host: Host, instants: Any) -> None:
    """While ninety-two stand, others are added, changed and removed, one way and back, by runs that are
    killed: hardly a task comes to its end, and the next begins with what is there then."""
    fleet = Fleet(host.containers)
    everything = declared(range(1, COUNT + 1))
    empty = host.census()
    assert host.converge(fleet.tasks(*everything))
    whole, pids = host.census(), host.pids()
    back, forth = (
        fleet.tasks(
            *declared(range(93, 97), depth=depth),
            *declared(range(97, 101), absent=depth == 4),
            *declared(range(101, 105), absent=depth == 3),
        )
        for depth in (3, 4)
    )
    seconds = {}
    for tasks in (forth, back):
        for number, task in enumerate(tasks):
            began = time.monotonic()
            assert host.converge([task])
            seconds[number] = instants.within(0, time.monotonic() - began, 10)
    killed = 0
    for tasks in (back, forth) * 5:
        for number, task in enumerate(tasks):
            killed += host.machine.module_killed_after(seconds[number].pop(), *task) is None
    # A busy machine may have measured some that then were faster.
    assert killed > 25
    assert host.converge(back)
    host.see(whole)
    assert not host.converge(fleet.tasks(*everything))
    standing = {host.containers.name(f"c{number}") for number in range(1, 93)}
    assert {name: host.pids()[name] for name in standing} == {name: pids[name] for name in standing}
    gone = declared(range(1, COUNT + 1), absent=True, rootfs_fetch={"gc": True})
    assert host.converge(fleet.tasks(*gone))
    host.see(empty)


MAPPED = ["0:100000:65536"]
STATES = {
    "cgroup_v2": [
        {
            "manager": "cgroupfs",
            "parent": "bare/deeper",
            "controls": {"cgroup.max.depth": 3},
            "state": "frozen",
        },
        {"manager": "cgroupfs", "controls": {"cgroup.max.depth": 4}},
        {"manager": "cgroupfs", "state": "absent"},
    ],
    "container_process": [
        {"rootfs": "/var/lib/tree", "command": ["sleep", "1001"], "stop_timeout": 0},
        {
            "rootfs": "/var/lib/tree",
            "command": ["sleep", "1002"],
            "stop_timeout": 0,
            "uidmap": MAPPED,
            "rootfs_mode": "tmpfs",
        },
        {"state": "absent"},
    ],
}
"""For each module declarations that follow one another; the others have tests of their own."""

SWEEP = """
if cd /run/bare-containers/lock 2> /dev/null; then
    rm -f *; cd ../..; rmdir --ignore-fail-on-non-empty -p bare-containers/lock
fi
"""


class TestKilled:
    """SIGKILL for a module, at instants all over the time that it takes."""

    @pytest.mark.parametrize("module", STATES)
    def test_the_next_run_converges(self, host: Host, instants: Any, module: str) -> None:
        tasks = [(module, {"name": host.containers.name("one"), **state}) for state in STATES[module]]
        wanted, took = [], []
        for task in tasks:
            began = time.monotonic()
            assert host.converge([task])
            took.append(time.monotonic() - began)
            wanted.append(host.census())
        changed = set()
        for number, seconds in enumerate(instants.within(0, max(took))):
            at = number % len(tasks)
            host.machine.module_killed_after(seconds, *tasks[at])
            changed.add(host.converge([tasks[at]]))
            assert not host.converge([tasks[at]])
            # A lock's file goes with the next run that changes something, which this one need not.
            host.machine.shell(SWEEP)
            host.see(wanted[at])
        assert changed == {True, False}

    def test_a_command_ends_with_its_module(self, host: Host, instants: Any) -> None:
        host.containers.converge()
        host.containers.execute(command=["true"])
        before = host.census()
        began = time.monotonic()
        host.containers.execute(command=["true"])
        took = time.monotonic() - began
        task = ("nsenter_exec", {"name": host.containers.name("one"), "command": ["sleep", "1001"]})
        for seconds in instants.within(0, took * 1.5):
            assert host.machine.module_killed_after(seconds, *task) is None
            host.see(before)

    @pytest.mark.parametrize("module", ["container_process", "nsenter_exec"])
    def test_a_launcher_just_begun_does_not_outlive_its_module(self, host: Host, module: str) -> None:
        """Before it could see to that itself: an interpreter takes a while to start."""
        if module == "nsenter_exec":
            host.containers.converge()
        before = host.census()
        words = host.machine.module_command(module)
        script = words.index("-c") + 1
        words[script] = KILL_ONCE_STARTED + words[script]
        arguments = json.dumps(host.containers.options("one", command=["sleep", "1001"]))
        if module == "nsenter_exec":
            arguments = json.dumps({"name": host.containers.name("one"), "command": ["sleep", "1001"]})
        killed = subprocess.run(words, input=arguments, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL
        host.eventually(lambda: not any("launch" in line for line in host.census()["processes"]))
        assert census.difference(before, host.census()).keys() <= {"files"}


KILL_ONCE_STARTED = """
import os, subprocess

class Popen(subprocess.Popen):
    def __init__(self, words, **options):
        super().__init__(words, **options)
        if "bare-containers/launch" in words[0]:
            os.kill(os.getpid(), 9)

subprocess.Popen = Popen
"""


# What a census sees, each with the kinds of things that something of it comes in.
PLANTED = {
    "a mount": ("mount --bind /var/lib/tree /var/lib/tree", "umount /var/lib/tree", {"mounts"}),
    "a mount on a mount": ("mount -t tmpfs tmpfs /run", "umount /run", {"mounts", "files"}),
    "a named network namespace": (
        "ip netns add left",
        "ip netns delete left; umount /run/netns; rmdir /run/netns",
        {"mounts", "namespaces", "files"},
    ),
    "a link": ("ip link add left type bridge", "ip link delete left", {"links"}),
    "a rule": ("nft add table inet left", "nft delete table inet left", {"rules"}),
    "a cgroup": ("mkdir $cgroups/$left", "rmdir $cgroups/$left", {"cgroups"}),
    "a file": (
        "mkdir -p /var/lib/bare-containers; touch /var/lib/bare-containers/left",
        "rm -r /var/lib/bare-containers",
        {"files"},
    ),
    "an empty folder": ("mkdir -p /run/bare-containers/left", "rm -r /run/bare-containers", {"files"}),
}


class TestCensus:
    """It notices each kind of leak, one of each planted; else the tests below would show nothing."""

    @pytest.mark.parametrize("planted", PLANTED)
    def test_it_notices(self, host: Host, planted: str) -> None:
        plant, remove, kinds = PLANTED[planted]
        cgroups = (
            f"cgroups={host.containers.cgroups}; left={host.containers.name('left')}; mkdir -p $cgroups; "
        )
        host.machine.shell(cgroups)
        before = host.census()
        host.machine.shell(cgroups + plant)
        try:
            noticed = census.difference(before, host.census())
        finally:
            host.machine.shell(cgroups + remove)
        assert set(noticed) == kinds
        host.see(before)

    def test_it_notices_a_process_wherever_it_is(self, host: Host) -> None:
        before = host.census()
        with started(host.machine.command("sleep", "1001")):
            assert set(census.difference(before, host.census())) == {"processes", "descriptors"}
        host.see(before)
        cgroup = host.containers.cgroup("left")
        cgroup.mkdir(parents=True)
        before = host.census()
        join = f"echo $$ > {cgroup}/cgroup.procs; exec unshare --net --mount --ipc sleep 1001"
        with started(["sh", "-ec", join]) as process:
            host.eventually(lambda: command_of(process).startswith("sleep"))
            noticed = census.difference(before, host.census())
        assert set(noticed) == {"processes", "descriptors", "namespaces"}
        assert noticed["namespaces"] == ["+ ipc", "+ mnt", "+ net"]
        host.see(before)

    def test_it_notices_a_descriptor_of_a_process_that_was_there(self, host: Host) -> None:
        script = "input(); kept = open('/etc/hosts'); print('ready', flush=True); input()"
        command = host.machine.command("python3", "-c", script)
        with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            host.eventually(lambda: command_of(process).startswith("python3"))
            before = host.census()
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            noticed = census.difference(before, host.census())
        assert set(noticed) == {"descriptors"}
        (line,) = noticed["descriptors"]
        assert line.startswith("+ ")
        assert line.endswith(": /etc/hosts")


@contextlib.contextmanager
def started(words: list[str], **options: Any) -> Iterator[Any]:
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def command_of(process: Any) -> str:
    with open(f"/proc/{process.pid}/cmdline") as file:
        return file.read()

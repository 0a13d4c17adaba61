# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of one bridge find each other by name, by what is in their /etc/hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from networks import converge

SUBNETS = ["10.207.0.0/24", "fd00:207::/64"]


class Bridge:
    """Containers behind bridges, which run unless told otherwise."""

    def __init__(self, containers: Any) -> None:
        self.containers = containers
        self.machine = containers.machine

    def entry(self, name: str, **options: Any) -> dict[str, Any]:
        own = {"name": self.containers.name(name), "bridge": "bare7", "subnet": SUBNETS}
        return {**own, **options}

    def join(self, *names: str, run: bool = True, **options: Any) -> dict[str, Any]:
        result = converge(self.machine, {"batch": [self.entry(name, **options) for name in names]})
        for name in names if run else ():
            self.containers.converge(name)
        return result

    def leave(self, name: str) -> None:
        converge(self.machine, {"name": self.containers.name(name), "state": "absent"})

    def hosts(self, name: str) -> list[str]:
        """What the container itself sees."""
        return list(self.containers.inside("cat /etc/hosts", name).splitlines())

    def names(self, name: str) -> dict[str, list[str]]:
        """Addresses by name, without what every container has."""
        found: dict[str, list[str]] = {}
        lines = self.hosts(name)
        for line in lines[lines.index("# Of the containers on the same bridge:") + 1 :]:
            address, other = line.split()
            found.setdefault(other.partition("-")[2], []).append(address)
        return found

    def inode(self, name: str) -> str:
        return str(self.containers.inside("stat -c %i /etc/hosts", name))


@pytest.fixture
def bridge(containers: Any) -> Bridge:
    return Bridge(containers)


def lasts(**numbers: int) -> Mapping[str, list[str]]:
    return {name: [f"10.207.0.{last}", f"fd00:207::{last}"] for name, last in numbers.items()}


def test_they_reach_each_other_by_name(bridge: Bridge) -> None:
    bridge.join("one", "two")
    for one, other in (("one", "two"), ("two", "one")):
        peer = bridge.containers.name(other)
        assert "10.207.0." in bridge.containers.inside(f"ping -4 -c1 -W5 {peer}", one)
        assert "fd00:207::" in bridge.containers.inside(f"ping -6 -c1 -W5 {peer}", one)
        assert bridge.names(one) == lasts(one=2, two=3)


def test_who_comes_and_goes_is_known_to_those_that_run(bridge: Bridge) -> None:
    bridge.join("one", "two")
    before = {name: (bridge.containers.pid(name), bridge.inode(name)) for name in ("one", "two")}
    bridge.join("three", run=False)
    assert bridge.names("one") == bridge.names("two") == lasts(one=2, two=3, three=4)
    bridge.leave("three")
    assert bridge.names("one") == lasts(one=2, two=3)
    bridge.join("two", address=["10.207.0.9/24"])
    assert bridge.names("one")["two"] == ["10.207.0.9", "fd00:207::3"]
    assert before == {name: (bridge.containers.pid(name), bridge.inode(name)) for name in ("one", "two")}
    bridge.leave("two")
    assert bridge.names("one") == lasts(one=2)


def test_other_bridges_have_their_own(bridge: Bridge) -> None:
    bridge.join("one")
    bridge.join("two", bridge="bare8", subnet=["10.208.0.0/24"])
    assert bridge.names("one") == lasts(one=2)
    assert bridge.names("two") == {"two": ["10.208.0.2"]}
    # It moves over.
    bridge.join("two", run=False)
    assert bridge.names("one") == bridge.names("two") == lasts(one=2, two=3)


def test_a_second_run_writes_nothing(bridge: Bridge) -> None:
    bridge.join("one", "two")
    before = bridge.containers.files()
    assert not bridge.join("one", "two", run=False)["changed"]
    bridge.containers.converge("one")
    assert bridge.containers.files() == before


def test_a_container_that_starts_again_has_them_as_they_are_then(bridge: Bridge) -> None:
    bridge.join("one")
    bridge.containers.converge("one", state="stopped")
    bridge.join("two", run=False)
    bridge.containers.converge("one")
    assert bridge.names("one") == lasts(one=2, two=3)
    bridge.containers.converge("one", etc_hosts={"peer": "10.9.8.9"})
    assert bridge.names("one") == lasts(one=2, two=3)
    assert "10.9.8.9 peer" in bridge.hosts("one")


NAMES = "/var/lib/bare-containers/network/names"
LIST = f"{NAMES}/bare7/hosts"

DRIFTS = {
    "list gone": f"rm {LIST}",
    "list changed": f"echo 10.0.0.1 mallory >> {LIST}",
    "list of nobody": f"mkdir {NAMES}/other; echo 10.0.0.1 mallory > {NAMES}/other/hosts",
    "line taken out": "sed -i '$d' HOSTS.new; cat HOSTS.new > HOSTS; rm HOSTS.new",
    "line added": "echo 10.0.0.1 mallory >> HOSTS",
    "no text": "printf '\\377\\0' >> HOSTS",
    "all names gone": "sed '/same bridge/,$d' HOSTS > HOSTS.new; cat HOSTS.new > HOSTS; rm HOSTS.new",
    "without end": "head -c 3000000 /dev/zero | tr '\\\\0' x >> HOSTS",
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_reported_and_repaired(bridge: Bridge, drift: str) -> None:
    bridge.join("one", "two")
    declared = {"batch": [bridge.entry("one"), bridge.entry("two")]}
    hosts = f"{bridge.containers.directory('one')}/etc/hosts"
    before = bridge.hosts("one"), bridge.inode("one"), bridge.machine.run("cat", LIST)
    bridge.machine.shell(f"cp {hosts} {hosts}.new")
    bridge.machine.shell(drift.replace("HOSTS", hosts) + f"\nrm -f {hosts}.new")
    foretold = converge(bridge.machine, declared, check=True)
    repaired = converge(bridge.machine, declared)
    assert repaired["diff"] == foretold["diff"]
    changed = [name for name, outcome in repaired["containers"].items() if outcome["changed"]]
    assert changed == ["_names"]
    assert (bridge.hosts("one"), bridge.inode("one"), bridge.machine.run("cat", LIST)) == before
    assert "mallory" not in bridge.machine.shell(f"cat {NAMES}/*/*")


def test_the_commands_write_the_same(bridge: Bridge) -> None:
    bridge.join("one")
    three = {"batch": [bridge.entry("one"), bridge.entry("two")]}
    bridge.machine.shell("\n".join(converge(bridge.machine, three, check=True)["commands"]))
    assert bridge.names("one") == lasts(one=2, two=3)
    assert not converge(bridge.machine, three)["changed"]
    gone = {"name": bridge.containers.name("two"), "state": "absent"}
    bridge.machine.shell("\n".join(converge(bridge.machine, gone, check=True)["commands"]))
    assert bridge.names("one") == lasts(one=2)
    assert not converge(bridge.machine, gone)["changed"]


def test_nothing_is_left_of_the_last(bridge: Bridge) -> None:
    bridge.join("one", "two", run=False)
    for name in ("one", "two"):
        bridge.leave(name)
    assert "network" not in bridge.machine.shell("ls /var/lib/bare-containers 2> /dev/null || true")


def test_one_whose_declaration_is_damaged_keeps_its_name(bridge: Bridge) -> None:
    bridge.join("one", "two")
    bridge.machine.shell(f"echo '{{' > {bridge.containers.directory('one')}/network.json")
    assert not converge(bridge.machine, bridge.entry("two"))["changed"]
    assert bridge.names("one") == bridge.names("two") == lasts(one=2, two=3)


def test_behind_two_bridges_it_has_the_names_of_both(bridge: Bridge) -> None:
    second = {"interface": "eth1", "bridge": "bare8", "address": "10.217.0.9/24"}
    bridge.join("one")
    bridge.join("far", bridge="bare8", subnet=["10.217.0.0/24"])
    bridge.join("both", interfaces=[second])
    # Each of the others knows it by the address that is on its own bridge.
    assert bridge.names("one")["both"] == ["10.207.0.3", "fd00:207::3"]
    assert bridge.names("far")["both"] == ["10.217.0.9"]
    hosts = bridge.hosts("both")
    far = bridge.containers.name("far")
    assert f"10.217.0.2 {far}" in hosts
    assert {"10.207.0.3", "fd00:207::3", "10.217.0.9"} <= {line.split()[0] for line in hosts if line}
    for other in ("one", "far"):
        bridge.containers.inside(f"ping -4 -c1 -W5 {bridge.containers.name(other)}", "both")
    # Written by the launcher or by the module, it is the same.
    assert not bridge.join("both", interfaces=[second], run=False)["changed"]
    bridge.join("both", run=False)
    assert f"10.217.0.2 {far}" not in bridge.hosts("both")
    bridge.join("both", interfaces=[second], run=False)
    assert bridge.hosts("both") == hosts


def test_check_mode_foretells_the_commands_whatever_the_network_writes_in_between(bridge: Bridge) -> None:
    bridge.join("one")
    changed = {"etc_hosts": {"peer": "10.9.8.9"}}
    foretold = bridge.containers.converge("one", check=True, **changed)["commands"]
    bridge.join("two", run=False)
    bridge.join("one", run=False, address=["10.207.0.9/24"])
    lines = bridge.hosts("one")
    done = bridge.containers.converge("one", **changed)["commands"]
    assert foretold == done
    assert sorted(bridge.hosts("one")) == sorted(["10.9.8.9 peer", *lines])
    bridge.machine.shell("\n".join(bridge.containers.converge("one", check=True)["commands"]))
    assert sorted(bridge.hosts("one")) == sorted(lines)

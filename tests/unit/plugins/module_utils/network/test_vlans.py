# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.network import netlink, vlans
from ansible_collections.bare.containers.plugins.module_utils.network.link import Place, link_steps
from hypothesis import given
from hypothesis import strategies as st

IDS = st.sets(st.integers(1, 4094), max_size=30) | st.sets(st.integers(1, 12))
FLAGS = st.sampled_from(["", "untagged", "pvid untagged", "self"])
LINES = st.dictionaries(st.integers(1, 12), FLAGS).map(vlans.lines)


def taken_apart(lines):
    return {number: line.partition(" ")[2] for line in lines for number in vlans.ids(line)}


@given(IDS)
def test_ranges_are_as_few_as_can_be(ids):
    found = vlans.ranges(ids)
    assert [number for each in found for number in vlans.ids(each)] == sorted(ids)
    assert len(found) == len([number for number in ids if number - 1 not in ids])


@given(st.dictionaries(st.integers(1, 4094), FLAGS, max_size=20))
def test_lines_say_all_of_it_and_in_one_order(flags):
    lines = vlans.lines(flags)
    assert taken_apart(lines) == flags
    assert lines == vlans.lines(dict(reversed(flags.items())))


def test_what_ports_and_bridges_are_in():
    assert vlans.port(10, ["20-30", "5"]) == ["5", "10 pvid untagged", "20-30"]
    assert vlans.port(0) == vlans.port(None) == []
    assert vlans.own([11, 10]) == ["1 pvid untagged self", "10-11 self"]


class Bridge:
    """The VLANs of one port as the kernel keeps them (net/bridge/br_vlan.c)."""

    def __init__(self, lines):
        self.flags = taken_apart(lines)

    def run(self, command):
        bridge, vlan, verb, _dev, _link, _vid, ids, *flags = command.split()
        assert (bridge, vlan) == ("bridge", "vlan")
        for number in vlans.ids(ids):
            if verb == "delete":
                self.flags.pop(number, None)
            else:
                assert verb == "add"
                self.flags[number] = " ".join(flags)


@given(LINES, LINES)
def test_from_whatever_a_port_is_in_to_what_is_wanted(now, wanted):
    bridge = Bridge(now)
    for command in Place().set_vlans("vlans", "v0", now, wanted).commands:
        bridge.run(command)
    assert vlans.lines(bridge.flags) == wanted


def test_a_port_leaves_one_vlan_before_it_is_in_another():
    assert Place().set_vlans("vlans", "v0", vlans.port(1), vlans.port(10, ["20-30"])).commands == (
        "bridge vlan delete dev v0 vid 1",
        "bridge vlan add dev v0 vid 10 pvid untagged",
        "bridge vlan add dev v0 vid 20-30",
    )
    assert Place().set_vlans("vlans", "bare0", vlans.own([20]), vlans.own([10])).commands == (
        "bridge vlan delete dev bare0 vid 20 self",
        "bridge vlan add dev bare0 vid 10 self",
    )


class Message(dict):
    """What pyroute2 decodes of a port, or of the bridge, which is its own master."""

    def __init__(self, index, infos):
        super().__init__(index=index)
        self.infos = infos

    def get_attr(self, name):
        return {"IFLA_MASTER": 4, "IFLA_AF_SPEC": self if self.infos else None}[name]

    def get_attrs(self, name):
        assert name == "IFLA_BRIDGE_VLAN_INFO"
        return [{"vid": vid, "flags": flags} for vid, flags in self.infos or ()]


class Session:
    """Keeps what it is asked, and answers with what it was asked last."""

    def __init__(self, *messages):
        self.messages = messages

    def link(self, command, **_options):
        assert command == "dump"
        return self.messages

    def vlan_filter(self, command, index, af_spec):
        self.messages = (
            Message(
                index, [(each["vid"], each["flags"]) for name, each in af_spec["attrs"] if "INFO" in name]
            ),
        )


def test_what_the_kernel_tells_is_read():
    """As Linux 6.1 tells it: a range has a line for its begin and one for its end (linux/if_bridge.h)."""
    session = Session(
        Message(4, [(1, 6), (10, 0)]), Message(7, [(10, 0), (20, 8), (30, 16), (99, 6)]), Message(8, None)
    )
    assert netlink.port_vlans(session) == {
        4: ["1 pvid untagged self", "10 self"],
        7: ["10", "20-30", "99 pvid untagged"],
        8: [],
    }


@given(
    st.dictionaries(st.integers(1, 20), st.sampled_from(["", "untagged", "pvid untagged"])).map(vlans.lines)
)
def test_what_is_asked_of_the_kernel_is_what_it_tells(lines):
    session = Session()
    netlink.set_port_vlans(session, 7, "add", lines)
    assert netlink.port_vlans(session) == {7: lines}


PORT = {"up": True, "master": "bare0", "vlans": ["1 pvid untagged"], "addresses": []}


def commands(now, wanted):
    return [line for step in link_steps(Place(), "link", "v0", now, wanted) for line in step.commands]


@pytest.mark.parametrize(
    ("now", "wanted", "done"),
    [
        (
            ["10 pvid untagged"],
            None,
            ["bridge vlan delete dev v0 vid 10", "bridge vlan add dev v0 vid 1 pvid untagged"],
        ),
        (["1 pvid untagged"], None, []),
        (None, None, []),
        ([], ["1 pvid untagged"], ["bridge vlan add dev v0 vid 1 pvid untagged"]),
        (["1 pvid untagged"], [], ["bridge vlan delete dev v0 vid 1"]),
    ],
)
def test_a_port_of_a_bridge_that_tells_none_apart_is_in_the_usual_one(now, wanted, done):
    assert commands({**PORT, "vlans": now}, {**PORT, "vlans": wanted}) == done


def test_a_new_port_is_in_its_vlans_before_it_is_up():
    now = {**PORT, "up": False, "master": None}
    assert commands(now, {**PORT, "vlans": ["10 pvid untagged"]}) == [
        "ip link set dev v0 master bare0",
        "bridge vlan delete dev v0 vid 1",
        "bridge vlan add dev v0 vid 10 pvid untagged",
        "ip link set dev v0 up",
    ]

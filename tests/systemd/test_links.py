# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of containers on a host whose kernel has all kinds of links, and whose PID 1 is systemd."""

from __future__ import annotations

import json

import pytest
from networks import alike, ask, inside, serving, snapshot

A = {
    "name": "a",
    "bridge": "bare0",
    "vlan": 10,
    "address": ["10.220.10.2/24", "fd00:220:10::2/64"],
    "nat": True,
    "publish": ["8080:80"],
}
B = {"name": "b", "bridge": "bare0", "vlan": 10, "address": ["10.220.10.3/24", "fd00:220:10::3/64"]}
C = {"name": "c", "bridge": "bare0", "vlan": 20, "address": "10.220.20.2/24"}
PLAIN = {"name": "plain", "bridge": "bare0", "address": "10.220.0.2/24"}
TRUNK = {"name": "trunk", "bridge": "bare0", "vlan": 99, "vlan_trunk": [10, "20-30"]}
VLANS = {"batch": [A, B, C, PLAIN, TRUNK]}
UNTAGGED = ["PVID", "Egress Untagged"]

OUTSIDE = """
ip netns add outside
ip link add wan type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev wan
ip link set wan up
ip -n outside address add 192.0.2.2/24 dev eth0
ip -n outside link set eth0 up
ip -n outside link set lo up
ip -n outside route add default via 192.0.2.1
echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra
"""


def nothing(arguments):
    return {"batch": [{"name": each["name"], "state": "absent"} for each in arguments["batch"]]}


def veth(arguments, **options):
    return {"bare.containers.netns_veth": arguments, **options}


def converge(host, *each, check=()):
    """The results of runs that all succeed, in one play."""
    results = host.modules("netns_veth", each, check=check)
    for result in results:
        assert not result.get("failed"), result["msg"]
    return results


def vlans(host):
    """What bridge(8) tells of each port, and of the bridge: id and flags."""
    return {
        port["ifname"]: {
            number: each.get("flags", [])
            for each in port["vlans"]
            for number in range(each["vlan"], each.get("vlanEnd", each["vlan"]) + 1)
        }
        for port in json.loads(host.shell("bridge -j vlan show"))
    }


@pytest.fixture(scope="module")
def bridged(host):
    """The containers in VLANs: a snapshot of the host before, the result of their declaration, one after it."""
    host.shell(OUTSIDE)
    empty = snapshot(host)
    foretold, made, again = converge(host, VLANS, VLANS, VLANS, check=[True])
    yield empty, foretold, made, again, snapshot(host)
    converge(host, nothing(VLANS))
    assert snapshot(host) == empty
    host.shell("ip link delete wan; ip netns delete outside")


class TestVlans:
    def test_each_port_is_in_those_declared(self, host, bridged):
        assert vlans(host) == {
            "bare0": {1: UNTAGGED, 10: [], 20: []},
            "bare-a": {10: UNTAGGED},
            "bare-b": {10: UNTAGGED},
            "bare-c": {20: UNTAGGED},
            "bare-plain": {1: UNTAGGED},
            "bare-trunk": {99: UNTAGGED, 10: [], **{number: [] for number in range(20, 31)}},
        }
        assert alike(snapshot(host)) == alike(bridged[-1])

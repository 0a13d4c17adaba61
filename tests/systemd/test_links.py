# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""netns_veth on a kernel that has all kinds of links: VLANs of bridges, and links shared with the host."""

from __future__ import annotations

import contextlib
import json
import shlex

import pytest
import yaml
from ansible_collections.bare.containers.plugins.modules import netns_veth
from networks import SERVER, alike, ask, inside, snapshot

A = {
    "name": "a",
    "bridge": "bare0",
    "vlan": 10,
    "address": ["10.220.10.2/24", "fd00:220:10::2/64"],
    "nat": True,
    "publish": ["8080:80"],
    "dns": "dynamic",
}
B = {
    "name": "b",
    "bridge": "bare0",
    "vlan": 10,
    "address": ["10.220.10.3/24", "fd00:220:10::3/64"],
    "dns": "dynamic",
}
C = {"name": "c", "bridge": "bare0", "vlan": 20, "address": "10.220.20.2/24"}
PLAIN = {"name": "plain", "bridge": "bare0", "address": "10.220.0.2/24"}
TRUNK = {"name": "trunk", "bridge": "bare0", "vlan": 99, "vlan_trunk": [10, "20-30"]}
VLANS = {"batch": [A, B, C, PLAIN, TRUNK]}

UNTAGGED = ["PVID", "Egress Untagged"]
PORTS = {
    "bare0": {1: UNTAGGED, 10: [], 20: []},
    "bare-a": {10: UNTAGGED},
    "bare-b": {10: UNTAGGED},
    "bare-c": {20: UNTAGGED},
    "bare-plain": {1: UNTAGGED},
    "bare-trunk": {99: UNTAGGED, 10: [], **{number: [] for number in range(20, 31)}},
}

# The host's own network is IPv6 too, learned from a router; forwarding would lose it.
OUTSIDE = """
echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra
ip netns add outside
ip link add wan address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns outside
ip address add 192.0.2.1/24 dev wan
ip address add 2001:db8::1/64 dev wan nodad
ip link set wan up
ip -n outside address add 192.0.2.2/24 dev eth0
ip -n outside address add 2001:db8::2/64 dev eth0 nodad
ip -n outside link set eth0 up
ip -n outside link set lo up
"""


@pytest.fixture(scope="module", autouse=True)
def outside(host):
    """A network beyond the host, behind its link wan: somebody else is there."""
    host.shell(OUTSIDE)
    yield
    host.shell("ip link delete wan; ip netns delete outside; echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra")


def absent(arguments):
    return {"batch": [{"name": each["name"], "state": "absent"} for each in arguments["batch"]]}


def converge(host, *each, check=()):
    """The results of runs that all succeed, in one play."""
    results = host.modules("netns_veth", each, check=check)
    for result in results:
        assert not result.get("failed"), result["msg"]
    return results


def drift(host, script, arguments):
    """What a run tells beforehand, and one that repairs, of what a script has changed."""
    told, repaired = (
        result
        for result in host.results(
            [
                {"ansible.builtin.shell": f"set -e\n{script}"},
                {"bare.containers.netns_veth": arguments, "check_mode": True},
                {"bare.containers.netns_veth": arguments},
            ]
        )[1:]
    )
    assert not repaired.get("failed"), repaired["msg"]
    assert told["diff"] == repaired["diff"]
    return {
        f"{key}.{name}.{setting}"
        for part in _befores_and_afters(told)
        for key, links in part.items()
        if isinstance(links, dict)
        for name, settings in links.items()
        for setting in (settings if isinstance(settings, dict) else ("",))
    }


def _befores_and_afters(result):
    for diff in result["diff"]:
        for side in ("before", "after"):
            shown = yaml.safe_load(diff[side]) if isinstance(diff[side], str) else diff[side]
            yield shown or {}


def state(host):
    """A snapshot of what is ours, or could have been changed by us."""
    found = alike(snapshot(host))
    found["lists"] = [
        line
        for line in found["lists"]
        if "/var/lib/bare-containers" in line or line.startswith(("ipv4/", "ipv6/conf/bare"))
    ]
    for network in found.values():
        if isinstance(network, dict):
            network["routes"] = [route for route in network["routes"] if "expires" not in route]
    return found


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


def reaches(host, name, *addresses):
    """Those of the addresses that answer."""
    version = "case $a in *:*) echo -6;; *) echo -4;; esac"
    lines = [
        f"a={address}; ip netns exec {name} ping $({version}) -c1 -W2 $a > /dev/null 2>&1 && echo $a || :"
        for address in addresses
    ]
    return host.shell("\n".join(lines)).split()


@contextlib.contextmanager
def serving(host, *where):
    """A server on port 80 that tells who asks, as a unit."""
    words = (*where, "/usr/bin/python3", "-c", SERVER, "::", "80", "tcp")
    listens = shlex.join([*where, "ss", "-Hlnt", "sport = :80"])
    host.shell(f"""
        systemd-run --quiet --unit=test-server {shlex.join(words)}
        until {listens} | grep -q .; do sleep 0.1; done
    """)
    try:
        yield
    finally:
        host.shell("systemctl stop test-server")


@pytest.fixture(scope="module")
def bridged(host):
    """The containers in VLANs: what a run told beforehand, what made them, one more; and a snapshot."""
    empty = state(host)
    results = converge(host, VLANS, VLANS, VLANS, check=[True])
    yield (*results, state(host))
    converge(host, absent(VLANS))
    assert state(host) == empty


class TestVlans:
    def test_each_port_is_in_those_declared(self, host, bridged):
        foretold, made, again, _made = bridged
        assert vlans(host) == PORTS
        links = {link["ifname"]: link for link in json.loads(host.shell("ip -d -j address"))}
        assert links["bare0"]["linkinfo"]["info_data"]["vlan_filtering"] == 1
        for number, gateways in ((10, {"10.220.10.1", "fd00:220:10::1"}), (20, {"10.220.20.1"})):
            link = links[f"bare0.{number}"]
            assert (link["link"], link["linkinfo"]["info_data"]["id"]) == ("bare0", number)
            own = {each["local"] for each in link["addr_info"] if each["scope"] == "global"}
            assert own == gateways
        assert "bare0.99" not in links
        assert foretold["diff"] == made["diff"]
        assert foretold["commands"] == made["commands"]
        assert (again["changed"], again["commands"], again["diff"]) == (False, [], [])
        facts = {name: each["vlan"] for name, each in again["containers"].items() if "vlan" in each}
        assert facts == {"a": 10, "b": 10, "c": 20, "plain": None, "trunk": 99}
        assert again["containers"]["trunk"]["vlan_trunk"] == ["10", "20-30"]

    def test_only_those_of_one_vlan_reach_each_other(self, host, bridged):
        assert reaches(host, "a", "10.220.10.1", "10.220.10.3", "fd00:220:10::1", "fd00:220:10::3") == [
            "10.220.10.1", "10.220.10.3", "fd00:220:10::1", "fd00:220:10::3",
        ]  # fmt: skip
        # The host is all of its addresses, and forwards to none of theirs.
        for name, others in (("a", ["10.220.20.2", "10.220.0.2"]), ("plain", ["10.220.10.2", "10.220.20.2"])):
            assert reaches(host, name, *others) == []
        assert reaches(host, "c", "10.220.20.1", "10.220.10.2", "10.220.0.2") == ["10.220.20.1"]
        assert reaches(host, "plain", "10.220.0.1") == ["10.220.0.1"]

    def test_no_address_and_no_tag_leads_into_another_vlan(self, host, bridged):
        """Who takes an address of another VLAN's subnet, or its tag, as who has CAP_NET_ADMIN inside can."""
        host.shell("""
            ip -n b address add 10.220.20.9/24 dev eth0
            ip -n b link add link eth0 name tagged type vlan id 20
            ip -n b address add 10.220.20.10/32 dev tagged
            ip -n b link set tagged up
            for id in 10 20; do
                ip -n trunk link add link eth0 name tagged$id type vlan id $id
                ip -n trunk address add 10.220.$id.9/24 dev tagged$id
                ip -n trunk link set tagged$id up
            done
            ip -n trunk address add 10.220.0.9/24 dev eth0
        """)
        assert reaches(host, "b", "10.220.20.2", "10.220.20.1") == []
        host.shell("ip -n b route replace 10.220.20.0/24 dev tagged src 10.220.20.10")
        assert reaches(host, "b", "10.220.20.2", "10.220.20.1") == []
        # Whose tags count gets everywhere by them, and without one nowhere.
        assert reaches(host, "trunk", "10.220.10.2", "10.220.20.2", "10.220.0.2") == [
            "10.220.10.2", "10.220.20.2",
        ]  # fmt: skip
        assert converge(host, VLANS)[0]["changed"]
        assert state(host) == bridged[-1]

    def test_a_vlan_leads_out_and_is_reached_by_a_published_port(self, host, bridged):
        with serving(host, *inside("a")):
            assert ask(host, *inside("outside"), address="192.0.2.1", port=8080) == "::ffff:192.0.2.2"
            # Its own gateway's address stands for the host's localhost.
            assert ask(host, address="127.0.0.1", port=8080) == "::ffff:10.220.10.1"
        with serving(host, *inside("outside")):
            assert ask(host, *inside("a"), address="192.0.2.2", port=80) == "::ffff:192.0.2.1"

    def test_names_are_those_of_one_vlan(self, host, bridged):
        lists = host.shell("cd /var/lib/bare-containers/network/names; grep -v '^#' */hosts").split("\n")
        assert sorted(filter(None, lists)) == [
            "bare0.10/hosts:10.220.10.2 a",
            "bare0.10/hosts:10.220.10.3 b",
            "bare0.10/hosts:fd00:220:10::2 a",
            "bare0.10/hosts:fd00:220:10::3 b",
            "bare0.20/hosts:10.220.20.2 c",
            "bare0/hosts:10.220.0.2 plain",
        ]

    def test_a_vlan_has_a_name_server_of_its_own(self, host, bridged):
        asks = "ip netns exec {} timeout 5 busybox nslookup a 10.220.10.1 2>&1 || :"
        assert "10.220.10.2" in host.shell(asks.format("b"))
        assert "10.220.10.2" not in host.shell(asks.format("c"))

    def test_drift_of_each_setting_is_reported_and_repaired(self, host, bridged):
        found = drift(
            host,
            """
            ip link set bare0 type bridge vlan_filtering 0
            bridge vlan delete dev bare0 vid 10 self
            bridge vlan add dev bare-a vid 20
            bridge vlan delete dev bare-c vid 20
            bridge vlan add dev bare-b vid 10
            bridge vlan delete dev bare-trunk vid 25-26
            bridge vlan add dev bare-plain vid 77 pvid untagged
            ip address delete 10.220.10.1/24 dev bare0.10
            ip link set bare0.10 address 02:00:00:00:00:99
            echo 0 > /proc/sys/net/ipv4/conf/bare0.10/route_localnet
            ip link delete bare0.20
            ip link add link bare0 name bare0.20 type vlan id 21
            ip link add link bare0 name bare0.30 type vlan id 30
            """,
            VLANS,
        )
        assert found >= {
            "bridges.bare0.vlan_filtering", "bridges.bare0.vlans",
            *(f"host_links.bare-{name}.vlans" for name in ("a", "b", "c", "trunk", "plain")),
            "vlan_links.bare0.10.addresses", "vlan_links.bare0.10.mac",
            "vlan_links.bare0.10.ipv4/route_localnet", "vlan_links.bare0.20.vlan",
        }  # fmt: skip
        assert any(each.startswith("vlan_links.bare0.30.") for each in found)
        assert vlans(host) == PORTS
        assert state(host) == bridged[-1]
        assert reaches(host, "a", "10.220.10.1", "10.220.20.2") == ["10.220.10.1"]

    def test_what_is_gone_is_made_again(self, host, bridged):
        """With a bridge go its VLANs' links, and its ports are none any more; one that comes back is new."""
        for script in ("ip link delete bare0", "ip link set bare-a nomaster; ip link set bare0.10 down"):
            assert drift(host, script, VLANS)
            assert vlans(host) == PORTS
            assert state(host) == bridged[-1]

    def test_from_one_vlan_to_another_in_place_to_none_and_back(self, host, bridged):
        """Only the port changes; a bridge with no VLANs tells none apart."""
        index = "ip -j link show bare-b"
        before = json.loads(host.shell(index))[0]["ifindex"]
        moved = {**B, "vlan": 20, "address": "10.220.20.3/24", "dns": "static"}
        first = converge(host, moved)[0]
        assert "bridge vlan add dev bare-b vid 20 pvid untagged" in first["commands"]
        assert json.loads(host.shell(index))[0]["ifindex"] == before
        assert reaches(host, "b", "10.220.20.2", "10.220.10.2") == ["10.220.20.2"]
        without = {
            "batch": [
                {key: value for key, value in each.items() if not key.startswith(("vlan", "dns"))}
                for each in VLANS["batch"]
            ]
        }
        _changed, again = converge(host, without, without)
        assert not again["changed"]
        links = {link["ifname"]: link for link in json.loads(host.shell("ip -d -j link"))}
        assert links["bare0"]["linkinfo"]["info_data"]["vlan_filtering"] == 0
        assert not [name for name in links if name.startswith("bare0.")]
        assert all(port == {1: UNTAGGED} for port in vlans(host).values())
        converge(host, VLANS)
        assert state(host) == bridged[-1]

    def test_commands_alone_build_the_same_and_nothing_differs_then(self, host, bridged):
        converge(host, absent(VLANS))
        host.shell("set -e\n" + "\n".join(bridged[1]["commands"]))
        assert vlans(host) == PORTS
        assert state(host) == bridged[-1]
        again, told = host.results(
            [{"bare.containers.netns_veth": VLANS}, {"bare.containers.container_info": {}}]
        )
        assert not again["changed"]
        names = ("a", "b", "c", "plain", "trunk")
        assert {name: each["drift"] for name, each in told["containers"].items()} == {
            name: [] for name in names
        }
        links = {name: each["network"]["links"]["eth0"] for name, each in told["containers"].items()}
        assert links["trunk"]["vlans"] == ["10", "20-30", "99 pvid untagged"]
        assert links["plain"]["vlans"] == ["1 pvid untagged"]

    def test_examples_run(self, host, bridged):
        tasks = [task["bare.containers.netns_veth"] for task in yaml.safe_load(netns_veth.EXAMPLES)]
        (example,) = [task for task in tasks if any("vlan" in each for each in task.get("batch", []))]
        made, again, _gone = converge(host, example, example, absent(example))
        assert made["changed"]
        assert not again["changed"]

    def test_what_can_not_be_is_told_and_changes_nothing(self, host, bridged):
        host.shell("""
            ip link add lan0 type bridge
            ip link add bare1.5 type bridge
        """)
        before = state(host)
        entry = {"name": "x", "address": "10.221.0.2/24", "vlan": 5}
        told = [
            result["msg"]
            for result in host.modules(
                "netns_veth",
                [
                    {**entry, "bridge": "lan0"},
                    {**entry, "bridge": "bare1"},
                    {**entry, "bridge": "fourteen-chars"},
                    {**entry, "bridge": "bare0", "address": "10.220.10.9/24"},
                ],
            )
        ]
        assert told[0].startswith(
            "bridge: 'lan0' of x, which is in VLANs, is a bridge that this collection did"
        )
        assert (
            "another one of that name; it takes another VLAN, or that gone (ip link delete bare1.5)"
            in told[1]
        )
        assert (
            "would have the link fourteen-chars.5 for its VLAN, and the kernel takes 15 characters" in told[2]
        )
        assert "overlaps with 10.220.10.0/24" in told[3]
        assert all(each.endswith("nothing was changed.") for each in told)
        assert state(host) == before
        host.shell("ip link delete bare1.5; ip link delete lan0")

    def test_the_port_of_somebody_else_s_bridge_is_in_its_vlan_and_no_more(self, host, bridged):
        host.shell("""
            ip link add lan0 type bridge vlan_filtering 1 vlan_default_pvid 7
            ip link set lan0 up
        """)
        before = state(host)
        x = {"name": "x", "bridge": "lan0", "vlan": 5, "address": "10.221.0.2/24"}
        y = {"name": "y", "bridge": "lan0", "address": "10.221.1.2/24"}
        both = {"batch": [x, y]}
        _made, again = converge(host, both, both)
        assert not again["changed"]
        shown = vlans(host)
        assert (shown["lan0"], shown["bare-x"], shown["bare-y"]) == (
            {7: UNTAGGED}, {5: UNTAGGED}, {7: UNTAGGED},
        )  # fmt: skip
        assert drift(host, "bridge vlan add dev bare-x vid 7; bridge vlan delete dev bare-y vid 7", both)
        assert vlans(host) == shown
        converge(host, absent(both))
        assert state(host) == before
        host.shell("ip link delete lan0")


KINDS = {
    "batch": [
        {
            "name": "mac",
            "kind": "macvlan",
            "parent": "wan",
            "address": ["192.0.2.10/24", "2001:db8::10/64"],
            "gateway": "192.0.2.2",
        },
        {"name": "ip2", "kind": "ipvlan", "parent": "over", "address": ["198.51.100.11/24"]},
        {"name": "ip3", "kind": "ipvlan", "mode": "l3", "parent": "third", "address": "203.0.113.12/24"},
    ]
}
"""A link is shared in one way: each over one of its own, to the same neighbour."""


@pytest.fixture(scope="module")
def sharing(host):
    host.shell("""
        ip link add over type veth peer name eth1 netns outside
        ip link set over up
        ip -n outside address add 198.51.100.1/24 dev eth1
        ip -n outside link set eth1 up
        ip link add third type veth peer name eth2 netns outside
        ip link set third up
        ip -n outside address add 203.0.113.1/24 dev eth2
        ip -n outside link set eth2 up
    """)
    empty = state(host)
    made, again = converge(host, KINDS, KINDS)
    yield made, again, state(host)
    converge(host, absent(KINDS))
    assert state(host) == empty
    host.shell("ip link delete over; ip link delete third")


class TestSharedLinks:
    def test_they_are_of_their_kind_and_in_their_mode(self, host, sharing):
        for name, kind, mode in (
            ("mac", "macvlan", "bridge"),
            ("ip2", "ipvlan", "l2"),
            ("ip3", "ipvlan", "l3"),
        ):
            link = json.loads(host.shell(f"ip -n {name} -d -j link show eth0"))[0]["linkinfo"]
            assert (link["info_kind"], link["info_data"]["mode"]) == (kind, mode)
        again = sharing[1]
        assert (again["changed"], again["commands"], again["diff"]) == (False, [], [])

    def test_they_are_in_the_network_of_their_parent(self, host, sharing):
        assert reaches(host, "mac", "192.0.2.2", "2001:db8::2") == ["192.0.2.2", "2001:db8::2"]
        assert reaches(host, "ip2", "198.51.100.1") == ["198.51.100.1"]
        # The host and what shares its link don't reach each other.
        assert reaches(host, "mac", "192.0.2.1") == []
        with serving(host, *inside("ip2")):
            assert ask(host, *inside("outside"), address="198.51.100.11", port=80) == "::ffff:198.51.100.1"

    def test_drift_is_reported_and_repaired(self, host, sharing):
        found = drift(
            host,
            """
            ip -n mac link set eth0 type macvlan mode private
            ip -n ip3 link set eth0 type ipvlan mode l3s
            ip -n ip2 address add 198.51.100.99/24 dev eth0
            """,
            KINDS,
        )
        assert {"links.eth0.mode", "links.eth0.addresses"} <= found
        assert state(host) == sharing[-1]
        assert drift(host, "for name in mac ip2 ip3; do ip -n $name link delete eth0; done", KINDS)
        assert state(host) == sharing[-1]
        assert reaches(host, "ip2", "198.51.100.1") == ["198.51.100.1"]

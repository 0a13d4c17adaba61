# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""netns_veth on a real kernel: the kinds of links that a container can have, and what leads over them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from networks import alike, ask, connected, converge, inside, interrupted, refused, serving, snapshot

from tests.kernel.conftest import Machine
from tests.kernel.test_network import BOOT

MANY = {
    "name": "many",
    "bridge": "bare0",
    "address": ["10.210.0.2/24", "fd00:210::2/64"],
    "nat": True,
    "publish": ["8080:80"],
    "routes": [
        {"to": "198.51.100.0/24", "via": "10.210.0.3"},
        {"to": "2001:db8:9::/48", "via": "fd00:210::3", "metric": 5},
    ],
    "interfaces": [
        {
            "interface": "eth1",
            "bridge": "bare1",
            "address": ["10.211.0.2/24", "fd00:211::2/64"],
            "routes": [
                {"to": "203.0.113.0/24", "metric": 7},
                {"to": "2001:db8:8::/48"},
                {"to": "default", "via": "10.211.0.1", "metric": 100},
            ],
        },
        {"interface": "storage-network", "address": "10.212.0.2/24", "mtu": 9000},
    ],
}
OTHER = {"name": "other", "bridge": "bare1", "address": ["10.211.0.3/24", "fd00:211::3/64"]}
ALL = {"batch": [MANY, OTHER]}
NOTHING = {"batch": [{"name": name, "state": "absent"} for name in ("many", "other")]}


@pytest.fixture(scope="module")
def declared(module_utils: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """One machine for all that ends as declared, and its snapshot."""
    machine = Machine(module_utils)
    converge(machine, ALL)
    yield machine, snapshot(machine)
    machine.end()


def routed(machine: Any, name: str, destination: str) -> tuple[str, str | None]:
    """The link and the router that the kernel takes for a destination, inside a container."""
    route = json.loads(machine.run("ip", "-n", name, "-j", "route", "get", destination))[0]
    return route["dev"], route.get("gateway")


def ping(machine: Any, name: str, address: str) -> None:
    machine.run(*inside(name), "busybox", "ping", "-c1", "-W5", address)


def without(entry: Mapping[str, Any], interface: str) -> dict[str, Any]:
    """The same without one of its further links."""
    return {**entry, "interfaces": [each for each in entry["interfaces"] if each["interface"] != interface]}


class TestSeveralLinks:
    def test_each_leads_where_it_is_declared_to(self, declared: tuple[Any, dict[str, Any]]) -> None:
        machine = declared[0]
        for gateway in ("10.210.0.1", "fd00:210::1", "10.211.0.1", "10.211.0.3", "fd00:211::3", "10.212.0.1"):
            ping(machine, "many", gateway)
        assert routed(machine, "many", "192.0.2.1") == ("eth0", "10.210.0.1")
        assert routed(machine, "many", "198.51.100.7") == ("eth0", "10.210.0.3")
        assert routed(machine, "many", "2001:db8:9::1") == ("eth0", "fd00:210::3")
        assert routed(machine, "many", "203.0.113.7") == ("eth1", None)
        assert routed(machine, "many", "2001:db8:8::1") == ("eth1", None)
        assert routed(machine, "many", "10.212.0.9") == ("storage-network", None)

    def test_their_links_on_the_host_have_names_of_their_own(
        self, declared: tuple[Any, dict[str, Any]]
    ) -> None:
        machine = declared[0]
        result = converge(machine, MANY)
        names = [each["host_interface"] for each in result["interfaces"]]
        assert names[:2] == ["bare-many", "bare-many-eth1"]
        assert len(names[2]) == 15
        links = {each["ifname"]: each for each in json.loads(machine.run("ip", "-j", "link"))}
        inner = {each["ifname"]: each for each in json.loads(machine.run("ip", "-n", "many", "-j", "link"))}
        for each in result["interfaces"]:
            assert inner[each["interface"]]["link_index"] == links[each["host_interface"]]["ifindex"]
            assert inner[each["interface"]]["address"] == each["mac_address"]
        assert (
            len({link["address"] for link in (*links.values(), *inner.values())})
            == len(links) + len(inner) - 1
        )
        assert [links[name].get("master") for name in names] == ["bare0", "bare1", None]
        assert [links[name]["mtu"] for name in names] == [1500, 1500, 9000]

    def test_a_second_run_changes_and_writes_nothing(self, declared: tuple[Any, dict[str, Any]]) -> None:
        machine = declared[0]
        before = snapshot(machine)
        result = converge(machine, ALL)
        assert (result["changed"], result["commands"], result["diff"]) == (False, [], [])
        assert snapshot(machine) == before

    def test_one_comes_and_goes_and_the_others_connections_stay(
        self, declared: tuple[Any, dict[str, Any]]
    ) -> None:
        machine = declared[0]
        before = snapshot(machine)
        less = {"batch": [without(MANY, "eth1"), OTHER]}
        with (
            connected(machine, "many", "10.210.0.2") as say,
            connected(machine, "many", "10.212.0.2") as tell,
        ):
            assert (say("one"), tell("one")) == ("one", "one")
            for target in (less, ALL):
                foretold = converge(machine, target, check=True)
                done = converge(machine, target)
                assert foretold["changed"]
                assert foretold["diff"] == done["diff"]
                assert foretold["commands"] == done["commands"]
                assert (say("two"), tell("two")) == ("two", "two")
                links = [each["ifname"] for each in snapshot(machine)["many"]["links"]]
                assert ("eth1" in links) is (target is ALL)
        after = snapshot(machine)
        assert alike(after) == alike(before)
        kept = [
            [each for each in state["many"]["links"] if each["ifname"] != "eth1"] for state in (before, after)
        ]
        assert kept[0] == kept[1]


DRIFTS = {
    "second link on the host down": "ip link set bare-many-eth1 down",
    "second pair deleted": "ip link delete bare-many-eth1",
    "second pair's links exchanged": """
        ip link delete bare-many
        ip link delete bare-many-eth1
        ip link add bare-many type veth peer name eth1 netns many
        ip link add bare-many-eth1 type veth peer name eth0 netns many
    """,
    "second link moved out": "ip -n many link set eth1 netns other name moved",
    "out of its bridge": "ip link set bare-many-eth1 nomaster",
    "second address removed": "ip -n many address delete 10.211.0.2/24 dev eth1",
    "address of the first on the second": "ip -n many address add 10.210.0.9/24 dev eth1",
    "mtu of the third": "ip -n many link set storage-network mtu 1400",
    "route deleted": "ip -n many route delete 198.51.100.0/24",
    "route via another": "ip -n many route replace 198.51.100.0/24 via 10.210.0.4",
    "route over another link": "ip -n many route replace 198.51.100.0/24 via 10.211.0.3",
    "ipv6 route with another metric": """
        ip -n many -6 route delete 2001:db8:9::/48
        ip -n many -6 route add 2001:db8:9::/48 via fd00:210::3 metric 256
    """,
    "route on the link deleted": "ip -n many route delete 203.0.113.0/24 metric 7",
    "default route over the second": """
        ip -n many route replace default via 10.211.0.1
        ip -n many -6 route replace default via fd00:211::1
    """,
}


def drift_is_reported_and_repaired(
    machine: Any, declaration: Mapping[str, Any], before: Mapping[str, Any], command: str
) -> None:
    """What a shell command changes of ``before`` is foretold as the run then puts it right."""
    machine.shell(command)
    drifted = snapshot(machine)
    foretold = converge(machine, declaration, check=True)
    assert foretold["changed"]
    assert snapshot(machine) == drifted
    repaired = converge(machine, declaration)
    assert repaired["diff"] == foretold["diff"]
    assert alike(snapshot(machine)) == alike(before)


@pytest.mark.parametrize("command", DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_reported_and_repaired(declared: tuple[Any, dict[str, Any]], command: str) -> None:
    machine, before = declared
    drift_is_reported_and_repaired(machine, ALL, before, command)


def test_commands_and_boot_scripts_alone_build_the_same_and_removal_leaves_nothing(
    new_machine: Callable[[], Any],
) -> None:
    first, by_hand, rebooted = new_machine(), new_machine(), new_machine()
    empty = snapshot(first)
    result = converge(first, ALL)
    by_hand.shell("\n".join(result["commands"]))
    assert alike(snapshot(by_hand)) == alike(snapshot(first))
    kept = first.shell("tar -C /var/lib -c bare-containers | base64")
    rebooted.run("sh", "-c", "base64 -d | tar -C /var/lib -x", input=kept)
    rebooted.shell(BOOT)
    assert alike(snapshot(rebooted)) == alike(snapshot(first))
    for machine in (by_hand, rebooted):
        assert not converge(machine, ALL)["changed"]
    converge(first, NOTHING)
    assert snapshot(first) == empty


def test_a_link_is_found_again_when_its_declaration_is_damaged(machine: Any) -> None:
    """Both when it is declared anew with fewer links, and when it is to be absent."""
    kept = "/var/lib/bare-containers/containers/many/network.json"
    for target in ({"batch": [without(MANY, "eth1")]}, {"name": "many", "state": "absent"}):
        converge(machine, MANY)
        machine.shell(f"echo '{{' > {kept}")
        converge(machine, target)
        assert "bare-many-eth1" not in machine.run("ip", "link")
    assert [each["ifname"] for each in json.loads(machine.run("ip", "-j", "link"))] == ["lo"]


def test_no_default_route_at_all(machine: Any) -> None:
    entry = {**MANY, "default_route": False, "interfaces": [], "nat": False, "publish": []}
    converge(machine, entry)
    assert not converge(machine, entry)["changed"]
    for family in ("-4", "-6"):
        assert machine.run("ip", family, "-n", "many", "route", "show", "default") == ""
    assert routed(machine, "many", "198.51.100.7") == ("eth0", "10.210.0.3")
    ping(machine, "many", "10.210.0.1")


def test_the_default_route_over_the_second_link(machine: Any) -> None:
    second = {"interface": "eth1", "bridge": "bare1", "address": "10.211.0.2/24", "default_route": True}
    entry = {**MANY, "default_route": False, "interfaces": [second]}
    converge(machine, MANY)
    converge(machine, entry)
    assert not converge(machine, entry)["changed"]
    assert routed(machine, "many", "192.0.2.1") == ("eth1", "10.211.0.1")


def test_what_can_not_be_is_one_sentence_and_nothing_changed(machine: Any) -> None:
    before = snapshot(machine)
    message = refused(machine, {**MANY, "default_route": True, "interfaces": [{"interface": "eth0"}]})
    assert (
        message
        == "interfaces: eth0 is declared twice for many, each takes its own name; nothing was changed."
    )
    message = refused(machine, {"batch": [{"name": "many", "interfaces": [{"address": "10.0.0.2/24"}]}]})
    assert "missing required arguments: interface" in message
    assert snapshot(machine) == before


BESIDE = {
    "name": "beside",
    "kind": "macvlan",
    "parent": "wan",
    "address": ["192.0.2.10/24", "2001:db8::10/64"],
    "gateway": ["192.0.2.1", "2001:db8::1"],
}
BOTH = {
    "name": "both",
    "bridge": "bare0",
    "address": "10.213.0.2/24",
    "interfaces": [{"interface": "lan", "kind": "macvlan", "parent": "wan", "address": "192.0.2.11/24"}],
}
SHARING = {"batch": [BESIDE, BOTH]}
WAN = "ip link add wan type veth peer name {peer}; ip link set wan up"


@pytest.fixture(scope="module")
def sharing(module_utils: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """A machine with containers on its link wan, another machine at the link's other end, and a snapshot."""
    machine, other = Machine(module_utils), Machine(module_utils)
    machine.shell(WAN.format(peer=f"eth0 netns {other.pid}"))
    other.shell("""
        ip address add 192.0.2.1/24 dev eth0
        ip address add 2001:db8::1/64 dev eth0 nodad
        ip link set eth0 up
    """)
    converge(machine, SHARING)
    yield machine, other, snapshot(machine)
    machine.end()
    other.end()


class TestSharedLink:
    def test_the_container_is_beside_the_host(self, sharing: tuple[Any, Any, dict[str, Any]]) -> None:
        machine, other, _before = sharing
        with serving(other):
            for name, address in (("beside", "192.0.2.10"), ("both", "192.0.2.11")):
                assert ask(machine, *inside(name), address="192.0.2.1", port=80) == address
        with serving(machine, *inside("beside"), address="::"):
            assert ask(other, address="192.0.2.10", port=80) == "::ffff:192.0.2.1"
            assert ask(other, address="2001:db8::10", port=80) == "2001:db8::1"
        ping(machine, "beside", "192.0.2.11")
        assert routed(machine, "both", "198.51.100.1") == ("eth0", "10.213.0.1")

    def test_a_second_run_changes_and_writes_nothing(self, sharing: tuple[Any, Any, dict[str, Any]]) -> None:
        machine = sharing[0]
        result = converge(machine, SHARING)
        assert (result["changed"], result["commands"], result["diff"]) == (False, [], [])
        assert snapshot(machine) == sharing[2]
        beside = result["containers"]["beside"]
        assert (beside["host_interface"], beside["parent"]) == (None, "wan")

    @pytest.mark.parametrize(
        "command",
        [
            "ip -n beside link set eth0 type macvlan mode private",
            "ip -n beside link set eth0 address 02:00:00:00:00:99",
            "ip -n beside route delete default",
            "ip -n beside link delete eth0; ip link add eth0 netns beside type veth peer name bare-beside",
            "ip -n both link delete lan; ip link add link bare0 name lan netns both type macvlan mode bridge",
        ],
    )
    def test_drift_is_reported_and_repaired(
        self, sharing: tuple[Any, Any, dict[str, Any]], command: str
    ) -> None:
        machine, _other, before = sharing
        drift_is_reported_and_repaired(machine, SHARING, before, command)

    def test_changed_declaration_and_back(self, sharing: tuple[Any, Any, dict[str, Any]]) -> None:
        machine, _other, before = sharing
        pair = {"name": "beside", "address": "10.214.0.2/24"}
        for changed in ({**BESIDE, "mode": "private"}, {**BESIDE, "mtu": 1400}, pair):
            assert converge(machine, changed)["changed"]
            link = json.loads(machine.run("ip", "-n", "beside", "-d", "-j", "link", "show", "eth0"))[0]
            assert link["mtu"] == changed.get("mtu", 1500)
            assert link["linkinfo"]["info_kind"] == changed.get("kind", "veth")
            assert link["linkinfo"].get("info_data", {}).get("mode") == (
                changed.get("mode", "bridge") if changed is not pair else None
            )
            assert not converge(machine, changed)["changed"]
            converge(machine, BESIDE)
        assert alike(snapshot(machine)) == alike(before)

    def test_commands_and_boot_scripts_alone_build_the_same_and_removal_leaves_nothing(
        self, new_machine: Callable[[], Any]
    ) -> None:
        first, by_hand, rebooted = new_machine(), new_machine(), new_machine()
        for machine in (first, by_hand, rebooted):
            machine.shell(WAN.format(peer="other") + " address 02:00:00:00:00:02")
        empty = snapshot(first)
        by_hand.shell("\n".join(converge(first, SHARING)["commands"]))
        kept = first.shell("tar -C /var/lib -c bare-containers | base64")
        rebooted.run("sh", "-c", "base64 -d | tar -C /var/lib -x", input=kept)
        rebooted.shell(BOOT)
        for machine in (by_hand, rebooted):
            assert not converge(machine, SHARING)["changed"]
            assert machine.run("ip", "-n", "beside", "-br", "address") == first.run(
                "ip", "-n", "beside", "-br", "address"
            )
        converge(first, {"batch": [{"name": name, "state": "absent"} for name in ("beside", "both")]})
        assert snapshot(first) == empty

    def test_it_is_gone_with_its_removal_while_a_process_is_inside(self, machine: Any, internet: Any) -> None:
        converge(machine, BESIDE)
        with serving(machine, *inside("beside")):
            assert ask(internet, address="192.0.2.10", port=80) == "192.0.2.1"
            converge(machine, {"name": "beside", "state": "absent"})
            assert "no answer" in ask(internet, address="192.0.2.10", port=80, patience=0.5)
            # Its MAC address is free for who comes next.
            converge(machine, BESIDE)
            ping(machine, "beside", "192.0.2.1")

    def test_a_parent_that_is_not_there_or_not_free_is_told_and_concerns_no_other(self, machine: Any) -> None:
        machine.shell(WAN.format(peer="other"))
        converge(machine, SHARING)
        machine.shell("ip link delete wan")
        result = machine.module("netns_veth", {"batch": [BESIDE, {**BOTH, "interfaces": []}]})
        assert result["msg"] == (
            "beside: parent: 'wan' of beside is no link of this host; it takes one that is there; the "
            "network of the container was left as it was."
        )
        assert not result["containers"]["both"]["failed"]
        machine.shell(WAN.format(peer="other") + "; ip link set wan mtu 1400")
        assert "has an MTU of 1400, which mtu takes at most, not 1500" in refused(machine, BESIDE)
        machine.shell("ip link set wan mtu 1500 master bare0")
        assert "is a port of another link" in refused(machine, BESIDE)
        machine.shell("ip link set wan nomaster")
        assert converge(machine, SHARING)["changed"]
        assert not converge(machine, SHARING)["changed"]

    def test_it_may_be_called_as_the_parent_is(self, machine: Any) -> None:
        machine.shell(WAN.format(peer="other") + "; ip link set wan down; ip link set wan name eth0")
        entry = {**BESIDE, "parent": "eth0"}
        converge(machine, entry)
        assert not converge(machine, entry)["changed"]
        link = json.loads(machine.run("ip", "-n", "beside", "-d", "-j", "link", "show", "eth0"))[0]
        assert link["linkinfo"]["info_kind"] == "macvlan"
        # What a run that was killed in between has left is gone after the next.
        machine.shell("ip -n beside link set eth0 down; ip -n beside link set eth0 name bare-beside")
        assert converge(machine, entry)["changed"]
        assert [each["ifname"] for each in json.loads(machine.run("ip", "-n", "beside", "-j", "link"))] == [
            "lo",
            "eth0",
        ]

    def test_ipvlan_or_one_sentence_that_the_kernel_has_none(self, machine: Any) -> None:
        machine.shell(
            WAN.format(peer="other") + "; ip link set other up; ip address add 192.0.2.1/24 dev other"
        )
        entry = {**BESIDE, "kind": "ipvlan", "mode": "l2"}
        if "ipvlan" in machine.shell("ip link add link wan name x type ipvlan mode l2 && echo ipvlan || :"):
            machine.shell("ip link delete x")
            converge(machine, entry)
            assert not converge(machine, entry)["changed"]
            ping(machine, "beside", "192.0.2.1")
            converge(machine, {**entry, "mode": "l3"})
            link = json.loads(machine.run("ip", "-n", "beside", "-d", "-j", "link", "show", "eth0"))[0]
            assert link["linkinfo"]["info_data"]["mode"] == "l3"
        else:
            assert "kind: 'ipvlan' of beside is no kind of link that the kernel of this host has" in refused(
                machine, entry
            )
        converge(machine, {"name": "beside", "state": "absent"})
        assert machine.run("ls", "/var/lib") == ""


class TestVlans:
    """On a kernel that has VLANs, tests/systemd/test_links.py looks at them."""

    def test_vlans_or_one_sentence_that_the_kernel_has_none(self, machine: Any) -> None:
        entry = {"name": "web", "bridge": "bare0", "address": "10.218.0.2/24"}
        machine.shell("ip link add probe type bridge")
        if "vlan_default_pvid" in machine.run("ip", "-d", "link", "show", "dev", "probe"):
            converge(machine, {**entry, "vlan": 10})
            assert not converge(machine, {**entry, "vlan": 10})["changed"]
            return
        machine.shell("ip link delete probe")
        empty = snapshot(machine)
        for check in (True, False):
            assert refused(machine, {**entry, "vlan": 10}, check=check) == (
                "vlan: web is in VLANs of bare0, and the kernel of this host has no bridges that filter "
                "VLANs (CONFIG_BRIDGE_VLAN_FILTERING); it takes no VLANs here; nothing was changed."
            )
            assert refused(machine, {**entry, "vlan_trunk": 10}, check=check).startswith(
                "vlan_trunk: web is in"
            )
        assert snapshot(machine) == empty
        converge(machine, {**entry, "vlan": 1})
        assert not converge(machine, {**entry, "vlan": 1})["changed"]
        assert "no bridges that filter VLANs" in refused(machine, {**entry, "vlan": 10})
        assert not converge(machine, {**entry, "vlan": 1})["changed"]


SLOW = {
    "name": "slow",
    "address": "10.215.0.2/24",
    "bandwidth": {"ingress": "8M", "egress": "16mbit"},
    "interfaces": [{"interface": "eth1", "address": "10.216.0.2/24"}],
}

SINK = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 9))
print("ready", flush=True)
connection, _peer = server.accept()
first, got = None, 0
while data := connection.recv(1 << 16):
    first, got = first or time.monotonic(), got + len(data)
print(got, time.monotonic() - first, flush=True)
"""

SOURCE = """
import socket, sys
socket.create_connection((sys.argv[1], 9), timeout=20).sendall(bytes(int(sys.argv[2])))
"""


def transfer(machine: Any, source: tuple[str, ...], sink: tuple[str, ...], address: str, size: int) -> float:
    """The seconds from the first byte to the last, at the sink."""
    python = ("/usr/bin/python3", "-c")
    words = machine.command(*sink, *python, SINK, address)
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        machine.run(*source, *python, SOURCE, address, str(size))
        got, seconds = server.stdout.readline().split()
        assert int(got) == size
        return float(seconds)
    finally:
        server.kill()
        server.communicate()


def limits(machine: Any) -> dict[str, Any]:
    """What tc(8) tells of both ends."""
    shown = {}
    for where, link in (("tc", "bare-slow"), ("tc -n slow", "eth0"), ("tc -n slow", "eth1")):
        queues = json.loads(machine.shell(f"{where} -j qdisc show dev {link}"))
        shown[link] = [(each["kind"], each.get("options")) for each in queues]
    return shown


@pytest.fixture(scope="module")
def limited(module_utils: Any) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    machine = Machine(module_utils)
    converge(machine, SLOW)
    yield machine, snapshot(machine), limits(machine)
    machine.end()


class TestBandwidth:
    def test_a_transfer_takes_its_time(self, limited: tuple[Any, Any, Any]) -> None:
        """The direction is the container's: into it go 1 MB a second, out of it 2 MB, but for the burst."""
        machine, size = limited[0], 1_200_000
        at_once = 150_000
        assert transfer(machine, (), inside("slow"), "10.215.0.2", size) > (size - at_once) / 1e6
        out = transfer(machine, inside("slow"), (), "10.215.0.1", size)
        assert (size - at_once) / 2e6 < out
        # The other link has no limit: it carries so much in a small part of the time.
        assert transfer(machine, (), inside("slow"), "10.216.0.2", size) < (size - at_once) / 1e6 / 2

    def test_it_is_what_the_field_s_tool_shows(self, limited: tuple[Any, Any, Any]) -> None:
        shown = limited[2]
        for link, bytes_per_second in (("bare-slow", 1_000_000), ("eth0", 2_000_000)):
            ((kind, options),) = shown[link]
            assert (kind, options["rate"]) == ("tbf", bytes_per_second)
        assert shown["eth1"] == [("noqueue", {})]

    def test_a_second_run_changes_and_writes_nothing(self, limited: tuple[Any, Any, Any]) -> None:
        machine, before, _limits = limited
        result = converge(machine, SLOW)
        assert (result["changed"], result["commands"], result["diff"]) == (False, [], [])
        assert snapshot(machine) == before

    @pytest.mark.parametrize(
        "command",
        [
            "tc -n slow qdisc delete dev eth0 root",
            "tc qdisc replace dev bare-slow root handle 1: tbf rate 800mbit burst 130000b limit 180000b",
            "tc qdisc replace dev bare-slow root handle 1: tbf rate 8mbit burst 900000b limit 180000b",
            "tc qdisc replace dev bare-slow root handle 1: tbf rate 8mbit burst 130000b limit 900000b",
            "tc qdisc replace dev bare-slow root handle 5: pfifo limit 9",
            "tc -n slow qdisc add dev eth1 root handle 5: pfifo limit 9",
            "ip link delete bare-slow",
        ],
    )
    def test_drift_is_reported_and_repaired(self, limited: tuple[Any, Any, Any], command: str) -> None:
        machine, before, shown = limited
        machine.shell(command)
        drifted = (snapshot(machine), limits(machine) if "link" not in command else None)
        foretold = converge(machine, SLOW, check=True)
        assert foretold["changed"]
        assert (snapshot(machine), limits(machine) if "link" not in command else None) == drifted
        repaired = converge(machine, SLOW)
        assert repaired["diff"] == foretold["diff"]
        assert limits(machine) == shown
        assert alike(snapshot(machine)) == alike(before)

    def test_changed_in_place_taken_away_and_given_back(self, limited: tuple[Any, Any, Any]) -> None:
        machine, _before, shown = limited
        with connected(machine, "slow", "10.215.0.2") as say:
            converge(machine, {**SLOW, "bandwidth": {"ingress": "80M"}})
            ((_kind, options),) = limits(machine)["bare-slow"]
            assert options["rate"] == 10_000_000
            assert limits(machine)["eth0"] == [("noqueue", {})]
            converge(machine, {key: value for key, value in SLOW.items() if key != "bandwidth"})
            assert limits(machine)["bare-slow"] == [("noqueue", {})]
            converge(machine, SLOW)
            assert say("still here") == "still here"
        assert limits(machine) == shown

    def test_commands_and_boot_scripts_alone_build_the_same(
        self, limited: tuple[Any, Any, Any], new_machine: Callable[[], Any]
    ) -> None:
        by_hand, rebooted = new_machine(), new_machine()
        by_hand.shell("\n".join(converge(by_hand, SLOW, check=True)["commands"]))
        kept = limited[0].shell("tar -C /var/lib -c bare-containers | base64")
        rebooted.run("sh", "-c", "base64 -d | tar -C /var/lib -x", input=kept)
        rebooted.shell(BOOT)
        for machine in (by_hand, rebooted):
            assert limits(machine) == limited[2]
            assert not converge(machine, SLOW)["changed"]


class TestKilled:
    def test_at_any_instant_the_next_run_converges(
        self, new_machine: Callable[[], Any], instants: Any
    ) -> None:
        """Whatever a container can have: several links, of each kind, limits, rules of its own."""
        lists = {"allow": [{"from": "any", "port": 80}], "deny": [{"to": "192.0.2.9"}]}
        there = {"batch": [{**MANY, **lists}, OTHER, {**SLOW, **lists}, BESIDE, BOTH]}
        nothing = {"batch": [{"name": each["name"], "state": "absent"} for each in there["batch"]]}
        machine, new = new_machine(), new_machine()
        for each in (machine, new):
            each.shell("""
                ip link add wan address 02:00:00:00:00:01 type veth peer name other address 02:00:00:00:00:02
                ip link set other up
                ip link set wan up
            """)
        empty, expected = snapshot(machine), None
        for holds in interrupted(machine, new, there, nothing, instants):
            expected = expected or (alike(snapshot(new)), limits(new))
            if holds is there:
                assert (alike(snapshot(machine)), limits(machine)) == expected
            else:
                left = snapshot(machine)
                # As ip-netns(8) leaves it, when killed after the last name.
                names = ("/run/netns", "mount /run/netns")
                left["lists"] = [line for line in left["lists"] if line not in names]
                assert left == empty


class TestFacts:
    """What container_info tells of links, beside what test_info looks at."""

    def test_links_routes_and_neighbours_are_those_that_ip_shows(
        self, sharing: tuple[Any, Any, dict[str, Any]]
    ) -> None:
        machine = sharing[0]
        ping(machine, "both", "10.213.0.1")
        converge(machine, {**BOTH, "bandwidth": {"ingress": "8M"}})
        try:
            told = machine.module("container_info", {"name": ["both", "beside"]})["containers"]
        finally:
            converge(machine, BOTH)
        both = told["both"]["network"]
        shown = json.loads(machine.run("ip", "-n", "both", "-j", "neighbour"))
        words = {
            (each["dst"], each["dev"], each.get("lladdr")) for each in shown if "NOARP" not in each["state"]
        }
        found = [each.split() for each in both["neighbours"]]
        assert {(each[0], each[2], each[4] if each[3] == "lladdr" else None) for each in found} == words
        assert any(each[:3] == ["10.213.0.1", "dev", "eth0"] for each in found)
        eth0, lan = both["links"]["eth0"], both["links"]["lan"]
        assert (eth0["kind"], eth0["peer"], eth0["parent"], eth0["mode"]) == ("veth", "bare-both", None, None)
        assert eth0["bandwidth"] == {"egress": None, "ingress": 8_000_000}
        assert (lan["kind"], lan["peer"], lan["parent"], lan["mode"]) == ("macvlan", None, "wan", "bridge")
        assert "default via 10.213.0.1 dev eth0" in both["routes"]
        assert told["both"]["drift"] == told["beside"]["drift"] == []

    def test_what_differs_of_a_link_is_told(self, sharing: tuple[Any, Any, dict[str, Any]]) -> None:
        machine = sharing[0]
        machine.shell("""
            ip -n both link set lan mtu 1400
            ip -n both route add 198.51.100.0/24 via 10.213.0.9
            tc -n both qdisc add dev eth0 root pfifo limit 9
        """)
        told = machine.module("container_info", {"name": ["both"]})["containers"]["both"]
        (drift,) = told["drift"]
        assert set(drift["changes"]) == {"routes", "links.lan.mtu", "links.eth0.qdisc"}
        assert drift["before"]["links"] == {"lan": {"mtu": 1400}, "eth0": {"qdisc": "pfifo"}}
        converge(machine, BOTH)
        assert machine.module("container_info", {"name": ["both"]})["containers"]["both"]["drift"] == []

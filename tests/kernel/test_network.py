# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""netns_veth on a real kernel: the host is a Machine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from networks import (
    ALL,
    DATABASE,
    LESSON,
    NOTHING,
    WEB,
    alike,
    ask,
    connected,
    converge,
    inside,
    interrupted,
    refused,
    serving,
    snapshot,
)


def test_second_run_changes_and_writes_nothing(machine: Any, python: str) -> None:
    converge(machine, ALL, python=python)
    before = snapshot(machine)
    result = converge(machine, ALL, python=python)
    assert (result["changed"], result["commands"], result["diff"]) == (False, [], [])
    assert snapshot(machine) == before


def test_check_mode_changes_nothing_and_foretells_all(machine: Any, python: str) -> None:
    converge(machine, {"batch": [WEB, DATABASE]}, python=python)
    changed = {
        "batch": [
            {**WEB, "address": "10.200.0.9/24", "nat": False, "publish": ["8080:80/udp"], "mtu": 1400},
            {"name": "db", "state": "absent"},
            LESSON,
        ]
    }
    for arguments in (changed, NOTHING):
        before = snapshot(machine)
        foretold = converge(machine, arguments, python=python, check=True)
        assert snapshot(machine) == before
        done = converge(machine, arguments, python=python)
        assert foretold["changed"]
        assert done["changed"]
        assert foretold["diff"] == done["diff"]
        assert foretold["commands"] == done["commands"]


LINK_GONE = "while ip link show bare-web > /dev/null 2>&1; do sleep 0.01; done"
"""A namespace without a name goes in its own time, and then the link into it."""

DRIFTS = {
    "link inside down": "ip -n web link set eth0 down",
    "link on the host down": "ip link set bare-web down",
    "lo down": "ip -n web link set lo down",
    "address added": "ip -n web address add 10.200.0.77/24 dev eth0",
    "address of another subnet added": "ip -n web address add 172.16.0.1/16 dev eth0",
    "address removed": "ip -n web address delete 10.200.0.2/24 dev eth0",
    "ipv6 address removed": "ip -n web address delete fd00:200::2/64 dev eth0",
    "address behind another of its subnet": """
        ip -n web address delete 10.200.0.2/24 dev eth0
        ip -n web address add 10.200.0.77/24 dev eth0
        ip -n web address add 10.200.0.2/24 dev eth0
    """,
    "two others in its place": """
        ip -n web address delete 10.200.0.2/24 dev eth0
        ip -n web address add 10.200.0.77/24 dev eth0
        ip -n web address add 10.200.0.78/24 dev eth0
    """,
    "address on lo": "ip -n web address add 10.9.9.9/32 dev lo",
    "address on the host's end": "ip address add 10.9.9.9/32 dev bare-web",
    "default route deleted": "ip -n web route delete default",
    "default route elsewhere": "ip -n web route replace default via 10.200.0.3",
    "ipv6 default route deleted": "ip -n web -6 route delete default",
    "connected route deleted": "ip -n web route delete 10.200.0.0/24",
    "route added": "ip -n web route add 198.51.100.0/24 via 10.200.0.3 metric 7",
    "blackhole added": """
        ip -n web route add blackhole 198.51.100.0/24
        ip -n web route add prohibit 2001:db8:9::/48
    """,
    "mac changed": "ip -n web link set eth0 address 02:00:00:00:00:99",
    "mtu changed": "ip link set bare-web mtu 1300",
    "link renamed": """
        ip -n web link set eth0 down
        ip -n web link set eth0 name eth9
        ip -n web link set eth9 up
    """,
    "link added": "ip -n web link add extra type bridge; ip -n web link set extra up",
    "out of the bridge": "ip link set bare-web nomaster",
    "in a group of links": "ip link set bare-web group 7",
    "in the group of those that go": "ip link set bare-web group 1650553445",
    "hairpin off": "ip link set bare-web type bridge_slave hairpin off",
    "router advertisements taken": """
        ip netns exec web sh -c 'echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra'
    """,
    "host takes router advertisements": "echo 1 > /proc/sys/net/ipv6/conf/bare-web/accept_ra",
    "pair deleted": "ip link delete bare-web",
    "another pair in its place": """
        ip link delete bare-web
        ip link add bare-web type veth peer name other
        ip -n web link add eth0 type bridge
    """,
    "namespace removed": f"ip netns delete web; {LINK_GONE}",
    "namespace empty": f"ip netns delete web; ip netns add web; {LINK_GONE}",
    "only the file of the namespace": f"umount /run/netns/web; {LINK_GONE}",
    "table deleted": "nft delete table inet bare_containers",
    "table flushed": "nft flush table inet bare_containers",
    "all rules of the host flushed": "nft flush ruleset",
    "rule deleted": "nft delete rule inet bare_containers postrouting handle "
    "$(nft -a list chain inet bare_containers postrouting | sed -n 's/.*masquerade.*handle //p' | head -n 1)",
    "rule added": "nft add rule inet bare_containers forward counter drop",
    "rule first": "nft insert rule inet bare_containers prerouting counter accept",
    "policy changed": "nft add chain inet bare_containers forward '{ policy drop; }'",
    "chain added": "nft add chain inet bare_containers extra",
    "set added": "nft add set inet bare_containers extra '{ type ipv4_addr; }'",
    "table asleep": "nft add table inet bare_containers '{ flags dormant; }'",
    "forwarding off": "echo 0 > /proc/sys/net/ipv4/ip_forward",
    "ipv6 forwarding off": "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
    "localhost closed": "echo 0 > /proc/sys/net/ipv4/conf/bare0/route_localnet",
    "localhost open to the port": "echo 1 > /proc/sys/net/ipv4/conf/bare-web/route_localnet",
    "bridge down": "ip link set bare0 down",
    "bridge without its address": "ip address flush dev bare0 scope global",
    "bridge with another address": "ip address add 10.9.9.9/32 dev bare0",
    "bridge with spanning tree": "ip link set bare0 type bridge stp_state 1",
    "declaration changed": "sed -i s/1500/1400/ /var/lib/bare-containers/containers/web/network.json",
    "declaration no JSON": "echo '{' > /var/lib/bare-containers/containers/web/network.json",
    "declaration incomplete": "echo '{}' > /var/lib/bare-containers/containers/web/network.json",
    "declaration of other types": """
        echo '{"address": 5, "bridge": ["bare0"], "gateway": {}, "interface": null, "mtu": "x", "nat": 1,
               "publish": "80"}' > /var/lib/bare-containers/containers/web/network.json
    """,
    "boot script changed": "echo true >> /var/lib/bare-containers/containers/web/network.sh",
    "host's boot script gone": "rm /var/lib/bare-containers/network/host.sh",
    "table's file gone": "rm /var/lib/bare-containers/network/table.nft",
}


@pytest.fixture(scope="module")
def drifting(module_utils: Any) -> Iterator[tuple[Any, dict[str, Any], Callable[[str], str]]]:
    """One machine for all drifts, each of which ends as declared, its snapshot, and a connection to db."""
    from tests.kernel.conftest import Machine

    machine = Machine(module_utils)
    converge(machine, ALL)
    with connected(machine, "db", "10.200.0.3") as say:
        yield machine, snapshot(machine), say
    machine.end()


@pytest.mark.parametrize("command", DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_reported_and_repaired(
    drifting: tuple[Any, dict[str, Any], Callable[[str], str]], command: str
) -> None:
    """One connection to a container that is not disturbed lives through all of them."""
    machine, declared, say = drifting
    machine.shell(command)
    drifted = snapshot(machine)
    foretold = converge(machine, ALL, check=True)
    assert foretold["changed"]
    assert foretold["diff"]
    assert snapshot(machine) == drifted

    repaired = converge(machine, ALL)
    after = snapshot(machine)
    assert repaired["diff"] == foretold["diff"]
    assert alike(after) == alike(declared)
    assert after["db"] == declared["db"]
    assert not repaired["containers"]["db"]["changed"]
    assert not repaired["containers"]["lesson"]["changed"]
    assert say("still here") == "still here"


DAMAGED = (
    "{",
    "[]",
    "{}",
    '{"bridges": 5, "settings": {}}',
    '{"bridges": ["bare0"], "settings": {"/etc/x": "1"}}',
)


def _links(machine: Any) -> list[str]:
    return sorted(link["ifname"] for link in json.loads(machine.run("ip", "-j", "link")))


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_is_written_again(machine: Any, text: str) -> None:
    """Its bridges are known by their addresses; what forwarding was before us is not, so it stays."""
    record = "/var/lib/bare-containers/network/host.json"
    converge(machine, ALL)
    before = alike(snapshot(machine))
    machine.shell(f"echo '{text}' > {record}")
    foretold = converge(machine, ALL, check=True)
    repaired = converge(machine, ALL)
    assert repaired["diff"] == foretold["diff"]
    changed = [name for name, outcome in repaired["containers"].items() if outcome["changed"]]
    assert changed == ["_host"]
    assert json.loads(machine.run("cat", record)) == {"bridges": ["bare0"], "settings": {}}
    after = alike(snapshot(machine))
    for each in (before, after):
        each["lists"] = [line for line in each["lists"] if record not in line]
    assert after == before
    converge(machine, NOTHING)
    assert _links(machine) == ["lo"]
    assert machine.run("ls", "/var/lib") == ""
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_a_damaged_declaration_is_of_no_concern_to_the_others(machine: Any) -> None:
    converge(machine, ALL)
    before = snapshot(machine)
    kept = "/var/lib/bare-containers/containers/web/network.json"
    machine.shell(f"echo '{{\"publish\": [5]}}' > {kept}")
    for each in (DATABASE, LESSON):
        assert not converge(machine, each)["changed"]
    assert converge(machine, {**DATABASE, "mtu": 1400})["changed"]
    # What they share, and what can't be known of the damaged one, stays.
    damaged = snapshot(machine)
    assert (damaged["rules"], damaged["web"]) == (before["rules"], before["web"])
    message = refused(machine, {**LESSON, "publish": ["127.0.0.1:8082:80"]})
    assert f"{kept} is damaged, and the rules of that network would be lost" in message
    assert snapshot(machine)["rules"] == before["rules"]
    for name in ("db", "lesson"):
        machine.module("netns_veth", {"name": name, "state": "absent"})
    assert snapshot(machine)["web"] == before["web"]
    assert _links(machine) == ["bare-web", "bare0", "lo"]
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    converge(machine, ALL)
    assert alike(snapshot(machine)) == alike(before)
    machine.shell(f"echo '{{' > {kept}")
    converge(machine, NOTHING)
    assert _links(machine) == ["lo"]
    assert machine.run("ls", "/var/lib") == ""


def test_bridge_deleted_is_made_again_with_all_its_ports(machine: Any) -> None:
    converge(machine, ALL)
    declared = alike(snapshot(machine))
    machine.shell("ip link delete bare0")
    converge(machine, ALL)
    assert alike(snapshot(machine)) == declared


def test_removal_leaves_nothing(machine: Any, python: str) -> None:
    machine.shell("nft add table inet mine; nft add chain inet mine keep; ip link add keep type bridge")
    before = snapshot(machine)
    converge(machine, ALL, python=python)
    assert converge(machine, NOTHING, python=python)["changed"]
    assert snapshot(machine) == before
    again = converge(machine, NOTHING, python=python)
    assert (again["changed"], again["commands"]) == (False, [])


def test_removal_of_one_leaves_the_others(machine: Any) -> None:
    converge(machine, {"batch": [DATABASE, LESSON]})
    without = alike(snapshot(machine))
    converge(machine, WEB)
    converge(machine, {"name": "web", "state": "absent"})
    assert alike(snapshot(machine)) == without


def test_removal_while_a_process_is_inside(machine: Any) -> None:
    converge(machine, ALL)
    with serving(machine, *inside("web")):
        converge(machine, NOTHING)
        assert "bare-web" not in machine.run("ip", "link")


def test_settings_of_the_host_get_their_values_back(machine: Any) -> None:
    machine.shell("echo 1 > /proc/sys/net/ipv4/ip_forward")
    converge(machine, ALL)
    converge(machine, NOTHING)
    assert (
        machine.run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
        == "1\n0\n"
    )


CHANGES = {
    "address": {"address": "10.200.0.7/24"},
    "second address first": {"address": ["10.200.0.7/24", "10.200.0.2/24", "fd00:200::2/64"]},
    "single address too": {"address": ["10.200.0.2/24", "203.0.113.9/32", "2001:db8:7::9/128"]},
    "gateway": {"gateway": "10.200.0.254", "address": "10.200.0.2/24"},
    "other subnet": {"address": "10.210.0.2/16"},
    "point to point": {"address": "10.210.0.3/31", "publish": []},
    "address out of a subnet": {"address": [], "subnet": ["10.200.0.0/24"]},
    "no address": {"address": [], "nat": False, "publish": []},
    "bridge": {"bridge": "bare7", "address": "10.207.0.2/24"},
    "no bridge": {"bridge": None, "address": "10.208.0.2/24"},
    "interface": {"interface": "net0"},
    "mtu": {"mtu": 9000},
    "mac_address": {"mac_address": "02-00-00-00-00-AB"},
    "no nat": {"nat": False},
    "publish": {"publish": ["192.0.2.2:80:80", "[2001:db8::2]:80:80", "127.0.0.1:99:99/udp"]},
    "ranges published": {"publish": ["8000-8099:8000-8099", "7000-7009:80-89/udp", "9:9/sctp"]},
    "nothing published": {"publish": []},
    "open": {"isolate": False},
    "lists": {"allow": [{"from": "any", "port": 80}], "deny": [{"to": "192.0.2.9", "protocol": "icmp"}]},
    "internal": {"internal": True, "nat": False, "publish": []},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_declaration_comes_to_what_a_new_one_does(
    new_machine: Callable[[], Any], change: Mapping[str, Any]
) -> None:
    """There and back, whatever was before."""
    changing, new = new_machine(), new_machine()
    converge(changing, WEB)
    original = alike(snapshot(changing))
    changed = {key: value for key, value in {**WEB, **change}.items() if value is not None}
    assert converge(changing, changed)["changed"]
    assert not converge(changing, changed)["changed"]
    converge(new, changed)
    assert alike(snapshot(changing)) == alike(snapshot(new))
    converge(changing, WEB)
    assert alike(snapshot(changing)) == original


def test_commands_alone_build_the_same(new_machine: Callable[[], Any], python: str) -> None:
    converged, by_hand = new_machine(), new_machine()
    result = converge(converged, ALL, python=python)
    by_hand.shell("\n".join(result["commands"]))
    assert alike(snapshot(by_hand)) == alike(snapshot(converged))
    assert not converge(by_hand, ALL, python=python)["changed"]


def test_commands_alone_remove_the_same(new_machine: Callable[[], Any]) -> None:
    machine = new_machine()
    before = alike(snapshot(machine))
    converge(machine, ALL)
    result = converge(machine, NOTHING, check=True)
    machine.shell("\n".join(result["commands"]))
    after = alike(snapshot(machine))
    # ip-netns(8) leaves the directory of names behind.
    after["lists"] = [line for line in after["lists"] if line not in ("/run/netns", "mount /run/netns")]
    assert after == before


BOOT = """
cd /var/lib/bare-containers
sh network/host.sh
for script in containers/*/network.sh; do sh $script; done
"""


def test_boot_scripts_rebuild_all(new_machine: Callable[[], Any]) -> None:
    before, rebooted = new_machine(), new_machine()
    converge(before, ALL)
    kept = before.shell("tar -C /var/lib -c bare-containers | base64")
    rebooted.run("sh", "-c", "base64 -d | tar -C /var/lib -x", input=kept)
    rebooted.shell(BOOT)
    assert alike(snapshot(rebooted)) == alike(snapshot(before))
    assert not converge(rebooted, ALL)["changed"]


def test_boot_scripts_on_a_running_host_disturb_nothing(machine: Any) -> None:
    converge(machine, ALL)
    before = snapshot(machine)
    machine.shell(BOOT)
    after = snapshot(machine)
    # The table is loaded anew, in one transaction, and is then another with the same rules.
    del before["rules"], after["rules"]
    assert after == before
    assert not converge(machine, ALL)["changed"]


def test_killed_at_any_instant_the_next_run_converges(new_machine: Callable[[], Any], instants: Any) -> None:
    more = [{"name": f"c{number}", "bridge": "bare1", "subnet": "10.205.0.0/24"} for number in range(8)]
    all_of_them = {"batch": [*ALL["batch"], *more]}
    nothing = {"batch": [{"name": each["name"], "state": "absent"} for each in all_of_them["batch"]]}
    machine, new = new_machine(), new_machine()
    empty = snapshot(machine)
    wanted = None
    for holds in interrupted(machine, new, all_of_them, nothing, instants):
        wanted = wanted or alike(snapshot(new))
        if holds is all_of_them:
            assert alike(snapshot(machine)) == wanted
        else:
            left = snapshot(machine)
            # As ip-netns(8) leaves it, when killed after the last name and before the directory of names.
            left["lists"] = [line for line in left["lists"] if line not in ("/run/netns", "mount /run/netns")]
            assert left == empty


def test_thirty_containers_in_one_task(machine: Any, python: str) -> None:
    batch = [
        {
            "name": f"c{number}",
            "bridge": "bare0",
            "address": f"10.200.0.{number}/24",
            "publish": [f"{9000 + number}:80"],
        }
        for number in range(2, 32)
    ]
    result = converge(machine, {"batch": batch}, python=python)
    assert len(result["containers"]) == len(batch) + len(("_firewall", "_host", "_names", "_dns", "_boot"))
    assert not converge(machine, {"batch": batch}, python=python)["changed"]
    with serving(machine, *inside("c31")):
        assert ask(machine, *inside("c2"), address="10.200.0.31", port=80) == "10.200.0.2"
        assert ask(machine, address="127.0.0.1", port=9031) == "10.200.0.1"
    machine.shell("ip -n c17 link set eth0 down")
    repaired = converge(machine, {"batch": batch}, python=python)
    assert [name for name, outcome in repaired["containers"].items() if outcome["changed"]] == ["c17"]


def test_one_that_fails_does_not_stop_the_others(machine: Any) -> None:
    machine.shell("mkdir -p /run/netns/web")
    result = machine.module("netns_veth", ALL)
    assert result["msg"] == "web: namespace: Is a directory (/run/netns/web)."
    assert [name for name, outcome in result["containers"].items() if outcome["failed"]] == ["web"]
    machine.run(*inside("db"), "busybox", "ping", "-c1", "-W5", "10.200.0.1")
    machine.shell("rmdir /run/netns/web")
    converge(machine, ALL)
    assert not converge(machine, ALL)["changed"]


def test_two_runs_at_once(machine: Any) -> None:
    at_once(machine, [WEB, DATABASE, LESSON])
    assert not converge(machine, ALL)["changed"]


SUBNETS = ["10.206.0.0/24", "fd00:206::/64"]


def allocated(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The addresses of each container of a batch."""
    return {name: each["address"] for name, each in result["containers"].items() if "address" in each}


class TestAllocation:
    """Addresses out of a subnet."""

    def test_each_has_its_own_and_keeps_it(self, machine: Any) -> None:
        batch = [{"name": name, "bridge": "bare6", "subnet": SUBNETS} for name in ("a", "b", "c")]
        first = allocated(converge(machine, {"batch": batch}))
        assert first == {
            name: [f"10.206.0.{last}/24", f"fd00:206::{last}/64"]
            for name, last in (("a", 2), ("b", 3), ("c", 4))
        }
        again = converge(machine, {"batch": batch[::-1]})
        assert not again["changed"]
        assert allocated(again) == first
        for name, addresses in first.items():
            shown = json.loads(machine.run("ip", "-n", name, "-j", "address", "show", "dev", "eth0"))[0]
            kernel = {f"{each['local']}/{each['prefixlen']}" for each in shown["addr_info"]}
            assert set(addresses) <= kernel
        # The host is the gateway of both, and not given away.
        machine.run(*inside("a"), "busybox", "ping", "-c1", "-W5", "10.206.0.1")
        machine.run(*inside("a"), "busybox", "ping", "-c1", "-W5", "fd00:206::4")

    def test_one_is_free_when_its_container_is_gone(self, machine: Any) -> None:
        batch = [{"name": name, "bridge": "bare6", "subnet": SUBNETS[:1]} for name in ("a", "b", "c")]
        converge(machine, {"batch": batch})
        converge(machine, {"name": "b", "state": "absent"})
        assert converge(machine, {**batch[0], "name": "d"})["address"] == ["10.206.0.3/24"]
        assert converge(machine, batch[1])["address"] == ["10.206.0.5/24"]
        # One that goes in the same task makes room in it.
        result = converge(machine, {"batch": [{"name": "a", "state": "absent"}, {**batch[0], "name": "e"}]})
        assert allocated(result) == {"e": ["10.206.0.2/24"]}

    def test_who_declares_one_has_it_and_the_others_go_around(self, machine: Any) -> None:
        fixed = {"name": "z", "bridge": "bare6", "subnet": SUBNETS[:1], "address": "10.206.0.2/24"}
        batch = [{"name": "a", "bridge": "bare6", "subnet": SUBNETS[:1]}, fixed]
        assert allocated(converge(machine, {"batch": batch})) == {
            "a": ["10.206.0.3/24"],
            "z": ["10.206.0.2/24"],
        }
        # One that becomes allocated stays what it is; what another has is refused.
        assert converge(machine, {**batch[0], "name": "z"})["address"] == ["10.206.0.2/24"]
        message = refused(machine, {**fixed, "name": "y"})
        assert "address: 10.206.0.2 is declared for" in message

    def test_a_subnet_is_used_to_its_end(self, machine: Any) -> None:
        batch = [{"name": f"c{number}", "bridge": "bare6", "subnet": "10.206.0.0/29"} for number in range(5)]
        addresses = allocated(converge(machine, {"batch": batch}))
        assert [each for (each,) in addresses.values()] == [f"10.206.0.{last}/29" for last in range(2, 7)]
        before = snapshot(machine)
        message = refused(machine, {**batch[0], "name": "last"})
        assert message == (
            "subnet: 10.206.0.0/29 has no address left for last; it takes a larger subnet; "
            "nothing was changed."
        )
        assert snapshot(machine) == before
        smaller = converge(machine, {"name": "two", "bridge": "bare7", "subnet": "10.207.0.4/31"})
        assert (smaller["address"], smaller["gateway"]) == (["10.207.0.5/31"], ["10.207.0.4"])

    def test_what_the_host_has_itself_is_not_given_away(self, machine: Any) -> None:
        machine.shell("""
            ip link add lan0 type bridge
            ip address add 10.206.0.2/24 dev lan0
            ip link set lan0 up
        """)
        arguments = {"name": "a", "bridge": "lan0", "subnet": "10.206.0.0/24", "gateway": "10.206.0.3"}
        assert converge(machine, arguments)["address"] == ["10.206.0.1/24"]
        assert converge(machine, {**arguments, "name": "b"})["address"] == ["10.206.0.4/24"]

    def test_runs_at_once_give_none_twice(self, machine: Any) -> None:
        entries = [{"name": f"c{number}", "bridge": "bare6", "subnet": SUBNETS} for number in range(6)]
        converge(machine, {**entries[0], "name": "before"})
        addresses = [result["address"] for result in at_once(machine, entries)]
        assert sorted(addresses) == [[f"10.206.0.{last}/24", f"fd00:206::{last}/64"] for last in range(3, 9)]

    def test_what_a_damaged_one_has_is_not_known(self, machine: Any) -> None:
        converge(machine, {"name": "a", "bridge": "bare6", "subnet": SUBNETS})
        kept = "/var/lib/bare-containers/containers/a/network.json"
        machine.shell(f"echo '{{' > {kept}")
        message = refused(machine, {"name": "b", "bridge": "bare6", "subnet": SUBNETS})
        assert message.startswith(f"subnet: {kept} is damaged")
        assert message.endswith("; nothing was changed.")


def at_once(machine: Any, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of as many runs, all of them on their way before one of them begins."""
    runs = [
        subprocess.Popen(
            machine.module_command("netns_veth"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _entry in entries
    ]
    for run, entry in zip(runs, entries, strict=True):
        assert run.stdin is not None
        run.stdin.write(json.dumps(entry))
        run.stdin.close()
        run.stdin = None
    results = [json.loads(run.communicate()[0]) for run in runs]
    assert [result.get("msg") for result in results] == [None] * len(entries)
    return results


BAD = {
    "subnet with an address": ({**WEB, "subnet": "10.200.0.1/24"}, "subnet: .* is not accepted"),
    "subnet of one": ({**WEB, "subnet": "10.200.0.1/32"}, "subnet: .* is not accepted"),
    "subnets in each other": (
        {**WEB, "subnet": ["10.200.0.0/24", "10.0.0.0/8"]},
        "subnet: .* is not accepted",
    ),
    "outside the subnet": ({**WEB, "gateway": "10.201.0.1"}, "gateway: '10.201.0.1' is outside the subnet"),
    "the gateway's own": (
        {**WEB, "address": "10.200.0.1/24"},
        "address: 10.200.0.1 is declared for web and is its gateway",
    ),
    "the network's own": (
        {**WEB, "address": "10.200.0.0/24"},
        "is the network's own or its broadcast address",
    ),
    "the broadcast address": (
        {**WEB, "address": "10.200.0.255/24"},
        "is the network's own or its broadcast address",
    ),
    "no length": ({**WEB, "address": "10.200.0.2"}, "an address with its prefix length"),
    "no address at all": ({**WEB, "address": "10.200.0.300/24"}, "an address with its prefix length"),
    "loopback": ({**WEB, "address": "127.0.0.2/8"}, "neither loopback"),
    "one address for two": (
        {"batch": [WEB, {**DATABASE, "address": "10.200.0.2/24"}]},
        "address: 10.200.0.2 is declared for",
    ),
    "address of one on disk": (
        {"name": "new", "bridge": "bare0", "address": "10.200.0.99/24"},
        "old and for new|new and for old",
    ),
    "another's gateway": (
        {**DATABASE, "address": "10.200.0.98/24", "gateway": "10.200.0.1"},
        "is the gateway of",
    ),
    "two gateways": (
        {"batch": [WEB, {**DATABASE, "gateway": "10.200.0.254"}]},
        "are of the same subnet, which takes one for all",
    ),
    "one subnet, two links": ({"batch": [WEB, {"name": "x", "address": "10.200.0.5/24"}]}, "overlaps with"),
    "one port for two": (
        {"batch": [WEB, {**DATABASE, "publish": ["127.0.0.1:8080:81"]}]},
        "takes the same port of the host",
    ),
    "bad port": ({**WEB, "publish": ["8080:99999"]}, "with ports from 1 to 65535"),
    "ranges that meet": (
        {"batch": [WEB, {**DATABASE, "publish": ["8000-8099:8000-8099"]}]},
        "takes the same port of the host",
    ),
    "ranges of two lengths": ({**WEB, "publish": ["8000-8099:80-81"]}, "as many ports of the host as of"),
    "bad protocol": ({**WEB, "publish": ["8080:80/icmp"]}, "publish: .* is not accepted"),
    "port alone": ({**WEB, "publish": ["80"]}, "publish: .* is not accepted"),
    "published on ipv6 only": (
        {**DATABASE, "publish": ["[2001:db8::2]:80:80"]},
        "the family that the container has none of",
    ),
    "not a bridge": (
        {"name": "web", "bridge": "plain"},
        "bridge: 'plain' of web is a link of this host that is no bridge",
    ),
    "long bridge": ({**WEB, "bridge": "a-very-long-name"}, "up to 15 letters"),
    "long interface": ({**WEB, "interface": "a-very-long-name"}, "up to 15 letters"),
    "our own prefix": ({**WEB, "bridge": "bare-x"}, "does not begin with 'bare-'"),
    "lo": ({**WEB, "interface": "lo"}, "not one of lo, all, default"),
    "small mtu": ({**WEB, "mtu": 1000}, "mtu: 1000 is too small for IPv6"),
    "no mtu": ({**WEB, "mtu": 1}, "a number from 68 to 65535"),
    "multicast mac": ({**WEB, "mac_address": "01:00:00:00:00:01"}, "a unicast MAC address"),
    "from whom": ({**WEB, "allow": [{"port": 80}]}, "allow: .* is not accepted"),
    "denied what": ({**WEB, "deny": [{"from": "any", "protocol": "http"}]}, "deny: .* is not accepted"),
    "nat of nothing": ({"name": "web", "nat": True}, "nat: web has no address"),
    "internal and published": ({**WEB, "internal": True, "nat": False}, "internal: web asks for publish too"),
    "internal and not": (
        {"batch": [WEB, {**DATABASE, "internal": True}]},
        "which takes one for all",
    ),
    "two of one name": ({"batch": [WEB, WEB]}, "name: 'web' is declared twice"),
    "bad name": ({**WEB, "name": "../web"}, "name: .* is not accepted"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_nothing_changed(
    machine: Any, arguments: Mapping[str, Any], sentence: str
) -> None:
    machine.shell("ip link add plain type veth peer name other")
    converge(
        machine,
        {
            "batch": [
                {"name": "old", "bridge": "bare0", "address": "10.200.0.99/24", "gateway": "10.200.0.1"},
                {"name": "gate", "bridge": "bare9", "address": "10.209.0.2/24", "gateway": "10.209.0.1"},
            ]
        },
    )
    if sentence == "is the gateway of":
        arguments = {"name": "thief", "bridge": "bare9", "address": "10.209.0.1/24", "gateway": "10.209.0.3"}
    before = snapshot(machine)
    message = refused(machine, arguments)
    assert re.search(sentence, message), message
    assert message.count("nothing was changed.") == 1
    assert message.endswith("nothing was changed.")
    assert snapshot(machine) == before


def test_what_frees_an_address_or_a_port_in_the_same_task_is_no_conflict(machine: Any) -> None:
    converge(machine, WEB)
    converge(machine, {"batch": [{"name": "web", "state": "absent"}, {**WEB, "name": "www"}]})
    assert machine.shell("ls /run/netns").split() == ["www"]


def test_missing_programs_and_libraries_are_named(machine: Any, tmp_path: Any) -> None:
    before = snapshot(machine)
    (tmp_path / "pyroute2.py").write_text("raise ImportError('none')\n", encoding="ascii")
    message = refused(machine, WEB, environment={"PYTHONPATH": f"{tmp_path}:{_path_of(machine)}"})
    assert "install the package python3-pyroute2; nothing was changed." in message
    machine.shell("mkdir /run/programs; ln -s /usr/bin/env /usr/bin/python3 /run/programs")
    result = machine.module("netns_veth", WEB, environment={"PATH": "/run/programs"})
    assert "install the package nftables" in result["msg"]
    machine.shell("rm -r /run/programs")
    converge(machine, {"name": "web", "state": "absent"})
    assert snapshot(machine) == before


def _path_of(machine: Any) -> str:
    """The module search path that modules are run with."""
    words = machine.module_command("netns_veth")
    return str(next(word for word in words if word.startswith("PYTHONPATH=")).partition("=")[2])


@pytest.fixture
def without_rules(machine: Any) -> dict[str, str]:
    """The environment of a run for which the host's nft(8) fails to load anything."""
    machine.shell("""
        mkdir /run/programs
        cat > /run/programs/nft <<'END'
#!/bin/sh
[ "$1" != -f ] || { echo broken >&2; exit 1; }
exec /usr/sbin/nft "$@"
END
        chmod 755 /run/programs/nft
    """)
    return {"PATH": "/run/programs:/usr/bin:/bin"}


def test_localhost_is_not_opened_when_the_rules_can_not_be_loaded(
    machine: Any, without_rules: dict[str, str]
) -> None:
    converge(machine, {"batch": [{**each, "publish": []} for each in (WEB, DATABASE, LESSON)]})
    result = machine.module("netns_veth", ALL, environment=without_rules)
    assert "broken" in result["msg"]
    assert "is not opened to the container's link" in result["msg"]
    settings = machine.shell("grep . /proc/sys/net/ipv4/conf/*/route_localnet")
    assert ":1" not in settings
    # The rest is there, and the next run has only that left to do.
    machine.run(*inside("web"), "busybox", "ping", "-c1", "-W5", "10.200.0.1")
    converge(machine, ALL)
    assert not converge(machine, ALL)["changed"]


def test_a_link_that_the_rules_are_to_shut_is_not_made_before_they_are_loaded(
    machine: Any, without_rules: dict[str, str]
) -> None:
    """Those that are there stay, and who asks for no rules has its link."""
    here = {"name": "here", "bridge": "bare1", "address": "10.205.0.2/24", "nat": True}
    is_open = {"name": "open", "bridge": "bare2", "address": "10.206.0.2/24", "isolate": False}
    inner = {"name": "inner", "bridge": "bare3", "address": "10.207.0.2/24", "internal": True}
    new = [{**here, "name": "new", "address": "10.205.0.3/24"}, inner]
    pair = {"name": "pair", "address": "10.208.0.2/24"}
    converge(machine, here)
    before = snapshot(machine)
    # Not by this run and not by the one after it, whose table is not what is declared.
    for _run in range(2):
        everything = {"batch": [here, is_open, *new, pair]}
        result = machine.module("netns_veth", everything, environment=without_rules)
        failed = {name for name, each in result["containers"].items() if each["failed"]}
        assert failed == {"_firewall", "new", "inner", "pair"}
        assert result["containers"]["new"]["msg"] == (
            "The container's link is not made, because the firewall that is to isolate it could not be "
            "loaded; links that are there were left as they are."
        )
        links = {name for name in _links(machine) if name.startswith("bare-")}
        assert links == {"bare-here", "bare-open"}
        after = snapshot(machine)
        assert (after["here"], after["rules"]) == (before["here"], before["rules"])
        machine.run(*inside("open"), "busybox", "ping", "-c1", "-W5", "10.206.0.1")
    converge(machine, everything)
    assert not converge(machine, everything)["changed"]
    machine.run(*inside("pair"), "busybox", "ping", "-c1", "-W5", "10.208.0.1")


def test_forwarding_that_would_cost_the_host_its_own_route_is_refused(machine: Any) -> None:
    machine.shell("""
        ip link add wan type veth peer name other
        ip link set wan up
        ip link set other up
        ip -6 route add default via fe80::1 dev wan proto ra
    """)
    before = snapshot(machine)
    message = refused(machine, WEB)
    assert "set net.ipv6.conf.wan.accept_ra=2 first; nothing was changed." in message
    assert snapshot(machine) == before
    machine.shell("echo 2 > /proc/sys/net/ipv6/conf/wan/accept_ra")
    converge(machine, WEB)
    assert "proto ra" in machine.run("ip", "-6", "route", "show", "default")


def test_a_bridge_of_somebody_else_is_used_as_it_is(machine: Any) -> None:
    machine.shell(
        """
        ip link add bare0 address 02:00:00:00:00:50 type bridge
        ip link set bare0 up
        ip address add 10.200.0.50/24 dev bare0
        """
    )
    before = snapshot(machine)
    converge(machine, ALL)
    bridge = machine.run("ip", "-j", "address", "show", "dev", "bare0")
    assert [
        address["local"] for address in json.loads(bridge)[0]["addr_info"] if address["scope"] == "global"
    ] == ["10.200.0.50"]
    machine.run(*inside("web"), "busybox", "ping", "-c1", "-W5", "10.200.0.50")
    assert not converge(machine, ALL)["changed"]
    converge(machine, NOTHING)
    assert snapshot(machine) == before


@pytest.mark.parametrize("made", ["ip netns add web", "ip link add bare-web type veth peer name other"])
def test_what_bears_our_names_and_is_not_ours_is_left_alone(machine: Any, made: str) -> None:
    machine.shell(made)
    before = snapshot(machine)
    assert "this collection did not make" in refused(machine, {"name": "web"})
    assert not converge(machine, {"name": "web", "state": "absent"})["changed"]
    after = snapshot(machine)
    for what in ("host", "web", "lists"):
        assert after.get(what) == before.get(what)


def test_a_long_name_has_a_link_too(machine: Any) -> None:
    name = "a-container.with_a.rather-long-name"
    result = converge(machine, {**DATABASE, "name": name})
    assert len(result["host_interface"]) == 15
    machine.run(*inside(name), "busybox", "ping", "-c1", "-W5", "10.200.0.1")
    converge(machine, {"name": name, "state": "absent"})
    assert "bare-" not in machine.run("ip", "link")


def test_facts(machine: Any) -> None:
    expected = {
        "netns": "/run/netns/db",
        "interface": "eth0",
        "host_interface": "bare-db",
        "address": ["10.200.0.3/24"],
        "gateway": ["10.200.0.1"],
        "bridge": "bare0",
    }
    result = converge(machine, DATABASE)
    assert {key: result[key] for key in expected} == expected
    inner = json.loads(machine.run("ip", "-n", "db", "-j", "link", "show", "eth0"))[0]
    assert result["mac_address"] == inner["address"]
    batch = converge(machine, {"batch": [DATABASE]})["containers"]["db"]
    assert {key: batch[key] for key in expected} == expected


def _examples() -> list[dict[str, Any]]:
    from ansible_collections.bare.containers.plugins.modules import netns_veth

    tasks = [task["bare.containers.netns_veth"] for task in yaml.safe_load(netns_veth.EXAMPLES)]
    # Not every kernel has VLANs: tests/systemd/test_links.py runs these on one that does.
    return [task for task in tasks if not any("vlan" in each for each in task.get("batch", []))]


def test_examples_run(machine: Any, python: str) -> None:
    machine.shell("ip link add eno1 type veth peer name other")
    examples = _examples()
    assert examples
    for arguments in examples:
        assert converge(machine, arguments, python=python)["changed"]
        assert not converge(machine, arguments, python=python)["changed"]

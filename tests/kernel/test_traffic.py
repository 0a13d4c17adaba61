# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches whom by the networks of netns_veth: the host is a Machine, a second one is the internet."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest
from networks import ALL, DATABASE, LESSON, WEB, alike, ask, converge, inside, rules_of, serving, snapshot


class TestTraffic:
    """What the recipe asks to be seen."""

    def test_gateway_and_outside(self, machine: Any, internet: Any, python: str) -> None:
        converge(machine, ALL, python=python)
        machine.run(*inside("web"), "busybox", "ping", "-c1", "-W5", "10.200.0.1")
        machine.run(*inside("lesson"), "busybox", "ping", "-c1", "-W5", "10.201.0.1")
        with serving(internet):
            for name in ("web", "lesson"):
                assert ask(machine, *inside(name), address="192.0.2.1", port=80) == "192.0.2.2"
            # db has not asked for nat, and the internet knows no way back.
            assert "no answer" in ask(machine, *inside("db"), address="192.0.2.1", port=80, patience=1)
        with serving(internet, address="::"):
            assert ask(machine, *inside("web"), address="2001:db8::1", port=80) == "2001:db8::2"

    def test_published_port(self, machine: Any, internet: Any) -> None:
        converge(machine, ALL)
        with serving(machine, *inside("web")):
            assert ask(internet, address="192.0.2.2", port=8080) == "192.0.2.1"
            assert ask(machine, address="192.0.2.2", port=8080) == "192.0.2.2"
            assert ask(machine, address="127.0.0.1", port=8080) == "10.200.0.1"
            # From the same subnet and from the container itself the answer has to come back through the host.
            assert ask(machine, *inside("db"), address="192.0.2.2", port=8080) == "10.200.0.1"
            assert ask(machine, *inside("web"), address="192.0.2.2", port=8080) == "10.200.0.1"
            assert "refused" in ask(internet, address="192.0.2.2", port=80)

    def test_published_on_one_address_only(self, machine: Any, internet: Any) -> None:
        converge(machine, ALL)
        with serving(machine, *inside("lesson")):
            assert ask(machine, address="127.0.0.1", port=8081) == "10.201.0.1"
            assert "refused" in ask(internet, address="192.0.2.2", port=8081)
            assert "refused" in ask(machine, address="192.0.2.2", port=8081)

    def test_published_over_udp_and_ipv6(self, machine: Any, internet: Any) -> None:
        converge(machine, ALL)
        with serving(machine, *inside("web"), port=53, kind="udp"):
            assert ask(internet, address="192.0.2.2", port=5353, kind="udp") == "192.0.2.1"
            assert ask(machine, address="127.0.0.1", port=5353, kind="udp") == "10.200.0.1"
            for name in ("db", "web"):
                answer = ask(machine, *inside(name), address="192.0.2.2", port=5353, kind="udp")
                assert answer == "10.200.0.1"
        with serving(machine, *inside("web"), address="::"):
            assert ask(internet, address="2001:db8::2", port=8080) == "2001:db8::1"
            assert ask(machine, address="2001:db8::2", port=8080) == "2001:db8::2"
            assert ask(machine, *inside("web"), address="2001:db8::2", port=8080) == "fd00:200::1"
            assert "refused" in ask(machine, address="::1", port=8080)


FRONT = {"name": "front", "bridge": "bare1", "address": ["10.202.0.2/24", "fd00:202::2/64"], "nat": True}


class TestIsolation:
    """Who reaches whom over the host: none but by what is published, unless told otherwise."""

    ROUTES = """
        ip route add 10.0.0.0/8 via 192.0.2.2
        ip -6 route add fd00::/16 via 2001:db8::2
    """
    """A neighbour of the host that knows the way to the containers."""

    def test_other_bridges_are_out_of_reach(self, machine: Any) -> None:
        converge(machine, {"batch": [WEB, DATABASE, FRONT, LESSON]})
        with serving(machine, *inside("web"), address="::"):
            for address, own in (("10.200.0.2", "10.200.0.3"), ("::ffff:10.200.0.2", "10.200.0.3")):
                assert own in ask(machine, *inside("db"), address=address, port=80)
            for name in ("front", "lesson"):
                assert "timed out" in ask(machine, *inside(name), address="10.200.0.2", port=80, patience=1)
            assert "timed out" in ask(machine, *inside("front"), address="fd00:200::2", port=80, patience=1)
            # What is published is for everyone, and the host itself reaches all.
            assert ask(machine, *inside("front"), address="10.200.0.1", port=8080).endswith("10.200.0.1")
            assert ask(machine, *inside("front"), address="fd00:200::1", port=8080) == "fd00:200::1"
            assert ask(machine, *inside("lesson"), address="10.201.0.1", port=8080).endswith("10.200.0.1")
            assert ask(machine, address="10.200.0.2", port=80).endswith("10.200.0.1")

    def test_neighbours_of_the_host_that_know_the_way(self, machine: Any, internet: Any) -> None:
        internet.shell(self.ROUTES)
        converge(machine, {"batch": [WEB, FRONT]})
        with serving(machine, *inside("web"), address="::"):
            for address in ("10.200.0.2", "fd00:200::2"):
                assert "timed out" in ask(internet, address=address, port=80, patience=1)
        converge(machine, {"batch": [{**WEB, "isolate": False}, FRONT]})
        with serving(machine, *inside("web"), address="::"):
            assert ask(internet, address="10.200.0.2", port=80) == "::ffff:192.0.2.1"
            assert ask(internet, address="fd00:200::2", port=80) == "2001:db8::1"
            assert ask(machine, *inside("front"), address="10.200.0.2", port=80) == "::ffff:10.200.0.1"

    def test_what_was_dropped_is_counted(self, machine: Any) -> None:
        converge(machine, {"batch": [WEB, FRONT]})
        ask(machine, *inside("front"), address="10.200.0.2", port=80, patience=0.5)
        rules = json.loads(machine.run("nft", "-j", "list", "chain", "inet", "bare_containers", "forward"))
        (dropped,) = [
            expression["counter"]["packets"]
            for each in rules["nftables"]
            if each.get("rule", {}).get("comment") == "bare0"
            for expression in each["rule"]["expr"]
            if "counter" in expression
        ]
        assert dropped >= 1

    def test_internal(self, machine: Any, internet: Any) -> None:
        internet.shell(self.ROUTES)
        store = {"bridge": "bare2", "internal": True}
        one = {**store, "name": "one", "address": ["10.203.0.2/24", "fd00:203::2/64"]}
        two = {**store, "name": "two", "address": ["10.203.0.3/24", "fd00:203::3/64"]}
        converge(machine, {"batch": [one, two, WEB]})
        assert "default" not in machine.shell("ip -n one route; ip -n one -6 route")
        with serving(machine, *inside("one"), address="::"), serving(internet, address="::"):
            for prefix in ("10.203.0.", "fd00:203::"):
                assert f"{prefix}3" in ask(machine, *inside("two"), address=f"{prefix}2", port=80)
                assert f"{prefix}1" in ask(machine, address=f"{prefix}2", port=80)
            # Even with a way out of its own making, and who knows the way in.
            machine.shell("ip -n one route add default via 10.203.0.1")
            machine.shell("ip -n one -6 route add default via fd00:203::1")
            for address in ("192.0.2.1", "2001:db8::1", "10.200.0.2", "fd00:200::2"):
                assert "timed out" in ask(machine, *inside("one"), address=address, port=80, patience=0.5)
            for address in ("10.203.0.2", "fd00:203::2"):
                assert "timed out" in ask(internet, address=address, port=80, patience=0.5)
                assert "timed out" in ask(machine, *inside("web"), address=address, port=80, patience=0.5)
        assert converge(machine, {"batch": [one, two, WEB]})["changed"]
        assert "default" not in machine.shell("ip -n one route; ip -n one -6 route")

    def test_open_connections_end_when_a_network_becomes_internal(self, machine: Any, internet: Any) -> None:
        """The rules are a link's and come before those for answers."""
        own = {"name": "one", "bridge": "bare2", "address": "10.203.0.2/24"}
        converge(machine, {**own, "nat": True})
        with serving(internet, kind="udp", port=53):
            words = machine.command(*inside("one"), "/usr/bin/python3", "-c", ASKS_AGAIN, "192.0.2.1", "53")
            asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert asking.stdin is not None
            assert asking.stdout is not None
            assert asking.stdout.readline() == "192.0.2.2\n"
            converge(machine, {**own, "internal": True})
            assert "no answer" in asking.communicate("\n")[0]


FIREWALLS = {
    "docker": (
        """
        nft add table ip filter
        nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'
        nft add chain ip filter DOCKER-USER
        nft add rule ip filter FORWARD counter jump DOCKER-USER
        """,
        "iptables -I DOCKER-USER -i bare0 -j ACCEPT && iptables -I DOCKER-USER -o bare0 -j ACCEPT",
        "nft add rule ip filter DOCKER-USER {}iifname bare0 accept",
    ),
    "firewalld": (
        """
        nft add table inet firewalld
        nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }'
        nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
        """,
        "firewall-cmd --permanent --zone=trusted --add-interface=bare0 && firewall-cmd --reload",
        "nft insert rule inet firewalld filter_FORWARD {}iifname bare0 accept",
    ),
    "iptables-legacy": (
        "iptables-legacy -P FORWARD DROP",
        "iptables-legacy -I FORWARD -i bare0 -j ACCEPT && iptables-legacy -I FORWARD -o bare0 -j ACCEPT",
        "iptables-legacy -I FORWARD -i bare0 -j ACCEPT; iptables-legacy -I FORWARD -o bare0 -j ACCEPT",
    ),
    "ip6tables-legacy": (
        "ip6tables-legacy -A FORWARD -j REJECT",
        "ip6tables-legacy -I FORWARD -i bare0 -j ACCEPT && ip6tables-legacy -I FORWARD -o bare0 -j ACCEPT",
        "ip6tables-legacy -I FORWARD -i bare0 -j ACCEPT; ip6tables-legacy -I FORWARD -o bare0 -j ACCEPT",
    ),
    "docker before nftables": (
        """
        iptables-legacy -P FORWARD DROP
        iptables-legacy -N DOCKER-USER
        iptables-legacy -A FORWARD -j DOCKER-USER
        """,
        "iptables-legacy -I DOCKER-USER -i bare0 -j ACCEPT && "
        "iptables-legacy -I DOCKER-USER -o bare0 -j ACCEPT",
        "for way in i o; do iptables-legacy -I DOCKER-USER -$way bare0 -j ACCEPT; done",
    ),
    "own": (
        """
        nft add table inet mine
        nft add chain inet mine forward '{ type filter hook forward priority 0; policy drop; }'
        """,
        "nft insert rule inet mine forward iifname bare0 accept && "
        "nft insert rule inet mine forward oifname bare0 accept",
        "nft insert rule inet mine forward {}iifname bare0 accept",
    ),
}


class TestOtherFirewalls:
    """What another one drops stays dropped; it is told, with what lets it pass, and its rules are its own."""

    @pytest.mark.parametrize(("made", "remedy", "rule"), FIREWALLS.values(), ids=FIREWALLS.keys())
    def test_it_is_told_how_to_let_pass(
        self, machine: Any, internet: Any, made: str, remedy: str, rule: str
    ) -> None:
        machine.shell(made)
        before = rules_of(machine)
        (warning,) = converge(machine, WEB)["warnings"]
        told = warning["event"]["msg"]
        assert "does not mention bare0" in told
        assert f"'{remedy}'" in told
        assert [each for each in rules_of(machine) if "bare_containers" not in str(each)] == before
        to, own = ("2001:db8::2", "2001:db8::1") if "ip6" in made else ("192.0.2.2", "192.0.2.1")
        with serving(machine, *inside("web"), address="::"):
            assert "no answer" in ask(internet, address=to, port=8080, patience=0.5)
            machine.shell(rule.format(""))
            machine.shell(rule.format("").replace("iifname", "oifname"))
            assert own in ask(internet, address=to, port=8080)
        again = converge(machine, WEB)
        assert not again["changed"]
        assert "warnings" not in again

    def test_one_that_lets_pass_what_it_does_not_know(self, machine: Any) -> None:
        machine.shell("""
            nft add table inet mine
            nft add chain inet mine forward '{ type filter hook forward priority 0; policy accept; }'
            nft add rule inet mine forward iifname other drop
        """)
        machine.shell("iptables-legacy -A FORWARD -i other -j DROP")
        assert "warnings" not in converge(machine, WEB)

    def test_ours_are_back_after_all_were_flushed(self, machine: Any, internet: Any) -> None:
        """As bare-network.service does when nftables.service is restarted."""
        converge(machine, WEB)
        rules = machine.run("nft", "-s", "list", "ruleset")
        machine.run("nft", "flush", "ruleset")
        machine.shell("sh /var/lib/bare-containers/network/host.sh")
        assert machine.run("nft", "-s", "list", "ruleset") == rules
        assert not converge(machine, WEB)["changed"]


class TestAllowAndDeny:
    """What a container is sent and sends, whoever the other one is."""

    ONE, TWO, THREE = (
        {"name": name, "bridge": "bare2", "address": [f"10.203.0.{last}/24", f"fd00:203::{last}/64"]}
        for name, last in (("one", 2), ("two", 3), ("three", 4))
    )

    def test_others_than_allowed_get_no_answer(self, machine: Any, internet: Any) -> None:
        allow = [
            {"from": "10.203.0.3", "port": 80},
            {"from": "fd00:203::3", "port": 80},
            {"from": "192.0.2.0/24", "port": 81},
        ]
        one = {**self.ONE, "nat": True, "allow": allow, "publish": ["8080:80", "8081:81"]}
        converge(machine, {"batch": [one, self.TWO, self.THREE]})
        assert not converge(machine, one)["changed"]
        with serving(machine, *inside("one"), address="::"):
            for address in ("10.203.0.2", "fd00:203::2"):
                assert ":3" in ask(machine, *inside("two"), address=address, port=80).replace(".", ":")
                assert "timed out" in ask(machine, *inside("three"), address=address, port=80, patience=0.5)
            assert "timed out" in ask(internet, address="192.0.2.2", port=8080, patience=0.5)
        with serving(machine, *inside("one"), port=81):
            # What comes from outside keeps its address, and is let in by the port inside.
            assert ask(internet, address="192.0.2.2", port=8081) == "192.0.2.1"
            assert "timed out" in ask(machine, *inside("two"), address="10.203.0.2", port=81, patience=0.5)
        # It is free to ask, gets its answers, and reaches itself.
        with serving(internet, address="::"):
            assert ask(machine, *inside("one"), address="192.0.2.1", port=80) == "::ffff:192.0.2.2"
            assert ask(machine, *inside("one"), address="2001:db8::1", port=80) == "2001:db8::2"
        with serving(machine, *inside("one"), port=82):
            assert ask(machine, *inside("one"), address="127.0.0.1", port=82) == "127.0.0.1"

    def test_nothing_but_what_is_allowed_goes_out(self, machine: Any, internet: Any) -> None:
        one = {**self.ONE, "nat": True, "allow": [{"to": "192.0.2.1", "protocol": "udp", "port": "50-59"}]}
        converge(machine, {"batch": [one, self.TWO]})
        with serving(internet, kind="udp", port=53):
            assert ask(machine, *inside("one"), address="192.0.2.1", port=53, kind="udp") == "192.0.2.2"
        with serving(internet, port=53):
            assert "no answer" in ask(machine, *inside("one"), address="192.0.2.1", port=53, patience=0.5)
        with serving(machine, *inside("two")):
            assert "no answer" in ask(machine, *inside("one"), address="10.203.0.3", port=80, patience=0.5)
        with serving(machine, *inside("one")):
            assert ask(machine, *inside("two"), address="10.203.0.2", port=80) == "10.203.0.3"

    def test_who_is_denied_loses_what_was_open(self, machine: Any, internet: Any) -> None:
        converge(machine, {"batch": [{**self.ONE, "nat": True}, self.TWO]})
        with serving(internet, kind="udp", port=53), serving(internet, kind="udp", port=54):
            words = machine.command(*inside("one"), "/usr/bin/python3", "-c", ASKS_AGAIN, "192.0.2.1", "53")
            asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert asking.stdout is not None
            assert asking.stdout.readline() == "192.0.2.2\n"
            deny = [{"to": "192.0.2.1", "protocol": "udp", "port": 53}]
            assert converge(machine, {**self.ONE, "nat": True, "deny": deny})["changed"]
            assert "no answer" in asking.communicate("\n")[0]
            assert ask(machine, *inside("one"), address="192.0.2.1", port=54, kind="udp") == "192.0.2.2"
            assert converge(machine, {**self.ONE, "nat": True})["changed"]
            assert ask(machine, *inside("one"), address="192.0.2.1", port=53, kind="udp") == "192.0.2.2"
        assert machine.run(*inside("one"), "nft", "list", "ruleset") == ""

    @pytest.mark.parametrize(
        "protocols",
        ["", "[ ! -e /etc/protocols ] || mount --bind /dev/null /etc/protocols"],
        ids=["names", "numbers"],
    )
    def test_every_kind_of_entry_is_read_as_it_was_loaded(self, machine: Any, protocols: str) -> None:
        """Also where no protocols(5) has names for nft(8) to list."""
        machine.shell(protocols)
        entries = [
            {way: peer, **what}
            for way in ("from", "to")
            for peer in ("any", "10.0.0.0/8", "192.0.2.9", "fd00::/16", "2001:db8::9")
            for what in (
                {},
                *({"protocol": protocol} for protocol in ("tcp", "udp", "sctp", "icmp")),
                *({"protocol": protocol, "port": "80-90"} for protocol in ("tcp", "udp", "sctp")),
                {"port": 443},
            )
        ]
        converge(machine, {**self.ONE, "nat": True, "allow": entries, "deny": entries})

    def test_what_was_let_in_and_dropped_is_told(self, machine: Any) -> None:
        allow = [{"from": "10.203.0.3", "port": 80}]
        converge(machine, {"batch": [{**self.ONE, "allow": allow}, self.TWO]})
        with serving(machine, *inside("one")):
            assert ask(machine, *inside("two"), address="10.203.0.2", port=80) == "10.203.0.3"
            assert "timed out" in ask(machine, *inside("two"), address="10.203.0.2", port=81, patience=0.5)
        told = machine.module("container_info", {"name": ["one"]})["containers"]["one"]
        assert told["drift"] == []
        counted = {rule["rule"]: rule["packets"] for rule in told["network"]["rules"]}
        assert counted['ip saddr 10.203.0.3 tcp dport 80 counter accept comment "one"'] == 1
        assert counted['counter drop comment "one"'] >= 1

    @pytest.mark.parametrize(
        "drift",
        [
            "ip netns exec one nft flush ruleset",
            "ip netns exec one nft add rule inet bare_containers input accept",
            "rm /var/lib/bare-containers/containers/one/network.nft",
            "echo >> /var/lib/bare-containers/containers/one/network.nft",
            "ip netns delete one",
        ],
    )
    def test_drift(self, machine: Any, drift: str) -> None:
        one = {**self.ONE, "nat": True, "deny": [{"from": "10.203.0.3"}]}
        converge(machine, one)
        before = alike(snapshot(machine))
        rules = machine.run(*inside("one"), "nft", "-s", "list", "ruleset")
        machine.shell(drift)
        assert converge(machine, one, check=True)["changed"]
        assert converge(machine, one)["changed"]
        assert alike(snapshot(machine)) == before
        assert machine.run(*inside("one"), "nft", "-s", "list", "ruleset") == rules


ASKS_AGAIN = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect((sys.argv[1], int(sys.argv[2])))
client.send(b"?")
print(client.recv(100).decode(), flush=True)
sys.stdin.readline()
client.settimeout(1)
try:
    client.send(b"?")
    print(client.recv(100).decode())
except OSError as error:
    print("no answer:", error)
"""


RANGES = {
    "name": "web",
    "bridge": "bare0",
    "address": ["10.200.0.2/24", "fd00:200::2/64"],
    "publish": ["8000-8099:8000-8099", "7000-7099:8000-8099", "9000-9099:8000-8099/udp", "9899:9/sctp"],
}


KEEPS_ASKING = """
import socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
for _line in sys.stdin:
    client.settimeout(0)
    try:
        while client.recv(100):
            pass  # an answer to an earlier one, which came late
    except OSError:
        client.settimeout(0.5)
    try:
        client.sendto(b"?", (sys.argv[1], 5353))
        print(client.recv(100).decode(), flush=True)
    except OSError:
        print("no answer", flush=True)
"""
"""Over UDP, from one port all the time."""


@pytest.mark.parametrize("python", ["/usr/bin/python3", sys.executable], ids=("debian", "newest"))
@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_who_keeps_sending_is_led_to_where_the_port_leads_now(
    machine: Any, internet: Any, eventually: Any, address: str, python: str
) -> None:
    """By UDP the kernel would remember where it led when the first packet came."""
    one, two = (
        {"name": name, "bridge": "bare0", "address": [f"10.200.0.{last}/24", f"fd00:200::{last}/64"]}
        for name, last in (("one", 2), ("two", 3))
    )
    published = {"publish": ["5353:53/udp"]}
    converge(machine, {"batch": [one, two]}, python=python)
    words = internet.command("/usr/bin/python3", "-c", KEEPS_ASKING, address)
    asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer() -> str:
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write("\n")
        asking.stdin.flush()
        return asking.stdout.readline().strip()

    with contextlib.ExitStack() as stack:
        stack.callback(asking.communicate)
        for name in ("one", "two"):
            stack.enter_context(serving(machine, *inside(name), address="::", port=53, kind="udp"))
        assert answer() == "no answer"
        # A new bridge finds IPv6 neighbours once its own address is known to be nobody else's.
        converge(machine, {**one, **published}, python=python)
        eventually(lambda: answer() != "no answer")
        converge(machine, {"batch": [one, {**two, **published}]}, python=python)
        eventually(lambda: answer() != "no answer")
        listed = machine.run("nft", "-j", "list", "chain", "inet", "bare_containers", "prerouting")
        rules = [each["rule"]["expr"] for each in json.loads(listed)["nftables"] if "rule" in each]
        family = "ip6" if ":" in address else "ip"
        (counter,) = [rule[2]["counter"] for rule in rules if rule[-1]["dnat"]["family"] == family]
        assert counter["packets"] == 1
        converge(machine, two, python=python)
        assert answer() == "no answer"


class TestRanges:
    """A hundred ports are published by as few rules as one is."""

    def test_every_port_leads_to_its_own(self, machine: Any, internet: Any) -> None:
        converge(machine, RANGES)
        assert not converge(machine, RANGES)["changed"]
        for inner in (8000, 8057, 8099):
            with serving(machine, *inside("web"), port=inner):
                assert ask(internet, address="192.0.2.2", port=inner) == "192.0.2.1"
                assert ask(internet, address="192.0.2.2", port=inner - 1000) == "192.0.2.1"
                assert ask(machine, address="127.0.0.1", port=inner - 1000) == "10.200.0.1"
                assert ask(machine, *inside("web"), address="192.0.2.2", port=inner) == "10.200.0.1"
            with serving(machine, *inside("web"), port=inner, address="::"):
                assert ask(internet, address="2001:db8::2", port=inner) == "2001:db8::1"
                assert ask(internet, address="2001:db8::2", port=inner - 1000) == "2001:db8::1"
            with serving(machine, *inside("web"), port=inner, kind="udp"):
                assert ask(internet, address="192.0.2.2", port=inner + 1000, kind="udp") == "192.0.2.1"
        assert "refused" in ask(internet, address="192.0.2.2", port=7100)
        assert "refused" in ask(internet, address="192.0.2.2", port=6999)

    def test_few_rules_are_needed(self, machine: Any) -> None:
        converge(machine, RANGES)
        rules = machine.run("nft", "list", "chain", "inet", "bare_containers", "prerouting")
        assert rules.count(" dnat ") == 2 * len(RANGES["publish"])

    def test_sctp(self, machine: Any, internet: Any) -> None:
        """A packet that asks for an association arrives, and the answer comes from where it was asked for."""
        converge(machine, RANGES)
        words = machine.command(*inside("web"), "/usr/bin/python3", "-c", SCTP_SERVER)
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            answer = internet.run("/usr/bin/python3", "-c", SCTP_CLIENT, "192.0.2.2", "9899")
            assert answer == "2 from 192.0.2.2 port 9899\n"
            assert server.stdout.readline() == "1 from 192.0.2.1 to 10.200.0.2 port 9\n"
        finally:
            server.kill()
            server.communicate()


SCTP = """
import socket, struct, sys
def checksum(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _bit in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
def packet(source, destination, tag, kind):
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + 8 * (kind == 2), 7, 65535, 1, 1, 1)
    # An INIT ACK has a state cookie (RFC 9260, 3.3.3).
    chunk += struct.pack("!HHI", 7, 8, 1) if kind == 2 else b""
    head = struct.pack("!HHI", source, destination, tag)
    return head + struct.pack("<I", checksum(head + bytes(4) + chunk)) + chunk
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
raw.settimeout(10)
def receive():
    data, (peer, _port) = raw.recvfrom(2000)
    to = socket.inet_ntoa(data[16:20])
    data = data[4 * (data[0] & 15):]
    assert struct.unpack("<I", data[8:12])[0] == checksum(data[:8] + bytes(4) + data[12:]), "checksum"
    source, destination = struct.unpack("!HH", data[:4])
    return peer, to, source, destination, data[12]
"""
"""The kernel of a machine of tests need not speak SCTP (RFC 9260); its connection tracking does."""

SCTP_SERVER = f"""{SCTP}
print("ready", flush=True)
peer, to, source, destination, kind = receive()
print(kind, "from", peer, "to", to, "port", destination, flush=True)
raw.sendto(packet(destination, source, 7, 2), (peer, 0))
"""

SCTP_CLIENT = f"""{SCTP}
raw.sendto(packet(4000, int(sys.argv[2]), 0, 1), (sys.argv[1], 0))
peer, to, source, destination, kind = receive()
print(kind, "from", peer, "port", source, flush=True)
"""

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks where systemd is PID 1: what becomes of them when rules are flushed, and when the host reboots."""

from __future__ import annotations

import json
import re
import time

import pytest
from networks import rules_of

from tests.systemd.test_links import OUTSIDE, absent, reaches, state, vlans

WEB = {
    "name": "web",
    "bridge": "bare0",
    "vlan": 10,
    "address": ["10.230.10.2/24", "fd00:230:10::2/64"],
    "nat": True,
    "publish": ["8080:80", "20000-20009:20000-20009/udp"],
    "allow": [{"from": "any", "port": 80}, {"to": "192.0.2.0/24", "protocol": "icmp"}],
    "deny": [{"from": "198.51.100.0/24"}],
}
TWO_LINKS = {
    "name": "two",
    "bridge": "bare0",
    "vlan": 20,
    "address": "10.230.20.2/24",
    "bandwidth": {"ingress": "8M", "egress": "16M"},
    "interfaces": [
        {
            "interface": "eth1",
            "bridge": "bare1",
            "address": "10.231.0.2/24",
            "routes": [{"to": "203.0.113.0/24", "via": "10.231.0.9"}],
        }
    ],
}
STORE = {"name": "store", "bridge": "bare2", "address": ["10.232.0.2/24", "fd00:232::2/64"], "internal": True}
OPEN = {"name": "open", "address": "10.233.0.2/24", "isolate": False}
WORKERS = [
    {"name": f"worker{number}", "bridge": "bare3", "subnet": ["10.234.0.0/24", "fd00:234::/64"]}
    for number in (1, 2)
]
BESIDE = {
    "name": "beside",
    "kind": "macvlan",
    "parent": "eth0",
    "address": "10.0.2.40/24",
    "gateway": "10.0.2.2",
}
NETWORKS = {"batch": [WEB, TWO_LINKS, STORE, OPEN, *WORKERS, BESIDE]}
FORWARDED = ("bare-open", "bare0.10", "bare0.20", "bare1", "bare3")
"""What the host forwards for, of these: neither what is internal nor what shares a link."""
NAMES = [each["name"] for each in NETWORKS["batch"]]

SERVES = ["sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"]
PROCESSES = {
    "batch": [
        {"name": "web", "command": SERVES, "stop_timeout": 0},
        {"name": "store", "command": ["sleep", "10000"], "stop_timeout": 0},
    ]
}
WITH_PROCESS = [each["name"] for each in PROCESSES["batch"]]

BEYOND = f"{OUTSIDE}\nip -n outside route add default via 192.0.2.1"
ROUTER = "/etc/sysctl.d/50-test.conf"
GET = "ip netns exec outside curl --silent --max-time 5 http://192.0.2.1:8080/ || :"


@pytest.fixture(scope="module")
def running(host):
    """All of them, some with a process, on a host that loads rules of its own at boot; and a snapshot."""
    host.shell(f"{BEYOND}\necho net.ipv6.conf.eth0.accept_ra=2 > {ROUTER}\nsystemctl enable --now nftables")
    files = {"batch": [{"name": name, "busybox": True} for name in WITH_PROCESS]}
    results = host.results(
        [
            {"bare.containers.launcher": {}},
            {"bare.containers.rootfs_fetch": files},
            {"bare.containers.netns_veth": NETWORKS},
            {"bare.containers.container_process": PROCESSES},
            {"bare.containers.netns_veth": NETWORKS},
        ]
    )
    assert not [result["msg"] for result in results if result.get("failed")]
    assert not results[-1]["changed"]
    answers(host)
    yield state(host)
    host.results(
        [
            {"bare.containers.container_process": absent(PROCESSES)},
            {"bare.containers.netns_veth": absent(NETWORKS)},
            {"bare.containers.rootfs_fetch": absent(files)},
            {"bare.containers.launcher": {"state": "absent"}},
        ]
    )
    host.shell(f"""
        systemctl disable --now nftables
        rm {ROUTER}
        ip link delete wan
        ip netns delete outside
        echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra
        ! ls /var/lib/bare-containers
        ! ip link show type bridge | grep .
    """)


def answers(host):
    """Waits until the published port does."""
    deadline = time.monotonic() + 120
    while host.shell(GET) != "hello\n":
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def loaded(host):
    """The rules of ours on the host, without what they have counted."""
    return [rule for rule in rules_of(host) if "bare_containers" in json.dumps(rule)]


class TestRules:
    @pytest.mark.parametrize("verb", ["restart", "reload"])
    def test_they_are_there_when_the_host_s_own_are_loaded_anew(self, host, running, verb):
        before = state(host)["rules"]
        host.shell("nft add table inet somebody")
        host.shell(f"systemctl {verb} nftables")
        # The host's own file begins with a flush, so what nobody loads again is gone.
        assert "somebody" not in host.shell("nft list tables")
        assert state(host)["rules"] == before
        assert host.shell(GET) == "hello\n"

    def test_what_was_flushed_by_hand_is_told_and_loaded_by_the_next_run(self, host, running):
        ours = loaded(host)
        assert ours
        told, repaired, again = host.results(
            [
                {"ansible.builtin.command": "nft flush ruleset"},
                {"bare.containers.container_info": {"name": ["web"]}},
                {"bare.containers.netns_veth": NETWORKS},
                {"bare.containers.netns_veth": NETWORKS},
            ]
        )[1:]
        assert "table" in str(told["containers"]["web"]["drift"])
        assert repaired["changed"]
        assert not again["changed"]
        assert alike_rules(loaded(host)) == alike_rules(ours)
        assert host.shell(GET) == "hello\n"

    def test_another_firewall_s_drop_is_told_with_what_lets_us_pass(self, host, running):
        host.shell("""
            nft add table inet mine
            nft add chain inet mine forward '{ type filter hook forward priority 0; policy drop; }'
        """)
        try:
            assert host.shell(GET) != "hello\n"
            (warned,) = host.modules("netns_veth", [NETWORKS])
            (warning,) = warned["warnings"]
            # It is told for the first of the links that the other one does not know.
            first, more = re.search(r"does not mention (\S+) and (\d+) more", warning).groups()
            hint = re.search(r"as with '(.+)'", warning)[1]
            assert first in hint
            assert int(more) == len(FORWARDED) - 1
            host.shell("\n".join(hint.replace(first, link) for link in FORWARDED))
            assert host.shell(GET) == "hello\n"
            assert "warnings" not in host.module("netns_veth", NETWORKS)
        finally:
            host.shell("nft delete table inet mine")


def alike_rules(rules):
    return [{key: {**value, "handle": None} for key, value in rule.items()} for rule in rules]


def shown(host, unit, name):
    return int(host.shell(f"systemctl show --property={name} --value {unit}"))


class TestReboot:
    def test_all_stands_before_the_first_container_starts_with_nothing_run(self, host, running):
        before, ports, ours = state(host), vlans(host), loaded(host)
        host.reboot()
        host.shell(BEYOND)
        answers(host)
        assert vlans(host) == ports
        after = state(host)
        # The host's own rules are those of its file again, whatever they had become.
        assert alike_rules(loaded(host)) == alike_rules(ours)
        for name in before.keys() - {"rules"}:
            assert after[name] == before[name], name
        stood = shown(host, "bare-network.service", "ActiveEnterTimestampMonotonic")
        rules = shown(host, "nftables.service", "ActiveEnterTimestampMonotonic")
        began = shown(host, "bare-network.service", "ExecMainStartTimestampMonotonic")
        assert 0 < rules <= began <= stood
        for name in WITH_PROCESS:
            assert shown(host, f"bare-{name}", "ExecMainStartTimestampMonotonic") >= stood
        assert host.shell("systemctl show -P Result bare-network") == "success\n"
        assert "failed" not in host.shell("journalctl -b -u bare-network --grep failed || :").lower()
        told, again = host.results(
            [{"bare.containers.container_info": {}}, {"bare.containers.netns_veth": NETWORKS}]
        )
        drift = {name: each["drift"] for name, each in told["containers"].items()}
        assert drift == {name: [] for name in NAMES}
        assert (again["changed"], again["commands"]) == (False, [])
        assert reaches(host, "two", "10.230.20.1", "10.231.0.1", "10.230.10.2") == [
            "10.230.20.1",
            "10.231.0.1",
        ]
        assert reaches(host, "beside", "10.0.2.2") == ["10.0.2.2"]
        assert reaches(host, "outside", "10.233.0.2", "10.232.0.2") == ["10.233.0.2"]

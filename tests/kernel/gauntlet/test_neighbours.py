# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that send over their link what only the host itself should be able to say or to ask."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

PUBLISHED = {"publish": ["127.0.0.1:8080:80"]}
FIRST = {"bridge": "bare0", "address": "10.200.0.2/24", **PUBLISHED}
FURTHER = {"interface": "eth1", "bridge": "bare1", "address": "10.201.0.2/24"}
LINKS = {
    "the first link": (FIRST, "eth0", "bare0", "10.200.0.1"),
    "on an open bridge": ({**FIRST, "isolate": False}, "eth0", "bare0", "10.200.0.1"),
    "a further link": (
        {"bridge": "bare0", **PUBLISHED, "interfaces": [FURTHER]},
        "eth1",
        "bare1",
        "10.201.0.1",
    ),
}
"""The declaration, and the link that the attack is made by: its bridge is one of the host's localhost too."""


@dataclass(frozen=True)
class Neighbour:
    """A container with all privileges in its own network, and what the attack is made by and on."""

    run: Callable[[str], str]
    link: str
    bridge: str
    gateway: str


def declare(containers: Any, name: str, **network: Any) -> None:
    result = containers.machine.module("netns_veth", {"name": containers.name(name), **network})
    assert not result.get("failed"), result


@pytest.fixture
def privileged(containers: Any, launcher: Any, with_python: Any) -> Callable[[], Callable[[str], str]]:
    """Starts the container that has a network already, and gives what runs a command in it."""

    def start() -> Callable[[str], str]:
        launcher.declare(privileged=True, **with_python)
        assert launcher.start() == ""
        return lambda text: launcher.execute("sh", "-c", text)

    return start


@pytest.fixture(params=LINKS.values(), ids=LINKS.keys())
def neighbour(request: pytest.FixtureRequest, containers: Any, privileged: Any) -> Neighbour:
    network, *where = request.param
    declare(containers, "one", **network)
    return Neighbour(privileged(), *where)


ADVERTISE = """
import socket, struct
advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("{link}"))
router.sendto(advertisement, ("ff02::1", 0))
"""


def advertise(run: Callable[[str], str], link: str, other: str) -> None:
    """What is answered after the advertisement has been taken after it."""
    ask = f"ping -c 1 -W 5 {other} > /dev/null && echo answered"
    assert run(f"/usr/bin/python3 -c '{ADVERTISE.format(link=link)}' && {ask}") == "answered\n"


def wait_for_addresses(machine: Any, eventually: Any, *places: str) -> None:
    """Until all IPv6 addresses are known to be nobody else's."""
    shown = "; ".join(f"{place} -6 address show tentative" for place in places)
    eventually(lambda: machine.shell(shown) == "")


def test_a_container_is_the_router_of_the_host(containers, neighbour, eventually):
    """CVE-2020-10749: the host takes a default route from whoever advertises one (RFC 4861)."""
    machine = containers.machine

    def learned():
        wait_for_addresses(machine, eventually, "ip", f"ip -n {containers.name('one')}")
        advertise(neighbour.run, neighbour.link, neighbour.gateway)
        return machine.run("ip", "-6", "route", "show", "default")

    assert learned() == ""
    machine.shell(f"echo 1 > /proc/sys/net/ipv6/conf/{neighbour.bridge}/accept_ra")
    assert "proto ra" in learned()


@pytest.mark.usefixtures("internet")
@pytest.mark.parametrize("link", [{"bridge": "bare0"}, {"kind": "macvlan", "parent": "wan"}], ids=str)
def test_a_container_is_the_router_of_another(containers, privileged, eventually, link):
    """Behind the same bridge, or beside it on a link of the host's."""
    machine = containers.machine
    for name, last in (("one", 2), ("two", 3)):
        declare(containers, name, address=f"fd00:200::{last}/64", default_route=False, **link)
    run, two = privileged(), containers.name("two")

    def learned():
        wait_for_addresses(machine, eventually, f"ip -n {containers.name('one')}", f"ip -n {two}")
        advertise(run, "eth0", "fd00:200::3")
        assert machine.run("ip", "-6", "route", "show", "default") == ""
        return machine.run("ip", "-n", two, "-6", "route", "show", "default")

    assert learned() == ""
    machine.shell(f"ip netns exec {two} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra'")
    assert "proto ra" in learned()


SERVE = """
import socket
server = socket.create_server(("127.0.0.1", 9999))
print(flush=True)
while True:
    connection, _peer = server.accept()
    connection.sendall(b"secret")
    connection.close()
"""

TO_THE_GATEWAY = """
ip address del 127.0.0.1/8 dev lo
ip route flush table local dev lo
echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet
ip route add 127.0.0.0/8 via {gateway}
"""


def test_a_container_reaches_the_localhost_of_the_host(containers, neighbour):
    """CVE-2020-8558: it sends to 127.0.0.1 by its link, which route_localnet lets the host take."""
    opened = f"/proc/sys/net/ipv4/conf/{neighbour.bridge}/route_localnet"
    assert containers.machine.run("cat", opened) == "1\n"
    neighbour.run(TO_THE_GATEWAY.format(link=neighbour.link, gateway=neighbour.gateway))
    serve = containers.machine.command(sys.executable, "-c", SERVE)
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "\n"
            assert neighbour.run("nc -w 1 127.0.0.1 9999 2>/dev/null || echo no answer") == "no answer\n"
            containers.machine.shell("nft flush chain inet bare_containers loopback")
            assert neighbour.run("nc -w 5 127.0.0.1 9999") == "secret"
        finally:
            server.kill()


def test_a_name_server_answers_who_is_not_behind_its_bridge(containers, neighbour):
    """CVE-2012-3411: who sends to the address of another bridge is told the names there."""
    victim = {
        "name": containers.name("victim"),
        "bridge": "bare7",
        "address": "10.207.0.2/24",
        "dns": "dynamic",
    }
    result = containers.machine.module("netns_veth", victim)
    assert not result.get("failed"), result
    neighbour.run(f"ip route replace 10.207.0.1 via {neighbour.gateway}")
    ask = f"timeout 3 nslookup {containers.name('victim')} 10.207.0.1 2>&1 || echo no answer"
    assert "10.207.0.2" not in neighbour.run(ask)
    (started,) = [command for command in result["commands"] if command.startswith("/usr/sbin/dnsmasq")]
    weaker = started.replace("--bind-dynamic", "--bind-interfaces")
    containers.machine.shell(f"""
        pid=$(cat /run/bare-dns@bare7.pid)
        kill $pid
        while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.1; done
        {weaker}
    """)
    assert "10.207.0.2" in neighbour.run(ask)

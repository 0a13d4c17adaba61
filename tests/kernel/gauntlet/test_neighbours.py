# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that send over their link what only the host itself should be able to say or to ask."""

from __future__ import annotations

import subprocess
import sys

import pytest

GATEWAY = "10.200.0.1"


@pytest.fixture
def neighbour(containers, launcher, with_python):
    """A container on a bridge that is a port of the host's localhost too, with all privileges in its own
    network: gives what runs a command there."""
    network = {"bridge": "bare0", "address": "10.200.0.2/24", "publish": ["127.0.0.1:8080:80"]}
    result = containers.machine.module("netns_veth", {"name": containers.name("one"), **network})
    assert not result.get("failed"), result
    launcher.declare(privileged=True, **with_python)
    assert launcher.start() == ""
    return lambda text: launcher.execute("sh", "-c", text)


ADVERTISE = """
import socket, struct
advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
router.sendto(advertisement, ("ff02::1", 0))
"""


def test_a_container_is_the_router_of_the_host(containers, neighbour, eventually):
    """CVE-2020-10749: the host takes a default route from whoever advertises one (RFC 4861)."""
    name = containers.name("one")

    def advertise():
        usable = f"! ip -n {name} -6 address show | grep tentative && ! ip -6 address show | grep tentative"
        eventually(lambda: containers.machine.shell(f"({usable}) > /dev/null && echo yes || :"))
        # What is answered after the advertisement has been taken after it.
        ask = f"ping -c 1 -W 5 {GATEWAY} > /dev/null && echo answered"
        assert neighbour(f"/usr/bin/python3 -c '{ADVERTISE}' && {ask}") == "answered\n"
        return containers.machine.run("ip", "-6", "route", "show", "default")

    assert advertise() == ""
    containers.machine.shell("echo 1 > /proc/sys/net/ipv6/conf/bare0/accept_ra")
    assert "proto ra" in advertise()


SERVE = """
import socket
server = socket.create_server(("127.0.0.1", 9999))
print(flush=True)
while True:
    connection, _peer = server.accept()
    connection.sendall(b"secret")
    connection.close()
"""

TO_THE_GATEWAY = f"""
ip address del 127.0.0.1/8 dev lo
ip route flush table local dev lo
echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
ip route add 127.0.0.0/8 via {GATEWAY}
"""


def test_a_container_reaches_the_localhost_of_the_host(containers, neighbour):
    """CVE-2020-8558: it sends to 127.0.0.1 by its link, which route_localnet lets the host take."""
    assert containers.machine.run("cat", "/proc/sys/net/ipv4/conf/bare0/route_localnet") == "1\n"
    neighbour(TO_THE_GATEWAY)
    serve = containers.machine.command(sys.executable, "-c", SERVE)
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "\n"
            assert neighbour("nc -w 1 127.0.0.1 9999 2>/dev/null || echo no answer") == "no answer\n"
            containers.machine.shell("nft flush chain inet bare_containers loopback")
            assert neighbour("nc -w 5 127.0.0.1 9999") == "secret"
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
    ask = f"timeout 3 nslookup {containers.name('victim')} 10.207.0.1 2>&1 || echo no answer"
    assert "10.207.0.2" not in neighbour(ask)
    (started,) = [command for command in result["commands"] if command.startswith("/usr/sbin/dnsmasq")]
    weaker = started.replace("--bind-dynamic", "--bind-interfaces")
    containers.machine.shell(f"""
        pid=$(cat /run/bare-dns@bare7.pid)
        kill $pid
        while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.1; done
        {weaker}
    """)
    assert "10.207.0.2" in neighbour(ask)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: the gateway, the world through translation, names, and what is published."""

from __future__ import annotations

import shlex

import pytest

INTERNET = "203.0.113.2"

NAME_SERVER = """
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("203.0.113.2", 53))
while True:
    query, client = server.recvfrom(512)
    end = query.index(b"\\0", 12) + 5
    kind = struct.unpack("!H", query[end - 4:end - 2])[0]
    answers = 1 if kind == 1 else 0
    reply = query[:2] + struct.pack("!HHHHH", 0x8180, 1, answers, 0, 0) + query[12:end]
    if answers:
        reply += b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([198, 51, 100, 7])
    server.sendto(reply, client)
"""


@pytest.fixture
def internet(host):
    """Starts a program in the namespace that stands for the internet, as a unit that ends with the test."""
    started = []

    def start(unit, *command):
        host.check_output("systemctl reset-failed %s 2>/dev/null || true", unit)
        line = " ".join(map(shlex.quote, command))
        host.check_output(f"systemd-run --quiet --collect --unit={unit} ip netns exec internet {line}")
        started.append(unit)

    yield start
    for unit in started:
        host.check_output("systemctl stop %s", unit)


@pytest.mark.parametrize(("name", "gateway"), [("web", "10.200.0.1"), ("stubborn", "10.201.0.1")])
def test_the_gateway_answers(host, container, name, gateway):
    pid = container(name).pid
    assert host.run("nsenter --target %s --net ping -c 1 -W 10 %s", pid, gateway).rc == 0


def test_the_world_is_reached_through_translation(host, container, internet, eventually):
    internet("web-of-internet", "python3", "-m", "http.server", "--bind", INTERNET, "80")
    web = container("web")
    assert "Directory listing" in eventually(
        lambda: web.run(f"timeout 10 wget -qO- http://{INTERNET}/").stdout
    )
    log = host.check_output("journalctl --unit=web-of-internet.service --output=cat --no-pager")
    assert "203.0.113.1 - - " in log
    assert "10.200.0.2" not in log


def test_without_nat_the_world_is_not_reached(host, container):
    # The same way out, but nobody translates for this one: the answer has no route back.
    assert (
        host.run("nsenter --target %s --net ping -c 1 -W 3 %s", container("stubborn").pid, INTERNET).rc != 0
    )


def test_names_resolve_by_the_resolv_conf_and_hosts_that_were_provided(container, internet, eventually):
    web = container("web")
    assert f"nameserver {INTERNET}" in web.output("cat /etc/resolv.conf")
    internet("names-of-internet", "python3", "-c", NAME_SERVER)
    eventually(lambda: "198.51.100.7" in web.run("nslookup somewhere.example").stdout)
    hosts = web.output("cat /etc/hosts")
    assert {"127.0.0.1", "10.200.0.2", "203.0.113.2"} <= {
        line.split()[0] for line in hosts.splitlines() if line
    }
    assert web.run("ping -c 1 -W 10 peer.example").rc == 0
    assert web.run("ping -c 1 -W 10 web.example").rc == 0


def test_the_published_port_answers_from_another_host_and_from_the_host_itself(host):
    outside = "ip netns exec internet curl --silent --fail --max-time 20 http://203.0.113.1:8080/"
    assert host.check_output(outside) == "hello from web.example"
    assert (
        host.check_output("curl --silent --fail --max-time 20 http://203.0.113.1:8080/")
        == "hello from web.example"
    )
    assert host.run("ip netns exec internet curl --silent --max-time 3 http://203.0.113.1:8081/").rc != 0


def test_each_reaches_whom_it_is_declared_to_after_the_rules_of_the_host_are_loaded_anew(host, astray):
    host.check_output("systemctl restart nftables")
    # What the package has in its file: three empty chains.
    host.check_output("nft delete table inet filter")
    assert astray() == []


def test_an_internal_network_leads_nowhere_though_there_be_routes(host, container):
    routes = {
        "-n internet": ("10.201.0.0/24 via 203.0.113.1", "10.203.0.0/24 via 203.0.113.1"),
        "-n bare": ("default via 10.203.0.1",),
    }

    def change(verb):
        for where, added in routes.items():
            for route in added:
                host.check_output(f"ip {where} route {verb} {route}")

    ping = "nsenter --target %s --net ping -c 1 -W %s %s"
    change("add")
    try:
        # The same way out and back, of a network that is not internal.
        assert host.run(ping, container("stubborn").pid, "10", INTERNET).rc == 0
        assert host.run(ping, container("bare").pid, "3", INTERNET).rc != 0
    finally:
        change("delete")


def test_a_link_carries_no_more_than_its_bandwidth(host, container):
    container("web").output("dd if=/dev/zero of=/srv/www/large bs=1M count=4 2>/dev/null")
    speed = "curl --silent --fail --output /dev/null --write-out '%{speed_download}' "
    # 16 Mbit/s; TCP and IP have headers, and the bucket is full when it begins.
    assert float(host.check_output(speed + "http://10.200.0.2/large")) <= 1.1 * 2_000_000
    container("web").output("rm /srv/www/large")


def test_addresses_are_the_first_of_the_subnet_that_are_free(host):
    # 10.203.0.1 is the gateway's.
    for name, link, address in (("web", "eth1", "10.203.0.2/24"), ("bare", "eth0", "10.203.0.3/24")):
        assert address in host.check_output(f"ip -n {name} -brief address show dev {link}")


def test_the_namespace_has_a_name(host):
    names = host.check_output("ip netns list | cut -d' ' -f1").split()
    assert {"web", "stubborn", "bare"} <= set(names)
    assert not {"worker", "app"} & set(names)
    assert "10.200.0.2/24" in host.check_output("ip netns exec web ip -brief address show dev eth0")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks on a Machine: declared by the module, looked at from outside of it, and traffic through them."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

WEB = {
    "name": "web",
    "bridge": "bare0",
    "address": ["10.200.0.2/24", "fd00:200::2/64"],
    "nat": True,
    "publish": ["8080:80", "5353:53/udp"],
}
DATABASE = {"name": "db", "bridge": "bare0", "address": "10.200.0.3/24"}
LESSON = {
    "name": "lesson",
    "address": "10.201.0.2/24",
    "nat": True,
    "publish": ["127.0.0.1:8081:80"],
    "deny": [{"from": "10.201.0.9"}, {"to": "192.0.2.9", "protocol": "icmp"}],
}
ALL = {"batch": [WEB, DATABASE, LESSON]}
NOTHING = {"batch": [{"name": name, "state": "absent"} for name in ("web", "db", "lesson")]}

SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
kind = socket.SOCK_DGRAM if sys.argv[3] == "udp" else socket.SOCK_STREAM
server = socket.socket(family, kind)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
if kind == socket.SOCK_STREAM:
    server.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_DGRAM:
        data, peer = server.recvfrom(1)
        server.sendto(peer[0].encode(), peer)
    else:
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())
        connection.close()
"""
"""Tells every client the address that it comes from."""

CLIENT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
kind = socket.SOCK_DGRAM if sys.argv[3] == "udp" else socket.SOCK_STREAM
client = socket.socket(family, kind)
client.settimeout(float(sys.argv[4]))
try:
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.send(b"?")
    print(client.recv(100).decode())
except OSError as error:
    print("no answer:", error)
"""


@contextlib.contextmanager
def serving(
    machine: Any, *where: str, address: str = "0.0.0.0", port: int = 80, kind: str = "tcp"
) -> Iterator[None]:
    """A server in a machine, or in a container of it with ``where`` = ip netns exec NAME."""
    words = machine.command(*where, "/usr/bin/python3", "-c", SERVER, address, str(port), kind)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def ask(machine: Any, *where: str, address: str, port: int, kind: str = "tcp", patience: float = 5) -> str:
    """The address that the server says we come from, or ``no answer: …``."""
    words = ("/usr/bin/python3", "-c", CLIENT, address, str(port), kind, str(patience))
    return str(machine.run(*where, *words)).strip()


ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 9))
print("ready", flush=True)
connection, _peer = server.accept()
while data := connection.recv(100):
    connection.sendall(data)
"""

TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 9), timeout=20)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(100).decode(), end="", flush=True)
"""


@contextlib.contextmanager
def connected(machine: Any, name: str, address: str) -> Iterator[Callable[[str], str]]:
    """A TCP connection from the host to a container that stays, as what sends a word and gets it back."""
    python = ("/usr/bin/python3", "-c")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(machine.command(*inside(name), *python, ECHO, address), **pipes)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    client = subprocess.Popen(machine.command(*python, TALK, address), **pipes)

    def say(word: str) -> str:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(f"{word}\n")
        client.stdin.flush()
        return str(client.stdout.readline()).strip()

    try:
        yield say
    finally:
        for process in (client, server):
            process.kill()
            process.communicate()


def inside(name: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name)


NAMESPACES = """
for path in /run/netns/*; do
    if [ "$(stat -f -c %T $path 2> /dev/null)" = nsfs ]; then basename $path; fi
done
"""


def snapshot(machine: Any) -> dict[str, Any]:
    """All that the module could have changed: links, addresses, routes, rules, settings, files, mounts.

    With what tells a thing from one made anew in its place: indices, handles, times.
    """
    found: dict[str, Any] = {"host": _network(machine, "ip")}
    for name in machine.shell(NAMESPACES).split():
        found[name] = _network(machine, f"ip -n {name}")
        found[name]["rules"] = rules_of(machine, *inside(name))
    found["rules"] = rules_of(machine)
    lines = machine.shell(LISTS).splitlines()
    # Names of namespaces are compared as such; a lock's file stays behind when its holder is killed.
    passing = ("/run/netns/", "/run/bare-containers")
    found["lists"] = sorted(line for line in lines if not line.startswith(passing))
    return found


def rules_of(machine: Any, *where: str) -> list[Any]:
    rules = json.loads(machine.run(*where, "nft", "-j", "list", "ruleset"))["nftables"]
    return [_without(rule, _PASSING) for rule in rules if "metainfo" not in rule]


LISTS = """
find /var/lib /run -type f -printf "%p %m %s %T@ %i\\n"
find /var/lib /run -type d -printf "%p\\n"
find /var/lib -type f | xargs -r sha256sum
cut -d " " -f 5 /proc/self/mountinfo | grep /run | sed "s/^/mount /"
cd /proc/sys/net
grep -s . ipv4/ip_forward ipv6/conf/all/forwarding ipv4/conf/*/route_localnet ipv6/conf/*/accept_ra
"""

_NUMBERS = ("ifindex", "link_index", "link_netnsid", "stats64", "handle")
_PASSING = (
    "valid_life_time",
    "preferred_life_time",
    "packets",
    "bytes",
    "linkinfo",
    "operstate",
    "flags",
    "tso_max_size",
    "tso_max_segs",
)


def _network(machine: Any, ip: str) -> dict[str, Any]:
    """A link-local address and its routes come and go with the carrier; they are the kernel's own."""
    lists = ("-d -j link", "-j address", "-j route show table all", "-6 -j route show table all")
    printed = machine.shell("".join(f"{ip} {words}; echo ';'\n" for words in lists)).split(";\n")
    links, addresses, *routes = (json.loads(each or "[]") for each in printed[:4])
    for link in addresses:
        link["addr_info"] = [one for one in link["addr_info"] if not one["local"].startswith("fe80:")]
    return {
        "up": [link["ifname"] for link in links if "UP" in link["flags"]],
        "links": _without(links, _PASSING),
        "addresses": _without(addresses, _PASSING),
        "routes": [
            _without(route, _PASSING)
            for route in itertools.chain(*routes)
            if route.get("type") != "multicast" and not route["dst"].startswith(("fe80:", "ff00:"))
        ],
    }


def _without(data: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(data, dict):
        return {key: _without(item, keys) for key, item in data.items() if key not in keys}
    if isinstance(data, list):
        return [_without(item, keys) for item in data]
    return data


def alike(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot without what tells things made anew: neither numbers nor times, nor the order of making."""
    plain: dict[str, Any] = _without(snapshot, _NUMBERS)
    plain["lists"] = sorted(re.sub(r" \d+\.\d+ \d+$", "", line) for line in plain["lists"])
    for network in plain.values():
        if isinstance(network, dict):
            network.update({what: sorted(items, key=str) for what, items in network.items()})
    return plain


def converge(machine: Any, arguments: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = machine.module("netns_veth", arguments, **options)
    assert not result.get("failed"), result["msg"]
    return result


def refused(machine: Any, arguments: Mapping[str, Any], **options: Any) -> str:
    result = machine.module("netns_veth", arguments, **options)
    assert result.get("failed") is True, result
    return str(result["msg"])


def interrupted(
    machine: Any, new: Any, there: Mapping[str, Any], nothing: Mapping[str, Any], instants: Any
) -> Iterator[Mapping[str, Any]]:
    """Kills runs to the one and to the other at any instant, and converges to the same each time: gives which
    one holds then. On ``new``, ``there`` holds from the start."""
    # The second time, as the first has Python's files to write.
    for target in (there, nothing, there):
        begun = time.monotonic()
        converge(new, target)
        took = time.monotonic() - begun
    half_way = set()
    # Most of the time goes by before the first change.
    for number, seconds in enumerate(instants.within(took * 0.4, took * 1.1)):
        target = nothing if number % 2 else there
        machine.module_killed_after(seconds, "netns_veth", target)
        half_way.add(len(machine.shell("ip -o link; ls /run/netns 2> /dev/null || true").splitlines()))
        converge(machine, target)
        yield target
    assert len(half_way) > 2, "no run was killed half-way"

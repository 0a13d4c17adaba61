# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a network carries and what it costs to have: netns_veth, against the same made by hand with ip(8) and
nft(8), and against netavark, which makes the networks of podman.

Carried: from one container to another of its bridge, and from another host to a published port. Made: so
many containers in one task, from the start of the module's interpreter to its end; by hand one `ip -batch`
for the host and one for each container; by netavark one process for each, as podman runs it. Each is done in
network and mount namespaces that are new each time, in turns, so that nothing of the machine is touched.
Figures are medians.
"""

from __future__ import annotations

import ipaddress
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modules import module

COUNTS = (1, 10, 100, 250)
NETAVARK = "/usr/lib/podman/netavark"
NETAVARKS_MOST = 100
"""As many as it is asked for: each takes it longer than the one before."""

BRIDGE = "bench0"
SUBNET = ipaddress.ip_network("10.204.0.0/16")
GATEWAY = SUBNET[1]
INSIDE = 5201
FIRST_PUBLISHED = 20000
TABLE = Path("/var/lib/bare-containers/network/table.nft")

ANSWERING = f"""
import socket
server = socket.create_server(("0.0.0.0", {INSIDE}))
print("ready", flush=True)
while True:
    connection, _peer = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(1):
        connection.send(data)
    connection.close()
"""

ASKING = """
import socket, statistics, sys, time
where = (sys.argv[1], int(sys.argv[2]))
def connect():
    connection = socket.create_connection(where)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
def ask(connection):
    connection.send(b"?")
    connection.recv(1)
def once():
    with connect() as connection:
        ask(connection)
def median(act, count):
    seconds = []
    for _number in range(count):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6
with connect() as kept:
    answer = median(lambda: ask(kept), 5000)
print(answer, median(once, 1000))
"""
"""Prints the microseconds of a byte and its answer, and of those with a connection of their own."""

HOST = """
mount -t tmpfs none /run
mkdir -p /var/lib/bare-containers
mount -t tmpfs none /var/lib/bare-containers
ip link set lo up
exec "$@"
"""
ANOTHER_HOST = """
ip netns add outside
ip link add wan type veth peer name eth0 netns outside
ip address add 192.0.2.2/24 dev wan
ip link set wan up
ip -n outside address add 192.0.2.1/24 dev eth0
ip -n outside link set eth0 up
"""


@dataclass(frozen=True)
class Way:
    """How networks are made for so many containers, and how they are removed."""

    make: Callable[[int], None]
    remove: Callable[[int], None]
    most: int = max(COUNTS)


def name(number: int) -> str:
    return f"c{number}"


def address(number: int) -> str:
    return str(SUBNET[number + 2])


def shell(text: str) -> None:
    """Runs a shell script."""
    subprocess.run(["sh", "-e"], input=text, text=True, check=True)


def declare(count: int) -> None:
    """Ours: every container has one port published, over TCP and UDP."""
    batch = []
    for number in range(count):
        published = f"{FIRST_PUBLISHED + number}:{INSIDE}"
        own = {"address": f"{address(number)}/{SUBNET.prefixlen}", "publish": [published, f"{published}/udp"]}
        batch.append({"name": name(number), "bridge": BRIDGE, "nat": True, **own})
    module("netns_veth", batch=batch)


def undeclare(count: int) -> None:
    module("netns_veth", batch=[{"name": name(number), "state": "absent"} for number in range(count)])


def make_by_hand(count: int) -> None:
    host = [f"link add {BRIDGE} type bridge", f"address add {GATEWAY}/{SUBNET.prefixlen} dev {BRIDGE}"]
    host.append(f"link set {BRIDGE} up")
    inside = []
    forwarded = []
    for number in range(count):
        link = f"bench-{number}"
        host += [
            f"netns add {name(number)}",
            f"link add {link} type veth peer name eth0 netns {name(number)}",
            f"link set {link} master {BRIDGE} up",
        ]
        inside += [
            f"ip -n {name(number)} -batch - <<end",
            "link set lo up",
            f"address add {address(number)}/{SUBNET.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
            "end",
        ]
        forwarded += [
            f"fib daddr type local {protocol} dport {FIRST_PUBLISHED + number} "
            f"dnat ip to {address(number)}:{INSIDE}"
            for protocol in ("tcp", "udp")
        ]
    lines = ["echo 1 > /proc/sys/net/ipv4/ip_forward", "ip -batch - <<end", *host, "end", *inside]
    lines += [
        "nft -f - <<end",
        "table inet bench {",
        "chain prerouting {",
        "type nat hook prerouting priority -100;",
        *forwarded,
        "}",
        "chain postrouting {",
        "type nat hook postrouting priority 100;",
        f'ip saddr {SUBNET} oifname != "{BRIDGE}" masquerade',
        "}",
        "}",
        "end",
    ]
    shell("\n".join(lines))


def remove_by_hand(count: int) -> None:
    """The links go with the namespaces, in the background: it is over when they are gone."""
    lines = ["nft delete table inet bench", "ip -batch - <<end"]
    lines += [f"netns delete {name(number)}" for number in range(count)]
    lines += ["end", f'while [ "$(ip link show master {BRIDGE})" ]; do sleep 0.01; done']
    shell("\n".join([*lines, f"ip link delete {BRIDGE}"]))


def netavark(action: str, number: int) -> None:
    """Runs it with what podman gives it: a network without names, as names are the business of another
    program."""
    network = {
        "name": "bench",
        "id": f"{1:064x}",
        "driver": "bridge",
        "network_interface": BRIDGE,
        "subnets": [{"subnet": str(SUBNET), "gateway": str(GATEWAY)}],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "ipam_options": {"driver": "host-local"},
    }
    ports = [
        {
            "container_port": INSIDE,
            "host_ip": "",
            "host_port": FIRST_PUBLISHED + number,
            "protocol": protocol,
            "range": 1,
        }
        for protocol in ("tcp", "udp")
    ]
    asked = {
        "container_id": f"{number:064x}",
        "container_name": name(number),
        "port_mappings": ports,
        "networks": {"bench": {"interface_name": "eth0", "static_ips": [address(number)]}},
        "network_info": {"bench": network},
    }
    subprocess.run(
        [NETAVARK, "--config", "/run/netavark", action, f"/run/netns/{name(number)}"],
        input=json.dumps(asked),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def make_by_netavark(count: int) -> None:
    for number in range(count):
        subprocess.run(["ip", "netns", "add", name(number)], check=True)
        netavark("setup", number)


def remove_by_netavark(count: int) -> None:
    for number in range(count):
        netavark("teardown", number)
        subprocess.run(["ip", "netns", "delete", name(number)], check=True)


WAYS = {
    "ours": Way(declare, undeclare),
    "by hand": Way(make_by_hand, remove_by_hand),
    "netavark": Way(make_by_netavark, remove_by_netavark, NETAVARKS_MOST),
}


@contextmanager
def serving(*words: str) -> Iterator[None]:
    """A server inside of the second container, from when it says so."""
    command = ["ip", "netns", "exec", name(1), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            while not server.stdout.readline().startswith(("ready", "Server listening")):
                pass
            yield
        finally:
            server.kill()


def iperf(where: tuple[str, ...], to: tuple[str, int], *options: str) -> Mapping[str, Mapping[str, float]]:
    """The sums of a transfer of two seconds."""
    words = ["ip", "netns", "exec", *where, "iperf3", "--json", "--time=2", "--client", to[0]]
    words += ["--port", str(to[1]), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    sums: Mapping[str, Mapping[str, float]] = json.loads(done.stdout)["end"]
    return sums


def carried(way: str) -> dict[str, float]:
    """What is measured of two containers, in a host of their own."""
    shell(ANOTHER_HOST)
    WAYS[way].make(2)
    paths = {
        "beside it": (name(0), (address(1), INSIDE)),
        "published": ("outside", ("192.0.2.2", FIRST_PUBLISHED + 1)),
    }
    found = {}
    with serving("iperf3", "--server", "--forceflush"):
        for path, (where, to) in paths.items():
            sums = iperf((where,), to)
            found[f"{path}, TCP, Gbit/s"] = sums["sum_received"]["bits_per_second"] / 1e9
            sums = iperf((where,), to, "--udp", "--length=64", "--bitrate=0")
            arrived = sums["sum"]["packets"] - sums["sum"]["lost_packets"]
            found[f"{path}, UDP of 64 bytes, 1000/s"] = arrived / sums["sum"]["seconds"] / 1000
    python = (sys.executable, "-I", "-S", "-c")
    with serving(*python, ANSWERING):
        for path, (where, to) in paths.items():
            words = ["ip", "netns", "exec", where, *python, ASKING, to[0], str(to[1])]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            answer, connection = map(float, done.stdout.split())
            found[f"{path}, an answer, µs"] = answer
            found[f"{path}, a connection, µs"] = connection
    return found


def timed(act: Callable[[], None]) -> tuple[float, float]:
    """The seconds that it takes, and those of a processor, without what the kernel does by itself."""

    def processor() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), processor()
    act()
    return time.perf_counter() - began, processor() - before


def costs(way: str, count: int) -> dict[str, tuple[float, float]]:
    """What so many containers cost, in a host of their own; of ours the table of nft(8) too."""
    own = WAYS[way]
    found = {"made": timed(lambda: own.make(count))}
    if way == "ours":
        found["nothing to do"] = timed(lambda: own.make(count))
        found["table loaded"] = timed(lambda: shell(f"nft -f {TABLE}"))
        text = TABLE.read_text()
        found["table"] = (text.count(" counter "), len(text))
    found["removed"] = timed(lambda: own.remove(count))
    return found


def in_a_host(*arguments: str) -> dict:
    """What one of the two above returns."""
    words = ["sh", sys.executable, __file__, "inside", *arguments]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", HOST, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def show_carried(rounds: int) -> None:
    figures: dict[str, dict[str, list[float]]] = {}
    for _round in range(rounds):
        for way in WAYS:
            for what, figure in in_a_host("carried", way).items():
                figures.setdefault(what, {}).setdefault(way, []).append(figure)
    others = [way for way in WAYS if way != "ours"]
    print(f"{'':34}" + "".join(f"{way:>10}" for way in WAYS) + "".join(f"  to {way}" for way in others))
    for what, each in sorted(figures.items()):
        medians = {way: statistics.median(values) for way, values in each.items()}
        ratios = "".join(f"{medians['ours'] / medians[way]:{len(way) + 5}.2f}" for way in others)
        print(f"{what:34}" + "".join(f"{median:10.1f}" for median in medians.values()) + ratios)
    print(f"medians of {rounds}; a ratio is our figure by theirs")


def show_costs(rounds: int) -> None:
    figures: dict[tuple[int, str], dict[str, list[tuple[float, float]]]] = {}
    for _round in range(rounds):
        for count in COUNTS:
            for way in (way for way, own in WAYS.items() if count <= own.most):
                for what, pair in in_a_host("costs", way, str(count)).items():
                    figures.setdefault((count, what), {}).setdefault(way, []).append(tuple(pair))

    def median(count: int, what: str, way: str) -> list[float]:
        return [statistics.median(each) for each in zip(*figures[count, what][way], strict=True)]

    print(f"\n{'seconds, of a processor':26}" + "".join(f"{count:>15}" for count in COUNTS) + "  ms each")
    for what, way in ((what, way) for what in ("made", "nothing to do", "removed") for way in WAYS):
        counts = [count for count in COUNTS if way in figures.get((count, what), ())]
        if counts:
            shown = ["{:8.2f} {:6.2f}".format(*median(count, what, way)) for count in counts]
            one, all_of_them = (median(count, what, way)[0] for count in (counts[0], counts[-1]))
            each = (all_of_them - one) / (counts[-1] - counts[0]) * 1000
            print(f"{f'{what}, {way}':26}{''.join(shown):{15 * len(COUNTS)}}{each:9.1f}")
    for what, unit, number in (("rules", 1, 0), ("KiB", 1 / 1024, 1)):
        shown = [f"{median(count, 'table', 'ours')[number] * unit:15.1f}" for count in COUNTS]
        print(f"{f'our table, {what}':26}" + "".join(shown))
    shown = [f"{median(count, 'table loaded', 'ours')[0] * 1000:15.1f}" for count in COUNTS]
    print(f"{'our table loaded, ms':26}" + "".join(shown))
    print(f"medians of {rounds}; ms each: of time, for what is more than the first")


def main(rounds: int = 5, builds: int = 3) -> None:
    show_carried(rounds)
    show_costs(builds)


if __name__ == "__main__":
    if sys.argv[1:3] == ["inside", "carried"]:
        print(json.dumps(carried(sys.argv[3])))
    elif sys.argv[1:3] == ["inside", "costs"]:
        print(json.dumps(costs(sys.argv[3], int(sys.argv[4]))))
    else:
        main(*map(int, sys.argv[1:]))

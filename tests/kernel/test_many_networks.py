# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many networks on one host, and one that is left alone while the others change."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from networks import alike, ask, converge, inside, serving, snapshot

RECEIVER = """
import hashlib, socket
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
connection, _peer = server.accept()
received, length = hashlib.sha256(), 0
while data := connection.recv(65536):
    received.update(data)
    length += len(data)
print(length, received.hexdigest())
"""

SENDER = """
import hashlib, select, socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
sent, length = hashlib.sha256(), 0
while True:
    if select.select([sys.stdin], [], [], 0.002)[0]:
        asked = sys.stdin.readline()
        print(length, sent.hexdigest(), flush=True)
        if not asked:
            break
    data = b"%d " % length * 100
    connection.sendall(data)
    sent.update(data)
    length += len(data)
"""
"""Sends all the time, and says how much on every line that it gets, and at the end."""


class Stream:
    """A TCP stream through a published port, under way as long as the context lasts."""

    def __init__(self, sender: Any, receiver: Any) -> None:
        self._sender = sender
        self._receiver = receiver

    def sent(self) -> int:
        """How many bytes so far."""
        self._sender.stdin.write("\n")
        self._sender.stdin.flush()
        return int(self._sender.stdout.readline().split()[0])

    def end(self) -> tuple[str, str]:
        """Length and digest of all that was sent, and of all that was received."""
        sent, _errors = self._sender.communicate()
        received, _errors = self._receiver.communicate()
        return sent.strip(), received.strip()


@contextlib.contextmanager
def streaming(receiver_in: Any, container: str, sender_in: Any, address: str, port: int) -> Iterator[Stream]:
    def start(machine: Any, *words: str) -> Any:
        command = machine.command(*words)
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    receiver = start(receiver_in, *inside(container), "/usr/bin/python3", "-c", RECEIVER)
    assert receiver.stdout.readline() == "ready\n"
    sender = start(sender_in, "/usr/bin/python3", "-c", SENDER, address, str(port))
    try:
        yield Stream(sender, receiver)
    finally:
        for process in (sender, receiver):
            process.kill()
            process.communicate()


def test_a_stream_through_an_untouched_container_loses_nothing(machine: Any, internet: Any) -> None:
    still = {
        "name": "still",
        "bridge": "bare0",
        "address": "10.200.0.2/24",
        "nat": True,
        "publish": ["80:80"],
    }
    others = [
        {"name": f"c{number}", "bridge": "bare0", "address": f"10.200.0.{number}/24", "nat": True}
        for number in range(10, 30)
    ]
    changes = (
        others,
        [{**each, "mtu": 1400, "publish": [f"90{each['name'][1:]}:80"]} for each in others],
        [{**each, "bridge": "bare1", "address": [], "subnet": "10.201.0.0/24"} for each in others],
        [{"name": each["name"], "state": "absent"} for each in others],
    )
    harm = """
        ip link set bare-c10 nomaster
        ip link delete bare-c11
        ip netns delete c12
        ip -n c13 address flush dev eth0
        nft flush chain inet bare_containers postrouting
    """
    converge(machine, still)
    with streaming(machine, "still", internet, "192.0.2.2", 80) as stream:
        for batch in changes:
            before = stream.sent()
            assert converge(machine, {"batch": batch})["changed"]
            machine.shell(harm if batch is others else "")
            converge(machine, {"batch": batch})
            assert stream.sent() > before
        sent, received = stream.end()
    assert int(sent.split()[0]) > 0
    assert received == sent


COUNT = 250

ADDRESSES = "for name in $(ls /run/netns); do ip -n $name -br address show dev eth0 | sed s/^/$name:/; done"


def test_hundreds_of_networks(machine: Any) -> None:
    """Addresses, rules and names are right for all; nothing to do is nothing done; and nothing stays."""
    empty = alike(snapshot(machine))
    batch = [
        {
            "name": f"c{number}",
            "bridge": "bare0",
            "subnet": ["10.200.0.0/23", "fd00:200::/64"],
            "nat": True,
            "publish": [f"{9000 + number}:80"],
        }
        for number in range(COUNT)
    ]
    result = converge(machine, {"batch": batch})
    addresses = {
        name: result["containers"][name]["address"] for name in (f"c{number}" for number in range(COUNT))
    }
    assert len({address for own in addresses.values() for address in own}) == 2 * COUNT
    shown = dict(line.split(":", 1) for line in machine.shell(ADDRESSES).splitlines())
    for name, own in addresses.items():
        assert set(own) <= set(shown[name].split())

    listed = json.loads(machine.run("nft", "-j", "list", "chain", "inet", "bare_containers", "prerouting"))
    rules = [each["rule"]["expr"] for each in listed["nftables"] if "rule" in each]
    forwarded = {(rule[1]["match"]["right"], rule[-1]["dnat"]["addr"]) for rule in rules}
    assert forwarded == {
        (9000 + number, address.partition("/")[0])
        for number, own in enumerate(addresses.values())
        for address in own
    }
    assert len(rules) == len(forwarded)

    names = machine.run("cat", "/var/lib/bare-containers/network/names/bare0/hosts").splitlines()[1:]
    assert sorted(names) == sorted(
        f"{address.partition('/')[0]} {name}" for name, own in addresses.items() for address in own
    )
    with serving(machine, *inside("c249"), address="::"):
        assert ask(machine, address="127.0.0.1", port=9249) == "::ffff:10.200.0.1"
        neighbour = addresses["c0"][1].partition("/")[0]
        own = addresses["c249"][1].partition("/")[0]
        assert ask(machine, *inside("c0"), address=own, port=80) == neighbour

    assert not converge(machine, {"batch": batch})["changed"]
    gone = converge(machine, {"batch": [{"name": each["name"], "state": "absent"} for each in batch]})
    # The kernel waits for each deletion of its own.
    assert [each for each in gone["commands"] if each.startswith("ip link delete ")] == [
        "ip link delete bare0",
        "ip link delete group 1650553445",
    ]
    assert alike(snapshot(machine)) == empty

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one container may be sent and may send: an nftables table inside its own network namespace.

There it sees all of the container's traffic, also what a bridge passes from one port to another without the
host's IP layer ever seeing it, and with the addresses that the container itself sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .. import host
from ..converge import State, Step
from ..shell import command
from . import netlink, nft
from .declared import Network
from .nft import ACCEPT, COUNTER, DROP, Expression, Rule
from .options import port_range
from .script import TextFile, digest


class _Direction(NamedTuple):
    """What is said of one direction, by ``option`` in the entries of ``allow`` and ``deny``."""

    chain: str
    option: str
    field: str
    link: str


_DIRECTIONS = (
    _Direction("input", "from", "saddr", "iifname"),
    _Direction("output", "to", "daddr", "oifname"),
)

_CHAINS = {way.chain: f"type filter hook {way.chain} priority 0; policy accept;" for way in _DIRECTIONS}

_ICMP = ("icmp", "icmpv6")

_OPENING = nft.match("ct direction original", {"ct": {"key": "direction"}}, "original")
"""From who opened a connection, whether it is new or not."""

_ANSWERS = nft.match(
    "ct state established,related,untracked",
    {"ct": {"key": "state"}},
    ["established", "related", "untracked"],
    "in",
)
"""What belongs to a connection that is there; IPv6's neighbour discovery is not tracked (RFC 4861, and the
kernel's nf_conntrack_proto_icmpv6.c)."""


def rules(network: Network) -> list[Rule]:
    """What is denied goes first, so that connections end that were open before; where something is allowed,
    nothing else is."""
    return [rule for way in _DIRECTIONS for rule in _rules(network, way)]


def _rules(network: Network, way: _Direction) -> Iterator[Rule]:
    denied = [entry for entry in network.deny if way.option in entry]
    allowed = [entry for entry in network.allow if way.option in entry]
    if not denied and not allowed:
        return
    yield Rule(way.chain, network.name, (nft.link(way.link, "lo"), COUNTER, ACCEPT))
    for entry in denied:
        for traffic in _traffic(entry, way):
            yield Rule(way.chain, network.name, (_OPENING, *traffic, COUNTER, DROP))
    yield Rule(way.chain, network.name, (_ANSWERS, COUNTER, ACCEPT))
    for entry in allowed:
        for traffic in _traffic(entry, way):
            yield Rule(way.chain, network.name, (*traffic, COUNTER, ACCEPT))
    if allowed:
        yield Rule(way.chain, network.name, (COUNTER, DROP))


def _traffic(entry: Mapping[str, str], way: _Direction) -> Iterator[tuple[Expression, ...]]:
    """What has to match for an entry, in one rule or two: the two IP versions have an ICMP each."""
    peer, protocol = entry[way.option], entry.get("protocol")
    address = () if peer == "any" else (nft.address(way.field, peer),)
    if protocol is None:
        yield address
    elif protocol == "icmp":
        versions = _ICMP if peer == "any" else _ICMP[1:] if ":" in peer else _ICMP[:1]
        yield from ((*address, nft.protocol(version)) for version in versions)
    elif "port" in entry:
        ports = port_range(entry["port"])
        yield (*address, nft.ports(protocol, ports[0], len(ports)))
    else:
        yield (*address, nft.protocol(protocol))


class Filter:
    """The part of a container's network that is its table, and the file that it is loaded from.

    Its state is ``table`` as nft.table() has it, and ``file``, both None where nothing is declared.
    """

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._file = TextFile(host.directory(name) / "network.nft")
        self.counters: list[dict[str, Any]] = []
        """What each rule had counted when it was last read: see nft.counters()."""

    def read(self, *networks: Network | None, exists: bool) -> State:
        """``networks`` are those whose rules may be there; ``exists`` is whether the namespace does."""
        known = [rule for network in networks if network is not None for rule in rules(network)]
        kept = self._file.digest()
        # Where none was ever loaded by us, and none is needed, nft(8) need not be there.
        if not exists or not (known or kept):
            return {"table": None, "file": kept}
        with netlink.entered(self._path):
            listed = nft.listed()
        self.counters = nft.counters(listed or [], known).get(self._name, [])
        return {"table": nft.listed_table(listed, known), "file": kept}

    def expect(self, network: Network) -> State:
        wanted = rules(network)
        if not wanted:
            return {"table": None, "file": None}
        return {"table": nft.table(_CHAINS, wanted), "file": digest(nft.render(_CHAINS, wanted))}

    def file_steps(self, network: Network | None, actual: State, expected: State) -> list[Step]:
        """Those that write the file, or remove it."""
        if actual["file"] == expected["file"]:
            return []
        if network is None or expected["file"] is None:
            return [self._file.remove_step("rules.file")]
        return [self._file.write_step("rules.file", nft.render(_CHAINS, rules(network)))]

    def table_steps(self, actual: State, expected: State) -> list[Step]:
        """Those that load the file in the namespace, or delete what was loaded."""
        if actual["table"] == expected["table"]:
            return []
        loading = ["-f", str(self._file.path)]
        words = ["delete", "table", *nft.TABLE] if expected["table"] is None else loading

        def apply() -> None:
            with netlink.entered(self._path):
                nft.run(*words)

        return [Step("rules.table", (command(["ip", "netns", "exec", self._name, "nft", *words]),), apply)]

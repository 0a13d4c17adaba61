# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall: a table of our own on the host, rendered from all declared networks, replaced as a whole."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import host
from ..converge import Failure, State, Step
from ..shell import command
from . import connections, nft, others
from .declared import Network
from .nft import ACCEPT, ANSWERS, COUNTER, DROP, MASQUERADE, WAS_FORWARDED, Expression, Rule, Table
from .options import LINK_PREFIX, Published, split_published
from .script import TextFile, digest
from .survey import DIRECTORY, Survey

FILE = DIRECTORY / "table.nft"
"""The table as loaded: it is there before the table is, and after it is gone."""

_CHAINS = {
    "loopback": "type filter hook prerouting priority -300; policy accept;",
    "prerouting": "type nat hook prerouting priority -100; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "postrouting": "type nat hook postrouting priority 100; policy accept;",
    "forward": "type filter hook forward priority 0; policy accept;",
}
_OF_LINKS = ("loopback", "forward")
"""The chains whose rules are for links, not for one network."""

_ALL_LINKS = "*"

_LOCALHOST = "127.0.0.0/8"


def _forwarded_to(address: Any, published: Published) -> Expression:
    """``dnat``: a range keeps its ports, or has each looked up, in the one rule."""
    family, shown = ("ip6", f"[{address}]") if address.version == 6 else ("ip", str(address))
    to: dict[str, Any] = {"family": family, "addr": str(address)}
    _on, port, inside, count, protocol = published
    if count == 1:
        return Expression(f"dnat {family} to {shown}:{inside}", {"dnat": {**to, "port": inside}})
    if port == inside:
        return Expression(f"dnat {family} to {address}", {"dnat": to})
    pairs = [[port + number, inside + number] for number in range(count)]
    words = ", ".join(f"{one} : {other}" for one, other in pairs)
    lookup = {"map": {"key": nft.destination_port(protocol), "data": {"set": pairs}}}
    text = f"dnat {family} to {shown}:{protocol} dport map {{ {words} }}"
    return Expression(text, {"dnat": {**to, "port": lookup}})


_TO_THIS_HOST = nft.match("fib daddr type local", {"fib": {"result": "type", "flags": ["daddr"]}}, "local")


def rules(networks: Iterable[Network], survey: Survey) -> list[Rule]:
    """All rules, in order, that these networks need; none where no one asks for any."""
    networks = list(networks)
    asking = [network for network in networks if network.nat or network.publish]
    found = [rule for network in asking for rule in _rules_of(network, survey)]
    return [*_guards(asking, survey), *_walls(networks, survey), *found]


def _guards(networks: Iterable[Network], survey: Survey) -> Iterator[Rule]:
    """Nothing that comes from a container may be to or from 127.0.0.0/8, which publishing on the host's
    localhost opens to its link (CVE-2020-8558). Before connection tracking: what is an answer has still its
    own address then."""
    attachments = [attachment for network in networks for attachment in network.attachments]
    links = {each.segment or f"{LINK_PREFIX}*" for each in attachments if survey.is_gateway_of(each)}
    for link in sorted(links):
        for field in ("saddr", "daddr"):
            guarded = (nft.link("iifname", link), nft.address(field, _LOCALHOST))
            yield Rule("loopback", link, (*guarded, COUNTER, DROP))


def _walls(networks: Iterable[Network], survey: Survey) -> Iterator[Rule]:
    """What the host forwards: nothing to and from an internal network, and to an isolated one only answers
    and what comes by a published port. Both are a link's, whatever address a packet says that it has; with
    br_netfilter it also comes by here from one port of a bridge to the other."""
    attachments = [attachment for network in networks for attachment in network.attachments]
    shut = [each for each in attachments if survey.is_shut(each)]
    for link in sorted({each.uplink for each in shut if each.internal}):
        for key, other in (("iifname", "oifname"), ("oifname", "iifname")):
            crossing = (nft.link(key, link), nft.link(other, link, "!="))
            yield Rule("forward", link, (*crossing, COUNTER, DROP))
    isolated = sorted({each.uplink for each in shut if not each.internal})
    if isolated:
        for passing in (ANSWERS, WAS_FORWARDED):
            yield Rule("forward", _ALL_LINKS, (passing, COUNTER, ACCEPT))
    for link in isolated:
        others = (nft.link("oifname", link), nft.link("iifname", link, "!="))
        yield Rule("forward", link, (*others, COUNTER, DROP))


def _rules_of(network: Network, survey: Survey) -> Iterator[Rule]:
    for attachment, address in network.main_addresses:
        opened = survey.is_gateway_of(attachment)
        for published in map(split_published, network.publish):
            yield from _published_rules(network.name, address.ip, published, opened=opened)
        if network.publish:
            yield from _return_rules(network.name, address, opened=opened)
    for attachment in network.outward if network.nat else ():
        for interface in attachment.interfaces:
            leaving = (nft.address("saddr", str(interface.ip)), nft.link("oifname", attachment.uplink, "!="))
            yield Rule("postrouting", network.name, (*leaving, COUNTER, MASQUERADE))


def _published_rules(name: str, address: Any, published: Published, *, opened: bool) -> Iterator[Rule]:
    """For what comes to the host, and for what the host sends to itself, which passes no prerouting."""
    on = published.on
    if on is not None and ipaddress.ip_address(on).version != address.version:
        return
    to = (_TO_THIS_HOST,) if on is None else (nft.address("daddr", on),)
    ports = nft.ports(published.protocol, published.port, published.number)
    forward = (ports, COUNTER, _forwarded_to(address, published))
    if on is None or not ipaddress.ip_address(on).is_loopback:
        yield Rule("prerouting", name, (*to, *forward))
    yield Rule("output", name, (*_but_localhost(address, opened=opened), *to, *forward))


def _but_localhost(address: Any, *, opened: bool) -> tuple[Expression, ...]:
    """The host's own localhost leads to a container only over IPv4 (::1 never leaves the host), and only
    over a link that is ours to open."""
    if address.version == 6:
        return (nft.address("daddr", "::1", "!="),)
    return () if opened else (nft.address("daddr", _LOCALHOST, "!="),)


def _return_rules(name: str, address: Any, *, opened: bool) -> Iterator[Rule]:
    """Who is in the same subnet, or comes from localhost, would be answered past the host that translated."""
    forwarded = (WAS_FORWARDED, nft.address("daddr", str(address.ip)))
    whole = address.network.prefixlen == address.network.max_prefixlen
    sources = [str(address.ip if whole else address.network)]
    if address.version == 4 and opened:
        sources.append(_LOCALHOST)
    for source in sources:
        coming = (*forwarded, nft.address("saddr", source))
        yield Rule("postrouting", name, (*coming, COUNTER, MASQUERADE))


class Firewall:
    """The resource of the whole table, and of its file. With ``warns`` other firewalls are looked for."""

    name = "_firewall"

    def __init__(self, survey: Survey, *, warns: bool = False) -> None:
        self._survey = survey
        self._warns = warns
        self._file = TextFile(FILE)
        self._warnings: list[str] | None = None
        self.counters: dict[str, list[dict[str, Any]]] = {}
        """What each rule had counted when it was last read, by container: see nft.counters()."""

    def read(self) -> State:
        wanted = rules(self._survey.declared.values(), self._survey)
        kept = self._file.digest()
        # Where none was ever loaded by us, and none is needed, nft(8) need not be there.
        listed = nft.listed() if wanted or kept is not None else None
        known = [*rules(self._survey.kept.values(), self._survey), *wanted]
        table = nft.listed_table(listed, known)
        self.counters = nft.counters(listed or [], known)
        self._survey.firewall_is_loaded = bool(wanted) and self._holds(table, wanted)
        return {"table": table, "file": kept}

    def _holds(self, table: Table | None, wanted: Sequence[Rule]) -> bool:
        """Whether the table has these rules, and no others but those of networks that can't be read."""
        if not self._survey.unreadable:
            return table == (nft.table(_CHAINS, wanted) if wanted else None)
        there, expected = _lines(table or {}), _lines(nft.table(_CHAINS, wanted))
        missing = [] if not wanted else [line for line in expected if line not in there]
        surplus = [line for line in there if line not in expected and not self._is_unreadable(*line)]
        return not missing and not surplus

    def _is_unreadable(self, chain: str, line: str) -> bool:
        """Whether a rule may be of a network that can't be read: we know no words for it then."""
        return chain in _OF_LINKS or any(f'"comment": "{name}"' in line for name in self._survey.unreadable)

    def expect(self, actual: State) -> State:
        wanted = rules(self._survey.declared.values(), self._survey)
        if self._survey.unreadable:
            if self._holds(actual["table"], wanted):
                return actual
            path = host.Declaration(self._survey.unreadable[0], "network").path
            raise Failure(
                f"{path} is damaged, and the rules of that network would be lost with a change: declare it "
                "again, or have it absent; the rules were left as they are."
            )
        if not wanted:
            return {"table": None, "file": None}
        return {"table": nft.table(_CHAINS, wanted), "file": digest(nft.render(_CHAINS, wanted))}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if expected["table"] is None:
            delete = Step("table", (command(["nft", "delete", "table", *nft.TABLE]),), self._delete)
            away = [delete] if actual["table"] is not None else []
            return [*away, self._file.remove_step("file")] if actual["file"] is not None else away
        steps = []
        if actual["file"] != expected["file"]:
            lines = nft.render(_CHAINS, rules(self._survey.declared.values(), self._survey))
            steps.append(self._file.write_step("file", lines))
        if actual["table"] != expected["table"]:
            steps.append(Step("table", (command(["nft", "-f", FILE]),), self._load))
        return steps

    def _load(self) -> None:
        nft.run("-f", str(FILE))
        self._survey.firewall_is_loaded = True
        own = {address.partition("/")[0] for each in self._survey.addresses.values() for address in each}
        connections.forget_stale(self._survey.kept.values(), self._survey.declared.values(), own)

    def _delete(self) -> None:
        nft.run("delete", "table", *nft.TABLE)
        connections.forget_stale(self._survey.kept.values(), (), ())

    def facts(self, actual: State) -> Mapping[str, Any]:
        """Warnings of other firewalls, looked for once a run."""
        if self._warnings is None:
            forwarded, asked = self._survey.routed_links(), self._survey.served_links()
            # Where no rules are needed, nft(8) need not be there.
            needed = (forwarded or asked) and rules(self._survey.declared.values(), self._survey)
            self._warnings = others.warnings(forwarded, asked) if self._warns and needed else []
        return {"warnings": self._warnings}


def _lines(table: Table) -> list[tuple[str, str]]:
    return [(chain, line) for chain, lines in table.items() for line in lines]

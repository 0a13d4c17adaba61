# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall: one nftables table of our own, rendered from all declared networks and replaced as a whole.

A rule exists in two forms: nft(8)'s language, which is what is loaded, shown and kept for the next boot, and
the JSON of libnftables-json(5), which is what nft(8) lists and what is compared. That the two say the same is
proven by every reading after a change.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import host
from ..converge import Failure, State, Step
from ..shell import command
from .declared import Network
from .options import LINK_PREFIX, Published, split_published
from .script import TextFile, digest
from .survey import DIRECTORY, Survey

FILE = DIRECTORY / "table.nft"
"""The table as loaded: it is there before the table is, and after it is gone."""

_TABLE = ("inet", "bare_containers")
_CHAINS = {
    "loopback": "type filter hook prerouting priority -300; policy accept;",
    "prerouting": "type nat hook prerouting priority -100; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "postrouting": "type nat hook postrouting priority 100; policy accept;",
    "forward": "type filter hook forward priority 0; policy accept;",
}
_GUARDING = "loopback"
"""The chain whose rules are for links, not for one network."""

_LOCALHOST = "127.0.0.0/8"


@dataclass(frozen=True)
class Expression:
    """One expression of a rule, in both forms."""

    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A rule of ``chain``; ``comment`` names the container, or the links, that it is for."""

    chain: str
    comment: str
    expressions: tuple[Expression, ...]

    @property
    def text(self) -> str:
        words = " ".join(expression.text for expression in self.expressions)
        return f'{words} comment "{self.comment}"'

    @property
    def data(self) -> dict[str, Any]:
        return {"comment": self.comment, "expr": [dict(expression.data) for expression in self.expressions]}


_COUNTER = Expression("counter", {"counter": None})
_ACCEPT = Expression("accept", {"accept": None})
_DROP = Expression("drop", {"drop": None})
_MASQUERADE = Expression("masquerade", {"masquerade": None})


def _match(text: str, left: Mapping[str, Any], right: Any, operator: str = "==") -> Expression:
    return Expression(text, {"match": {"op": operator, "left": left, "right": right}})


def _address(field: str, value: str, operator: str = "==") -> Expression:
    """``ip saddr VALUE``, or ip6; the value is an address or a network."""
    plain, slash, length = value.partition("/")
    protocol = "ip6" if ":" in value else "ip"
    right: Any = {"prefix": {"addr": plain, "len": int(length)}} if slash else value
    negation = "!= " if operator == "!=" else ""
    left = {"payload": {"protocol": protocol, "field": field}}
    return _match(f"{protocol} {field} {negation}{value}", left, right, operator)


def _link(key: str, name: str, operator: str = "==") -> Expression:
    """``iifname NAME`` or ``oifname``; a ``*`` at the end stands for anything."""
    negation = "!= " if operator == "!=" else ""
    return _match(f'{key} {negation}"{name}"', {"meta": {"key": key}}, name, operator)


def _ports(protocol: str, port: int, count: int) -> Expression:
    """``tcp dport PORT``, or a range of so many."""
    if count == 1:
        return _match(f"{protocol} dport {port}", _destination_port(protocol), port)
    last = port + count - 1
    return _match(f"{protocol} dport {port}-{last}", _destination_port(protocol), {"range": [port, last]})


def _destination_port(protocol: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": "dport"}}


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
    lookup = {"map": {"key": _destination_port(protocol), "data": {"set": pairs}}}
    text = f"dnat {family} to {shown}:{protocol} dport map {{ {words} }}"
    return Expression(text, {"dnat": {**to, "port": lookup}})


_TO_THIS_HOST = _match("fib daddr type local", {"fib": {"result": "type", "flags": ["daddr"]}}, "local")
_WAS_FORWARDED = _match("ct status dnat", {"ct": {"key": "status"}}, "dnat", "in")


def rules(networks: Iterable[Network], survey: Survey) -> list[Rule]:
    """All rules, in order, that these networks need; none where no one asks for nat or publish."""
    asking = [network for network in networks if network.nat or network.publish]
    found = [rule for network in asking for rule in _rules_of(network, survey)]
    return [*_guards(asking, survey), *found]


def _guards(networks: Iterable[Network], survey: Survey) -> Iterator[Rule]:
    """Nothing that comes from a container may be to or from 127.0.0.0/8, which publishing on the host's
    localhost
    opens to its link (CVE-2020-8558). Before connection tracking: what is an answer has still its own
    address then."""
    links = {network.bridge or f"{LINK_PREFIX}*" for network in networks if survey.is_gateway_of(network)}
    for link in sorted(links):
        for field in ("saddr", "daddr"):
            yield Rule(
                "loopback", link, (_link("iifname", link), _address(field, _LOCALHOST), _COUNTER, _DROP)
            )


def _rules_of(network: Network, survey: Survey) -> Iterator[Rule]:
    for address in network.main_addresses:
        for published in map(split_published, network.publish):
            yield from _published_rules(network, address.ip, published, survey)
        if network.publish:
            yield from _return_rules(network, address, survey)
    for address in (str(interface.ip) for interface in network.interfaces):
        if network.nat:
            leaving = (_address("saddr", address), _link("oifname", network.uplink, "!="))
            yield Rule("postrouting", network.name, (*leaving, _COUNTER, _MASQUERADE))
        for field in ("saddr", "daddr"):
            yield Rule("forward", network.name, (_address(field, address), _COUNTER, _ACCEPT))


def _published_rules(network: Network, address: Any, published: Published, survey: Survey) -> Iterator[Rule]:
    """For what comes to the host, and for what the host sends to itself, which passes no prerouting."""
    on = published.on
    if on is not None and ipaddress.ip_address(on).version != address.version:
        return
    to = (_TO_THIS_HOST,) if on is None else (_address("daddr", on),)
    ports = _ports(published.protocol, published.port, published.number)
    forward = (ports, _COUNTER, _forwarded_to(address, published))
    if on is None or not ipaddress.ip_address(on).is_loopback:
        yield Rule("prerouting", network.name, (*to, *forward))
    yield Rule("output", network.name, (*_but_localhost(network, address, survey), *to, *forward))


def _but_localhost(network: Network, address: Any, survey: Survey) -> tuple[Expression, ...]:
    """The host's own localhost leads to a container only over IPv4 (::1 never leaves the host), and only
    over a link
    that is ours to open."""
    if address.version == 6:
        return (_address("daddr", "::1", "!="),)
    return () if survey.is_gateway_of(network) else (_address("daddr", _LOCALHOST, "!="),)


def _return_rules(network: Network, address: Any, survey: Survey) -> Iterator[Rule]:
    """Who is in the same subnet, or comes from localhost, would be answered past the host that translated."""
    forwarded = (_WAS_FORWARDED, _address("daddr", str(address.ip)))
    whole = address.network.prefixlen == address.network.max_prefixlen
    sources = [str(address.ip if whole else address.network)]
    if address.version == 4 and survey.is_gateway_of(network):
        sources.append(_LOCALHOST)
    for source in sources:
        yield Rule(
            "postrouting", network.name, (*forwarded, _address("saddr", source), _COUNTER, _MASQUERADE)
        )


def render(rules: Sequence[Rule]) -> list[str]:
    """The lines of a file for nft(8) that replaces the table in one transaction, whether there is one or
    not."""
    name = " ".join(_TABLE)
    lines = [f"table {name}", f"delete table {name}", f"table {name} {{"]
    for chain, header in _CHAINS.items():
        own = [f"\t\t{rule.text}" for rule in rules if rule.chain == chain]
        lines += [f"\tchain {chain} {{", f"\t\t{header}", *own, "\t}"]
    return [*lines, "}"]


class Firewall:
    """The resource of the whole table. Its state has the rules of each chain in nft(8)'s words, headed by
    the chain's
    own line; a rule that we know no words for is shown as JSON."""

    name = "_firewall"

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._file = TextFile(FILE)
        self.counters: dict[str, list[dict[str, Any]]] = {}
        """What each rule had counted when it was last read, by container: see _counted()."""

    def read(self) -> State:
        wanted = rules(self._survey.declared.values(), self._survey)
        kept = self._file.digest()
        # Where none was ever loaded by us, and none is needed, nft(8) need not be there.
        listed = _list_table() if wanted or kept is not None else None
        known = [*rules(self._survey.kept.values(), self._survey), *wanted]
        table = _listed(listed, known)
        self.counters = _counted(listed or [], known)
        self._survey.firewall_is_loaded = bool(wanted) and self._holds(table, wanted)
        return {"table": table, "file": kept}

    def _holds(self, table: dict[str, list[str]] | None, wanted: Sequence[Rule]) -> bool:
        """Whether the table has these rules, and no others but those of networks that can't be read."""
        if not self._survey.unreadable:
            return table == (_expected(wanted) if wanted else None)
        there, expected = _lines(table or {}), _lines(_expected(wanted))
        missing = [] if not wanted else [line for line in expected if line not in there]
        surplus = [line for line in there if line not in expected and not self._is_unreadable(*line)]
        return not missing and not surplus

    def _is_unreadable(self, chain: str, line: str) -> bool:
        """Whether a rule may be of a network that can't be read: we know no words for it then."""
        return chain == _GUARDING or any(f'"comment": "{name}"' in line for name in self._survey.unreadable)

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
        return {"table": _expected(wanted), "file": digest(render(wanted))}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if expected["table"] is None:
            delete = Step("table", (command(["nft", "delete", "table", *_TABLE]),), self._delete)
            away = [delete] if actual["table"] is not None else []
            return [*away, self._file.remove_step("file")] if actual["file"] is not None else away
        steps = []
        if actual["file"] != expected["file"]:
            lines = render(rules(self._survey.declared.values(), self._survey))
            steps.append(self._file.write_step("file", lines))
        if actual["table"] != expected["table"]:
            steps.append(Step("table", (command(["nft", "-f", FILE]),), self._load))
        return steps

    def _load(self) -> None:
        _nft("-f", str(FILE))
        self._survey.firewall_is_loaded = True

    def _delete(self) -> None:
        _nft("delete", "table", *_TABLE)

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}


def _expected(rules: Sequence[Rule]) -> dict[str, list[str]]:
    return {
        chain: [header, *(rule.text for rule in rules if rule.chain == chain)]
        for chain, header in _CHAINS.items()
    }


def _lines(table: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(chain, line) for chain, lines in table.items() for line in lines]


def _listed(
    objects: Sequence[Mapping[str, Any]] | None, known: Sequence[Rule]
) -> dict[str, list[str]] | None:
    """What nft(8) lists, in the form of _expected(); what is neither chain nor rule comes under ``other``."""
    if objects is None:
        return None
    words = _words(known)
    table: dict[str, list[str]] = {}
    for each in objects:
        ((kind, item),) = each.items()
        if kind == "chain":
            table[item["name"]] = [_header(item)]
        elif kind == "rule":
            table[item["chain"]].append(_said(item, words))
        elif kind != "metainfo" and (kind != "table" or "flags" in item):
            table.setdefault("other", []).append(_key(each))
    return table


def _counted(objects: Sequence[Mapping[str, Any]], known: Sequence[Rule]) -> dict[str, list[dict[str, Any]]]:
    """``chain``, ``rule`` in nft(8)'s words, ``packets`` and ``bytes`` of each rule that counts, by its
    comment."""
    words = _words(known)
    counted: dict[str, list[dict[str, Any]]] = {}
    for item in (each["rule"] for each in objects if "rule" in each):
        for counter in (expression["counter"] for expression in item["expr"] if "counter" in expression):
            count = {key: counter[key] for key in ("packets", "bytes")}
            rule = {"chain": item["chain"], "rule": _said(item, words), **count}
            counted.setdefault(item.get("comment", ""), []).append(rule)
    return counted


def _words(known: Sequence[Rule]) -> dict[str, str]:
    return {_key(rule.data): rule.text for rule in known}


def _said(rule: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """A listed rule in nft(8)'s words, or as JSON where we know none for it."""
    key = _key({key: rule[key] for key in ("comment", "expr") if key in rule})
    return words.get(key, key)


def _header(chain: Mapping[str, Any]) -> str:
    if "hook" not in chain:
        return "no hook"
    policy = chain.get("policy", "accept")
    return f"type {chain['type']} hook {chain['hook']} priority {chain['prio']}; policy {policy};"


def _key(data: Any) -> str:
    return json.dumps(_normal(data), sort_keys=True)


def _normal(data: Any) -> Any:
    """Without what counts and numbers; a list of one is the same as the one, as later versions of nft(8)
    write it."""
    if isinstance(data, Mapping):
        return {
            key: None if key == "counter" else _normal(item) for key, item in data.items() if key != "handle"
        }
    if isinstance(data, list):
        return _normal(data[0]) if len(data) == 1 else [_normal(item) for item in data]
    return data


def _list_table() -> list[Mapping[str, Any]] | None:
    """The table's objects, or None where there is no such table. Raises Failure."""
    try:
        listing: list[Mapping[str, Any]] = json.loads(_nft("-j", "list", "table", *_TABLE))["nftables"]
    except _NoSuchTable:
        return None
    return listing


class _NoSuchTable(Failure):
    pass


def _nft(*arguments: str) -> str:
    """What nft(8) prints. Raises Failure with what it says."""
    if shutil.which("nft") is None:
        raise Failure("nft is missing: install the package nftables; nothing was changed.")
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["nft", *arguments], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip().partition("\n")[0]
    kind = _NoSuchTable if "No such file or directory" in said else Failure
    raise kind(f"nft {' '.join(arguments)}: {said}; the table was left as it was.")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nftables: rules, and one table of them, which is replaced as a whole.

A rule exists in two forms: nft(8)'s language, which is what is loaded, shown and kept for the next boot, and
the JSON of libnftables-json(5), which is what nft(8) lists and what is compared. That the two say the same is
proven by every reading after a change. All of it concerns the network namespace of the calling thread.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..converge import Failure

TABLE = ("inet", "bare_containers")
"""The table of ours, wherever there is one."""

Chains = Mapping[str, str]
"""The base chains of a table: what stands at the head of each, by name."""

Table = dict[str, list[str]]
"""The lines of each chain in nft(8)'s words, headed by the chain's own; a rule that we know no words for is
there as JSON."""


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


COUNTER = Expression("counter", {"counter": None})
ACCEPT = Expression("accept", {"accept": None})
DROP = Expression("drop", {"drop": None})
MASQUERADE = Expression("masquerade", {"masquerade": None})


def match(text: str, left: Mapping[str, Any], right: Any, operator: str = "==") -> Expression:
    return Expression(text, {"match": {"op": operator, "left": left, "right": right}})


def address(field: str, value: str, operator: str = "==") -> Expression:
    """``ip saddr VALUE``, or ip6; the value is an address or a network."""
    plain, slash, length = value.partition("/")
    family = "ip6" if ":" in value else "ip"
    right: Any = {"prefix": {"addr": plain, "len": int(length)}} if slash else value
    negation = "!= " if operator == "!=" else ""
    left = {"payload": {"protocol": family, "field": field}}
    return match(f"{family} {field} {negation}{value}", left, right, operator)


def link(key: str, name: str, operator: str = "==") -> Expression:
    """``iifname NAME`` or ``oifname``; a ``*`` at the end stands for anything."""
    negation = "!= " if operator == "!=" else ""
    return match(f'{key} {negation}"{name}"', {"meta": {"key": key}}, name, operator)


def ports(protocol: str, port: int, count: int) -> Expression:
    """``tcp dport PORT``, or a range of so many."""
    if count == 1:
        return match(f"{protocol} dport {port}", destination_port(protocol), port)
    last = port + count - 1
    return match(f"{protocol} dport {port}-{last}", destination_port(protocol), {"range": [port, last]})


def protocol(name: str) -> Expression:
    """``meta l4proto NAME``, one of those that nft(8) itself knows."""
    return match(f"meta l4proto {name}", _L4PROTO, _PROTOCOLS[name])


_L4PROTO = {"meta": {"key": "l4proto"}}
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "ipv6-icmp": 58, "sctp": 132}
"""Their numbers (IANA): nft(8) lists the names of protocols(5), where the host has that file."""


def destination_port(protocol: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": "dport"}}


ANSWERS = match("ct state established,related", {"ct": {"key": "state"}}, ["established", "related"], "in")
"""What belongs to a connection that is there."""

WAS_FORWARDED = match("ct status dnat", {"ct": {"key": "status"}}, "dnat", "in")


def render(chains: Chains, rules: Sequence[Rule]) -> list[str]:
    """The lines of a file for nft(8) that replaces the table in one transaction, whether there is one or
    not."""
    name = " ".join(TABLE)
    lines = [f"table {name}", f"delete table {name}", f"table {name} {{"]
    for chain, (header, *own) in table(chains, rules).items():
        lines += [f"\tchain {chain} {{", f"\t\t{header}", *(f"\t\t{rule}" for rule in own), "\t}"]
    return [*lines, "}"]


def table(chains: Chains, rules: Sequence[Rule]) -> Table:
    """The table that is made of these rules."""
    return {
        chain: [header, *(rule.text for rule in rules if rule.chain == chain)]
        for chain, header in chains.items()
    }


def listed_table(objects: Sequence[Mapping[str, Any]] | None, known: Sequence[Rule]) -> Table | None:
    """The table that nft(8) lists, in the words of the rules that are known; what is neither chain nor rule
    comes under ``other``."""
    if objects is None:
        return None
    words = _words(known)
    found: Table = {}
    for each in objects:
        ((kind, item),) = each.items()
        if kind == "chain":
            found[item["name"]] = [_header(item)]
        elif kind == "rule":
            found[item["chain"]].append(_said(item, words))
        elif kind != "metainfo" and (kind != "table" or "flags" in item):
            found.setdefault("other", []).append(_key(each))
    return found


def counters(objects: Sequence[Mapping[str, Any]], known: Sequence[Rule]) -> dict[str, list[dict[str, Any]]]:
    """``chain``, ``rule`` in nft(8)'s words, ``packets`` and ``bytes`` of each rule that counts, by its
    comment."""
    words = _words(known)
    found: dict[str, list[dict[str, Any]]] = {}
    for item in (each["rule"] for each in objects if "rule" in each):
        for counter in (expression["counter"] for expression in item["expr"] if "counter" in expression):
            count = {key: counter[key] for key in ("packets", "bytes")}
            rule = {"chain": item["chain"], "rule": _said(item, words), **count}
            found.setdefault(item.get("comment", ""), []).append(rule)
    return found


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
    write it, and a protocol's name as its number."""
    if isinstance(data, Mapping):
        if data.get("left") == _L4PROTO and isinstance(data["right"], str):
            data = {**data, "right": _PROTOCOLS.get(data["right"], data["right"])}
        return {
            key: None if key == "counter" else _normal(item) for key, item in data.items() if key != "handle"
        }
    if isinstance(data, list):
        return _normal(data[0]) if len(data) == 1 else [_normal(item) for item in data]
    return data


def listed() -> list[Mapping[str, Any]] | None:
    """The table's objects, or None where there is no such table. Raises Failure."""
    try:
        listing: list[Mapping[str, Any]] = json.loads(run("-j", "list", "table", *TABLE))["nftables"]
    except _NoSuchTable:
        return None
    return listing


class _NoSuchTable(Failure):
    pass


def run(*arguments: str) -> str:
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
    raise kind(f"nft {' '.join(arguments)}: {said}; the rules were left as they were.")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other firewalls of the host: what they drop stays dropped, whatever a table of ours accepts.

Of all chains at a hook each one has to let a packet pass (nft(8), "accept"). Their tables are theirs to
change, by whoever manages them; we tell what is to be changed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..kernel import file
from . import nft

_LEGACY = {
    "iptables-legacy": Path("/proc/self/net/ip_tables_names"),
    "ip6tables-legacy": Path("/proc/self/net/ip6_tables_names"),
}
"""Where the kernel tells which tables of the old kind this network namespace has, by the program for them."""

_DROPS_ALL = ("-A FORWARD -j DROP", "-A FORWARD -j REJECT")

_PORT = re.compile(r'(?:"right": |\[|, )53[\]},]')
"""Port 53 in the JSON of a rule: alone, or in a set."""


class _Place(NamedTuple):
    family: str
    table: str
    chain: str


Links = Mapping[str, Collection[str]]
"""Names of links of the host, with the subnets behind each."""


def warnings(forwarded: Links, asked: Links) -> list[str]:
    """A sentence for each chain that drops packets which it knows nothing of, and that knows nothing of some
    of these links: of what the host has ``forwarded`` from and to them, or of name servers that are ``asked``
    over them. Raises Failure."""
    found = []
    for hook, place in _deciding():
        links = forwarded if hook == "forward" else asked
        objects = json.loads(nft.run("-j", "list", "table", *place[:2]))["nftables"] if links else []
        text = json.dumps(objects)
        # Who does something about that port means name servers, whoever may ask them.
        known = hook == "input" and _PORT.search(text)
        unknown = [] if known else _unknown(links, text.split('"'))
        if unknown and _drops(objects, place.chain):
            forward = hook == "forward"
            warn, remedy = (_warning, _remedy) if forward else (_warning_of_questions, _remedy_of_questions)
            found.append(warn(place, unknown, remedy(place, text, unknown[0])))
    return [*found, *_legacy_warnings(forwarded)]


def _unknown(links: Mapping[str, Collection[str]], words: Sequence[str]) -> list[str]:
    """The links that are mentioned neither by their names nor by the subnets behind them."""
    mentioned = set(words)
    return [
        link
        for link, subnets in links.items()
        if mentioned.isdisjoint((link, *(subnet.partition("/")[0] for subnet in subnets)))
    ]


def _legacy_warnings(links: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The same for rules of before nftables, which are no part of what nft(8) lists (xtables-legacy(8)).

    Where the kernel tells of no such table, nothing is asked of it, as that would make one.
    """
    for program, names in _LEGACY.items():
        if "filter" not in (file.read_text(names) or "").split() or shutil.which(program) is None:
            continue
        listed = subprocess.run(  # pylint: disable=ansible-bad-function
            [program, "--list-rules"], capture_output=True, text=True, check=False
        ).stdout
        unknown = _unknown(links, re.split(r"[\s/]", listed))
        forward = [line for line in listed.splitlines() if line.split()[1] == "FORWARD"]
        last = next(reversed(forward), "")
        if unknown and ("-P FORWARD DROP" in forward or last.startswith(_DROPS_ALL)):
            chain = "DOCKER-USER" if "-N DOCKER-USER" in listed.splitlines() else "FORWARD"
            place = _Place(program, "filter", "FORWARD")
            yield _warning(place, unknown, _accept(program, chain, unknown[0]))


def _deciding() -> Iterator[tuple[str, _Place]]:
    """The chains of others that decide on what is forwarded, or on what is for the host, with their hook."""
    for each in json.loads(nft.run("-j", "list", "chains"))["nftables"]:
        chain = each.get("chain", {})
        if chain.get("hook") in ("forward", "input") and chain["family"] in ("ip", "ip6", "inet"):
            place = _Place(chain["family"], chain["table"], chain["name"])
            if place[:2] != nft.TABLE:
                yield chain["hook"], place


def _drops(objects: Collection[Mapping[str, Any]], chain: str) -> bool:
    """Whether a chain drops or rejects what gets to its end."""
    policies = [each["chain"].get("policy") for each in objects if each.get("chain", {}).get("name") == chain]
    rules = [each["rule"]["expr"] for each in objects if each.get("rule", {}).get("chain") == chain]
    last = {key for expression in (rules[-1] if rules else []) for key in expression} - {"counter"}
    return "drop" in policies or (bool(last) and last <= {"drop", "reject"})


def _trusting(link: str) -> str:
    return f"firewall-cmd --permanent --zone=trusted --add-interface={link} && firewall-cmd --reload"


def _remedy(place: _Place, text: str, link: str) -> str:
    if place.table == "firewalld":
        return _trusting(link)
    tables = "ip6tables" if place.family == "ip6" else "iptables"
    if '"DOCKER-USER"' in text:
        return _accept(tables, "DOCKER-USER", link)
    if '"ufw-user-forward"' in text or '"ufw6-user-forward"' in text:
        return f"ufw route allow in on {link} && ufw route allow out on {link}"
    rules = (f"{key} {link} accept" for key in ("iifname", "oifname"))
    return " && ".join(f"nft insert rule {' '.join(place)} {rule}" for rule in rules)


def _accept(tables: str, chain: str, link: str) -> str:
    return " && ".join(f"{tables} -I {chain} -{way} {link} -j ACCEPT" for way in "io")


def _remedy_of_questions(place: _Place, text: str, link: str) -> str:
    if place.table == "firewalld":
        return _trusting(link)
    if '"ufw-user-input"' in text or '"ufw6-user-input"' in text:
        return f"ufw allow in on {link} to any port 53"
    rule = f"nft insert rule {' '.join(place)} iifname {link}"
    return " && ".join(f"{rule} {protocol} dport 53 accept" for protocol in ("udp", "tcp"))


def _warning(place: _Place, unknown: list[str], remedy: str) -> str:
    return (
        f"The chain {place.chain} of the table {place.family} {place.table} drops what the host forwards and "
        f"does not mention {_listed(unknown)}: containers there reach nothing beyond the host and are not "
        f"reached by their published ports, unless it lets them pass, as with '{remedy}'."
    )


def _warning_of_questions(place: _Place, unknown: list[str], remedy: str) -> str:
    return (
        f"The chain {place.chain} of the table {place.family} {place.table} drops what the host is sent and "
        f"does not mention {_listed(unknown)}: containers there don't reach their name server, unless it "
        f"lets them, as with '{remedy}'."
    )


def _listed(links: list[str]) -> str:
    return links[0] + (f" and {len(links) - 1} more" if len(links) > 1 else "")

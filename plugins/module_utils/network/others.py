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


class _Place(NamedTuple):
    family: str
    table: str
    chain: str


def warnings(links: Mapping[str, Collection[str]]) -> list[str]:
    """A sentence for each chain that drops forwarded packets which it knows nothing of, and that knows
    nothing of some of ``links``: their names, with the subnets behind each. Raises Failure."""
    found = []
    for place in _forwarding():
        objects = json.loads(nft.run("-j", "list", "table", place.family, place.table))["nftables"]
        text = json.dumps(objects)
        unknown = _unknown(links, text.split('"'))
        if unknown and _drops(objects, place.chain):
            found.append(_warning(place, unknown, _remedy(place, text, unknown[0])))
    return [*found, *_legacy_warnings(links)]


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


def _forwarding() -> Iterator[_Place]:
    """The chains of others that decide on what is forwarded."""
    for each in json.loads(nft.run("-j", "list", "chains"))["nftables"]:
        chain = each.get("chain", {})
        if chain.get("hook") == "forward" and chain["family"] in ("ip", "ip6", "inet"):
            place = _Place(chain["family"], chain["table"], chain["name"])
            if place[:2] != nft.TABLE:
                yield place


def _drops(objects: Collection[Mapping[str, Any]], chain: str) -> bool:
    """Whether a chain drops or rejects what gets to its end."""
    policies = [each["chain"].get("policy") for each in objects if each.get("chain", {}).get("name") == chain]
    rules = [each["rule"]["expr"] for each in objects if each.get("rule", {}).get("chain") == chain]
    last = {key for expression in (rules[-1] if rules else []) for key in expression} - {"counter"}
    return "drop" in policies or (bool(last) and last <= {"drop", "reject"})


def _remedy(place: _Place, text: str, link: str) -> str:
    if place.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={link} && firewall-cmd --reload"
    tables = "ip6tables" if place.family == "ip6" else "iptables"
    if '"DOCKER-USER"' in text:
        return _accept(tables, "DOCKER-USER", link)
    if '"ufw-user-forward"' in text or '"ufw6-user-forward"' in text:
        return f"ufw route allow in on {link} && ufw route allow out on {link}"
    rules = (f"{key} {link} accept" for key in ("iifname", "oifname"))
    return " && ".join(f"nft insert rule {' '.join(place)} {rule}" for rule in rules)


def _accept(tables: str, chain: str, link: str) -> str:
    return " && ".join(f"{tables} -I {chain} -{way} {link} -j ACCEPT" for way in "io")


def _warning(place: _Place, unknown: list[str], remedy: str) -> str:
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return (
        f"The chain {place.chain} of the table {place.family} {place.table} drops what the host forwards and "
        f"does not mention {unknown[0]}{more}: containers there reach nothing beyond the host and are not "
        f"reached by their published ports, unless it lets them pass, as with '{remedy}'."
    )

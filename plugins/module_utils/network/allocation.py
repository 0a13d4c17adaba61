# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses out of a subnet: a container keeps the one that it has, and gets the first that is free else.

What is allocated is kept in the container's own declaration, and free again when that is gone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import host
from ..converge import Failure
from .declared import Network, first_host


class Allocation:
    """Addresses for the entries of one task; ``taken`` are those that nobody else gets, ``unreadable`` the
    containers of which nobody knows what they have."""

    def __init__(self, taken: Iterable[str], unreadable: Sequence[str] = ()) -> None:
        self._taken = set(taken)
        self._unreadable = unreadable
        self._free: dict[Any, Iterator[str]] = {}

    def fill(self, entry: Mapping[str, Any], kept: Network | None) -> dict[str, Any]:
        """The entry with the addresses of each of its links. Raises Failure."""
        name = entry["name"]
        further = [
            {**each, "address": self.addresses({**each, "name": name}, kept)} for each in entry["interfaces"]
        ]
        return {**entry, "address": self.addresses(entry, kept), "interfaces": further}

    def addresses(self, entry: Mapping[str, Any], kept: Network | None) -> list[str]:
        """What is declared of a link, and one of each ``subnet`` that none of these is in. Raises Failure."""
        found = list(entry["address"])
        for subnet in map(ipaddress.ip_network, entry["subnet"]):
            if not any(ipaddress.ip_interface(address).ip in subnet for address in entry["address"]):
                found.append(_kept_in(subnet, kept) or self._next(subnet, entry))
        return found

    def _next(self, subnet: Any, entry: Mapping[str, Any]) -> str:
        if self._unreadable:
            path = host.Declaration(self._unreadable[0], "network").path
            raise Failure(
                f"subnet: {path} is damaged, so that nobody knows which addresses are free for "
                f"{entry['name']}: declare that network again, or have it absent; nothing was changed."
            )
        default = None if _has_gateway(entry, subnet) else first_host(subnet)
        free = self._free.setdefault(subnet, map(str, subnet.hosts()))
        for address in free:
            if address not in self._taken and address != default:
                self._taken.add(address)
                return f"{address}/{subnet.prefixlen}"
        raise Failure(
            f"subnet: {subnet} has no address left for {entry['name']}; it takes a larger subnet; nothing "
            "was changed."
        )


def taken(entries: Iterable[Mapping[str, Any]], networks: Iterable[Network]) -> Iterator[str]:
    """The addresses that these declare, and those that they have already, with their gateways."""
    for link in (link for entry in entries for link in (entry, *entry["interfaces"])):
        yield from (address.partition("/")[0] for address in link["address"])
        yield from link["gateway"]
    for attachment in (each for network in networks for each in network.attachments):
        yield from (str(interface.ip) for interface in attachment.interfaces)
        yield from attachment.gateway


def _kept_in(subnet: Any, kept: Network | None) -> str | None:
    return next((str(each) for each in kept.interfaces if each.network == subnet), None) if kept else None


def _has_gateway(entry: Mapping[str, Any], subnet: Any) -> bool:
    return any(ipaddress.ip_address(gateway) in subnet for gateway in entry["gateway"])

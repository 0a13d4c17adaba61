# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel remembers of UDP, through pyroute2.

Where a packet is translated to is decided once for all that follow between the same two ports
(nf_conntrack). Who goes on sending to a port that leads elsewhere now would never be led there, as with UDP
nothing ends.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .declared import Network
from .options import split_published

Port = tuple[str, int]
"""An address and a port of it."""


class Flow(NamedTuple):
    """Whom a packet was sent to, and who it led to: the one that answers."""

    to: Port
    led_to: Port


def forget_stale(before: Collection[Network], now: Collection[Network], host: Collection[str]) -> None:
    """Has what was sent to ports published by UDP find its way anew, where that is another one now.

    ``before`` are the networks that were, ``now`` those that are, ``host`` the host's own addresses.
    """
    leads_to = _targets(now)
    if not leads_to and not _targets(before):
        return
    ours = {str(interface.ip) for network in before for interface in network.interfaces}

    def is_stale(flow: Flow) -> bool:
        address, port = flow.to
        targets = leads_to.get((":" in address, port))
        if targets is None:
            return flow.to[0] != flow.led_to[0] and flow.led_to[0] in ours
        own = address in host or address.startswith("127.")
        return own and flow.led_to not in targets

    _forget(is_stale)


def _targets(networks: Iterable[Network]) -> Mapping[tuple[bool, int], set[Port]]:
    """Where each port of the host leads to by UDP, by whether it is IPv6 and its number."""
    found: dict[tuple[bool, int], set[Port]] = {}
    for network in networks:
        for published in (each for each in map(split_published, network.publish) if each.protocol == "udp"):
            for _attachment, address in network.main_addresses:
                for number in range(published.number):
                    key = (address.version == 6, published.port + number)
                    found.setdefault(key, set()).add((str(address.ip), published.inside + number))
    return found


def _forget(is_stale: Callable[[Flow], bool]) -> None:
    """Deletes what is remembered. Where the kernel tells nothing of it, or forgets it meanwhile, so be it."""
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, NetlinkError), NFCTSocket(nfgen_family=family) as tracking:
            stale = [sent for flow, sent in _flows(tracking, family) if is_stale(flow)]
            for sent in stale:
                with contextlib.suppress(NetlinkError):
                    tracking.entry("del", tuple_orig=sent)


def _flows(tracking: Any, family: int) -> Iterator[tuple[Flow, Any]]:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    udp = NFCTAttrTuple(family=family, proto=socket.IPPROTO_UDP)
    for message in tuple(tracking.dump(tuple_orig=udp)):
        sent, answer = (
            NFCTAttrTuple.from_netlink(family, message.get_attr(name))
            for name in ("CTA_TUPLE_ORIG", "CTA_TUPLE_REPLY")
        )
        if sent.proto == socket.IPPROTO_UDP:
            yield Flow((sent.daddr, sent.dport), (answer.saddr, answer.sport)), sent

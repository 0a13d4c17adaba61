# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a network namespace has, as it is told to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import netlink
from .survey import Survey


def inside(path: str, name: str, survey: Survey) -> dict[str, Any]:
    """``links`` by name, ``routes`` in the words of ip-route(8), and ``neighbours`` in those of
    ip-neighbour(8), of a container's namespace ``path``.

    ``survey`` has the links of the host that are looked through for a veth's other end. Addresses that the
    kernel gives by itself are left out. Raises OSError, Failure.
    """
    with netlink.session(path) as ip:
        links = netlink.links(ip).values()
        addresses = netlink.addresses(ip)
        names = {link.index: link.name for link in links}
        routes = netlink.routes(ip, names)
        neighbours = netlink.neighbours(ip, names)
        qdiscs = netlink.qdiscs(ip)
    shown = {
        link.name: {
            "kind": link.kind,
            "up": link.up,
            "mac": link.mac or None,
            "mtu": link.mtu,
            "master": None if link.master is None else names[link.master],
            "peer": _peer(link, name, survey),
            "parent": _parent(link, survey),
            "mode": link.mode,
            "bandwidth": _bandwidth(link, name, survey, qdiscs),
            "vlans": _vlans(link, name, survey),
            "addresses": addresses.get(link.index, []),
        }
        for link in links
    }
    return {"links": shown, "routes": routes, "neighbours": neighbours}


def _bandwidth(
    link: netlink.Link, name: str, survey: Survey, qdiscs: Mapping[int, Any]
) -> dict[str, int | None]:
    """Bits per second out of the container and into it, of which None are limited by a token bucket."""
    peer = survey.links.get(_peer(link, name, survey) or "")
    into = None if peer is None else survey.qdiscs.get(peer.index)
    out = qdiscs.get(link.index)
    return {
        direction: bucket["rate"] if isinstance(bucket, Mapping) else None
        for direction, bucket in (("egress", out), ("ingress", into))
    }


def _vlans(link: netlink.Link, name: str, survey: Survey) -> list[str] | None:
    """Those of the bridge that a veth's other end is a port of, or None where it tells none apart."""
    peer = _peer(link, name, survey)
    master = None if peer is None else survey.links[peer].master
    bridge = next((other.name for other in survey.links.values() if other.index == master), None)
    return survey.vlans_of(peer, bridge) if peer and bridge else None


def _parent(link: netlink.Link, survey: Survey) -> str | None:
    """The link of the host that a macvlan or ipvlan shares."""
    if link.mode is None or link.peer_namespace is None:
        return None
    return next((other.name for other in survey.links.values() if other.index == link.peer), None)


def _peer(link: netlink.Link, name: str, survey: Survey) -> str | None:
    """The link of the host that is the other end of a veth, each naming the other's index."""
    ends = (other for other in survey.links.values() if (other.index, other.peer) == (link.peer, link.index))
    number = survey.numbers.get(name)
    return next((other.name for other in ends if number is not None and other.peer_namespace == number), None)

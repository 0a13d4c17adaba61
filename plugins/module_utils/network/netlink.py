# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink (rtnetlink(7)) through pyroute2, in any network namespace: what is there, as plain data."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..converge import Failure
from ..kernel import namespace
from . import vlans

ROUTE_TYPES = {6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
"""The types of route that lead nowhere, by number (rtnetlink(7))."""

DEFAULT6 = "::/0"
"""IPv6's default route, spelled so that a route's destination always tells its family."""

_IFF_UP = 1
_RT_TABLE_MAIN = 254
_RTM_F_CLONED = 0x200
_RTPROT_RA = 9
_TC_H_ROOT = 0xFFFFFFFF
_PSCHED_TICK = 64e-9
_RTPROT_KERNEL = 2
_IP6_PRIO_ADDRCONF = 256
_IP6_PRIO_USER = 1024


@dataclass(frozen=True)
class Link:
    """A network interface. ``peer`` is the index of a veth's other end, or of the link that a macvlan or
    ipvlan shares, in the namespace ``peer_namespace`` as our side numbers it (ip-netns(8), "set"), which is
    None where that is here too; both are None where there is none. ``mode`` is how it shares, in ip-link(8)'s
    words. ``vlan`` is the id of a VLAN's link; ``vlan_filtering`` is a bridge's, and so is ``default_pvid``,
    which is None where the kernel has no VLANs of bridges."""

    name: str
    index: int
    kind: str | None
    up: bool
    mac: str
    mtu: int
    master: int | None
    peer: int | None
    peer_namespace: int | None
    stp: bool
    hairpin: bool
    group: int
    mode: str | None
    vlan: int | None
    vlan_filtering: bool
    default_pvid: int | None


@contextlib.contextmanager
def session(path: str | None = None) -> Iterator[Any]:
    """A pyroute2.IPRoute in the network namespace of ``path``, or in ours; the calling thread is in there
    with it.

    Raises OSError with the kernel's errno, Failure where pyroute2 is missing.
    """
    route, error = _library()
    with entered(path), contextlib.closing(route()) as ip:
        try:
            yield ip
        except error as answer:
            raise OSError(answer.code, os.strerror(answer.code)) from None


def entered(path: str | None) -> AbstractContextManager[None]:
    """The calling thread is in the network namespace of ``path``, or stays where it is. Raises OSError."""
    return contextlib.nullcontext() if path is None else namespace.inside(path, "net")


def _library() -> tuple[Any, Any]:
    """IPRoute and NetlinkError: imported only now, because that takes longer than all else a module does."""
    try:
        from pyroute2 import IPRoute, NetlinkError
    except ImportError:
        raise Failure(
            f"pyroute2 is missing for {sys.executable}: install the package python3-pyroute2; nothing was "
            f"changed."
        ) from None
    return IPRoute, NetlinkError


def links(ip: Any) -> dict[str, Link]:
    """The links of the session's namespace, by name."""
    return {link.name: link for link in map(_link, ip.get_links())}


def _link(message: Any) -> Link:
    peer = message.get_attr("IFLA_LINK")
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND"),
        up=bool(message["flags"] & _IFF_UP),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        master=message.get_attr("IFLA_MASTER"),
        peer=peer,
        peer_namespace=message.get_attr("IFLA_LINK_NETNSID"),
        stp=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_STP_STATE")),
        hairpin=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_MODE")),
        group=message.get_attr("IFLA_GROUP") or 0,
        mode=_mode(message),
        vlan=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID"),
        vlan_filtering=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_VLAN_FILTERING")),
        default_pvid=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_VLAN_DEFAULT_PVID"),
    )


IPVLAN_MODES = ("l2", "l3", "l3s")
"""In the order of their numbers (linux/if_link.h, enum ipvlan_mode)."""


def _mode(message: Any) -> str | None:
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    if kind == "macvlan":
        return str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_MACVLAN_MODE"))
    if kind == "ipvlan":
        return IPVLAN_MODES[message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_IPVLAN_MODE")]
    return None


def mode_argument(kind: str, mode: str) -> dict[str, Any]:
    """pyroute2's argument for the mode of a new link of this kind."""
    return {"ipvlan_mode": IPVLAN_MODES.index(mode)} if kind == "ipvlan" else {"macvlan_mode": mode}


_AF_BRIDGE = socket.AF_BRIDGE
_RTEXT_FILTER_BRVLAN_COMPRESSED = 4
_SELF, _RANGE_BEGIN, _RANGE_END = 2, 8, 16
_VLAN_FLAGS = {"pvid": 2, "untagged": 4}


def port_vlans(ip: Any) -> dict[int, list[str]]:
    """The lines (vlans.py) of every port of a bridge and of every bridge of the session's namespace, by the
    link's index, where the kernel tells VLANs apart."""
    dump = ip.link("dump", family=_AF_BRIDGE, ext_mask=_RTEXT_FILTER_BRVLAN_COMPRESSED, match={})
    return {message["index"]: _vlan_lines(message) for message in dump}


def _vlan_lines(message: Any) -> list[str]:
    # Of a bridge it is the bridge itself.
    words = ["self"] if message.get_attr("IFLA_MASTER") == message["index"] else []
    found: dict[int, str] = {}
    first = 0
    for each in (message.get_attr("IFLA_AF_SPEC") or message).get_attrs("IFLA_BRIDGE_VLAN_INFO"):
        if each["flags"] & _RANGE_BEGIN:
            first = each["vid"]
            continue
        flags = " ".join([word for word, flag in _VLAN_FLAGS.items() if each["flags"] & flag] + words)
        begin = first if each["flags"] & _RANGE_END else each["vid"]
        found.update(dict.fromkeys(range(begin, each["vid"] + 1), flags))
    return vlans.lines(found)


def set_port_vlans(ip: Any, index: int, command: str, lines: Sequence[str]) -> None:
    """Has a port join (``add``) or leave (``del``) the VLANs of these lines, in one request."""
    spec: list[Any] = [["IFLA_BRIDGE_FLAGS", _SELF]] if any("self" in line.split() for line in lines) else []
    for line in lines:
        flags = sum(flag for word, flag in _VLAN_FLAGS.items() if word in line.split())
        ids = vlans.ids(line)
        ends = (
            [(ids[0], flags | _RANGE_BEGIN), (ids[-1], flags | _RANGE_END)]
            if len(ids) > 1
            else [(ids[0], flags)]
        )
        spec += [["IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": each}] for vid, each in ends]
    ip.vlan_filter(command, index=index, af_spec={"attrs": spec})


def supports_vlans() -> tuple[bool, bool]:
    """Whether bridges of this kernel filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING), and whether it has links of
    them (CONFIG_VLAN_8021Q): tried in a network namespace that is gone afterwards. Raises OSError."""
    with namespace.inside(_OWN, "net"):
        namespace.unshare("net")
        with session() as ip:
            ip.link("add", ifname="bridge", kind="bridge")
            bridge = links(ip)["bridge"]
            try:
                ip.link("add", ifname="vlan", kind="vlan", link=bridge.index, vlan_id=2)
            except _library()[1]:
                return bridge.default_pvid is not None, False
            return bridge.default_pvid is not None, True


_OWN = "/proc/thread-self/ns/net"


def addresses(ip: Any) -> dict[int, list[str]]:
    """``ADDRESS/LENGTH`` of every link of the session's namespace, sorted, by the link's index.

    Without what the kernel gives by itself: the loopback's own and IPv6 link-local ones.
    """
    found: dict[int, list[str]] = {}
    for message in ip.get_addr():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if not (address.startswith(("127.", "fe80:")) or address == "::1"):
            found.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
    return {index: sorted(each) for index, each in found.items()}


def qdiscs(ip: Any) -> dict[int, Any]:
    """The root queueing disciplines (tc(8)) that somebody has set, by the link's index: a tbf as
    token_bucket() has it, others by their kind."""
    found = {}
    for message in ip.get_qdiscs():
        if message["parent"] == _TC_H_ROOT and message["handle"]:
            kind = message.get_attr("TCA_KIND")
            found[message["index"]] = _token_bucket(message) if kind == "tbf" else kind
    return found


def token_bucket(bits: int) -> dict[str, int]:
    """What limits a link to so many bits per second (tc-tbf(8)): ``rate`` in bits, ``burst`` and ``limit`` in
    bytes.

    It may send 20 ms at once, and at least the largest packet by far; what waits is sent within 50 ms.
    """
    burst = _rounded(max(bits // 8 // 50, 1 << 17))
    return {"rate": bits, "burst": burst, "limit": burst + bits // 8 // 20}


def _token_bucket(message: Any) -> dict[str, int]:
    parameters = message.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS")
    burst = parameters["rate"] * parameters["buffer"] * _PSCHED_TICK
    return {"rate": parameters["rate"] * 8, "burst": _rounded(burst), "limit": parameters["limit"]}


def _rounded(number: float) -> int:
    """To two digits: the kernel has the time that a burst takes, of which not all bytes can be told again."""
    unit: int = 10 ** max(len(str(int(number))) - 2, 0)
    return int(number / unit + 0.5) * unit


def routes(ip: Any, names: dict[int, str]) -> list[str]:
    """The main table of the session's namespace in the words of ip-route(8), sorted; ``names`` are the
    links' by index.

    Without those of IPv6 link-local addresses.
    """
    shown = [_route(message, names) for message in ip.get_routes(family=0) if _is_of_main_table(message)]
    return sorted(shown)


def _is_of_main_table(message: Any) -> bool:
    table = message.get_attr("RTA_TABLE") or message["table"]
    kernels_own = (message.get_attr("RTA_DST") or "").startswith(("fe80:", "ff00:"))
    return table == _RT_TABLE_MAIN and not kernels_own and not message["flags"] & _RTM_F_CLONED


def _route(message: Any, names: dict[int, str]) -> str:
    """``[TYPE] DESTINATION [via GATEWAY] [dev LINK] [metric NUMBER]``."""
    nowhere = ROUTE_TYPES.get(message["type"])
    words = [nowhere] if nowhere else []
    words.append(_destination(message))
    gateway = message.get_attr("RTA_GATEWAY")
    if gateway:
        words += ["via", gateway]
    index = message.get_attr("RTA_OIF")
    if index is not None and not nowhere:
        words += ["dev", names.get(index, str(index))]
    metric = message.get_attr("RTA_PRIORITY") or 0
    if metric != _usual_metric(message):
        words += ["metric", str(metric)]
    return " ".join(words)


def _usual_metric(message: Any) -> int:
    """The one that a route has where none was asked for (net/ipv6/route.c)."""
    if message["family"] != socket.AF_INET6 or message.get_attr("RTA_PRIORITY") is None:
        return 0
    return _IP6_PRIO_ADDRCONF if message["proto"] == _RTPROT_KERNEL else _IP6_PRIO_USER


def _destination(message: Any) -> str:
    if message["dst_len"]:
        return f"{message.get_attr('RTA_DST')}/{message['dst_len']}"
    return DEFAULT6 if message["family"] == socket.AF_INET6 else "default"


_NEIGHBOUR_STATES = {
    1: "INCOMPLETE",
    2: "REACHABLE",
    4: "STALE",
    8: "DELAY",
    16: "PROBE",
    32: "FAILED",
    128: "PERMANENT",
}
"""By number (linux/neighbour.h). What needs no address of a link's layer (NUD_NOARP) is no neighbour."""


def neighbours(ip: Any, names: dict[int, str]) -> list[str]:
    """The neighbours of the session's namespace in the words of ip-neighbour(8), sorted:
    ``ADDRESS dev LINK [lladdr MAC] STATE``."""
    shown = []
    for message in ip.get_neighbours():
        state = _NEIGHBOUR_STATES.get(message["state"])
        if state is not None:
            mac = message.get_attr("NDA_LLADDR")
            link = names.get(message["ifindex"], str(message["ifindex"]))
            words = [message.get_attr("NDA_DST"), "dev", link, *(["lladdr", mac] if mac else []), state]
            shown.append(" ".join(words))
    return sorted(shown)


def namespace_number(ip: Any, path: str) -> int | None:
    """How the session's namespace numbers the one of ``path`` as its peer, or None if it does not. Raises
    OSError."""
    descriptor = namespace.open_file(path)
    try:
        number: int = ip.get_netnsid(fd=descriptor)["nsid"]
    finally:
        os.close(descriptor)
    return None if number is None or number < 0 else number


def set_root_qdisc(ip: Any, index: int, handle: str, bucket: Mapping[str, int] | None) -> None:
    """Has a token_bucket() limit what a link sends, or takes away what does."""
    if bucket is None:
        ip.tc("del", index=index, parent=_TC_H_ROOT)
    else:
        ip.tc("replace", "tbf", index, handle=handle, **{**bucket, "rate": bucket["rate"] // 8})


def links_with_learned_routes(ip: Any, links: dict[str, Link]) -> list[str]:
    """The links that router advertisements gave a default route to (RFC 4861), where the kernel itself takes
    them."""
    found = {
        message.get_attr("RTA_OIF")
        for message in ip.get_routes(family=socket.AF_INET6)
        if message["proto"] == _RTPROT_RA and not message["dst_len"]
    }
    return sorted(link.name for link in links.values() if link.index in found)

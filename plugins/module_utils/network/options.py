# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a container's network, and their normal forms."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..module import NAME
from ..options import Option, Options
from . import vlans

LINK_PREFIX = "bare-"
"""What the host's end of every container's link begins with; no bridge may."""

LINK_NAME_LENGTH = 15
"""IFNAMSIZ is 16 with the closing zero (linux/if.h)."""

VETH = "veth"
MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}
"""What a link that shares one of the host's does with it, by its kind (ip-link(8)); the first by default."""

STATIC, DYNAMIC = "static", "dynamic"
"""How names reach the containers of a bridge: by their hosts(5) alone, or by a name server too."""

_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_RESERVED_LINKS = ("lo", "all", "default")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DOMAIN = re.compile(
    r"(?=.{1,189}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_PORTS = r"\d{1,5}(?:-\d{1,5})?"
_PUBLISH = re.compile(
    rf"(?:(?P<host>[0-9.]+|\[[0-9A-Fa-f:.]+\]):)?(?P<ports>{_PORTS}):(?P<inside>{_PORTS})"
    r"(?:/(?P<protocol>tcp|udp|sctp))?"
)


class Published(NamedTuple):
    """What ``publish`` says: ``number`` ports of the host from ``port`` on lead to as many of the container
    from ``inside`` on. ``on`` is the one address of the host that has them, or None for all."""

    on: str | None
    port: int
    inside: int
    number: int
    protocol: str


def link_name(value: str) -> str:
    """``value`` where it can name a link: IFNAMSIZ is 16 with the closing zero. Raises ValueError."""
    if not _LINK.fullmatch(value) or value in _RESERVED_LINKS:
        raise ValueError("up to 15 letters, digits, '_', '.' and '-', not one of lo, all, default")
    return value


def bridge_name(value: str) -> str:
    """A link's name that can't be a container's own. Raises ValueError."""
    if value.startswith(LINK_PREFIX):
        raise ValueError(f"a link's name that does not begin with {LINK_PREFIX!r}, as the containers' own do")
    return link_name(value)


def domain_name(value: str) -> str:
    """A domain in lower case, without a dot at its end (RFC 1035, 2.3.1), with room for a container's name
    below it. Raises ValueError."""
    text = value.lower().rstrip(".")
    if not _DOMAIN.fullmatch(text):
        raise ValueError("a domain such as containers.example.org")
    return text


def addresses(values: list[str]) -> list[str]:
    """``ADDRESS/LENGTH`` each, compressed, in the order given: the first of a family is the container's main
    one.

    Raises ValueError for what no host can have.
    """
    return [_host_address(value) for value in values]


def _host_address(value: str) -> str:
    wanted = "an address with its prefix length such as 10.200.0.2/24 or fd00:200::2/64"
    if "/" not in value:
        raise ValueError(wanted)
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError(wanted) from None
    _refuse_special(interface.ip)
    network = interface.network
    last = network.broadcast_address if interface.version == 4 else None
    if network.prefixlen < network.max_prefixlen - 1 and interface.ip in (network.network_address, last):
        raise ValueError(f"{wanted}, and {interface.ip} is the network's own or its broadcast address")
    return interface.with_prefixlen


def subnets(values: list[str]) -> list[str]:
    """``NETWORK/LENGTH`` each, compressed, in the order given, none in another. Raises ValueError."""
    wanted = "networks with room for two and more, each apart, such as 10.200.0.0/24 or fd00:200::/64"
    try:
        parsed = [ipaddress.ip_network(value) for value in values]
    except ValueError:
        raise ValueError(wanted) from None
    for number, network in enumerate(parsed):
        overlaps = any(network.overlaps(other) for other in parsed[:number])
        if overlaps or network.prefixlen == network.max_prefixlen:
            raise ValueError(wanted)
        _refuse_special(network.network_address + 1)
    return [str(network) for network in parsed]


def gateways(values: list[str]) -> list[str]:
    """At most one address of each family, IPv4 first. Raises ValueError."""
    wanted = "an IP address such as 10.200.0.1, or one of each family"
    try:
        parsed = [ipaddress.ip_address(value) for value in values]
    except ValueError:
        raise ValueError(wanted) from None
    for address in parsed:
        _refuse_special(address)
    if len({address.version for address in parsed}) < len(parsed):
        raise ValueError(wanted)
    return [str(address) for address in sorted(parsed, key=lambda address: address.version)]


def _refuse_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Raises ValueError for what is no address of one host, or the kernel's own to give."""
    kernels_own = address.version == 6 and address.is_link_local
    if address.is_multicast or address.is_loopback or address.is_unspecified or kernels_own:
        raise ValueError(
            "the address of one host, neither loopback, multicast, unspecified nor IPv6 link-local"
        )


def vlan(value: int) -> int:
    """The id of a VLAN (IEEE 802.1Q). Raises ValueError."""
    if not 1 <= value <= vlans.LAST:
        raise ValueError(f"a number from 1 to {vlans.LAST}")
    return value


def vlan_trunk(values: list[str]) -> list[str]:
    """Ids and ``FIRST-LAST`` of them, as few and in order. Raises ValueError."""
    wanted = f"numbers from 1 to {vlans.LAST} and ranges of them such as 20-30"
    if not all(re.fullmatch(r"\d{1,4}(-\d{1,4})?", value) for value in values):
        raise ValueError(wanted)
    found = [vlans.ids(value) for value in values]
    if not all(each and each[0] >= 1 and each[-1] <= vlans.LAST for each in found):
        raise ValueError(wanted)
    return vlans.ranges(number for each in found for number in each)


def mtu(value: int) -> int:
    """What the kernel takes for a veth: at least what IPv4 needs (RFC 791). Raises ValueError."""
    if not 68 <= value <= 65535:
        raise ValueError("a number from 68 to 65535")
    return value


def mac_address(value: str) -> str:
    """Six octets in lower case with colons, of one host. Raises ValueError."""
    text = value.lower().replace("-", ":")
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise ValueError("a unicast MAC address such as 02:00:0a:c8:00:02")
    return text


def publish(values: list[str]) -> list[str]:
    """``[HOSTIP:]PORTS:PORTS/PROTOCOL`` each, an IPv6 HOSTIP in brackets, PORTS one or ``FIRST-LAST``.

    Raises ValueError.
    """
    return [_published(value) for value in values]


def _published(value: str) -> str:
    wanted = (
        "HOSTPORT:PORT or HOSTIP:HOSTPORT:PORT, then /tcp, /udp or /sctp, such as 8080:80, "
        "127.0.0.1:5353:53/udp or 8000-8099:8000-8099"
    )
    match = _PUBLISH.fullmatch(value)
    if match is None:
        raise ValueError(wanted)
    ports, inside = port_range(match["ports"], wanted), port_range(match["inside"], wanted)
    if len(ports) != len(inside):
        raise ValueError(f"{wanted}, with as many ports of the host as of the container")
    on = _published_on(match["host"], wanted)
    return f"{on}{_as_text(ports)}:{_as_text(inside)}/{match['protocol'] or 'tcp'}"


def port_range(text: str, wanted: str = "") -> range:
    """The ports of ``PORT`` or ``FIRST-LAST``. Raises ValueError."""
    first, _dash, last = text.partition("-")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ValueError(f"{wanted}, with ports from 1 to 65535, the first of a range first")
    return ports


def _as_text(ports: range) -> str:
    return f"{ports[0]}-{ports[-1]}" if len(ports) > 1 else str(ports[0])


def _published_on(host: str | None, wanted: str) -> str:
    if host is None:
        return ""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(wanted) from None
    if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_loopback):
        raise ValueError(f"{wanted}; without HOSTIP a port is published on every address of the host but ::1")
    return f"[{address}]:" if address.version == 6 else f"{address}:"


def split_published(value: str) -> Published:
    """The parts of a value in normal form."""
    text, _slash, protocol = value.partition("/")
    before, inside = text.rsplit(":", 1)
    host, colon, outside = before.rpartition(":")
    ports = port_range(outside)
    return Published(
        host.strip("[]") if colon else None, ports[0], port_range(inside)[0], len(ports), protocol
    )


def traffic(values: list[Mapping[str, Any]]) -> list[dict[str, str]]:
    """``from`` or ``to``, ``protocol`` and ``port`` of each as text, as far as given; in one order, and once.

    Raises ValueError.
    """
    normal = {tuple(sorted(_traffic(value).items())) for value in values}
    return [dict(each) for each in sorted(normal)]


def _traffic(value: Mapping[str, Any]) -> dict[str, str]:
    wanted = (
        "a list of dictionaries with 'from' or 'to' (an address, a network or any), and if need be "
        "'protocol' (tcp, udp, sctp or icmp) and 'port' (one or FIRST-LAST), such as "
        "{from: 10.200.0.0/24, protocol: tcp, port: 80}"
    )
    given = {key: str(item).lower() for key, item in value.items() if item is not None}
    ways = [key for key in ("from", "to") if key in given]
    if len(ways) != 1 or given.keys() - {*ways, "protocol", "port"}:
        raise ValueError(wanted)
    normal: dict[str, str] = {ways[0]: _peer(given[ways[0]], wanted)}
    if "port" in given:
        if not re.fullmatch(_PORTS, given["port"]):
            raise ValueError(wanted)
        normal["port"] = _as_text(port_range(given["port"], wanted))
    protocol = given.get("protocol", "tcp" if "port" in given else None)
    if protocol is not None:
        if protocol not in (*_WITH_PORTS, *(() if "port" in given else ("icmp",))):
            raise ValueError(wanted)
        normal["protocol"] = protocol
    return normal


_WITH_PORTS = ("tcp", "udp", "sctp")


def _peer(value: str, wanted: str) -> str:
    if value == "any":
        return value
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(wanted) from None
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


_RATE = re.compile(r"(\d+)\s*([kmg]?)(?:bit|bps)?", re.IGNORECASE)
_LEAST_RATE, _MOST_RATE = 8_000, 34_000_000_000


def rate(value: str) -> str:
    """The number of bits per second of ``10M``, ``10mbit`` or the number itself: powers of 1000, as networks
    count, in whole bytes.

    Not more than the 32 bits of struct tc_ratespec hold, in bytes. Raises ValueError.
    """
    match = _RATE.fullmatch(value.strip())
    bits = int(match[1]) * 1000 ** " kmg".index(match[2].lower() or " ") if match else 0
    if not _LEAST_RATE <= bits <= _MOST_RATE:
        raise ValueError("bits per second such as 10M or 10mbit, from 8k to 34G")
    return str(bits // 8 * 8)


def destination(value: str) -> str:
    """``default``, or an address or network as ``ADDRESS/LENGTH``. Raises ValueError."""
    if value == "default":
        return value
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("default, an address, or a network such as 10.0.0.0/8 or fd00::/8") from None


def next_hop(value: str) -> str:
    """An address, compressed. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("the IP address of a router") from None


def metric(value: int) -> int:
    """What a route is chosen by, the lowest first. Raises ValueError."""
    if not 0 <= value < 1 << 32:
        raise ValueError("a number from 0 to 4294967295")
    return value


def routes(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with ``to`` as ``ADDRESS/LENGTH``, and ``via`` and ``metric`` where there is one. Raises
    ValueError."""
    return [_route(value) for value in values]


def _route(value: dict[str, Any]) -> dict[str, Any]:
    to, via, metric = value["to"], value.get("via"), value.get("metric", 0)
    if to == "default":
        if via is None:
            raise ValueError("the default destination with the address of a router as via")
        to = "::/0" if ":" in via else "0.0.0.0/0"
    six = ":" in to
    if via is not None and six != (":" in via):
        raise ValueError("destination and router of the same family, IPv4 or IPv6")
    # What the kernel takes for none (net/ipv6/route.c, IP6_RT_PRIO_USER).
    unsaid = metric == 0 or (six and metric == 1024)
    return {**({} if unsaid else {"metric": metric}), "to": to, **({"via": via} if via else {})}


def _strings(**options: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "str", "compare": "list", "default": [], **options}


def _dictionaries(**options: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "compare": "list", "default": [], **options}


_ROUTE = Options(
    (
        Option("to", required=True, normalise=destination),
        Option("via", normalise=next_hop),
        Option("metric", type="int", normalise=metric),
    )
)


_BANDWIDTH = Options((Option("egress", normalise=rate), Option("ingress", normalise=rate)))


def _of_link(interface: Option, *, default_route: bool) -> tuple[Option, ...]:
    """The options of one link, of which a container may have several."""
    return (
        interface,
        Option("kind", default=VETH, choices=(VETH, *MODES)),
        Option("parent", normalise=link_name),
        Option("mode", choices=tuple(mode for modes in MODES.values() for mode in modes)),
        Option("address", **_strings(normalise=addresses)),
        Option("subnet", **_strings(normalise=subnets)),
        Option("gateway", **_strings(normalise=gateways)),
        Option("default_route", type="bool", default=default_route),
        Option("routes", **_dictionaries(options=_ROUTE, normalise=routes)),
        Option("bridge", normalise=bridge_name),
        Option("vlan", type="int", normalise=vlan),
        Option("vlan_trunk", **_strings(normalise=vlan_trunk)),
        Option("mtu", type="int", default=1500, normalise=mtu),
        Option("mac_address", normalise=mac_address),
        Option("bandwidth", "dict", options=_BANDWIDTH),
        Option("isolate", type="bool", default=True),
        Option("internal", type="bool", default=False),
        Option("dns", default=STATIC, choices=(STATIC, DYNAMIC)),
        Option("dns_domain", normalise=domain_name),
    )


INTERFACE = Options(
    _of_link(Option("interface", required=True, normalise=link_name), default_route=False),
)
"""Those of a further link."""

OPTIONS = Options(
    (
        NAME,
        Option("state", default="present", choices=("present", "absent"), declared=False),
        *_of_link(Option("interface", default="eth0", normalise=link_name), default_route=True),
        Option("interfaces", **_dictionaries(options=INTERFACE)),
        Option("nat", type="bool", default=False),
        Option("publish", **_strings(normalise=publish, compare="set")),
        Option("allow", **_dictionaries(normalise=traffic)),
        Option("deny", **_dictionaries(normalise=traffic)),
    )
)

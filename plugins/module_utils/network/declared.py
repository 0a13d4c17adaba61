# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's network as declared, with every default filled in, and what can't stand beside another's."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from ..converge import Failure
from ..options import Option, Options
from . import vlans
from .options import DYNAMIC, LINK_PREFIX, MODES, OPTIONS, VETH, Published, split_published

NETNS = "/run/netns"
"""Where ip-netns(8) has its names."""


@dataclass(frozen=True)
class Attachment:
    """One link of a container, and what it leads to. ``address`` is ``ADDRESS/LENGTH`` each, with what was
    allocated from ``subnet``; ``gateway`` at most one of each family, ``routes`` and ``bandwidth`` in the
    options' normal form. ``parent`` and ``mode`` are None of a veth, ``mac_address`` of an ipvlan, which has
    its parent's. ``label`` is what its names and addresses are derived from, ``owner`` how it is called
    before people."""

    label: str
    owner: str
    interface: str
    kind: str
    parent: str | None
    mode: str | None
    address: tuple[str, ...]
    subnet: tuple[str, ...]
    gateway: tuple[str, ...]
    default_route: bool
    routes: tuple[Mapping[str, Any], ...]
    bridge: str | None
    vlan: int | None
    vlan_trunk: tuple[str, ...]
    mtu: int
    mac_address: str | None
    bandwidth: Mapping[str, str]
    isolate: bool
    internal: bool
    dns: str
    dns_domain: str | None

    @classmethod
    def resolve(cls, label: str, owner: str, entry: Mapping[str, Any]) -> Attachment:
        """The link of an entry in normal form. Raises Failure for what can't be."""
        attachment = cls(
            label=label,
            owner=owner,
            interface=entry["interface"],
            kind=entry["kind"],
            parent=entry.get("parent"),
            mode=entry.get("mode", next(iter(MODES.get(entry["kind"], ())), None)),
            address=tuple(entry["address"]),
            subnet=tuple(entry["subnet"]),
            gateway=tuple(entry["gateway"] or _first_hosts(entry["address"])),
            default_route=entry["default_route"],
            routes=tuple(entry["routes"]),
            bridge=entry.get("bridge"),
            vlan=entry.get("vlan"),
            vlan_trunk=tuple(entry.get("vlan_trunk", ())),
            mtu=entry["mtu"],
            mac_address=entry.get("mac_address")
            or (None if entry["kind"] == "ipvlan" else stable_mac(label)),
            bandwidth=entry.get("bandwidth", {}),
            isolate=entry["isolate"],
            internal=entry["internal"],
            dns=entry["dns"],
            dns_domain=entry.get("dns_domain"),
        )
        _check_attachment(attachment)
        return attachment

    def declaration(self) -> dict[str, Any]:
        """Its part of what is kept on the host: plain data, by the options' names."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        del values["label"], values["owner"]
        return dict(sorted(values.items()))

    @property
    def is_veth(self) -> bool:
        """Whether the link has an end on the host, which forwards for it and filters what passes."""
        return self.kind == VETH

    @property
    def host_link(self) -> str:
        """The name of the link's end on the host."""
        return host_link(self.label)

    @property
    def host_mac(self) -> str:
        """The MAC address of the link's end on the host."""
        return stable_mac(f"{self.label} on the host")

    @property
    def names_vlans(self) -> bool:
        """Whether the link asks for a bridge that tells VLANs apart."""
        return self.vlan not in (None, vlans.DEFAULT) or bool(self.vlan_trunk)

    @property
    def vlan_link(self) -> str | None:
        """The name of the host's own link in the VLAN of the bridge that the container is in, or None where
        that is the bridge itself."""
        return None if self.vlan in (None, vlans.DEFAULT) else f"{self.bridge}.{self.vlan}"

    @property
    def segment(self) -> str | None:
        """What the link shares with those that it reaches without the host forwarding: a bridge, or a VLAN of
        it."""
        return self.vlan_link or self.bridge

    @property
    def uplink(self) -> str:
        """The link of the host that the container is behind."""
        return self.segment or self.host_link

    @cached_property
    def interfaces(self) -> list[Any]:
        """The addresses, as ipaddress.ip_interface() has them."""
        return [ipaddress.ip_interface(address) for address in self.address]

    @property
    def main_addresses(self) -> list[Any]:
        """The first address of each family, IPv4 first."""
        found: dict[int, Any] = {}
        for interface in self.interfaces:
            found.setdefault(interface.version, interface)
        return [found[version] for version in sorted(found)]

    @property
    def subnets(self) -> list[Any]:
        """The networks that the addresses are in, once each."""
        return list(dict.fromkeys(interface.network for interface in self.interfaces))

    @property
    def default_routers(self) -> tuple[str, ...]:
        """The gateways that default routes lead to: none of an internal network, which has no way out."""
        return self.gateway if self.default_route and not self.internal else ()

    @property
    def name_servers(self) -> tuple[str, ...]:
        """Where the bridge's name server answers: none without one."""
        return self.gateway if self.dns == DYNAMIC else ()

    @property
    def gateway_interfaces(self) -> list[str]:
        """The gateways, each with the prefix length of the subnet that it is in."""
        return [
            f"{gateway}/{subnet.prefixlen}"
            for gateway in self.gateway
            for subnet in self.subnets
            if ipaddress.ip_address(gateway) in subnet
        ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Network:
    """One container's network: its links, of which it has at least one, and ``publish`` in the options'
    normal form."""

    name: str
    attachments: tuple[Attachment, ...]
    nat: bool
    publish: tuple[str, ...]
    allow: tuple[Mapping[str, str], ...]
    deny: tuple[Mapping[str, str], ...]

    @classmethod
    def resolve(cls, name: str, entry: Mapping[str, Any]) -> Network:
        """The network of an entry in normal form. Raises Failure for what can't be."""
        further = [
            Attachment.resolve(f"{name}-{each['interface']}", f"{each['interface']} of {name}", each)
            for each in entry["interfaces"]
        ]
        network = cls(
            name=name,
            attachments=(Attachment.resolve(name, name, entry), *further),
            nat=entry["nat"],
            publish=tuple(entry["publish"]),
            allow=tuple(entry["allow"]),
            deny=tuple(entry["deny"]),
        )
        _check(network)
        return network

    @classmethod
    def read_kept(cls, name: str, kept: Mapping[str, Any]) -> Network:
        """The network of a kept declaration, in which people may have put anything; what was kept before
        there was an option has its default. Raises Failure."""
        try:
            if kept.keys() >= _ALWAYS_KEPT and _have_types(OPTIONS, kept):
                return cls.resolve(name, OPTIONS.normalise(_completed(OPTIONS, kept)))
        except (KeyError, ValueError):
            pass
        raise Failure(
            f"The network that is kept of {name} is no declaration of this collection; declare it again, or "
            "have it absent."
        )

    def declaration(self) -> dict[str, Any]:
        """What is kept on the host: plain data, without the name."""
        first, *further = [attachment.declaration() for attachment in self.attachments]
        own = {option: _plain(getattr(self, option)) for option in ("nat", "publish", "allow", "deny")}
        return dict(sorted({**first, **own, "interfaces": further}.items()))

    @property
    def interfaces(self) -> list[Any]:
        """The addresses of all its links, as ipaddress.ip_interface() has them."""
        return [interface for attachment in self.attachments for interface in attachment.interfaces]

    @property
    def outward(self) -> list[Attachment]:
        """The links that the host forwards for, to others than its neighbours."""
        return [
            attachment for attachment in self.attachments if attachment.is_veth and not attachment.internal
        ]

    @property
    def main_addresses(self) -> list[tuple[Attachment, Any]]:
        """The first address of each family, IPv4 first, and the link that has it: where ports are forwarded
        to."""
        found: dict[int, tuple[Attachment, Any]] = {}
        for attachment in self.outward:
            for interface in attachment.main_addresses:
                found.setdefault(interface.version, (attachment, interface))
        return [found[version] for version in sorted(found)]


def namespace_path(name: str) -> str:
    """The path of a container's named network namespace."""
    return f"{NETNS}/{name}"


_TYPES: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


_ALWAYS_KEPT = {"address", "gateway", "interface", "mtu", "nat", "publish"}
"""What every version has kept of a network."""


def _completed(options: Options, kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept, with the defaults of the options that it lacks, also those of each item of a list."""
    lacking = {option.name: option.default for option in options.options if option.name not in kept}
    lists = {
        option.name: [_completed(option.options, item) for item in kept.get(option.name) or ()]
        for option in options.options
        if option.options is not None and option.type == "list"
    }
    return {**lacking, **kept, **lists}


def _have_types(options: Options, kept: Mapping[str, Any]) -> bool:
    """Whether JSON has the type of each of these options, or nothing, for it."""
    return all(
        kept.get(option.name) is None or _has_type(option, option.type, kept[option.name])
        for option in options.options
    )


def _has_type(option: Option, kind: str, value: Any) -> bool:
    # For Python, true is a number too.
    fits = isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "bool")
    if not fits:
        return False
    if kind == "list":
        return all(_has_type(option, option.elements or "str", item) for item in value)
    return kind != "dict" or option.options is None or _have_types(option.options, value)


def host_link(name: str) -> str:
    """The name of a container's link on the host: ``bare-NAME``, or a digest for NAME where that is too
    long."""
    plain = LINK_PREFIX + name
    return plain if len(plain) <= 15 else LINK_PREFIX + _digest(name).hex()[:10]


def stable_mac(seed: str) -> str:
    """A MAC address that the same seed always gives: unicast, locally administered (RFC 7042, section
    2.1)."""
    return "02:" + _digest(seed)[:5].hex(":")


def bridge_mac(name: str) -> str:
    """The MAC address of a bridge of ours."""
    return stable_mac(f"the bridge {name}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _first_hosts(addresses: Sequence[str]) -> list[str]:
    """The first host address of the first subnet of each family that has room for two."""
    first: dict[int, str] = {}
    for subnet in (ipaddress.ip_interface(address).network for address in addresses):
        if subnet.prefixlen < subnet.max_prefixlen:
            first.setdefault(subnet.version, first_host(subnet))
    return [first[version] for version in sorted(first)]


def first_host(subnet: Any) -> str:
    """The first address of a subnet that a host can have; of just two (RFC 3021) the lower."""
    return str(subnet.network_address + (1 if subnet.max_prefixlen - subnet.prefixlen > 1 else 0))


def _check_attachment(attachment: Attachment) -> None:
    """Raises Failure where the options of a link contradict each other."""
    owner = attachment.owner
    _check_kind(attachment)
    for gateway in map(ipaddress.ip_address, attachment.gateway):
        if any(gateway == interface.ip for interface in attachment.interfaces):
            raise Failure(
                f"address: {gateway} is declared for {owner} and is its gateway's, the host's own; it takes "
                "another address, or another gateway; nothing was changed."
            )
        if not any(gateway in subnet for subnet in attachment.subnets):
            raise Failure(
                f"gateway: {str(gateway)!r} is outside the subnet of {owner}'s address "
                f"({', '.join(attachment.address) or 'none'}); it takes an address inside; nothing was "
                "changed."
            )
    if attachment.mtu < 1280 and any(interface.version == 6 for interface in attachment.interfaces):
        raise Failure(
            f"mtu: {attachment.mtu} is too small for IPv6, it takes 1280 or more; nothing was changed."
        )
    for route in attachment.routes:
        _check_route(attachment, route)
    _check_dns(attachment)


def _check_kind(attachment: Attachment) -> None:
    """Raises Failure for what a link of its kind does not have, or lacks."""
    kind, owner = attachment.kind, attachment.owner
    of_pairs = ("bridge", "vlan", "vlan_trunk", "internal")
    foreign = {VETH: ("parent", "mode"), "ipvlan": (*of_pairs, "mac_address")}
    for option in foreign.get(kind, of_pairs):
        value = _plain(getattr(attachment, option))
        if value not in (None, False, []):
            raise Failure(
                f"{option}: {value!r} is declared for {owner}, whose link is of kind "
                f"{kind} and has none; it takes another kind; nothing was changed."
            )
    if attachment.is_veth:
        _check_vlans(attachment)
        return
    if "ingress" in attachment.bandwidth:
        raise Failure(
            f"bandwidth: ingress is declared for {owner}, whose link is of kind {kind} and has no end on the "
            "host that could limit it; it takes egress alone; nothing was changed."
        )
    if attachment.parent is None:
        raise Failure(
            f"parent: {owner} has none, and its link of kind {kind} takes a link of the host; nothing was "
            "changed."
        )
    if attachment.mode not in MODES[kind]:
        raise Failure(
            f"mode: {attachment.mode!r} of {owner} is none of {kind}, which takes {', '.join(MODES[kind])}; "
            "nothing was changed."
        )


def _check_dns(attachment: Attachment) -> None:
    """Raises Failure for a name server that has no place to be, or a domain that has no name server."""
    if attachment.dns == DYNAMIC:
        lacking = (
            "no bridge" if attachment.bridge is None else "no gateway" if not attachment.gateway else None
        )
        if lacking:
            raise Failure(
                f"dns: {DYNAMIC!r} is declared for {attachment.owner}, which has {lacking}, and the name "
                "server answers at the gateway of a bridge; it takes both; nothing was changed."
            )
    elif attachment.dns_domain is not None:
        raise Failure(
            f"dns_domain: {attachment.dns_domain!r} is declared for {attachment.owner}, where no name server "
            f"knows of it; it takes dns: {DYNAMIC} too; nothing was changed."
        )


def _check_vlans(attachment: Attachment) -> None:
    """Raises Failure for VLANs of no bridge, and for one with and without a tag."""
    for option in ("vlan", "vlan_trunk"):
        value = _plain(getattr(attachment, option))
        if value and attachment.bridge is None:
            raise Failure(
                f"{option}: {value!r} is declared for {attachment.owner}, which "
                "is behind no bridge; it takes a bridge too; nothing was changed."
            )
    untagged = attachment.vlan or vlans.DEFAULT
    if any(untagged in vlans.ids(each) for each in attachment.vlan_trunk):
        raise Failure(
            f"vlan_trunk: {untagged} of {attachment.owner} is the VLAN that its link is in without a tag "
            "(vlan); it takes others; nothing was changed."
        )


def _check_route(attachment: Attachment, route: Mapping[str, Any]) -> None:
    """Raises Failure for a route that the kernel would not take, or would take for one of the address."""
    to, subnets = route["to"], attachment.subnets
    shown, owner = f"routes: the one of {attachment.owner} to {to}", attachment.owner
    if "metric" not in route and to in map(str, subnets):
        raise Failure(f"{shown} is the one of its own address; it takes a metric too; nothing was changed.")
    if "via" in route:
        via = ipaddress.ip_address(route["via"])
        if not (via.is_link_local and via.version == 6) and not any(via in subnet for subnet in subnets):
            raise Failure(
                f"{shown} is via {via}, which is in no subnet of {owner}'s address "
                f"({', '.join(attachment.address) or 'none'}); it takes a router in there; nothing was "
                "changed."
            )
        if via in (interface.ip for interface in attachment.interfaces):
            raise Failure(f"{shown} is via its own address; it takes a router's; nothing was changed.")


def _check(network: Network) -> None:
    """Raises Failure where the options contradict each other."""
    names = [each.interface for each in network.attachments]
    _refuse_twice("interfaces", network, names, "each takes its own name")
    # The kernel tells routes in one table by their destination and metric (fib_table_insert()).
    routes = [f"a route to {to}" for each in network.attachments for to in _destinations(each)]
    _refuse_twice("routes", network, routes, "it takes one, or another metric, or default_route: false")
    _refuse_one_subnet_twice(network)
    versions = {interface.version for each in network.outward for interface in each.interfaces}
    for option in ("nat", "publish"):
        if getattr(network, option) and not network.interfaces:
            raise Failure(f"{option}: {network.name} has no address, it takes one; nothing was changed.")
        if getattr(network, option) and not versions:
            internal = any(each.internal for each in network.attachments)
            raise Failure(
                f"internal: {network.name} asks for {option} too, which leads out of an internal network; it "
                "takes one of the two; nothing was changed."
                if internal
                else f"{option}: {network.name} has no link of kind {VETH}, and for others the host does not "
                "forward; it takes one; nothing was changed."
            )
    for published in network.publish:
        on = split_published(published).on
        if on is not None and ipaddress.ip_address(on).version not in versions:
            raise Failure(
                f"publish: {published!r} of {network.name} is on an address of the family that the "
                f"container has "
                "none of; it takes one of the same family; nothing was changed."
            )


def _destinations(attachment: Attachment) -> list[str]:
    """Of the routes over a link that are not its addresses' own, each with its metric."""
    default = ["::/0" if ":" in router else "0.0.0.0/0" for router in attachment.default_routers]
    static = [
        f"{route['to']} with metric {route['metric']}" if "metric" in route else route["to"]
        for route in attachment.routes
    ]
    return default + static


def _refuse_twice(option: str, network: Network, values: Sequence[str], accepted: str) -> None:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise Failure(
                f"{option}: {value} is declared twice for {network.name}, {accepted}; nothing was changed."
            )


def _refuse_one_subnet_twice(network: Network) -> None:
    """Over which of two links of one subnet a packet leaves, nobody has said."""
    seen: list[tuple[Any, Attachment]] = []
    for attachment in network.attachments:
        for subnet in attachment.subnets:
            for other, taken in seen:
                if taken is not attachment and subnet.version == other.version and subnet.overlaps(other):
                    raise Failure(
                        f"address: the subnet {subnet} of {attachment.owner} overlaps with {other} of "
                        f"{taken.owner}; each link of a container takes its own; nothing was changed."
                    )
            seen.append((subnet, attachment))


def refuse_conflicts(networks: Sequence[Network]) -> None:
    """Raises Failure for the first two networks that can't be on one host together."""
    attachments = [attachment for network in networks for attachment in network.attachments]
    pairs = [attachment for attachment in attachments if attachment.is_veth]
    _refuse_same_link(pairs)
    _refuse_same_address(attachments)
    _refuse_same_port(networks)
    _refuse_two_gateways(pairs)
    _refuse_overlap(pairs)
    _refuse_two_kinds(pairs)
    _refuse_bridge_named_as_vlan(pairs)
    _refuse_same_parent([attachment for attachment in attachments if not attachment.is_veth])


def _refuse_same_link(attachments: Sequence[Attachment]) -> None:
    taken: dict[str, str] = {}
    for attachment in attachments:
        other = taken.setdefault(attachment.host_link, attachment.owner)
        if other != attachment.owner:
            raise Failure(
                f"name: {attachment.owner!r} and {other!r} would both have {attachment.host_link} as their "
                "link on the host; one of them takes another name; nothing was changed."
            )


def _refuse_same_address(attachments: Sequence[Attachment]) -> None:
    gateways = {gateway: attachment.owner for attachment in attachments for gateway in attachment.gateway}
    taken: dict[str, str] = {}
    for attachment in attachments:
        owner = attachment.owner
        for address in (str(interface.ip) for interface in attachment.interfaces):
            other = taken.setdefault(address, owner)
            if other != owner:
                raise Failure(
                    f"address: {address} is declared for {other} and for {owner}, each takes its own; "
                    "nothing was changed."
                )
            if address in gateways:
                raise Failure(
                    f"address: {address} of {owner} is the gateway of {gateways[address]}; it takes "
                    f"another; "
                    "nothing was changed."
                )


def _refuse_same_port(networks: Sequence[Network]) -> None:
    """In the order of ports, so that each is compared only with those that reach as far as it begins."""
    wanted = sorted(
        ((split_published(text), network.name, text) for network in networks for text in network.publish),
        key=lambda each: each[0].port,
    )
    reaching: dict[str, list[tuple[Published, str, str]]] = {}
    for ports, name, text in wanted:
        before = reaching.get(ports.protocol, [])
        still = [other for other in before if other[0].port + other[0].number > ports.port]
        for other_ports, other, other_text in still:
            if ports.on == other_ports.on or None in (ports.on, other_ports.on):
                raise Failure(
                    f"publish: {text!r} of {name} takes the same port of the host as {other_text!r} of "
                    f"{other}, each takes its own; nothing was changed."
                )
        reaching[ports.protocol] = [*still, (ports, name, text)]


def _refuse_two_gateways(attachments: Sequence[Attachment]) -> None:
    """Containers of one subnet have one gateway: it is on one link of the host, for all."""
    seen: dict[Any, tuple[str, str]] = {}
    for attachment in attachments:
        for gateway in attachment.gateway_interfaces:
            subnet = ipaddress.ip_interface(gateway).network
            other, taken = seen.setdefault(subnet, (attachment.owner, gateway))
            if gateway != taken:
                raise Failure(
                    f"gateway: {gateway} of {attachment.owner} and {taken} of {other} are of the same "
                    "subnet, which takes one for all; nothing was changed."
                )


def _refuse_overlap(attachments: Sequence[Attachment]) -> None:
    """A subnet is behind one link of the host: it could not tell otherwise where to send."""
    subnets = sorted(
        (subnet.version, subnet, attachment.uplink, attachment.owner)
        for attachment in attachments
        for subnet in attachment.subnets
    )
    around: list[tuple[int, Any, str, str]] = []
    for each in subnets:
        _version, subnet, uplink, name = each
        while around and not around[-1][1].overlaps(subnet):
            around.pop()
        if around and around[-1][2] != uplink:
            _version, other_subnet, other_uplink, other = around[-1]
            raise Failure(
                f"address: the subnet {subnet} of {name} behind {uplink} overlaps with {other_subnet} of "
                f"{other} "
                f"behind {other_uplink}; they take one bridge, or a subnet each; nothing was changed."
            )
        around.append(each)


def _refuse_two_kinds(attachments: Sequence[Attachment]) -> None:
    """What is a matter of a bridge is declared alike for all behind it."""
    seen: dict[tuple[str, str], Attachment] = {}
    for attachment in attachments:
        for option in ("isolate", "internal", "dns", "dns_domain"):
            other = seen.setdefault((attachment.uplink, option), attachment)
            values = [str(getattr(each, option)).lower() for each in (attachment, other)]
            if values[0] != values[1]:
                raise Failure(
                    f"{option}: {values[0]} of {attachment.owner} and {values[1]} of {other.owner} are of "
                    f"the same bridge {attachment.uplink}, which takes one for all; nothing was changed."
                )


def _refuse_bridge_named_as_vlan(attachments: Sequence[Attachment]) -> None:
    bridges = {attachment.bridge: attachment.owner for attachment in attachments}
    for attachment in attachments:
        if attachment.vlan_link in bridges and attachment.vlan_link is not None:
            raise Failure(
                f"bridge: {attachment.vlan_link!r} of {bridges[attachment.vlan_link]} is what the VLAN "
                f"{attachment.vlan} of {attachment.bridge} is called, which {attachment.owner} is in; it "
                "takes another name; nothing was changed."
            )


def _refuse_same_parent(attachments: Sequence[Attachment]) -> None:
    """A link is shared in one way (net/core/dev.c, netdev_rx_handler_register()), by all ipvlans in one mode
    (drivers/net/ipvlan/ipvlan_main.c, ipvlan_set_port_mode()), and wholly given to one."""
    taken: dict[str | None, Attachment] = {}
    for attachment in attachments:
        other = taken.setdefault(attachment.parent, attachment)
        alone = "passthru" in (attachment.mode, other.mode) and other is not attachment
        modes = attachment.kind == "ipvlan" and attachment.mode != other.mode
        if attachment.kind != other.kind or alone or modes:
            raise Failure(
                f"parent: {attachment.parent!r} of {attachment.owner} ({attachment.kind}, {attachment.mode}) "
                f"can't be that of {other.owner} ({other.kind}, {other.mode}) too; it takes another link, or "
                "the same kind, not passthru, and of ipvlan the same mode; nothing was changed."
            )

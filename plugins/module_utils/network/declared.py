# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's network as declared, with every default filled in, and what can't stand beside another's."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..converge import Failure
from ..options import Option
from .options import LINK_PREFIX, OPTIONS, Published, split_published

NETNS = "/run/netns"
"""Where ip-netns(8) has its names."""


@dataclass(frozen=True)
class Network:
    """One container's network. ``address`` is ``ADDRESS/LENGTH`` each, with what was allocated from
    ``subnet``; ``gateway`` at most one of each family, ``publish`` in the options' normal form."""

    name: str
    interface: str
    address: tuple[str, ...]
    subnet: tuple[str, ...]
    gateway: tuple[str, ...]
    bridge: str | None
    mtu: int
    mac_address: str
    nat: bool
    publish: tuple[str, ...]
    isolate: bool
    internal: bool
    allow: tuple[Mapping[str, str], ...]
    deny: tuple[Mapping[str, str], ...]

    @classmethod
    def resolve(cls, name: str, entry: Mapping[str, Any]) -> Network:
        """The network of an entry in normal form. Raises Failure for what can't be."""
        network = cls(
            name=name,
            interface=entry["interface"],
            address=tuple(entry["address"]),
            subnet=tuple(entry["subnet"]),
            gateway=tuple(entry["gateway"] or _first_hosts(entry["address"])),
            bridge=entry.get("bridge"),
            mtu=entry["mtu"],
            mac_address=entry.get("mac_address") or stable_mac(name),
            nat=entry["nat"],
            publish=tuple(entry["publish"]),
            isolate=entry["isolate"],
            internal=entry["internal"],
            allow=tuple(entry["allow"]),
            deny=tuple(entry["deny"]),
        )
        _check(network)
        return network

    @classmethod
    def read_kept(cls, name: str, kept: Mapping[str, Any]) -> Network:
        """The network of a kept declaration, in which people may have put anything. Raises Failure."""
        try:
            if all(_has_type(option, kept.get(option.name)) for option in OPTIONS.options):
                return cls.resolve(name, OPTIONS.normalise(kept))
        except (KeyError, ValueError):
            pass
        raise Failure(
            f"The network that is kept of {name} is no declaration of this collection; declare it again, or "
            "have it absent."
        )

    def declaration(self) -> dict[str, Any]:
        """What is kept on the host: plain data, without the name."""
        kept = dict(sorted(asdict(self).items()))
        del kept["name"]
        return {option: list(value) if isinstance(value, tuple) else value for option, value in kept.items()}

    @property
    def host_link(self) -> str:
        """The name of the link's end on the host."""
        return host_link(self.name)

    @property
    def host_mac(self) -> str:
        """The MAC address of the link's end on the host."""
        return stable_mac(f"{self.name} on the host")

    @property
    def uplink(self) -> str:
        """The link of the host that the container is behind."""
        return self.bridge or self.host_link

    @property
    def interfaces(self) -> list[Any]:
        """The addresses, as ipaddress.ip_interface() has them."""
        return [ipaddress.ip_interface(address) for address in self.address]

    @property
    def main_addresses(self) -> list[Any]:
        """The first address of each family, IPv4 first: what ports are forwarded to."""
        found: dict[int, Any] = {}
        for interface in self.interfaces:
            found.setdefault(interface.version, interface)
        return [found[version] for version in sorted(found)]

    @property
    def subnets(self) -> list[Any]:
        """The networks that the addresses are in, once each."""
        return list(dict.fromkeys(interface.network for interface in self.interfaces))

    @property
    def gateway_interfaces(self) -> list[str]:
        """The gateways, each with the prefix length of the subnet that it is in."""
        return [
            f"{gateway}/{subnet.prefixlen}"
            for gateway in self.gateway
            for subnet in self.subnets
            if ipaddress.ip_address(gateway) in subnet
        ]


def namespace_path(name: str) -> str:
    """The path of a container's named network namespace."""
    return f"{NETNS}/{name}"


_TYPES: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


def _has_type(option: Option, value: Any) -> bool:
    """Whether JSON has the type of an option, or nothing, for it."""
    if value is None:
        return True
    elements = _TYPES[option.elements or "str"]
    of_elements = not isinstance(value, list) or all(isinstance(item, elements) for item in value)
    # For Python, true is a number too.
    of_type = isinstance(value, _TYPES[option.type]) and isinstance(value, bool) == (option.type == "bool")
    return of_type and of_elements


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


def _check(network: Network) -> None:
    """Raises Failure where the options contradict each other."""
    for gateway in map(ipaddress.ip_address, network.gateway):
        if any(gateway == interface.ip for interface in network.interfaces):
            raise Failure(
                f"address: {gateway} is declared for {network.name} and is its gateway's, the host's own; "
                f"it takes "
                "another address, or another gateway; nothing was changed."
            )
        if not any(gateway in subnet for subnet in network.subnets):
            raise Failure(
                f"gateway: {str(gateway)!r} is outside the subnet of {network.name}'s address "
                f"({', '.join(network.address) or 'none'}); it takes an address inside; nothing was changed."
            )
    versions = {interface.version for interface in network.interfaces}
    if network.mtu < 1280 and 6 in versions:
        raise Failure(
            f"mtu: {network.mtu} is too small for IPv6, it takes 1280 or more; nothing was changed."
        )
    for option in ("nat", "publish"):
        if getattr(network, option) and not versions:
            raise Failure(f"{option}: {network.name} has no address, it takes one; nothing was changed.")
        if getattr(network, option) and network.internal:
            raise Failure(
                f"internal: {network.name} asks for {option} too, which leads out of an internal network; it "
                "takes one of the two; nothing was changed."
            )
    for published in network.publish:
        on = split_published(published).on
        if on is not None and ipaddress.ip_address(on).version not in versions:
            raise Failure(
                f"publish: {published!r} of {network.name} is on an address of the family that the "
                f"container has "
                "none of; it takes one of the same family; nothing was changed."
            )


def refuse_conflicts(networks: Sequence[Network]) -> None:
    """Raises Failure for the first two networks that can't be on one host together."""
    _refuse_same_link(networks)
    _refuse_same_address(networks)
    _refuse_same_port(networks)
    _refuse_two_gateways(networks)
    _refuse_overlap(networks)
    _refuse_two_kinds(networks)


def _refuse_same_link(networks: Sequence[Network]) -> None:
    taken: dict[str, str] = {}
    for network in networks:
        other = taken.setdefault(network.host_link, network.name)
        if other != network.name:
            raise Failure(
                f"name: {network.name!r} and {other!r} would both have {network.host_link} as their link "
                f"on the "
                "host; one of them takes another name; nothing was changed."
            )


def _refuse_same_address(networks: Sequence[Network]) -> None:
    gateways = {gateway: network.name for network in networks for gateway in network.gateway}
    taken: dict[str, str] = {}
    for network in networks:
        for address in (str(interface.ip) for interface in network.interfaces):
            other = taken.setdefault(address, network.name)
            if other != network.name:
                raise Failure(
                    f"address: {address} is declared for {other} and for {network.name}, each takes its own; "
                    "nothing was changed."
                )
            if address in gateways:
                raise Failure(
                    f"address: {address} of {network.name} is the gateway of {gateways[address]}; it takes "
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


def _refuse_two_gateways(networks: Sequence[Network]) -> None:
    """Containers of one subnet have one gateway: it is on one link of the host, for all."""
    seen: dict[Any, tuple[str, str]] = {}
    for network in networks:
        for gateway in network.gateway_interfaces:
            other, taken = seen.setdefault(ipaddress.ip_interface(gateway).network, (network.name, gateway))
            if gateway != taken:
                raise Failure(
                    f"gateway: {gateway} of {network.name} and {taken} of {other} are of the same subnet, "
                    f"which takes "
                    "one for all; nothing was changed."
                )


def _refuse_overlap(networks: Sequence[Network]) -> None:
    """A subnet is behind one link of the host: it could not tell otherwise where to send."""
    subnets = sorted(
        (subnet.version, subnet, network.uplink, network.name)
        for network in networks
        for subnet in network.subnets
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


def _refuse_two_kinds(networks: Sequence[Network]) -> None:
    """What is a matter of a bridge is declared alike for all behind it."""
    seen: dict[tuple[str, str], Network] = {}
    for network in networks:
        for option in ("isolate", "internal"):
            other = seen.setdefault((network.uplink, option), network)
            values = [str(getattr(each, option)).lower() for each in (network, other)]
            if values[0] != values[1]:
                raise Failure(
                    f"{option}: {values[0]} of {network.name} and {values[1]} of {other.name} are of the "
                    f"same bridge {network.uplink}, which takes one for all; nothing was changed."
                )

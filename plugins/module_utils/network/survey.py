# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the resources of one task read together: the declared networks of this host, its links, what is
ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import file
from . import dnsmasq, namespace, netlink, vlans
from .allocation import Allocation, taken
from .declared import Attachment, Network, bridge_mac, namespace_path, refuse_conflicts
from .link import IPV6
from .options import LINK_NAME_LENGTH

DIRECTORY = host.STATE / "network"
"""What the containers' networks share on this host."""

RECORD = DIRECTORY / "host.json"
"""The bridges that we made, and the host's settings that we changed with their values before."""

FORWARDING = {4: Path("/proc/sys/net/ipv4/ip_forward"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}
"""The switch that makes the host a router, by IP version (the kernel's networking/ip-sysctl.rst)."""

NO_RECORD: dict[str, Any] = {"bridges": [], "settings": {}}

_ACCEPT_RA_WITH_FORWARDING = "2"


class Survey:
    """``kept`` are the networks on disk by container, ``declared`` the same overlaid with this task's;
    ``links``, ``addresses``, ``qdiscs`` and ``vlans`` the host's as netlink has them, ``numbers`` those of
    the task's namespaces by container, ``record`` what RECORD holds. ``filtering`` are the bridges that are
    to tell VLANs apart; ``vlans`` is read only where there is one that is to, or does. All are there after
    refresh(), which the engine calls before every reading.

    ``ours`` are the containers that have a network on disk; ``unreadable`` those of them of which nobody can
    say what it is, as this task does not either: what may be theirs on the host is left as it is. Where
    ``record_is_damaged``, the record is what can still be said.

    ``firewall_is_loaded`` is kept by the Firewall, the first resource of a task.
    """

    ours: list[str]
    kept: dict[str, Network]
    unreadable: list[str]
    declared: dict[str, Network]
    links: dict[str, netlink.Link]
    addresses: dict[int, list[str]]
    qdiscs: dict[int, Any]
    vlans: dict[int, list[str]]
    filtering: set[str]
    numbers: dict[str, int | None]
    record: dict[str, Any]
    record_is_damaged: bool

    def __init__(self) -> None:
        self._entries: Sequence[Mapping[str, Any]] = ()
        self.task: dict[str, Network | None] = {}
        self.kept = {}
        self.links = {}
        self.numbers = {}
        self.firewall_is_loaded = False

    def declare(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Takes the entries of this task, in normal form."""
        self._entries = entries

    def refresh(self) -> None:
        """Reads all anew, and resolves the entries of this task. Raises Failure for what can't be on this
        host, OSError."""
        self.ours = host.declared_names("network")
        self.kept = _read_kept(self.ours)
        # A resource of its own (container_info) has no entries, and its task already.
        named = {*self.task, *(entry["name"] for entry in self._entries)}
        self.unreadable = [name for name in self.ours if name not in self.kept and name not in named]
        with netlink.session() as ip:
            self.links = netlink.links(ip)
            self.addresses = netlink.addresses(ip)
            self.qdiscs = netlink.qdiscs(ip)
            self._resolve()
            self._check(ip)

    def _resolve(self) -> None:
        """Gives every entry its network, with addresses that are free on this host."""
        present = [entry for entry in self._entries if entry["state"] == "present"]
        going = {entry["name"] for entry in self._entries if entry["state"] != "present"}
        staying = [network for name, network in self.kept.items() if name not in going]
        own = (address.partition("/")[0] for each in self.addresses.values() for address in each)
        allocation = Allocation([*taken(present, staying), *own], self.unreadable)
        for entry in self._entries:
            name = entry["name"]
            self.task[name] = None
            if name not in going:
                self.task[name] = Network.resolve(name, allocation.fill(entry, self.kept.get(name)))

    def _check(self, ip: Any) -> None:
        """Reads what is left of the task's networks, and raises Failure for what can't be."""
        overlaid: dict[str, Network | None] = {**self.kept, **self.task}
        self.declared = {name: network for name, network in sorted(overlaid.items()) if network is not None}
        refuse_conflicts(list(self.declared.values()))
        self._read_record()
        self.filtering = self._filtering()
        filters = self.filtering or any(link.vlan_filtering for link in self.links.values())
        self.vlans = netlink.port_vlans(ip) if filters else {}
        self.numbers = {
            name: netlink.namespace_number(ip, path)
            for name, path in ((name, namespace_path(name)) for name in self.task)
            if namespace.exists(path)
        }
        for network in self.task.values():
            if network is not None:
                self._refuse(network)
        self._refuse_losing_routes(ip)
        self._refuse_vlans()

    def _read_record(self) -> None:
        """Of a damaged one, the bridges are known by the MAC address that we give to each; the values of the
        settings before us are not, so that they stay."""
        record = read_record()
        self.record_is_damaged = record is None
        if record is None:
            bridges = [name for name, link in self.links.items() if link.kind == "bridge"]
            made = sorted(name for name in bridges if self.links[name].mac == bridge_mac(name))
            record = {"bridges": made, "settings": {}}
        self.record = record

    @property
    def ours_to_be(self) -> list[str]:
        """The containers that have a network once this task is done, sorted."""
        return sorted({*self.declared, *self.unreadable})

    def is_ours(self, bridge: str) -> bool:
        """Whether we made the bridge, or are about to."""
        return bridge not in self.links or bridge in self.record["bridges"]

    def is_ours_behind(self, attachment: Attachment) -> bool:
        """Whether the link of the host that the container is behind is ours, not a bridge of others."""
        return attachment.is_veth and (attachment.bridge is None or self.is_ours(attachment.bridge))

    def is_shut(self, attachment: Attachment) -> bool:
        """Whether the host's rules keep others than its neighbours from the link."""
        shut = attachment.isolate or attachment.internal
        return shut and bool(attachment.address) and self.is_ours_behind(attachment)

    def is_gateway_of(self, attachment: Attachment) -> bool:
        """Whether the host holds the link's gateway address: not on a bridge that is somebody else's."""
        return bool(attachment.gateway) and self.is_ours_behind(attachment)

    def attachments(self) -> list[Attachment]:
        """All that are declared."""
        return [attachment for network in self.declared.values() for attachment in network.attachments]

    def bridges(self) -> list[str]:
        """Our bridges that are declared."""
        names = {each.bridge for each in self.attachments() if each.bridge is not None}
        return sorted(name for name in names if self.is_ours(name))

    def vlan_links(self) -> dict[str, Attachment]:
        """The links by which the host is the gateway of VLANs of our bridges: of each, one that is behind
        it."""
        behind = (each for each in self.attachments() if self.is_gateway_of(each))
        return {each.vlan_link: each for each in behind if each.vlan_link is not None}

    def _filtering(self) -> set[str]:
        """Ours where a link behind them names VLANs, or nobody knows whether one does; others as they are."""
        named = {str(each.bridge) for each in self.attachments() if each.names_vlans}
        now = {name for name, link in self.links.items() if link.vlan_filtering}
        wanted = {bridge for bridge in named if self.is_ours(bridge)}
        kept = {bridge for bridge in now if self.unreadable or not self.is_ours(bridge)}
        return wanted | kept

    def vlans_of(self, name: str, bridge: str) -> list[str] | None:
        """Those that a port of the bridge is in, or itself; None where it does not tell them apart, nor is
        to."""
        if bridge in self.filtering or self._filters(bridge):
            return self.vlans.get(self.links[name].index, [])
        return None

    def vlans_of_new_port(self, bridge: str | None) -> list[str] | None:
        """Those that the kernel gives a new port of a bridge."""
        if bridge not in self.filtering:
            return None
        there = self.links.get(bridge)
        return vlans.port(vlans.DEFAULT if there is None else there.default_pvid)

    def declared_vlans(self, attachment: Attachment) -> list[str] | None:
        """Those that a link is to be in."""
        bridge = attachment.bridge
        if bridge is None or bridge not in self.filtering:
            return None
        usual = vlans.DEFAULT if self.is_ours(bridge) else self.links[bridge].default_pvid
        return vlans.port(attachment.vlan or usual, attachment.vlan_trunk)

    def routed_versions(self) -> set[int]:
        """The IP versions that the host has to forward for the declared networks.

        IPv6 only for those that ask to be reached or to reach out: forwarding changes what the host takes
        from routers.
        """
        return {
            version
            for network in self.declared.values()
            for attachment in network.outward
            for version in self._routed(network, attachment)
        }

    def _routed(self, network: Network, attachment: Attachment) -> set[int]:
        asks = network.nat or bool(network.publish)
        versions = {interface.version for interface in attachment.interfaces}
        return {version for version in versions if asks or (version == 4 and self.is_gateway_of(attachment))}

    def routed_links(self) -> dict[str, set[str]]:
        """The links of ours that the host forwards from and to, with the subnets behind each."""
        links: dict[str, set[str]] = {}
        for network in self.declared.values():
            for attachment in network.outward:
                if self.is_ours_behind(attachment) and self._routed(network, attachment):
                    links.setdefault(attachment.uplink, set()).update(map(str, attachment.subnets))
        return links

    def served_links(self) -> dict[str, set[str]]:
        """The bridges that have a name server, with the subnets behind each."""
        links: dict[str, set[str]] = {}
        for attachment in self.attachments():
            if attachment.name_servers:
                links.setdefault(attachment.uplink, set()).update(map(str, attachment.subnets))
        return links

    def reaches_localhost(self, uplink: str) -> bool:
        """Whether ports published on the host's 127.0.0.1 lead to a container behind this link."""
        return any(
            attachment.uplink == uplink and address.version == 4 and self.is_gateway_of(attachment)
            for network in self.declared.values()
            if network.publish
            for attachment, address in network.main_addresses
        )

    def require_firewall(self) -> None:
        """Raises Failure unless the rules are loaded that shut all but the host itself out of 127.0.0.0/8."""
        if not self.firewall_is_loaded:
            raise Failure(
                "127.0.0.0/8 of this host is not opened to the container's link, because the firewall that "
                "guards it "
                "could not be loaded; all else was changed as declared."
            )

    def require_walls(self) -> None:
        """Raises Failure unless the rules are loaded that shut a link which is to be made."""
        if not self.firewall_is_loaded:
            raise Failure(
                "The container's link is not made, because the firewall that is to isolate it could not be "
                "loaded; links that are there were left as they are."
            )

    def _refuse(self, network: Network) -> None:
        """Raises Failure for what this host already has or can't have."""
        for attachment in network.attachments:
            self._refuse_bridge(attachment)
        if any(interface.version == 6 for interface in network.interfaces) and not IPV6.exists():
            raise Failure(
                f"address: {network.name} has an IPv6 address and the kernel of this host has no IPv6; "
                "it takes IPv4 addresses here; nothing was changed."
            )
        if network.name in self.ours:
            return
        # Somebody may be using what has our names and was not made by us.
        if network.name in self.numbers:
            raise Failure(
                f"name: {network.name!r} is a network namespace that this collection did not make; it takes "
                f"another name, or the namespace gone (ip netns delete {network.name}); nothing was changed."
            )
        for link in (attachment.host_link for attachment in network.attachments if attachment.is_veth):
            if link in self.links:
                raise Failure(
                    f"name: {network.name!r} has the link {link} on the host, which this collection "
                    f"did not make; it takes another name, or that gone (ip link delete {link}); "
                    "nothing was changed."
                )

    def _refuse_vlans(self) -> None:
        """Raises Failure for VLANs that this host can't have, where the task needs what is not there yet."""
        networks = (network for network in self.task.values() if network is not None)
        named = [each for network in networks for each in network.attachments if each.names_vlans]
        for attachment in named:
            self._refuse_vlan(attachment)
        new_filter = next((each for each in named if not self._filters(each.bridge)), None)
        new_link = next(
            (
                each
                for each in named
                if self.is_gateway_of(each) and each.vlan_link not in {None, *self.links}
            ),
            None,
        )
        if new_filter is None and new_link is None:
            return
        bridges, links = netlink.supports_vlans()
        lacking = [
            (new_filter, bridges, "bridges that filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)"),
            (new_link, links, "links of VLANs (modprobe 8021q), one of which would hold its gateway"),
        ]
        for needed, supported, what in lacking:
            if needed is not None and not supported:
                option = "vlan_trunk" if needed.vlan_link is None else "vlan"
                raise Failure(
                    f"{option}: {needed.owner} is in VLANs of {needed.bridge}, and the kernel of this host "
                    f"has no {what}; it takes no VLANs here; nothing was changed."
                )

    def _filters(self, bridge: str | None) -> bool:
        return bridge in self.links and self.links[bridge].vlan_filtering

    def _refuse_vlan(self, attachment: Attachment) -> None:
        bridge, name = str(attachment.bridge), attachment.vlan_link
        if not self.is_ours(bridge) and not self._filters(bridge):
            raise Failure(
                f"bridge: {bridge!r} of {attachment.owner}, which is in VLANs, is a bridge that this "
                "collection did not make and that does not tell them apart; it takes one of its own, or that "
                f"told to (ip link set dev {bridge} type bridge vlan_filtering 1); nothing was changed."
            )
        if name is None or not self.is_gateway_of(attachment):
            return
        if len(name) > LINK_NAME_LENGTH:
            raise Failure(
                f"bridge: {bridge!r} of {attachment.owner} would have the link {name} for its VLAN, and the "
                f"kernel takes {LINK_NAME_LENGTH} characters; it takes a shorter name; nothing was changed."
            )
        there, over = self.links.get(name), self.links.get(bridge)
        if there is not None and (there.vlan is None or over is None or there.peer != over.index):
            raise Failure(
                f"vlan: {attachment.vlan} of {bridge}, which {attachment.owner} is in, has its gateway on a "
                f"link {name}, and this host has another one of that name; it takes another VLAN, or that "
                f"gone (ip link delete {name}); nothing was changed."
            )

    def _refuse_bridge(self, attachment: Attachment) -> None:
        bridge = self.links.get(attachment.bridge or "")
        if bridge is not None and bridge.kind != "bridge":
            raise Failure(
                f"bridge: {attachment.bridge!r} of {attachment.owner} is a link of this host that is no "
                f"bridge ({bridge.kind or 'a device'}); it takes a bridge or a new name; nothing was changed."
            )
        if attachment.internal and not self.is_ours_behind(attachment):
            raise Failure(
                f"internal: {attachment.owner} is behind {attachment.bridge}, a bridge that this collection "
                "did not make and does not shut; it takes a bridge of its own; nothing was changed."
            )
        if attachment.name_servers:
            if not self.is_ours_behind(attachment):
                raise Failure(
                    f"dns: {attachment.owner} is behind {attachment.bridge}, a bridge that this collection "
                    "did not make, with a gateway that is somebody else's; it takes a bridge of its own; "
                    "nothing was changed."
                )
            dnsmasq.program()

    def _refuse_losing_routes(self, ip: Any) -> None:
        """With forwarding on, the kernel drops the default routes that it learned from routers, unless told
        not to."""
        if 6 not in self.routed_versions() or FORWARDING[6].read_text(encoding="ascii").strip() == "1":
            return
        for link in netlink.links_with_learned_routes(ip, self.links):
            setting = Path("/proc/sys/net/ipv6/conf", link, "accept_ra")
            if setting.read_text(encoding="ascii").strip() != _ACCEPT_RA_WITH_FORWARDING:
                raise Failure(
                    f"nat and publish of IPv6 addresses need net.ipv6.conf.all.forwarding=1, with which "
                    f"this host loses "
                    f"its own IPv6 default route, learned from a router on {link}: set "
                    f"net.ipv6.conf.{link}.accept_ra=2 "
                    "first; nothing was changed."
                )


def _read_kept(names: Sequence[str]) -> dict[str, Network]:
    """Those of which what is kept can be read: a damaged one is told, and repaired, as that network's own."""
    kept = {}
    for name in names:
        with contextlib.suppress(Failure):
            kept[name] = Network.read_kept(name, host.Declaration(name, "network").read() or {})
    return kept


def read_record() -> dict[str, Any] | None:
    """What RECORD holds, or None where that is damaged. Raises OSError."""
    try:
        record = json.loads(file.read_text(RECORD) or "null")
    except (RecursionError, ValueError):
        return None
    if record is None:
        return NO_RECORD
    sound = (
        isinstance(record, dict)
        and record.keys() == NO_RECORD.keys()
        and isinstance(record["bridges"], list)
        and all(isinstance(name, str) for name in record["bridges"])
        and isinstance(record["settings"], dict)
        and record["settings"].keys() <= {str(path) for path in FORWARDING.values()}
        and all(isinstance(value, str) and value.isdecimal() for value in record["settings"].values())
    )
    return record if sound else None

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One container's network: its named namespace, the links into it, addresses and routes.

All of the namespace is the container's, so what is in there and not declared is removed.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from .. import host
from ..converge import Failure, State, Step
from ..kernel import namespace as kernel_namespace
from ..shell import command
from . import namespace, netlink
from .declared import Attachment, Network, host_link, namespace_path
from .filter import Filter
from .link import (
    ACCEPT_RA,
    NO_GROUP,
    QDISC,
    ROUTE_LOCALNET,
    VLANS,
    Place,
    after,
    connected_route,
    inner_settings,
    link_steps,
    new_settings,
    outer_settings,
    read_settings,
)
from .options import LINK_PREFIX, MODES
from .script import TextFile, digest, script
from .survey import Survey

_FALLBACK_LINKS = ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6_vti0", "ip6gre0")
"""Links that the kernel puts into every new namespace once their module is loaded, and that can't be deleted
(net.core.fb_tunnels_only_for_init_net in the kernel's admin-guide/sysctl/net.rst)."""

_ABSENT: State = {
    "declared": None,
    "namespace": False,
    "rules": {"table": None, "file": None},
    "host_links": {},
    "links": {},
    "routes": [],
    "boot_script": None,
}
_NEW_LOOPBACK: State = {"up": False, "addresses": []}


class ContainerNetwork:
    """The resource of one entry of a task."""

    def __init__(self, survey: Survey, name: str) -> None:
        self.name = name
        self._survey = survey
        self._path = namespace_path(name)
        self._declaration = host.Declaration(name, "network")
        self._script = TextFile(host.directory(name) / "network.sh")
        self.filter = Filter(name, self._path)
        self._host = Place()
        self._inside = Place(name, self._path)

    @property
    def _network(self) -> Network | None:
        """What is declared, None for one that is to be absent."""
        return self._survey.task[self.name]

    def read(self) -> State:
        exists = namespace.exists(self._path)
        links, routes = self._read_inside() if exists else ({}, [])
        return {
            "declared": self._read_declaration(),
            "namespace": exists,
            "rules": self.filter.read(self._survey.kept.get(self.name), self._network, exists=exists),
            "host_links": self._read_host_links(links),
            "links": links,
            "routes": routes,
            "boot_script": self._script.digest(),
        }

    def _read_declaration(self) -> Any:
        """As it was kept, or what has become of that: it is still how the network is known to be ours."""
        try:
            return self._declaration.read()
        except Failure:
            return "damaged"

    def _host_names(self) -> list[str]:
        """The links of the host that are this container's: as declared and as kept; where nobody can say what
        was kept, by what they lead to."""
        kept = self._survey.kept.get(self.name)
        attachments = [each for network in (kept, self._network) if network for each in network.attachments]
        names = {host_link(self.name), *(each.host_link for each in attachments if each.is_veth)}
        number = self._survey.numbers.get(self.name)
        if kept is None and self.name in self._survey.ours and number is not None:
            links = self._survey.links.values()
            ours = (link.name for link in links if link.peer_namespace == number)
            names |= {link for link in ours if link.startswith(LINK_PREFIX)}
        return sorted(name for name in names if name in self._survey.links)

    def _read_inside(self) -> tuple[dict[str, Any], list[str]]:
        """The links by name, and the main routing table; ``peer`` is our link on the host or None."""
        with netlink.session(self._path) as ip:
            links = netlink.links(ip)
            addresses = netlink.addresses(ip)
            qdiscs = netlink.qdiscs(ip)
            routes = netlink.routes(ip, {link.index: link.name for link in links.values()})
            shown = {
                link.name: self._show_inside(link, addresses.get(link.index, []), qdiscs.get(link.index))
                for _name, link in sorted(links.items())
                if link.up or link.name not in _FALLBACK_LINKS
            }
        return shown, routes

    def _show_inside(self, link: netlink.Link, addresses: list[str], qdisc: Any) -> dict[str, Any]:
        if link.name == "lo":
            return {"up": link.up, "addresses": addresses}
        return {
            **self._show_identity(link),
            "up": link.up,
            **({} if link.kind == "ipvlan" else {"mac": link.mac}),
            "mtu": link.mtu,
            QDISC: qdisc,
            "addresses": addresses,
            **read_settings(link.name, [ACCEPT_RA]),
        }

    def _show_identity(self, link: netlink.Link) -> dict[str, Any]:
        """What can't be changed of a link: a pair's other end, or what it shares and how."""
        if link.kind in MODES:
            elsewhere = link.peer_namespace is not None
            parents = (each.name for each in self._survey.links.values() if each.index == link.peer)
            return {
                "kind": link.kind,
                "parent": next(parents, None) if elsewhere else None,
                "mode": link.mode,
            }
        here = (link.index, self._survey.numbers.get(self.name))
        ours = [self._survey.links[name] for name in self._host_names()]
        return {"peer": next((each.name for each in ours if (each.peer, each.peer_namespace) == here), None)}

    def _read_host_links(self, inside: Mapping[str, Any]) -> dict[str, Any]:
        names = {each.index: each.name for each in self._survey.links.values()}
        peers = {shown["peer"]: name for name, shown in inside.items() if shown.get("peer")}
        return {name: self._show_host_link(name, names, peers) for name in self._host_names()}

    def _show_host_link(
        self, name: str, names: Mapping[int, str], peers: Mapping[str, str]
    ) -> dict[str, Any]:
        link = self._survey.links[name]
        master = None if link.master is None else names[link.master]
        return {
            "peer": peers.get(name),
            "up": link.up,
            "mac": link.mac,
            "mtu": link.mtu,
            "master": master,
            "hairpin": link.hairpin,
            "group": link.group,
            VLANS: None if master is None else self._survey.vlans_of(name, master),
            QDISC: self._survey.qdiscs.get(link.index),
            "addresses": self._survey.addresses.get(link.index, []),
            **read_settings(name, [ACCEPT_RA, ROUTE_LOCALNET]),
        }

    def expect(self, actual: State) -> State:
        network = self._network
        if network is None:
            return actual if actual["declared"] is None else _ABSENT
        self._refuse_parents(network)
        kernel = self._expected_in_kernel(network)
        return {
            "declared": network.declaration(),
            **kernel,
            "boot_script": digest(self._rebuilding(network, kernel)),
        }

    def _refuse_parents(self, network: Network) -> None:
        """Raises Failure where a link that this container is to share is not there, or not to be had."""
        for attachment in (each for each in network.attachments if not each.is_veth):
            parent = self._survey.links.get(attachment.parent or "")
            wrong = None
            if parent is None:
                wrong = "is no link of this host; it takes one that is there"
            elif parent.master is not None:
                wrong = "is a port of another link; it takes that one, or one that is free"
            elif parent.mtu < attachment.mtu:
                wrong = f"has an MTU of {parent.mtu}, which mtu takes at most, not {attachment.mtu}"
            if wrong:
                raise Failure(
                    f"parent: {attachment.parent!r} of {attachment.owner} {wrong}; the network of the "
                    "container was left as it was."
                )

    def _rebuilding(self, network: Network, expected: State) -> list[str]:
        """The lines of the script for the boot; a namespace that is there is left alone."""
        building = [line for step in self._kernel_steps(network, _ABSENT, expected) for line in step.commands]
        return script([f"[ ! -e {self._path} ] || exit 0", *building])

    def _expected_in_kernel(self, network: Network) -> dict[str, Any]:
        attachments = network.attachments
        routes = [
            route for each in attachments for route in (*_connected_routes(each), *_further_routes(each))
        ]
        return {
            "namespace": True,
            "rules": self.filter.expect(network),
            "host_links": {
                each.host_link: self._expected_host_link(network, each)
                for each in sorted(attachments, key=lambda each: each.host_link)
                if each.is_veth
            },
            "links": dict(
                sorted(
                    {
                        "lo": {"up": True, "addresses": []},
                        **{each.interface: _expected_inside(each) for each in attachments},
                    }.items()
                )
            ),
            "routes": sorted(set(map(_shown, routes))),
        }

    def _expected_host_link(self, network: Network, attachment: Attachment) -> dict[str, Any]:
        alone = attachment.bridge is None
        return {
            "peer": attachment.interface,
            "up": True,
            "mac": attachment.host_mac,
            "mtu": attachment.mtu,
            "master": attachment.bridge,
            # With br_netfilter, what is forwarded to its own sender would never leave the bridge.
            "hairpin": not alone and bool(network.publish),
            "group": NO_GROUP,
            VLANS: self._survey.declared_vlans(attachment),
            QDISC: _qdisc(attachment, "ingress"),
            "addresses": sorted(attachment.gateway_interfaces) if alone else [],
            **outer_settings(localnet=alone and self._survey.reaches_localhost(attachment.host_link)),
        }

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if actual == expected:
            return []
        network = self._network
        if network is None:
            return self._removal(actual)
        steps = self.filter.file_steps(network, actual["rules"], expected["rules"])
        steps += self._kernel_steps(network, actual, expected)
        if actual["boot_script"] != expected["boot_script"]:
            steps.append(self._script.write_step("boot_script", self._rebuilding(network, expected)))
        if actual["declared"] != expected["declared"]:
            # First for what is new, so that a half-made network is known as ours; else when it has become
            # true.
            position = 0 if actual["declared"] is None else len(steps)
            steps.insert(position, self._declaration.write_step(expected["declared"]))
        return steps

    def _removal(self, actual: State) -> list[Step]:
        """The links go first: a process that is still in the namespace would keep it."""
        shared = (name for name, link in actual["links"].items() if link.get("kind") is not None)
        steps = [self._inside.delete_link(f"links.{name}", name) for name in shared]
        steps += self._host.delete_links("host_links", actual["host_links"])
        if actual["namespace"]:
            delete = command(["ip", "netns", "delete", self.name])
            steps.append(Step("namespace", (delete,), lambda: namespace.remove(self._path)))
        steps += self.filter.file_steps(None, actual["rules"], _ABSENT["rules"])
        if actual["boot_script"] is not None:
            steps.append(self._script.remove_step("boot_script"))
        return [*steps, self._declaration.remove_step()]

    def _kernel_steps(self, network: Network, actual: State, expected: State) -> list[Step]:
        """What is wrong goes; then the namespace and its rules, the links into it with their settings, and
        the routes."""
        steps, host_links, links = self._clear(actual, expected)
        if not actual["namespace"]:
            add = command(["ip", "netns", "add", self.name])
            steps.append(Step("namespace", (add,), lambda: namespace.make(self._path)))
        steps += self.filter.table_steps(actual["rules"], expected["rules"])
        steps += link_steps(
            self._inside, "links.lo", "lo", links.get("lo", _NEW_LOOPBACK), expected["links"]["lo"]
        )
        for attachment in network.attachments:
            steps += self._attachment_steps(attachment, host_links, links, expected)
        for attachment in network.attachments:
            steps += self._route_steps(attachment, actual["routes"], links.get(attachment.interface), steps)
        return steps

    def _attachment_steps(
        self,
        attachment: Attachment,
        host_links: Mapping[str, Any],
        links: Mapping[str, Any],
        expected: State,
    ) -> list[Step]:
        name, interface = attachment.host_link, attachment.interface
        wanted_inside = expected["links"][interface]
        steps = []
        host_link, link = host_links.get(name), links.get(interface)
        if not attachment.is_veth:
            if link is None:
                steps += self._add_shared(attachment)
                link = {"mac": attachment.mac_address, "mtu": attachment.mtu, "addresses": []}
            return steps + link_steps(self._inside, f"links.{interface}", interface, link, wanted_inside)
        if host_link is None or link is None:
            add = self._add_pair(attachment)
            steps.append(after(self._survey.require_walls, add) if self._survey.is_shut(attachment) else add)
            new = {"mtu": attachment.mtu, "addresses": []}
            host_link = {
                **new,
                "mac": attachment.host_mac,
                "master": None,
                "hairpin": False,
                "group": NO_GROUP,
                **new_settings(),
            }
            link = {**new, "mac": attachment.mac_address}
        if host_link["master"] != attachment.bridge:
            host_link = {**host_link, VLANS: self._survey.vlans_of_new_port(attachment.bridge)}
        guard = self._survey.require_firewall
        wanted = expected["host_links"][name]
        steps += link_steps(self._host, f"host_links.{name}", name, host_link, wanted, guard)
        return steps + link_steps(self._inside, f"links.{interface}", interface, link, wanted_inside)

    def _clear(self, actual: State, expected: State) -> tuple[list[Step], dict[str, Any], dict[str, Any]]:
        """Removes undeclared routes and links, pairs that do not hold together, and what is shared otherwise
        than declared; returns also what is left: our links on the host, and those inside."""
        steps = [
            self._inside.delete_route("routes", route)
            for route in actual["routes"]
            if route not in expected["routes"]
        ]
        paired = {
            name: link
            for name, link in actual["host_links"].items()
            if link["peer"] is not None and link["peer"] == expected["host_links"].get(name, {}).get("peer")
        }
        steps += [
            self._host.delete_link(f"host_links.{name}", name)
            for name in actual["host_links"]
            if name not in paired
        ]
        shared = {
            name
            for name, link in actual["links"].items()
            if "kind" in link and _identity(link) == _identity(expected["links"].get(name, {}))
        }
        kept = {"lo", *shared, *(link["peer"] for link in paired.values())}
        # Of a pair of ours, the end inside has gone with the other one.
        steps += [
            self._inside.delete_link(f"links.{name}", name)
            for name, link in actual["links"].items()
            if name not in kept and link.get("peer") is None
        ]
        return steps, paired, {name: link for name, link in actual["links"].items() if name in kept}

    def _add_pair(self, attachment: Attachment) -> Step:
        """Both ends at once, the inner one in the namespace from the start (veth(4))."""
        words = ["link", "add", attachment.host_link, "address", attachment.host_mac]
        words += ["mtu", str(attachment.mtu), "type", "veth", "peer", "name", attachment.interface]
        words += ["address", str(attachment.mac_address), "mtu", str(attachment.mtu), "netns", self.name]

        def request(ip: Any) -> None:
            descriptor = kernel_namespace.open_file(self._path)
            inside = {
                "ifname": attachment.interface,
                "address": attachment.mac_address,
                "mtu": attachment.mtu,
            }
            try:
                ip.link(
                    "add",
                    ifname=attachment.host_link,
                    kind="veth",
                    address=attachment.host_mac,
                    mtu=attachment.mtu,
                    peer={**inside, "net_ns_fd": descriptor},
                )
            finally:
                os.close(descriptor)

        return self._host.request(f"host_links.{attachment.host_link}", words, request)

    def _add_shared(self, attachment: Attachment) -> list[Step]:
        """A link of its own over one of the host's, in the namespace from the start (ip-link(8)).

        It gets its name there, as the host may have a link of that name, such as the parent: for a new one
        that is looked for where the request comes from (net/core/rtnetlink.c, rtnl_newlink()).
        """
        kind, mode, parent = attachment.kind, str(attachment.mode), str(attachment.parent)
        mac, interface, new = attachment.mac_address, attachment.interface, attachment.host_link
        words = ["link", "add", "link", parent, "name", new]
        words += ["address", mac] if mac else []
        words += ["mtu", str(attachment.mtu), "netns", self.name, "type", kind, "mode", mode]

        def request(ip: Any) -> None:
            descriptor = kernel_namespace.open_file(self._path)
            try:
                ip.link(
                    "add",
                    ifname=new,
                    kind=kind,
                    link=socket.if_nametoindex(parent),
                    mtu=attachment.mtu,
                    net_ns_fd=descriptor,
                    **({"address": mac} if mac else {}),
                    **netlink.mode_argument(kind, mode),
                )
            except Exception as error:
                if getattr(error, "code", None) == errno.EOPNOTSUPP:
                    raise Failure(
                        f"kind: {kind!r} of {attachment.owner} is no kind of link that the kernel of this "
                        "host has; it takes another; the link was not made."
                    ) from None
                raise
            finally:
                os.close(descriptor)

        return [
            self._host.request(f"links.{interface}", words, request),
            self._inside.request(
                f"links.{interface}",
                ["link", "set", "dev", new, "name", interface],
                lambda ip: ip.link("set", index=socket.if_nametoindex(new), ifname=interface),
            ),
        ]

    def _route_steps(
        self, attachment: Attachment, now: Sequence[str], link: State | None, before: Sequence[Step]
    ) -> list[Step]:
        """The kernel sets a connected route with its address or with the link going up, so only one that has
        been
        taken away is set by us; the others go with the last address, so after a change of the link they are
        set again."""
        interface, routes = attachment.interface, []
        standing = link["addresses"] if link is not None and link.get("up") else []
        for route in _connected_routes(attachment):
            stands = any(connected_route(interface, address) == route for address in standing)
            if stands and _shown(route) not in now:
                routes.append(route)
        touched = any(step.changes.startswith(f"links.{interface}.") for step in before)
        routes += [route for route in _further_routes(attachment) if touched or _shown(route) not in now]
        return [self._inside.replace_route("routes", route) for route in routes]

    def facts(self, actual: State) -> Mapping[str, Any]:
        network = self._network
        if network is None:
            return {}
        first, *further = map(_facts, network.attachments)
        return {"netns": self._path, **first, "interfaces": [first, *further]}


def _facts(attachment: Attachment) -> dict[str, Any]:
    return {
        "interface": attachment.interface,
        "host_interface": attachment.host_link if attachment.is_veth else None,
        "parent": attachment.parent,
        "mac_address": attachment.mac_address,
        "address": list(attachment.address),
        "gateway": [] if attachment.internal else list(attachment.gateway),
        "bridge": attachment.bridge,
        "name_servers": list(attachment.name_servers),
        "vlan": attachment.vlan,
        "vlan_trunk": list(attachment.vlan_trunk),
    }


def _expected_inside(attachment: Attachment) -> dict[str, Any]:
    identity = {"kind": attachment.kind, "parent": attachment.parent, "mode": attachment.mode}
    return {
        **({"peer": attachment.host_link} if attachment.is_veth else identity),
        "up": True,
        **({"mac": attachment.mac_address} if attachment.mac_address else {}),
        "mtu": attachment.mtu,
        QDISC: _qdisc(attachment, "egress"),
        "addresses": sorted(attachment.address),
        **inner_settings(),
    }


def _qdisc(attachment: Attachment, direction: str) -> dict[str, int] | None:
    """What goes into the container is sent by the link's end on the host, what comes out by that inside."""
    bits = attachment.bandwidth.get(direction)
    return None if bits is None else netlink.token_bucket(int(bits))


def _identity(link: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(link.get(key) for key in ("kind", "parent", "mode"))


def _further_routes(attachment: Attachment) -> list[str]:
    """The default routes and those declared, in full."""
    default = [
        f"{netlink.DEFAULT6 if ':' in router else 'default'} via {router} dev {attachment.interface}"
        for router in attachment.default_routers
    ]
    return default + [_static_route(attachment.interface, route) for route in attachment.routes]


def _static_route(interface: str, route: Mapping[str, Any]) -> str:
    words = ["default" if route["to"] == "0.0.0.0/0" else route["to"]]
    words += ["via", route["via"]] if "via" in route else []
    words += ["dev", interface]
    words += ["metric", str(route["metric"])] if "metric" in route else []
    on_link = "via" not in route and ":" not in route["to"]
    return " ".join([*words, *(["scope", "link"] if on_link else [])])


def _connected_routes(attachment: Attachment) -> list[str]:
    """In full, one for each subnet: of the first address in it."""
    first: dict[str, str] = {}
    for address in attachment.address:
        route = connected_route(attachment.interface, address)
        if route is not None:
            first.setdefault(_shown(route), route)
    return list(first.values())


def _shown(route: str) -> str:
    """A route as netlink.routes() has it."""
    return re.split(" (?:proto|scope) ", route)[0]

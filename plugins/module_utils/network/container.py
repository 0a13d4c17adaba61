# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One container's network: its named namespace, the veth pair into it, addresses and routes.

All of the namespace is the container's, so what is in there and not declared is removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import host
from ..converge import Failure, State, Step
from ..kernel import namespace as kernel_namespace
from ..shell import command
from . import namespace, netlink
from .declared import Network, host_link, namespace_path
from .filter import Filter
from .link import (
    ACCEPT_RA,
    ROUTE_LOCALNET,
    Place,
    connected_route,
    inner_settings,
    link_steps,
    new_settings,
    outer_settings,
    read_settings,
)
from .script import TextFile, digest, script
from .survey import Survey

_FALLBACK_LINKS = ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6_vti0", "ip6gre0")
"""Links that the kernel puts into every new namespace once their module is loaded, and that can't be deleted
(net.core.fb_tunnels_only_for_init_net in the kernel's admin-guide/sysctl/net.rst)."""

_ABSENT: State = {
    "declared": None,
    "namespace": False,
    "rules": {"table": None, "file": None},
    "host_link": None,
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
        self._host_link = host_link(name)
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
            "host_link": self._read_host_link(links),
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

    def _read_inside(self) -> tuple[dict[str, Any], list[str]]:
        """The links by name, and the main routing table; ``peer`` is our link on the host or None."""
        with netlink.session(self._path) as ip:
            links = netlink.links(ip)
            addresses = netlink.addresses(ip)
            routes = netlink.routes(ip, {link.index: link.name for link in links.values()})
            shown = {
                link.name: self._show_inside(link, addresses.get(link.index, []))
                for link in links.values()
                if link.up or link.name not in _FALLBACK_LINKS
            }
        return shown, routes

    def _show_inside(self, link: netlink.Link, addresses: list[str]) -> dict[str, Any]:
        if link.name == "lo":
            return {"up": link.up, "addresses": addresses}
        ours = self._survey.links.get(self._host_link)
        is_peer = ours is not None and (ours.peer, ours.peer_namespace) == (
            link.index,
            self._survey.numbers.get(self.name),
        )
        return {
            "peer": self._host_link if is_peer else None,
            "up": link.up,
            "mac": link.mac,
            "mtu": link.mtu,
            "addresses": addresses,
            **read_settings(link.name, [ACCEPT_RA]),
        }

    def _read_host_link(self, inside: Mapping[str, Any]) -> dict[str, Any] | None:
        link = self._survey.links.get(self._host_link)
        if link is None:
            return None
        names = {each.index: each.name for each in self._survey.links.values()}
        return {
            "peer": next((name for name, shown in inside.items() if shown.get("peer")), None),
            "up": link.up,
            "mac": link.mac,
            "mtu": link.mtu,
            "master": None if link.master is None else names[link.master],
            "hairpin": link.hairpin,
            "addresses": self._survey.addresses.get(link.index, []),
            **read_settings(link.name, [ACCEPT_RA, ROUTE_LOCALNET]),
        }

    def expect(self, actual: State) -> State:
        network = self._network
        if network is None:
            return actual if actual["declared"] is None else _ABSENT
        kernel = self._expected_in_kernel(network)
        return {
            "declared": network.declaration(),
            **kernel,
            "boot_script": digest(self._rebuilding(network, kernel)),
        }

    def _rebuilding(self, network: Network, expected: State) -> list[str]:
        """The lines of the script for the boot; a namespace that is there is left alone."""
        building = [line for step in self._kernel_steps(network, _ABSENT, expected) for line in step.commands]
        return script([f"[ ! -e {self._path} ] || exit 0", *building])

    def _expected_in_kernel(self, network: Network) -> dict[str, Any]:
        alone = network.bridge is None
        return {
            "namespace": True,
            "rules": self.filter.expect(network),
            "host_link": {
                "peer": network.interface,
                "up": True,
                "mac": network.host_mac,
                "mtu": network.mtu,
                "master": network.bridge,
                # With br_netfilter, what is forwarded to its own sender would never leave the bridge.
                "hairpin": not alone and bool(network.publish),
                "addresses": sorted(network.gateway_interfaces) if alone else [],
                **outer_settings(localnet=alone and self._survey.reaches_localhost(network.host_link)),
            },
            "links": {
                "lo": {"up": True, "addresses": []},
                network.interface: {
                    "peer": network.host_link,
                    "up": True,
                    "mac": network.mac_address,
                    "mtu": network.mtu,
                    "addresses": sorted(network.address),
                    **inner_settings(),
                },
            },
            "routes": sorted({*_default_routes(network), *map(_shown, _connected_routes(network))}),
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
        """The link goes first: a process that is still in the namespace would keep it."""
        steps = []
        if actual["host_link"] is not None:
            steps.append(self._host.delete_link("host_link", self._host_link))
        if actual["namespace"]:
            delete = command(["ip", "netns", "delete", self.name])
            steps.append(Step("namespace", (delete,), lambda: namespace.remove(self._path)))
        steps += self.filter.file_steps(None, actual["rules"], _ABSENT["rules"])
        if actual["boot_script"] is not None:
            steps.append(self._script.remove_step("boot_script"))
        return [*steps, self._declaration.remove_step()]

    def _kernel_steps(self, network: Network, actual: State, expected: State) -> list[Step]:
        """What is wrong goes; then the namespace and its rules, the pair into it, each link's settings, and
        the routes."""
        steps, host_link, links = self._clear(network, actual, expected)
        if not actual["namespace"]:
            add = command(["ip", "netns", "add", self.name])
            steps.append(Step("namespace", (add,), lambda: namespace.make(self._path)))
        steps += self.filter.table_steps(actual["rules"], expected["rules"])
        if host_link is None:
            steps.append(self._add_pair(network))
            new = {"mtu": network.mtu, "addresses": []}
            host_link = {**new, "mac": network.host_mac, "master": None, "hairpin": False, **new_settings()}
            links[network.interface] = {**new, "mac": network.mac_address}
        steps += link_steps(
            self._host,
            "host_link",
            self._host_link,
            host_link,
            expected["host_link"],
            self._survey.require_firewall,
        )
        for name, wanted in expected["links"].items():
            steps += link_steps(self._inside, f"links.{name}", name, links.get(name, _NEW_LOOPBACK), wanted)
        return steps + self._route_steps(network, actual["routes"], links[network.interface], steps)

    def _clear(
        self, network: Network, actual: State, expected: State
    ) -> tuple[list[Step], State | None, dict[str, Any]]:
        """Removes undeclared routes and links, and a pair that does not hold together; returns also what is
        left:
        our link on the host, and the links inside."""
        host_link = actual["host_link"]
        paired = host_link is not None and host_link["peer"] == network.interface
        steps = [
            self._inside.delete_route("routes", route)
            for route in actual["routes"]
            if route not in expected["routes"]
        ]
        if host_link is not None and not paired:
            steps.append(self._host.delete_link("host_link", self._host_link))
        kept = {"lo", network.interface} if paired else {"lo"}
        for name, link in actual["links"].items():
            # Our own pair's end inside has gone with the other one.
            if name not in kept and link.get("peer") is None:
                steps.append(self._inside.delete_link(f"links.{name}", name))
        left = {name: link for name, link in actual["links"].items() if name in kept}
        return steps, host_link if paired else None, left

    def _add_pair(self, network: Network) -> Step:
        """Both ends at once, the inner one in the namespace from the start (veth(4))."""
        words = ["link", "add", network.host_link, "address", network.host_mac, "mtu", str(network.mtu)]
        words += ["type", "veth", "peer", "name", network.interface, "address", network.mac_address]
        words += ["mtu", str(network.mtu), "netns", self.name]

        def request(ip: Any) -> None:
            descriptor = kernel_namespace.open_file(self._path)
            inside = {"ifname": network.interface, "address": network.mac_address, "mtu": network.mtu}
            try:
                ip.link(
                    "add",
                    ifname=network.host_link,
                    kind="veth",
                    address=network.host_mac,
                    mtu=network.mtu,
                    peer={**inside, "net_ns_fd": descriptor},
                )
            finally:
                os.close(descriptor)

        return self._host.request("host_link", words, request)

    def _route_steps(
        self, network: Network, now: Sequence[str], interface: State, before: Sequence[Step]
    ) -> list[Step]:
        """The kernel sets a connected route with its address or with the link going up, so only one that has
        been
        taken away is set by us; default routes go with the last address, so after a change of the link they
        are set
        again."""
        routes = []
        for route in _connected_routes(network):
            standing = interface.get("up") and any(
                connected_route(network.interface, address) == route for address in interface["addresses"]
            )
            if standing and _shown(route) not in now:
                routes.append(route)
        touched = any(step.changes.startswith(f"links.{network.interface}") for step in before)
        routes += [route for route in _default_routes(network) if touched or route not in now]
        return [self._inside.replace_route("routes", route) for route in routes]

    def facts(self, actual: State) -> Mapping[str, Any]:
        network = self._network
        if network is None:
            return {}
        return {
            "netns": self._path,
            "interface": network.interface,
            "host_interface": network.host_link,
            "mac_address": network.mac_address,
            "address": list(network.address),
            "gateway": [] if network.internal else list(network.gateway),
            "bridge": network.bridge,
        }


def _default_routes(network: Network) -> list[str]:
    """None of an internal network, which has no way out."""
    if network.internal:
        return []
    return [
        f"{netlink.DEFAULT6 if ':' in gateway else 'default'} via {gateway} dev {network.interface}"
        for gateway in network.gateway
    ]


def _connected_routes(network: Network) -> list[str]:
    """In full, one for each subnet: of the first address in it."""
    first: dict[str, str] = {}
    for address in network.address:
        route = connected_route(network.interface, address)
        if route is not None:
            first.setdefault(_shown(route), route)
    return list(first.values())


def _shown(route: str) -> str:
    """A connected route as netlink.routes() has it."""
    return route.partition(" proto ")[0]

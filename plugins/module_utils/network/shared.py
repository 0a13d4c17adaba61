# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the containers' networks share on the host: the bridges, and forwarding between links."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..converge import State, Step
from ..shell import command, write_value
from . import vlans
from .declared import bridge_mac
from .firewall import FILE
from .link import (
    ACCEPT_RA,
    ROUTE_LOCALNET,
    VLAN_FILTERING,
    VLANS,
    Place,
    link_steps,
    new_settings,
    outer_settings,
    read_settings,
)
from .netlink import Link
from .script import TextFile, digest, script
from .survey import DIRECTORY, FORWARDING, NO_RECORD, RECORD, Survey


class Host:
    """The resource of all our bridges, of the links by which the host is in their VLANs, and of the settings
    by which it forwards.

    A bridge goes when no declared container is behind it, and so does the link of a VLAN, which is called
    BRIDGE.ID; a setting gets back the value that it had before us. Nothing goes while there is a network that
    can't be read, as it may be behind it.
    """

    name = "_host"

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._place = Place()
        self._record = TextFile(RECORD)
        self._script = TextFile(DIRECTORY / "host.sh")

    def read(self) -> State:
        record = self._survey.record
        names = sorted({*self._survey.bridges(), *record["bridges"]})
        return {
            "bridges": {name: self._read_bridge(name) for name in names if name in self._survey.links},
            "vlan_links": {
                link.name: self._read_vlan_link(link, name)
                for name in names
                for link in self._vlan_links(name)
            },
            "forwarding": {
                str(path): path.read_text(encoding="ascii").strip()
                for path in FORWARDING.values()
                if path.exists()
            },
            "record": None if self._survey.record_is_damaged else record,
            "boot_script": self._script.digest(),
        }

    def _read_bridge(self, name: str) -> dict[str, Any]:
        link = self._survey.links[name]
        return {
            "stp": link.stp,
            VLAN_FILTERING: link.vlan_filtering,
            VLANS: self._survey.vlans_of(name, name),
            **self._read_link(link),
        }

    def _read_vlan_link(self, link: Link, bridge: str) -> dict[str, Any]:
        return {"bridge": bridge, "vlan": link.vlan, **self._read_link(link)}

    def _read_link(self, link: Link) -> dict[str, Any]:
        return {
            "mac": link.mac,
            "up": link.up,
            "addresses": self._survey.addresses.get(link.index, []),
            **read_settings(link.name, [ACCEPT_RA, ROUTE_LOCALNET]),
        }

    def _vlan_links(self, bridge: str) -> list[Link]:
        """Those of VLANs of the bridge that are named after it."""
        over = self._survey.links.get(bridge)
        return [
            link
            for name, link in sorted(self._survey.links.items())
            if over is not None and link.vlan and link.peer == over.index and name.startswith(f"{bridge}.")
        ]

    def expect(self, actual: State) -> State:
        vlan_links = self._expected_vlan_links(actual)
        bridges = self._expected_bridges(actual, vlan_links)
        routed = self._routed()
        now, before = actual["forwarding"], self._survey.record["settings"]
        ours = {
            path: before.get(path, now[path]) for path in sorted(routed) if path in before or now[path] != "1"
        }
        return {
            "bridges": bridges,
            "vlan_links": vlan_links,
            "forwarding": {path: "1" if path in routed else before.get(path, now[path]) for path in now},
            "record": {"bridges": sorted(bridges), "settings": ours},
            "boot_script": digest(self._rebuilding(bridges, vlan_links)) if self._survey.ours_to_be else None,
        }

    def _routed(self) -> set[str]:
        routed = {str(FORWARDING[version]) for version in self._survey.routed_versions()}
        if self._survey.unreadable:
            routed |= {path for path in self._survey.record["settings"] if os.path.exists(path)}
        return routed

    def _expected_vlan_links(self, actual: State) -> dict[str, Any]:
        links = {
            name: {
                "bridge": each.bridge,
                "vlan": each.vlan,
                **self._expected_link(name, bridge_mac(str(each.bridge))),
            }
            for name, each in sorted(self._survey.vlan_links().items())
        }
        return self._with_unreadable(links, actual["vlan_links"])

    def _expected_bridges(self, actual: State, vlan_links: Mapping[str, Any]) -> dict[str, Any]:
        bridges = {name: self._expected_bridge(name, vlan_links) for name in self._survey.bridges()}
        return self._with_unreadable(bridges, actual["bridges"])

    def _with_unreadable(self, links: dict[str, Any], actual: Mapping[str, Any]) -> dict[str, Any]:
        """What networks that can't be read may have of these links stays."""
        kept = {}
        for name, now in actual.items() if self._survey.unreadable else ():
            wanted = links.get(name, now)
            kept[name] = {
                **wanted,
                "addresses": sorted({*wanted["addresses"], *now["addresses"]}),
                ROUTE_LOCALNET: max(wanted[ROUTE_LOCALNET], now[ROUTE_LOCALNET]),
            }
        return {**links, **kept}

    def _expected_bridge(self, name: str, vlan_links: Mapping[str, Any]) -> dict[str, Any]:
        filtering = name in self._survey.filtering
        taking_part = [link["vlan"] for link in vlan_links.values() if link["bridge"] == name]
        return {
            "stp": False,
            VLAN_FILTERING: filtering,
            VLANS: vlans.own(taking_part) if filtering else None,
            **self._expected_link(name, bridge_mac(name)),
        }

    def _expected_link(self, name: str, mac: str) -> dict[str, Any]:
        """Of a link of ours that containers are behind."""
        gateways = {
            gateway
            for attachment in self._survey.attachments()
            if attachment.uplink == name
            for gateway in attachment.gateway_interfaces
        }
        return {
            "mac": mac,
            "up": True,
            "addresses": sorted(gateways),
            **outer_settings(localnet=self._survey.reaches_localhost(name)),
        }

    def _rebuilding(self, bridges: Mapping[str, State], vlan_links: Mapping[str, State]) -> list[str]:
        """The lines of the script for the boot; a link that is there is left alone."""
        lines = [f"[ ! -e {FILE} ] || {command(['nft', '-f', FILE])}"]
        lines += [write_value(Path(path), "1") for path in sorted(self._routed())]
        new = [(name, self._bridge_steps(name, None, wanted)) for name, wanted in bridges.items()]
        new += [(name, self._vlan_link_steps(name, None, wanted)) for name, wanted in vlan_links.items()]
        for name, steps in new:
            making = [line for step in steps for line in step.commands]
            lines += [
                f"if ! {command(['ip', 'link', 'show', 'dev', name])} > /dev/null 2>&1; then",
                *making,
                "fi",
            ]
        return script(lines)

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        """The record knows of a thing as long as there can be something of it."""
        if actual == expected:
            return []
        one, other = self._survey.record, expected["record"]
        both = {
            "bridges": sorted({*one["bridges"], *other["bridges"]}),
            "settings": {**other["settings"], **one["settings"]},
        }
        steps = [*self._record_steps(actual["record"], both), *self._forwarding_steps(actual, expected, "1")]
        standing = {
            name: link
            for name, link in actual["vlan_links"].items()
            if _place_of(link) == _place_of(expected["vlan_links"].get(name, {}))
        }
        for links, kept in (("vlan_links", standing), ("bridges", expected["bridges"])):
            steps += [
                self._place.delete_link(f"{links}.{name}", name) for name in actual[links] if name not in kept
            ]
        for name, wanted in expected["bridges"].items():
            steps += self._bridge_steps(name, actual["bridges"].get(name), wanted)
        for name, wanted in expected["vlan_links"].items():
            steps += self._vlan_link_steps(name, standing.get(name), wanted)
        steps += self._forwarding_steps(actual, expected, "0")
        if expected["boot_script"] is None:
            steps += [self._script.remove_step("boot_script")] if actual["boot_script"] is not None else []
        elif actual["boot_script"] != expected["boot_script"]:
            steps.append(
                self._script.write_step(
                    "boot_script", self._rebuilding(expected["bridges"], expected["vlan_links"])
                )
            )
        return [*steps, *self._record_steps(both, other)]

    def _forwarding_steps(self, actual: State, expected: State, value: str) -> list[Step]:
        """On before addresses come and off after they have gone: a router joins anycast groups with each."""
        now, wanted = actual["forwarding"], expected["forwarding"]
        return [
            self._place.write("forwarding", Path(path), value)
            for path in wanted
            if wanted[path] == value and now[path] != value
        ]

    def _bridge_steps(self, name: str, now: State | None, wanted: State) -> list[Step]:
        steps = []
        if now is None:
            words = ["link", "add", name, "address", wanted["mac"], "type", "bridge"]
            steps.append(
                self._place.request(
                    f"bridges.{name}",
                    words,
                    lambda ip: ip.link("add", ifname=name, kind="bridge", address=wanted["mac"]),
                )
            )
            now = {"mac": wanted["mac"], "stp": False, "addresses": [], **new_settings()}
            now.update({VLAN_FILTERING: False, VLANS: vlans.own()})
        guard = self._survey.require_firewall
        return steps + link_steps(self._place, f"bridges.{name}", name, now, wanted, guard)

    def _vlan_link_steps(self, name: str, now: State | None, wanted: State) -> list[Step]:
        steps = []
        if now is None:
            bridge, mac, vlan = wanted["bridge"], wanted["mac"], wanted["vlan"]
            words = ["link", "add", "link", bridge, "name", name, "address", mac]
            words += ["type", "vlan", "id", str(vlan)]

            def request(ip: Any) -> None:
                index = socket.if_nametoindex(bridge)
                ip.link("add", ifname=name, kind="vlan", link=index, vlan_id=vlan, address=mac)

            steps.append(self._place.request(f"vlan_links.{name}", words, request))
            now = {"mac": mac, "addresses": [], **new_settings()}
        guard = self._survey.require_firewall
        return steps + link_steps(self._place, f"vlan_links.{name}", name, now, wanted, guard)

    def _record_steps(self, now: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[Step]:
        if now == wanted:
            return []
        if wanted == NO_RECORD:
            return [self._record.remove_step("record")]
        return [self._record.write_step("record", json.dumps(wanted, indent=2, sort_keys=True).splitlines())]

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}


def _place_of(vlan_link: Mapping[str, Any]) -> tuple[Any, ...]:
    return vlan_link.get("bridge"), vlan_link.get("vlan")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the containers' networks share on the host: the bridges, and forwarding between links."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..converge import State, Step
from ..shell import command, write_value
from .declared import bridge_mac
from .firewall import FILE
from .link import (
    ACCEPT_RA,
    ROUTE_LOCALNET,
    Place,
    link_steps,
    new_settings,
    outer_settings,
    read_settings,
)
from .script import TextFile, digest, script
from .survey import DIRECTORY, FORWARDING, NO_RECORD, RECORD, Survey


class Host:
    """The resource of all our bridges, and of the settings by which the host forwards.

    A bridge goes when no declared container is behind it; a setting gets back the value that it had before
    us. Nothing goes while there is a network that can't be read, as it may be behind it.
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
            "mac": link.mac,
            "stp": link.stp,
            "up": link.up,
            "addresses": self._survey.addresses.get(link.index, []),
            **read_settings(name, [ACCEPT_RA, ROUTE_LOCALNET]),
        }

    def expect(self, actual: State) -> State:
        bridges = self._expected_bridges(actual)
        routed = self._routed()
        now, before = actual["forwarding"], self._survey.record["settings"]
        ours = {
            path: before.get(path, now[path]) for path in sorted(routed) if path in before or now[path] != "1"
        }
        return {
            "bridges": bridges,
            "forwarding": {path: "1" if path in routed else before.get(path, now[path]) for path in now},
            "record": {"bridges": sorted(bridges), "settings": ours},
            "boot_script": digest(self._rebuilding(bridges)) if self._survey.ours_to_be else None,
        }

    def _routed(self) -> set[str]:
        routed = {str(FORWARDING[version]) for version in self._survey.routed_versions()}
        if self._survey.unreadable:
            routed |= {path for path in self._survey.record["settings"] if os.path.exists(path)}
        return routed

    def _expected_bridges(self, actual: State) -> dict[str, Any]:
        bridges = {name: self._expected_bridge(name) for name in self._survey.bridges()}
        if self._survey.unreadable:
            for name, now in actual["bridges"].items():
                wanted = bridges.get(name, now)
                kept = {
                    "addresses": sorted({*wanted["addresses"], *now["addresses"]}),
                    ROUTE_LOCALNET: max(wanted[ROUTE_LOCALNET], now[ROUTE_LOCALNET]),
                }
                bridges[name] = {**wanted, **kept}
        return bridges

    def _expected_bridge(self, name: str) -> dict[str, Any]:
        gateways = {
            gateway
            for attachment in self._survey.attachments()
            if attachment.bridge == name
            for gateway in attachment.gateway_interfaces
        }
        return {
            "mac": bridge_mac(name),
            "stp": False,
            "up": True,
            "addresses": sorted(gateways),
            **outer_settings(localnet=self._survey.reaches_localhost(name)),
        }

    def _rebuilding(self, bridges: Mapping[str, State]) -> list[str]:
        """The lines of the script for the boot; a bridge that is there is left alone."""
        lines = [f"[ ! -e {FILE} ] || {command(['nft', '-f', FILE])}"]
        lines += [write_value(Path(path), "1") for path in sorted(self._routed())]
        for name, wanted in bridges.items():
            making = [line for step in self._bridge_steps(name, None, wanted) for line in step.commands]
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
        steps += [
            self._place.delete_link(f"bridges.{name}", name)
            for name in actual["bridges"]
            if name not in expected["bridges"]
        ]
        for name, wanted in expected["bridges"].items():
            steps += self._bridge_steps(name, actual["bridges"].get(name), wanted)
        steps += self._forwarding_steps(actual, expected, "0")
        if expected["boot_script"] is None:
            steps += [self._script.remove_step("boot_script")] if actual["boot_script"] is not None else []
        elif actual["boot_script"] != expected["boot_script"]:
            steps.append(self._script.write_step("boot_script", self._rebuilding(expected["bridges"])))
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
        guard = self._survey.require_firewall
        return steps + link_steps(self._place, f"bridges.{name}", name, now, wanted, guard)

    def _record_steps(self, now: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[Step]:
        if now == wanted:
            return []
        if wanted == NO_RECORD:
            return [self._record.remove_step("record")]
        return [self._record.write_step("record", json.dumps(wanted, indent=2, sort_keys=True).splitlines())]

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}

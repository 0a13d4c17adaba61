# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit that rebuilds the networks at boot, where PID 1 is systemd: no playbook has to run for that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import host, systemctl
from ..converge import State, Step
from .script import TextFile, digest
from .survey import DIRECTORY, Survey

UNIT = host.NETWORK_UNIT

_WANTED_BY = ("multi-user.target", "nftables.service")


class BootUnit:
    """The resource of the unit; without systemd there is none, and the state says so by being empty."""

    name = "_boot"

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._unit = TextFile(systemctl.UNITS / UNIT)

    def read(self) -> State:
        if not systemctl.systemd_is_init():
            return {}
        wanted_by = [each for each in _WANTED_BY if os.path.lexists(systemctl.wants_link(UNIT, each))]
        return {"unit": self._unit.digest(), "wanted_by": wanted_by}

    def expect(self, actual: State) -> State:
        if not actual:
            return actual
        names = self._survey.ours_to_be
        if not names:
            return {"unit": None, "wanted_by": []}
        return {"unit": digest(unit_lines(names)), "wanted_by": list(_WANTED_BY)}

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if actual == expected:
            return []
        steps = []
        if actual["wanted_by"] and not expected["wanted_by"]:
            steps.append(systemctl.step("wanted_by", "disable", "--now", UNIT))
        if actual["unit"] != expected["unit"]:
            steps += [self._unit_step(expected), systemctl.reload_step("unit")]
        if expected["wanted_by"] and actual["wanted_by"] != expected["wanted_by"]:
            steps.append(systemctl.step("wanted_by", "enable", UNIT))
        return steps

    def _unit_step(self, expected: State) -> Step:
        if expected["unit"] is None:
            return self._unit.remove_step("unit")
        return self._unit.write_step("unit", unit_lines(self._survey.ours_to_be))

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}


def unit_lines(names: Sequence[str]) -> list[str]:
    """systemd.service(5); a network that can't be rebuilt does not keep the others from being.

    nftables.service flushes all rules of the host when it is restarted or reloaded, and when it is started
    after a stop; ours come back with it (systemd.unit(5), "PartOf=", "ReloadPropagatedFrom=").
    """
    shared = [f"ExecStart=/bin/sh {DIRECTORY / 'host.sh'}"]
    own = [f"ExecStart=-/bin/sh {host.directory(name) / 'network.sh'}" for name in names]
    return [
        "[Unit]",
        "Description=Networks of the containers of bare.containers",
        "After=network.target nftables.service firewalld.service systemd-sysctl.service",
        "PartOf=nftables.service",
        "ReloadPropagatedFrom=nftables.service",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *shared,
        *own,
        *(line.replace("ExecStart=", "ExecReload=") for line in shared),
        "",
        "[Install]",
        f"WantedBy={' '.join(_WANTED_BY)}",
    ]

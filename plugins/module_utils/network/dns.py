# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name servers: the names that containers have in their hosts(5), told to who asks at their gateway.

Each bridge that asks for it has a dnsmasq(8) of its own, which reads the very list that names.py keeps of the
bridge. Where PID 1 is systemd it is a service, started at boot and again when it ends; else nobody minds it
but the next run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import host, systemctl
from ..converge import Failure, State, Step
from ..shell import command
from . import dnsmasq, names
from .declared import Network
from .script import TextFile, digest
from .survey import Survey

_UNIT = "bare-dns@{}.service"
_WANTED_BY = "multi-user.target"


class NameServers:
    """The resource of all of them.

    One goes when no declared container is behind its bridge any more, but not while there is a network that
    can't be read, as it may be behind it.
    """

    name = "_dns"

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def read(self) -> State:
        found = {*self._served(), *dnsmasq.bridges(), *_units()}
        return {bridge: self._read(bridge) for bridge in sorted(found)}

    def _read(self, bridge: str) -> dict[str, Any]:
        found = dnsmasq.running(bridge)
        # Left without the folder that it watches, it is blind, and would not see another by that name.
        blind = not names.folder(bridge).is_dir()
        state: dict[str, Any] = {"process": None if found is None or blind else command(found[2])}
        if systemctl.systemd_is_init():
            state["unit"] = _unit(bridge).digest()
            state["enabled"] = os.path.lexists(systemctl.wants_link(_UNIT.format(bridge), _WANTED_BY))
        return state

    def expect(self, actual: State) -> State:
        wanted = {bridge: self._expected(bridge) for bridge in self._served()}
        kept = actual if self._survey.unreadable else {}
        return dict(sorted({**kept, **wanted}.items()))

    def _expected(self, bridge: str) -> dict[str, Any]:
        line = self._line(bridge)
        state: dict[str, Any] = {"process": command(line)}
        if systemctl.systemd_is_init():
            state.update({"unit": digest(unit_lines(bridge, line)), "enabled": True})
        return state

    def _line(self, bridge: str) -> list[str]:
        behind = [each for each in self._survey.attachments() if each.segment == bridge]
        subnets = sorted({str(subnet) for each in behind for subnet in each.subnets})
        # What is a matter of the bridge is declared alike for all behind it.
        one = behind[0]
        return dnsmasq.words(bridge, names.folder(bridge), subnets, one.dns_domain, forwards=not one.internal)

    def _served(self) -> list[str]:
        """The bridges that are to have a name server, sorted."""
        return sorted(self._survey.served_links())

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        steps: list[Step] = []
        for bridge, now in actual.items():
            wanted = expected.get(bridge)
            if now != wanted:
                line = self._line(bridge) if wanted else None
                systemd = systemctl.systemd_is_init()
                steps += _systemd_steps(bridge, now, line) if systemd else _direct_steps(bridge, line)
        return steps

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}


def describe(network: Network | None) -> list[dict[str, Any]]:
    """The name servers of a container: ``bridge``, ``addresses``, ``domain``, and ``pid`` where one runs.
    Raises OSError."""
    attachments = [each for each in network.attachments if each.name_servers] if network else []
    found = [(each, dnsmasq.running(str(each.segment))) for each in attachments]
    return [
        {
            "bridge": each.bridge,
            "addresses": list(each.name_servers),
            "domain": each.dns_domain,
            "pid": process[0] if process else None,
        }
        for each, process in found
    ]


def _direct_steps(bridge: str, line: Sequence[str] | None) -> list[Step]:
    """To a process with that command line, or to none."""
    steps = []
    if bridge in dnsmasq.bridges():
        path = dnsmasq.pid_file(bridge)
        # Until it has closed its sockets: a zombie has.
        wait = "while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.1; done"
        known = f"grep -qs -- --pid-file={path} /proc/$pid/cmdline"
        text = f"pid=$(cat {path}); {known} && kill $pid && {wait}; rm -f {path}"
        steps.append(Step(f"{bridge}.process", (text,), partial(dnsmasq.stop, bridge)))
    if line is not None:
        steps.append(Step(f"{bridge}.process", (command(line),), partial(dnsmasq.start, line)))
    return steps


def _systemd_steps(bridge: str, now: State, line: Sequence[str] | None) -> list[Step]:
    """To a service with that command line, or to none."""
    unit, text = _UNIT.format(bridge), _unit(bridge)
    steps: list[Step] = []
    if line is None:
        if now["enabled"]:
            steps.append(systemctl.step(f"{bridge}.enabled", "disable", unit))
        if now["unit"] is not None or now["process"] is not None:
            steps.append(_stop_step(bridge))
        return [*steps, text.remove_step(f"{bridge}.unit"), systemctl.reload_step(f"{bridge}.unit")]
    lines = unit_lines(bridge, line)
    written, started = now["unit"] == digest(lines), now["process"] == command(line)
    if not written:
        steps.append(text.write_step(f"{bridge}.unit", lines))
    if not written or not started:
        # Of one that was killed, nobody knows how far it came.
        steps.append(systemctl.reload_step(f"{bridge}.unit"))
    if not now["enabled"]:
        steps.append(systemctl.step(f"{bridge}.enabled", "enable", unit))
    if not started:
        steps.append(systemctl.step(f"{bridge}.process", "restart", unit))
    return steps


def _stop_step(bridge: str) -> Step:
    """Has systemd forget, too, that it failed, which would be known after its file is gone."""
    unit = _UNIT.format(bridge)

    def apply() -> None:
        systemctl.systemctl("stop", unit)
        with contextlib.suppress(Failure):  # It complains of one that it has forgotten already.
            systemctl.systemctl("reset-failed", unit)

    lines = (f"systemctl stop {unit}", f"systemctl reset-failed {unit} 2> /dev/null || true")
    return Step(f"{bridge}.process", lines, apply)


def _unit(bridge: str) -> TextFile:
    return TextFile(systemctl.UNITS / _UNIT.format(bridge))


def _units() -> list[str]:
    """The bridges that have a unit, or are to have one started at boot."""
    if not systemctl.systemd_is_init():
        return []
    before, after = _UNIT.split("{}")
    folders = (systemctl.UNITS, systemctl.wants_link("", _WANTED_BY))
    found = (path.name for folder in folders for path in folder.glob(f"{before}*{after}"))
    return [name[len(before) : -len(after)] for name in found]


def unit_lines(bridge: str, line: Sequence[str]) -> list[str]:
    """systemd.service(5). Containers are ordered after the target that stands for all name servers
    (systemd.special(7), nss-lookup.target). Beside what it is started with it needs nothing of the host
    (systemd.exec(5))."""
    return [
        "[Unit]",
        f"Description=Names of the containers behind {bridge}",
        f"Wants={host.NETWORK_UNIT} nss-lookup.target",
        f"After={host.NETWORK_UNIT}",
        "Before=nss-lookup.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=forking",
        f"PIDFile={dnsmasq.pid_file(bridge)}",
        f"ExecStart={command(line)}",
        "Restart=always",
        "RestartSec=1",
        "CapabilityBoundingSet=CAP_CHOWN CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "NoNewPrivileges=yes",
        "PrivateDevices=yes",
        "PrivateTmp=yes",
        "ProtectControlGroups=yes",
        "ProtectHome=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/run",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "",
        "[Install]",
        f"WantedBy={_WANTED_BY}",
    ]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's units: the service that it is, and where its health is checked a service and a timer more.

Those two are ``bare-health@NAME``, which no container's own unit is called: no name has an ``@`` in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import host, systemctl
from ..converge import Failure
from . import bundle, health, log
from .devices import systemd_properties
from .installation import LAUNCHER
from .spec import stop_signal
from .state import START_SECONDS

Entry = Mapping[str, Any]

_RESTART = {"no": "no", "on-failure": "on-failure", "always": "always", "unless-stopped": "always"}
_RESTART_SECONDS = 1
_LONGEST_PAUSE = 60
_SPARE_SECONDS = 30
_ACTIONS = {
    "kill": "systemctl kill --signal=KILL {unit}",
    "restart": "systemctl --no-block restart {unit}",
    "stop": "systemctl --no-block stop {unit}",
}
_KEPT = "# Kept by the module bare.containers.container_process, which undoes what is changed here.\n"


def check_service(name: str) -> str:
    return f"bare-health@{name}.service"


def check_timer(name: str) -> str:
    return f"bare-health@{name}.timer"


def names(name: str) -> tuple[str, str, str]:
    """All units that a container may have, its own first."""
    return host.unit(name), check_service(name), check_timer(name)


def path(unit: str) -> Path:
    return systemctl.UNITS / unit


def wants_path(name: str) -> Path:
    """The link by which the container is started at boot."""
    return systemctl.wants_link(host.unit(name))


def check(entry: Entry, kind: str) -> None:
    """Raises Failure for pauses that there is no restart for, or that can't grow."""
    for option in ("restart_sec", "restart_max_delay_sec"):
        if option in entry and entry["restart_policy"] == "no":
            raise Failure(
                f"{option}: {entry['name']} is not restarted (restart_policy: no), there is no pause before "
                "it; nothing was changed."
            )
    first, longest = _pause(entry)
    if longest < first:
        raise Failure(
            f"restart_max_delay_sec: {longest} seconds are less than the first pause of {first} "
            "(restart_sec), it takes as many or more; nothing was changed."
        )


def texts(declared: Entry, config: Mapping[str, Any]) -> dict[str, str]:
    """The units of a container under systemd, by their names."""
    name = declared["name"]
    made = {host.unit(name): _service(declared, config)}
    if health.interval(declared):
        made.update({check_service(name): _check_service(declared), check_timer(name): _timer(declared)})
    return made


def _service(declared: Entry, config: Mapping[str, Any]) -> str:
    """The container's own unit (systemd.service(5)), with what systemd does of its config.

    The launcher is the service's first process and hands over to the container's (MAINPID=, sd_notify(3)).
    What it refuses to start is not tried again (RestartPreventExitStatus); what ends is, as the policy says,
    without giving up.
    """
    name = declared["name"]
    checked = f"Wants={check_timer(name)}\n" if health.interval(declared) else ""
    after = f"ExecStopPost={LAUNCHER} poststop {name}\n" if bundle.has_hooks(dict(config), "poststop") else ""
    rules = config["linux"].get("resources", {}).get("devices", [])
    filtered = "".join(f"{line}\n" for line in systemd_properties(rules)) if rules else ""
    extra = pauses(*_pause(declared)) if declared["restart_policy"] != "no" else [0]
    return f"""\
{_KEPT}\
[Unit]
Description=Container {name}
Wants=bare-network.service
{checked}\
After=bare-network.service nss-lookup.target
RequiresMountsFor={host.STATE}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
{_wait(name, extra)}\
ExecStart={LAUNCHER} start {name}
{after}\
SyslogIdentifier={log.tag(declared)}
LogExtraFields={_fields(declared)}
Delegate=yes
{filtered}\
OOMPolicy=continue
TimeoutStartSec={START_SECONDS + extra[-1]}
KillMode=mixed
KillSignal={stop_signal(declared)}
TimeoutStopSec={declared["stop_timeout"] or "1ms"}
Restart={_RESTART[declared["restart_policy"]]}
RestartSec={_pause(declared)[0]}
RestartPreventExitStatus={bundle.FAILED}

[Install]
WantedBy=multi-user.target
"""


def _fields(declared: Entry) -> str:
    """What journalctl(1) finds a container's lines by, as with Docker and podman."""
    options = declared.get("log_opt", {})
    tagged = [f"CONTAINER_TAG={options['tag']}"] if "tag" in options else []
    return " ".join([f"CONTAINER_NAME={declared['name']}", *tagged])


def _pause(declared: Entry) -> tuple[int, int]:
    """The first pause before a restart, and the longest, in seconds."""
    first = declared.get("restart_sec", _RESTART_SECONDS)
    return first, declared.get("restart_max_delay_sec", max(first, _LONGEST_PAUSE))


def pauses(first: int, longest: int) -> list[int]:
    """By how many seconds a pause is longer than ``first``, by the number of restarts before it in a row.

    It doubles up to ``longest``: of the last, all that come after it are.
    """
    extra = [0, 0]
    while (whole := min(2 * (first + extra[-1]), longest)) > first + extra[-1]:
        extra.append(whole - first)
    return extra


def _wait(name: str, extra: list[int]) -> str:
    """The line that waits for what a pause is longer than RestartSec.

    systemd does that itself with RestartSteps=, but only from version 254 on.
    """
    if not extra[-1]:
        return ""
    table = " ".join(str(seconds) for seconds in extra)
    count = f"n=$$(systemctl show -P NRestarts {host.unit(name)})"
    script = f"set -- {table}; {count}; [ $$n -lt $$# ] || n=$$(($$# - 1)); shift $$n; exec sleep $$1"
    return f"ExecStartPre=/bin/sh -c '{script}'\n"


def _check_service(declared: Entry) -> str:
    """The check, and what is done of a container that it finds unhealthy. Not healthy is no failure of this
    unit's; of systemd's own lines about it, one a check, none is kept."""
    name = declared["name"]
    action = _ACTIONS.get(health.failure_action(declared), "").format(unit=host.unit(name))
    line = f"{LAUNCHER} check {name}"
    if action:
        line = f"/bin/sh -c '{line}; test $$? -ne 1 || exec {action}'"
    timeout = (health.spec(declared) or {}).get("timeout", 0)
    return f"""\
{_KEPT}\
[Unit]
Description=Health check of container {name}

[Service]
Type=oneshot
ExecStart=-{line}
TimeoutStartSec={timeout + _SPARE_SECONDS}
SyslogIdentifier={log.tag(declared)}
SyslogLevel=notice
LogLevelMax=notice
LogExtraFields={_fields(declared)}
"""


def _timer(declared: Entry) -> str:
    """Counts from the container's start, and then from the end of each check; it goes when the container
    does."""
    name, interval = declared["name"], health.interval(declared)
    return f"""\
{_KEPT}\
[Unit]
Description=Time of the health check of container {name}
BindsTo={host.unit(name)}
After={host.unit(name)}

[Timer]
OnActiveSec={interval}
OnUnitInactiveSec={interval}
AccuracySec=1
"""

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How it is found out whether a container is healthy, as declared; check.py is what does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..converge import Failure
from .installation import LAUNCHER

Entry = Mapping[str, Any]

_INTERVAL = 30
_TIMEOUT = 30
_RETRIES = 3


def check(entry: Entry, kind: str) -> None:
    """Raises Failure for a declaration that a supervisor of that kind does not act on."""
    name, declared = entry["name"], is_declared(entry)
    for option in entry:
        if option.startswith("healthcheck_") and not declared:
            raise Failure(f"{option}: {name} has no healthcheck that it would be for; nothing was changed.")
    if interval(entry) and kind == "direct":
        raise Failure(
            f"healthcheck_interval: {interval(entry)} seconds need someone who looks at the clock, and "
            f"without systemd nobody does; {name} takes 'disable', and '{LAUNCHER} check {name}' then is the "
            "check; nothing was changed."
        )
    if failure_action(entry) != "none" and not interval(entry):
        raise Failure(
            f"healthcheck_failure_action: {failure_action(entry)!r} follows from checks by the clock, and "
            f"{name} has none (healthcheck_interval: disable), it takes 'none'; nothing was changed."
        )


def is_declared(declared: Entry) -> bool:
    return bool(declared.get("healthcheck"))


def interval(declared: Entry) -> int:
    """Seconds between two checks, 0 where they are not made by the clock."""
    return int(declared.get("healthcheck_interval", _INTERVAL)) if is_declared(declared) else 0


def failure_action(declared: Entry) -> str:
    return str(declared.get("healthcheck_failure_action", "none"))


def spec(declared: Entry) -> dict[str, Any] | None:
    """What the launcher is told of the check (check.py), or None."""
    if not is_declared(declared):
        return None
    return {
        "args": declared["healthcheck"],
        "retries": declared.get("healthcheck_retries", _RETRIES),
        "start_period": declared.get("healthcheck_start_period", 0),
        "timeout": declared.get("healthcheck_timeout", _TIMEOUT),
    }

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd where it is PID 1: the folder of its units, and what is asked of it by systemctl(1)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .converge import Failure, Step
from .shell import command

UNITS = Path("/etc/systemd/system")
RELOAD = "systemctl daemon-reload"


def systemd_is_init() -> bool:
    """Whether PID 1 is systemd, as sd_booted(3) finds out."""
    return os.path.isdir("/run/systemd/system")


def wants_link(unit: str, wanting: str = "multi-user.target") -> Path:
    """The link by which a unit is started with another one, or at boot (systemd.unit(5), "WantedBy=")."""
    return UNITS / f"{wanting}.wants" / unit


def systemctl(*words: str) -> str:
    """What systemctl(1) prints. Raises Failure with what it complains of."""
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["systemctl", *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        told = " ".join((done.stderr.strip() or done.stdout).split()).rstrip(".")
        raise Failure(f"'{command(['systemctl', *words])}' failed: {told or f'status {done.returncode}'}.")
    return done.stdout


def show(units: Sequence[str], *properties: str) -> dict[str, dict[str, str]]:
    """Properties of units by unit, also of those that systemd does not know, asked with one program.

    Raises Failure.
    """
    if not units:
        return {}
    # A block of lines for each unit in the order asked; with the Id, which all have, none is empty.
    shown = systemctl("show", f"--property={','.join(['Id', *properties])}", "--", *units)
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n")]
    return dict(zip(units, blocks))


def step(changes: str, *words: str) -> Step:
    """The step that is one call of systemctl(1)."""

    def apply() -> None:
        systemctl(*words)

    return Step(changes, (command(["systemctl", *words]),), apply)


def reload_step(changes: str) -> Step:
    """The step after which systemd knows the units as they are written, once for a whole batch."""
    return replace(step(changes, "daemon-reload"), shared=RELOAD)

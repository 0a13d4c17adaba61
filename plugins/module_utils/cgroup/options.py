# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of cgroup_v2."""

from __future__ import annotations

import pwd
from typing import Any

from ..module import NAME
from ..options import Option, Options
from . import kinds
from .files import CONTROLS, Control, other_controls


def _uid(value: Any) -> int:
    """The uid of a user of this host, by name or number."""
    text = str(value).strip()
    if text.isascii() and text.isdigit() and int(text) < 2**32 - 1:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError("the name of a user of this host, or a uid") from None


def _option(control: Control) -> Option:
    return Option(control.option, control.type, choices=control.choices, normalise=control.kind.declared)


OPTIONS = Options(
    (
        NAME,
        Option("state", default="present", choices=("present", "absent", "frozen", "thawed")),
        Option("manager", default="auto", choices=("auto", "systemd", "cgroupfs")),
        Option("parent"),
        Option("delegate", normalise=_uid),
        *(_option(control) for control in CONTROLS),
        Option("cpu_weight_nice", "int", normalise=kinds.nice),
        Option("controls", "dict", normalise=other_controls),
        Option("force", "bool", default=False, declared=False),
    )
)

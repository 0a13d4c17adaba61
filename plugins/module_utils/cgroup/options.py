# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of cgroup_v2."""

from __future__ import annotations

from ..module import NAME
from ..options import Option, Options
from .files import CONTROLS, other_controls

OPTIONS = Options(
    (
        NAME,
        Option("state", default="present", choices=("present", "absent", "frozen", "thawed")),
        Option("manager", default="auto", choices=("auto", "systemd", "cgroupfs")),
        Option("parent"),
        *(Option(control.option, control.type, normalise=control.kind.declared) for control in CONTROLS),
        Option("controls", "dict", normalise=other_controls),
        Option("force", "bool", default=False, declared=False),
    )
)

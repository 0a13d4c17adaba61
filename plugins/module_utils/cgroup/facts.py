# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cgroup is limited to and what it uses, as it is told to people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..kernel import cgroup
from .live import Live


def of(path: Path, other_files: Sequence[str]) -> dict[str, Any] | None:
    """``path``, ``frozen`` and Live.facts(); None where there is no such cgroup. Raises OSError."""
    events = cgroup.read(path, "cgroup.events")
    if events is None:
        return None
    return {
        "path": str(path),
        "frozen": cgroup.keyed(events)["frozen"] == 1,
        **Live(path).facts(other_files),
    }

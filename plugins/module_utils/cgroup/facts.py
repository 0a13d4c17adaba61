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

_USAGE = ("memory.current", "memory.peak", "memory.swap.current", "pids.current", "pids.peak")


def of(path: Path, other_files: Sequence[str]) -> dict[str, Any] | None:
    """``path``, ``frozen``, what is used by the control file that tells it, as ``memory_current``, and
    Live.facts(); None where there is no such cgroup. Raises OSError."""
    events = cgroup.read(path, "cgroup.events")
    if events is None:
        return None
    texts = {file: cgroup.read(path, file) for file in _USAGE}
    return {
        "path": str(path),
        "frozen": cgroup.keyed(events)["frozen"] == 1,
        **{file.replace(".", "_"): int(text) for file, text in texts.items() if text is not None},
        **Live(path).facts(other_files),
    }

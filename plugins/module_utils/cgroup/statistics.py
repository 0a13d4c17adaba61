# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What control files tell: use, events, pressure. Numbers are the kernel's units: bytes, microseconds,
percent, counts (cgroup-v2 at each file)."""

from __future__ import annotations

import re
from typing import Any

from ..kernel import cgroup
from . import kinds

FILES = (
    "cgroup.events",
    "cgroup.stat",
    "cpu.stat",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.events.local",
    "memory.peak",
    "memory.stat",
    "memory.swap.current",
    "memory.swap.events",
    "pids.current",
    "pids.events",
    "pids.peak",
)
"""Those of interest for any cgroup."""

PRESSURE = ("cpu", "io", "irq", "memory")
"""The resources that NAME.pressure is told of (Documentation/accounting/psi.rst)."""

_MEMORY = (
    *("anon", "file", "kernel", "kernel_stack", "pagetables", "slab", "slab_reclaimable", "sock", "shmem"),
    *("file_mapped", "file_dirty", "file_writeback", "swapcached", "zswap", "zswapped"),
    *("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "pgfault", "pgmajfault"),
)
"""The rows of memory.stat that say what memory is used for; the kernel has some 60 in all."""

_FLAT = re.compile(r".*\.(events|events\.local|stat|stat\.local)|misc\.(current|peak)")
_NESTED = re.compile(r"io\.stat|rdma\.current|(?!cgroup\.).*\.pressure")


def parse(file: str, text: str) -> Any:
    """What a file that is no setting reads: a number, or numbers by key, or those by device or resource.

    Pressure is ``{"some": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0}, "full": {...}}``.
    """
    if _NESTED.fullmatch(file):
        return _nested(text)
    if file == "memory.stat":
        rows = cgroup.keyed(text)
        return {key: rows[key] for key in _MEMORY if key in rows}
    return cgroup.keyed(text) if _FLAT.fullmatch(file) else kinds.plain(text)


def _nested(text: str) -> dict[str, dict[str, int | float | str]]:
    """Lines ``KEY NAME=NUMBER NAME=NUMBER`` (cgroup-v2, "Format": nested keyed)."""
    lines = (line.split() for line in text.splitlines() if line)
    return {
        key: {name: _number(value) for name, __, value in (field.partition("=") for field in fields)}
        for key, *fields in lines
    }


def _number(text: str) -> int | float | str:
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else kinds.plain(text)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control files that have an option: one row each, and everything else about them comes from that row.

A file's value has one normal form (plain data), whether it was declared (``256M``), is read from the kernel
(``268435456``) or kept on the host. A new file drops in as a new row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Union

from ..options import size

Value = Union[int, str, bool, Mapping[str, int]]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PAGE_COUNTER_MAX = (2 ** (63 if os.sysconf("SC_LONG_BIT") == 64 else 31) - 1) // _PAGE
_PID_MAX_LIMIT = 4 * 1024 * 1024
_PERIOD = 100_000
_SECOND = 1_000_000
_SHORTEST = 1_000


@dataclass(frozen=True)
class Kind:
    """How the values of a control file are spelled.

    ``declared`` takes what a user wrote and raises ValueError saying what is accepted; ``parse`` takes what
    the kernel's file reads; ``writes`` gives the texts, each to be written by itself, that get from one value
    to another.
    """

    declared: Callable[[Any], Value]
    parse: Callable[[str], Value]
    writes: Callable[[Any, Any], tuple[str, ...]]


@dataclass(frozen=True)
class Control:
    """One control file: its option, its name, its controller, the kernel's default, its kind.

    ``properties`` gives the unit properties that make systemd write exactly this value
    (systemd.resource-control(5)).
    """

    option: str
    file: str
    controller: str
    default: Value
    kind: Kind
    properties: Callable[[Any], tuple[str, ...]]
    type: str = "str"


def bytes_or_max(value: Any) -> int | str:
    """``256M``, ``268435456`` or ``max``, in whole pages as the kernel counts (page_counter_memparse())."""
    if str(value).strip() == "max":
        return "max"
    try:
        pages = size(value) // _PAGE
    except ValueError:
        raise ValueError("a number of bytes such as 268435456, 256M or 1.5G, or max") from None
    return pages * _PAGE if pages < _PAGE_COUNTER_MAX else "max"


def count_or_max(value: Any) -> int | str:
    """A number of tasks, or ``max``; no system has more than PID_MAX_LIMIT (include/linux/threads.h)."""
    text = str(value).strip()
    if text == "max":
        return text
    if not re.fullmatch(r"\d{1,7}", text) or not 1 <= int(text) <= _PID_MAX_LIMIT:
        raise ValueError(f"a number from 1 to {_PID_MAX_LIMIT}, or max")
    return int(text)


def weight(value: Any) -> int:
    """1 to 10000 (cgroup-v2, "Weights")."""
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,5}", text) or not 1 <= int(text) <= 10_000:
        raise ValueError("a number from 1 to 10000, where 100 is the kernel's default")
    return int(text)


def bandwidth(value: Any) -> str:
    """Kernel notation, ``QUOTA PERIOD`` in microseconds, from that or from a number of CPUs.

    The period is from 1 ms to 1 s and the quota at least 1 ms (tg_set_cfs_bandwidth()); with ``max`` the
    period means nothing and is the default one.
    """
    accepted = ValueError(
        "a number of CPUs from 0.01 such as 1.5, max, or the kernel's QUOTA PERIOD in microseconds such as "
        "'50000 100000', with a period from 1000 to 1000000 and a quota from 1000"
    )
    words = str(value).split()
    if words[:1] == ["max"] and re.fullmatch(r"max( \d+)?", " ".join(words)):
        return f"max {_PERIOD}"
    if len(words) == 1 and re.fullmatch(r"\d{1,6}(\.\d{1,5})?", words[0]):
        quota, period = int(Fraction(words[0]) * _PERIOD), _PERIOD
    elif len(words) == 2 and all(re.fullmatch(r"\d{1,12}", word) for word in words):
        quota, period = int(words[0]), int(words[1])
    else:
        raise accepted
    if quota < _SHORTEST or not _SHORTEST <= period <= _SECOND:
        raise accepted
    return f"{quota} {period}"


def number_list(value: Any) -> str:
    """CPUs or memory nodes as the kernel prints them, ``0-2,7``, in order and without repetition; ``""`` is
    none of its own (cpuset(7), "List format")."""
    numbers: set[int] = set()
    for part in str(value).split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        if match is None:
            if str(value).strip() == "":
                return ""
            raise ValueError("numbers and ranges such as 0-2,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError("numbers and ranges such as 0-2,7, the smaller number first")
        numbers.update(range(first, last + 1))
    return ",".join(_ranges(sorted(numbers)))


def _ranges(numbers: list[int]) -> list[str]:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]


def _by_device(text: str) -> dict[str, int]:
    """``default 100`` and a line ``MAJOR:MINOR WEIGHT`` for each device that has its own (cgroup-v2,
    io.weight)."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def _device_writes(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    set_ = tuple(f"{key} {value}" for key, value in after.items() if before.get(key) != value)
    return set_ + tuple(f"{key} default" for key in before if key not in after)


def _one_write(before: Any, after: Any) -> tuple[str, ...]:
    return (str(int(after)) if isinstance(after, bool) else str(after),)


def _number_or_max(text: str) -> int | str:
    return text if text == "max" else int(text)


BYTES = Kind(bytes_or_max, _number_or_max, _one_write)
COUNT = Kind(count_or_max, _number_or_max, _one_write)
WEIGHT = Kind(weight, int, _one_write)
BANDWIDTH = Kind(bandwidth, str, _one_write)
LIST = Kind(number_list, str, _one_write)
FLAG = Kind(bool, lambda text: text == "1", _one_write)
DEVICE_WEIGHT = Kind(lambda value: {"default": weight(value)}, _by_device, _device_writes)


def _property(name: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: (f"{name}={'infinity' if value == 'max' else value}",)


def _quota_properties(value: str) -> tuple[str, ...]:
    """CPUQuota= takes two decimals of a percent. Raises ValueError for a quota that needs more."""
    quota, period = value.split()
    if quota == "max":
        return ("CPUQuota=",)
    share, rest = divmod(int(quota) * 10_000, int(period))
    if rest:
        raise ValueError(
            "under systemd a quota of whole hundredths of a percent of the period, "
            f"such as {share * int(period) // 10_000} {period}"
        )
    return f"CPUQuota={share // 100}.{share % 100:02}%", f"CPUQuotaPeriodSec={period}us"


def _oom_properties(value: bool) -> tuple[str, ...]:
    """systemd writes memory.oom.group itself, at each daemon-reload, as OOMPolicy= says
    (systemd.service(5))."""
    return (f"OOMPolicy={'kill' if value else 'continue'}",)


CONTROLS = (
    Control("cpu_max", "cpu.max", "cpu", f"max {_PERIOD}", BANDWIDTH, _quota_properties),
    Control("cpu_weight", "cpu.weight", "cpu", 100, WEIGHT, _property("CPUWeight"), "int"),
    Control("cpuset_cpus", "cpuset.cpus", "cpuset", "", LIST, _property("AllowedCPUs")),
    Control("cpuset_mems", "cpuset.mems", "cpuset", "", LIST, _property("AllowedMemoryNodes")),
    Control("memory_min", "memory.min", "memory", 0, BYTES, _property("MemoryMin")),
    Control("memory_low", "memory.low", "memory", 0, BYTES, _property("MemoryLow")),
    Control("memory_high", "memory.high", "memory", "max", BYTES, _property("MemoryHigh")),
    Control("memory_max", "memory.max", "memory", "max", BYTES, _property("MemoryMax")),
    Control("memory_swap_max", "memory.swap.max", "memory", "max", BYTES, _property("MemorySwapMax")),
    Control("memory_oom_group", "memory.oom.group", "memory", False, FLAG, _oom_properties, "bool"),
    Control("pids_max", "pids.max", "pids", "max", COUNT, _property("TasksMax")),
    Control(
        "io_weight",
        "io.weight",
        "io",
        {"default": 100},
        DEVICE_WEIGHT,
        lambda value: (f"IOWeight={value['default']}",),
        "int",
    ),
)

CPUSETS = ("cpuset.cpus", "cpuset.mems")
BY_FILE = {control.file: control for control in CONTROLS}

# What `controls` does not take, and why: they are no settings, or another one's second name.
_NO_SETTINGS = {
    **{control.file: f"it has an option of its own, {control.option}" for control in CONTROLS},
    "cgroup.freeze": "state: frozen and state: thawed set it",
    "cgroup.kill": "state: absent with force does that",
    "cgroup.procs": "processes are not declared here",
    "cgroup.threads": "processes are not declared here",
    "cgroup.type": "the processes' controllers need a domain",
    "cgroup.subtree_control": "the controllers that are needed are enabled anyhow",
    "cpu.weight.nice": "it is another spelling of cpu_weight",
    "cpu.idle": "it takes the place of cpu_weight",
    "memory.reclaim": "it acts once and keeps no value",
    "memory.peak": "it acts once and keeps no value",
}

# Kernel defaults that the conventions below do not tell (cgroup-v2 at each file).
_DEFAULTS = {
    "cgroup.max.depth": "max",
    "cgroup.max.descendants": "max",
    "cgroup.pressure": "1",
    "cpu.max.burst": "0",
    "cpu.uclamp.min": "0.00",
    "cpuset.cpus.exclusive": "",
    "cpuset.cpus.partition": "member",
    "io.prio.class": "no-change",
    "memory.zswap.writeback": "1",
}

_FILE = re.compile(r"[a-z]+(\.[A-Za-z0-9_]+)+")
# No quotes, percent or dollar signs and backslashes: values also go into shell commands and unit files.
_TEXT = re.compile(r"[A-Za-z0-9_.,:=+ -]*")


def other_controls(value: Any) -> dict[str, str]:
    """The option ``controls``: kernel file names with their values as texts that the kernel would show."""
    return {str(file): _other_value(str(file), text) for file, text in sorted(value.items())}


def _other_value(file: str, value: Any) -> str:
    if not _FILE.fullmatch(file):
        raise ValueError(f"kernel names of control files such as cgroup.max.depth, not {file!r}")
    if file in _NO_SETTINGS:
        raise ValueError(f"control files that have no option, not {file}: {_NO_SETTINGS[file]}")
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, (str, int, float)) or not _TEXT.fullmatch(str(value)):
        raise ValueError(f"for {file} one line of text as the kernel shows it, not {value!r}")
    text = " ".join(str(value).split())
    # The kernel takes 4M and shows 4194304 (memparse()).
    return str(size(text)) if re.fullmatch(r"\d+[KMGTP]", text) else text


def other_default(file: str) -> str | None:
    """The kernel's default of a control file without an option, or None where it can't be told.

    By convention an upper limit is named ``max`` or ``high`` and is "max", a lower one ``min`` or ``low`` and
    is 0 (cgroup-v2, "Conventions").
    """
    last = file.rpartition(".")[2]
    return _DEFAULTS.get(file, {"max": "max", "high": "max", "min": "0", "low": "0"}.get(last))


def controller_of(file: str) -> str | None:
    """The controller that a control file belongs to, None for those every cgroup has."""
    controller = file.partition(".")[0]
    return None if controller == "cgroup" else controller


def default(file: str) -> Value | None:
    """The kernel's default in normal form; None where it can't be told."""
    return BY_FILE[file].default if file in BY_FILE else other_default(file)


def parse(file: str, text: str) -> Value:
    """What the kernel's file reads, in normal form."""
    return BY_FILE[file].kind.parse(text) if file in BY_FILE else " ".join(text.split())


def writes(file: str, before: Value, after: Value) -> tuple[str, ...]:
    """The texts that get the file from one value to another, each to be written by itself."""
    return BY_FILE[file].kind.writes(before, after) if file in BY_FILE else (str(after),)


def declared_values(declaration: Mapping[str, Any]) -> dict[str, Value]:
    """What a declaration (normal form) says of control files, by file."""
    values = {
        control.file: declaration[control.option]
        for control in CONTROLS
        if declaration.get(control.option) is not None
    }
    return {**values, **declaration.get("controls", {})}


def beside_default(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """Those values that are not the kernel's default: what a state shows, in one order for all."""
    names = [*(control.file for control in CONTROLS), *sorted(values.keys() - BY_FILE.keys())]
    return {
        name: value
        for name, value in ((name, values.get(name)) for name in names)
        if value is not None and value != default(name)
    }


def label(file: str) -> str:
    """What a user calls the file: its option."""
    return BY_FILE[file].option if file in BY_FILE else f"controls: {file}"

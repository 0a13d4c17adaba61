# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the values of control files are spelled: by users, by the kernel, and in the one normal form between.

A normal form is plain data. Numbers are bytes, microseconds, percent or counts; where there is no limit, it
is the text "max". What users write raises ValueError saying what is accepted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, Union

from ..options import size

Value = Union[int, float, str, Mapping[str, Any]]

PERIOD = 100_000
"""The default period of cpu.max, in microseconds."""

DEVICE_NUMBER = re.compile(r"\d{1,4}:\d{1,7}")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_COUNTER_MAX = (2 ** (63 if os.sysconf("SC_LONG_BIT") == 64 else 31) - 1) // _PAGE * _PAGE
_LARGEST_PAGE = 2**34
_PID_MAX_LIMIT = 4 * 1024 * 1024
_U32, _U64, _S32 = 2**32 - 1, 2**64 - 1, 2**31 - 1
_SECOND = 1_000_000
_SHORTEST = 1_000

# The scheduler's weights of the nice values from -20 on (sched_prio_to_weight[], kernel/sched/core.c).
_NICE = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)


class Kind(Protocol):
    """``declared`` takes what a user wrote, ``parse`` what the kernel's file reads; ``writes`` gives the
    texts, each to be written by itself, that get from one value to another."""

    @property
    def declared(self) -> Callable[[Any], Any]: ...

    @property
    def parse(self) -> Callable[[str], Any]: ...

    def writes(self, before: Any, after: Any) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Single:
    """A file with one value; ``text`` is what is written for it."""

    declared: Callable[[Any], Any]
    parse: Callable[[str], Any]
    text: Callable[[Any], str] = str

    def writes(self, before: Any, after: Any) -> tuple[str, ...]:
        return (self.text(after),)


@dataclass(frozen=True)
class Fields:
    """What follows the key in a line such as ``8:0 rbps=1048576 wbps=max``: several numbers by name, of which
    those that are "max" are left out (cgroup-v2, "Format": nested keyed)."""

    fields: Mapping[str, Single]

    def declared(self, value: Any) -> dict[str, Any]:
        unknown = [] if not isinstance(value, Mapping) else [key for key in value if key not in self.fields]
        if unknown or not isinstance(value, Mapping):
            raise ValueError(f"{', '.join(self.fields)}, not {unknown[0] if unknown else value!r}")
        given = {key: _declared(self.fields[key], key, value[key]) for key in self.fields if key in value}
        return {key: number for key, number in given.items() if number != "max"}

    def parse(self, text: str) -> dict[str, Any]:
        pairs = (word.split("=", 1) for word in text.split() if "=" in word)
        read = {key: self.fields[key].parse(number) for key, number in pairs if key in self.fields}
        return {key: number for key, number in read.items() if number != "max"}

    def text(self, value: Mapping[str, Any]) -> str:
        return " ".join(f"{key}={value.get(key, 'max')}" for key in self.fields)


@dataclass(frozen=True)
class ByKey:
    """A file with a line ``KEY VALUE`` for each device or resource; those at ``default`` are left out.

    ``key`` takes a key as a user wrote it. ``reset`` is written in place of the default's text.
    """

    entry: Single | Fields
    default: Any
    key: Callable[[str], str]
    reset: str

    def declared(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError("a mapping with the name of a device or resource to what it is given")
        entries = {self.key(str(key)): _declared(self.entry, key, each) for key, each in value.items()}
        return {key: each for key, each in sorted(entries.items()) if each != self.default}

    def parse(self, text: str) -> dict[str, Any]:
        lines = (line.partition(" ") for line in text.splitlines())
        entries = {key: self.entry.parse(rest.strip()) for key, __, rest in lines}
        return {key: each for key, each in sorted(entries.items()) if each != self.default}

    def writes(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
        changed = {key: each for key, each in after.items() if before.get(key) != each}
        return (
            *(f"{key} {self.entry.text(each)}" for key, each in changed.items()),
            *(f"{key} {self.reset}" for key in before if key not in after),
        )


@dataclass(frozen=True)
class DeviceWeights(ByKey):
    """io.weight: a weight for all devices, and one for each that has its own."""

    def declared(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {"default": weight(value)}
        rest = {key: each for key, each in value.items() if key != "default"}
        return {"default": weight(value.get("default", 100)), **super().declared(rest)}


def _declared(entry: Single | Fields, key: Any, value: Any) -> Any:
    try:
        return entry.declared(value)
    except ValueError as error:
        raise ValueError(f"for {key} {error}") from None


def page_multiple(value: Any, page: int) -> int | str:
    """Bytes in whole pages of that size, rounded down, or "max" (page_counter_memparse())."""
    if str(value).strip() == "max":
        return "max"
    try:
        number = size(value) // page * page
    except ValueError:
        raise ValueError("a number of bytes such as 268435456, 256M or 1.5G, or max") from None
    return number if number < _COUNTER_MAX // page * page else "max"


def huge_pages(value: Any) -> dict[str, Any]:
    """Bytes by page size, ``{2MB: 64M}``, in whole huge pages; the kernel names sizes so, ``64KB``, ``2MB``,
    ``1GB`` (hugetlb_cgroup_write())."""
    given = {}
    for page, limit in value.items():
        if not re.fullmatch(r"[1-9]\d{0,3}[KMG]B", str(page)):
            raise ValueError(f"page sizes as the kernel names them, such as 2MB or 1GB, not {page!r}")
        try:
            given[str(page)] = _huge_limit(str(page_multiple(limit, size(page))))
        except ValueError as error:
            raise ValueError(f"for {page} {error}") from None
    return dict(sorted(given.items()))


def _huge_limit(text: str) -> int | str:
    """A new cgroup may read the highest number there is in place of "max", as with Linux 6.18."""
    return "max" if text == "max" or int(text) > _COUNTER_MAX - _LARGEST_PAGE else int(text)


def count(lowest: int, highest: int) -> Callable[[Any], int | str]:
    """A whole number in that range, or "max"."""

    def declared(value: Any) -> int | str:
        text = str(value).strip()
        if text == "max":
            return text
        if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or not lowest <= int(text) <= highest:
            raise ValueError(f"a number from {lowest} to {highest}, or max")
        return int(text)

    return declared


def bytes_per_second(value: Any) -> int | str:
    """``10M``, in bytes, or "max"."""
    try:
        number = "max" if str(value).strip() == "max" else size(value)
    except ValueError:
        number = 0
    if number != "max" and not 1 <= int(number) < _U64:
        raise ValueError("a number of bytes per second such as 10485760 or 10M, or max")
    return number


def amount(value: Any) -> int | str:
    """``64M``, as a number of bytes or of what else the resource consists of, or "max"."""
    try:
        return "max" if str(value).strip() == "max" else size(value)
    except ValueError:
        raise ValueError("a number such as 100 or 64M, or max") from None


def weight(value: Any) -> int:
    """1 to 10000 (cgroup-v2, "Weights")."""
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 10_000:
        raise ValueError("a number from 1 to 10000, where 100 is the kernel's default")
    return int(text)


def nice(value: Any) -> int:
    """-20 to 19 (sched(7), "The nice value")."""
    if not -20 <= int(value) <= 19:
        raise ValueError("a nice value from -20 to 19")
    return int(value)


def weight_of_nice(value: int) -> int:
    """What cpu.weight reads when cpu.weight.nice is ``value`` (cpu_weight_read_u64())."""
    return (_NICE[value + 20] * 100 + 512) // 1024


def bandwidth(value: Any) -> dict[str, Any]:
    """``{"quota": 50000, "period": 100000}`` in microseconds, from a number of CPUs or the kernel's ``QUOTA
    PERIOD``; the quota may be "max".

    The period is from 1 ms to 1 s and the quota at least 1 ms (tg_set_cfs_bandwidth()); with ``max`` the
    period means nothing and is the default one.
    """
    accepted = ValueError(
        "a number of CPUs from 0.01 such as 1.5, max, or the kernel's QUOTA PERIOD in microseconds such as "
        "'50000 100000', with a period from 1000 to 1000000 and a quota from 1000"
    )
    words = str(value).split()
    if words[:1] == ["max"] and re.fullmatch(r"max( \d+)?", " ".join(words)):
        return {"quota": "max", "period": PERIOD}
    if len(words) == 1 and re.fullmatch(r"\d{1,6}(\.\d{1,5})?", words[0], re.ASCII):
        quota, period = int(Fraction(words[0]) * PERIOD), PERIOD
    elif len(words) == 2 and all(re.fullmatch(r"\d{1,12}", word, re.ASCII) for word in words):
        quota, period = int(words[0]), int(words[1])
    else:
        raise accepted
    if quota < _SHORTEST or not _SHORTEST <= period <= _SECOND:
        raise accepted
    return {"quota": quota, "period": period}


def _parse_bandwidth(text: str) -> dict[str, Any]:
    quota, period = text.split()
    return {"quota": number_or_max(quota), "period": int(period)}


def microseconds(value: Any) -> int:
    """``5000``, ``5ms`` or ``0.1s``."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*(us|ms|s)?", str(value).strip(), re.ASCII)
    if match is None or (match[2] is None and "." in match[1]):
        raise ValueError("a number of microseconds such as 5000, or a time such as 5ms")
    return int(Fraction(match[1]) * {"us": 1, "ms": 1_000, "s": _SECOND}[match[2] or "us"])


def percent(value: Any) -> float | str:
    """0 to 100 with two decimals, of which 100 is no limit and reads "max" (cpu_uclamp_print())."""
    text = str(value).strip()
    if text == "max":
        return text
    if not re.fullmatch(r"\d{1,3}(\.\d{1,2})?", text, re.ASCII) or float(text) > 100:
        raise ValueError("a percentage from 0 to 100 such as 12.5, with up to two decimals, or max")
    return float(text) if float(text) < 100 else "max"


def number_list(value: Any) -> str:
    """CPUs or memory nodes as the kernel prints them, ``0-2,7``, in order and without repetition; ``""`` is
    none of its own (cpuset(7), "List format")."""
    numbers: set[int] = set()
    for part in str(value).split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part, re.ASCII)
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


def device(value: str) -> str:
    """A block device by its path in /dev or its ``MAJOR:MINOR``; which disk that is, is asked when it is
    used."""
    text = value.strip()
    # The path also goes into unit files: none of what has a meaning there.
    if not DEVICE_NUMBER.fullmatch(text) and not re.fullmatch(
        r"/dev(/(?!\.\.?/)[\w.:@+=,-]+)+", text, re.ASCII
    ):
        raise ValueError(f"block devices such as /dev/vda or 254:0, not {value!r}")
    return text


def resource(value: str) -> str:
    """The name that a resource has in the kernel's file, such as ``mlx5_0`` or ``drm/0000:03:00.0/vram0``."""
    if not re.fullmatch(r"[\w./:-]{1,128}", value, re.ASCII):
        raise ValueError(f"names of resources as the kernel's file shows them, not {value!r}")
    return value


def number_or_max(text: str) -> int | str:
    """What a file with a limit reads."""
    return text if text == "max" else int(text)


def plain(text: str) -> int | str:
    """What a file of unknown kind reads: a whole number, or a text in single spaces."""
    words = " ".join(text.split())
    return int(words) if re.fullmatch(r"-?\d+", words, re.ASCII) else words


def _as_declared(value: Any) -> Any:
    return value


_RATE = Single(bytes_per_second, number_or_max)
_OPERATIONS = Single(count(1, _U32 - 1), number_or_max)
_HANDLES = Single(count(0, _S32 - 1), number_or_max)
_AMOUNT = Single(amount, number_or_max)
_IO_LIMITS = Fields({"rbps": _RATE, "wbps": _RATE, "riops": _OPERATIONS, "wiops": _OPERATIONS})
_RDMA_LIMITS = Fields({"hca_handle": _HANDLES, "hca_object": _HANDLES})
_LATENCY = Single(microseconds, lambda text: int(text.partition("target=")[2].split()[0]), "target={}".format)

BYTES = Single(lambda value: page_multiple(value, _PAGE), number_or_max)
TASKS = Single(count(1, _PID_MAX_LIMIT), number_or_max)
"""No system has more than PID_MAX_LIMIT (include/linux/threads.h)."""
WEIGHT = Single(weight, int)
BANDWIDTH = Single(bandwidth, _parse_bandwidth, "{0[quota]} {0[period]}".format)
MICROSECONDS = Single(microseconds, int)
PERCENT = Single(percent, percent, lambda value: value if value == "max" else f"{value:.2f}")
LIST = Single(number_list, str)
FLAG = Single(bool, lambda text: text == "1", lambda value: str(int(value)))
WORD = Single(_as_declared, str)
TYPE = Single(_as_declared, lambda text: "domain" if text == "domain threaded" else text)
"""A "domain threaded" is a domain that has threaded cgroups below it (cgroup-v2, "Threads")."""
HUGE_PAGES = Single(huge_pages, _huge_limit)
"""Declared for all page sizes together; each has a file of its own."""
DEVICE_WEIGHTS = DeviceWeights(WEIGHT, None, device, "default")
DEVICE_LIMITS = ByKey(_IO_LIMITS, {}, device, _IO_LIMITS.text({}))
DEVICE_LATENCIES = ByKey(_LATENCY, 0, device, "target=max")
RDMA_LIMITS = ByKey(_RDMA_LIMITS, {}, resource, _RDMA_LIMITS.text({}))
LIMITS = ByKey(_AMOUNT, "max", resource, "max")
PROTECTIONS = ByKey(_AMOUNT, 0, resource, "0")

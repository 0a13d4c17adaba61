# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control files that have an option: one row each, and everything else about them comes from that row.

A file's value has one normal form (kinds.py), whether it was declared (``256M``), is read from the kernel
(``268435456``) or kept on the host. A new file drops in as a new row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..options import size
from . import kinds
from .kinds import Kind, Value


@dataclass(frozen=True, eq=False)
class Control:
    """One control file: its option, its name, the kernel's default, its kind.

    A ``*`` in the name stands for the keys of the option, which is a mapping to the values of as many files.
    ``properties`` gives the unit properties that make systemd write exactly this value
    (systemd.resource-control(5)), from systemd ``since`` on; None where it has none.
    """

    option: str
    file: str
    default: Value
    kind: Kind
    properties: Callable[[Any], tuple[str, ...]] | None = None
    type: str = "str"
    choices: tuple[str, ...] = ()
    since: int = 0

    @property
    def by_device(self) -> bool:
        """Whether the value is a mapping from block devices, by path where it was declared."""
        return isinstance(self.kind, kinds.ByKey) and self.kind.key is kinds.device

    def values(self, declared: Any) -> dict[str, Value]:
        """The value of the option (normal form) by file."""
        if "*" not in self.file:
            return {self.file: declared}
        return {self.file.replace("*", key): value for key, value in declared.items()}


def _property(name: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: (f"{name}={'infinity' if value == 'max' else value}",)


def _switch(name: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: (f"{name}={'yes' if value else 'no'}",)


def _quota_properties(value: Mapping[str, Any]) -> tuple[str, ...]:
    """CPUQuota= takes two decimals of a percent. Raises ValueError for a quota that needs more."""
    quota, period = value["quota"], value["period"]
    if quota == "max":
        return ("CPUQuota=",)
    share, rest = divmod(quota * 10_000, period)
    if rest:
        raise ValueError(
            "under systemd a quota of whole hundredths of a percent of the period, "
            f"such as {share * period // 10_000} {period}"
        )
    return f"CPUQuota={share // 100}.{share % 100:02}%", f"CPUQuotaPeriodSec={period}us"


def _idle_properties(value: bool) -> tuple[str, ...]:
    return ("CPUWeight=idle",) if value else ()


def _oom_properties(value: bool) -> tuple[str, ...]:
    """systemd writes memory.oom.group itself, at each daemon-reload, as OOMPolicy= says
    (systemd.service(5))."""
    return (f"OOMPolicy={'kill' if value else 'continue'}",)


def _node(device: str) -> str:
    """The path of a device, as the properties want it."""
    return f"/dev/block/{device}" if kinds.DEVICE_NUMBER.fullmatch(device) else device


def _device_weight_properties(value: Mapping[str, int]) -> tuple[str, ...]:
    devices = [f"IODeviceWeight={_node(key)} {weight}" for key, weight in value.items() if key != "default"]
    return (f"IOWeight={value['default']}", *devices)


_IO_PROPERTIES = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}


def _device_limit_properties(value: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    return tuple(
        f"{_IO_PROPERTIES[field]}={_node(device)} {limit}"
        for device, limits in value.items()
        for field, limit in limits.items()
    )


def _device_latency_properties(value: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"IODeviceLatencyTargetSec={_node(device)} {target}us" for device, target in value.items())


_PARTITIONS = ("member", "root", "isolated")
_PRIORITIES = ("no-change", "promote-to-rt", "restrict-to-be", "idle", "none-to-rt")

# A value is taken back in the reverse of this order (see releases()).
CONTROLS = (
    Control("type", "cgroup.type", "domain", kinds.TYPE, choices=("domain", "threaded")),
    Control(
        "cpu_max", "cpu.max", {"quota": "max", "period": kinds.PERIOD}, kinds.BANDWIDTH, _quota_properties
    ),
    Control("cpu_max_burst", "cpu.max.burst", 0, kinds.MICROSECONDS),
    Control("cpu_weight", "cpu.weight", 100, kinds.WEIGHT, _property("CPUWeight"), "int"),
    Control("cpu_idle", "cpu.idle", False, kinds.FLAG, _idle_properties, "bool", since=252),
    Control("cpu_uclamp_min", "cpu.uclamp.min", 0.0, kinds.PERCENT),
    Control("cpu_uclamp_max", "cpu.uclamp.max", "max", kinds.PERCENT),
    Control("cpuset_cpus", "cpuset.cpus", "", kinds.LIST, _property("AllowedCPUs")),
    Control("cpuset_mems", "cpuset.mems", "", kinds.LIST, _property("AllowedMemoryNodes")),
    Control("cpuset_cpus_exclusive", "cpuset.cpus.exclusive", "", kinds.LIST),
    Control("cpuset_cpus_partition", "cpuset.cpus.partition", "member", kinds.WORD, choices=_PARTITIONS),
    Control("memory_min", "memory.min", 0, kinds.BYTES, _property("MemoryMin")),
    Control("memory_low", "memory.low", 0, kinds.BYTES, _property("MemoryLow")),
    Control("memory_high", "memory.high", "max", kinds.BYTES, _property("MemoryHigh")),
    Control("memory_max", "memory.max", "max", kinds.BYTES, _property("MemoryMax")),
    Control("memory_swap_high", "memory.swap.high", "max", kinds.BYTES),
    Control("memory_swap_max", "memory.swap.max", "max", kinds.BYTES, _property("MemorySwapMax")),
    Control(
        "memory_zswap_max", "memory.zswap.max", "max", kinds.BYTES, _property("MemoryZSwapMax"), since=253
    ),
    Control(
        "memory_zswap_writeback",
        "memory.zswap.writeback",
        True,
        kinds.FLAG,
        _switch("MemoryZSwapWriteback"),
        "bool",
        since=256,
    ),
    Control("memory_oom_group", "memory.oom.group", False, kinds.FLAG, _oom_properties, "bool"),
    Control("pids_max", "pids.max", "max", kinds.TASKS, _property("TasksMax")),
    Control(
        "io_weight", "io.weight", {"default": 100}, kinds.DEVICE_WEIGHTS, _device_weight_properties, "raw"
    ),
    Control("io_max", "io.max", {}, kinds.DEVICE_LIMITS, _device_limit_properties, "dict"),
    Control("io_latency", "io.latency", {}, kinds.DEVICE_LATENCIES, _device_latency_properties, "dict"),
    Control("io_prio_class", "io.prio.class", "no-change", kinds.WORD, choices=_PRIORITIES),
    Control("hugetlb_max", "hugetlb.*.max", "max", kinds.HUGE_PAGES, type="dict"),
    Control("hugetlb_rsvd_max", "hugetlb.*.rsvd.max", "max", kinds.HUGE_PAGES, type="dict"),
    Control("rdma_max", "rdma.max", {}, kinds.RDMA_LIMITS, type="dict"),
    Control("misc_max", "misc.max", {}, kinds.LIMITS, type="dict"),
    Control("dmem_min", "dmem.min", {}, kinds.PROTECTIONS, type="dict"),
    Control("dmem_low", "dmem.low", {}, kinds.PROTECTIONS, type="dict"),
    Control("dmem_max", "dmem.max", {}, kinds.LIMITS, type="dict"),
)

CPUSETS = ("cpuset.cpus", "cpuset.mems")

THREADED = ("cpu", "cpuset", "perf_event", "pids")
"""The controllers that a threaded cgroup can have (cgroup-v2, "Threads")."""

# What `controls` does not take, and why: they are no settings, or another one's second name.
_NO_SETTINGS = {
    "cgroup.freeze": "state: frozen and state: thawed set it",
    "cgroup.kill": "state: absent with force does that",
    "cgroup.procs": "processes are not declared here",
    "cgroup.threads": "processes are not declared here",
    "cgroup.subtree_control": "the controllers that are needed are enabled anyhow",
    "cpu.weight.nice": "it has an option of its own, cpu_weight_nice",
    "io.cost.qos": "the root alone has it",
    "io.cost.model": "the root alone has it",
    "memory.reclaim": "it acts once and keeps no value",
    "memory.peak": "it tells and keeps no value",
    "memory.swap.peak": "it tells and keeps no value",
}
_READ_ONLY = re.compile(
    r"cgroup\.(controllers|events|stat.*)"
    r"|(?!cgroup\.).*\.(current|peak|events|events\.local|stat|stat\.local|numa_stat|effective|isolated|capacity|pressure)"
)

# Kernel defaults that the conventions below do not tell (cgroup-v2 at each file).
_DEFAULTS: Mapping[str, Value] = {
    "cgroup.max.depth": "max",
    "cgroup.max.descendants": "max",
    "cgroup.pressure": 1,
    "io.bfq.weight": "default 100",
}

_FILE = re.compile(r"[a-z]+(\.[A-Za-z0-9_]+)+")
# No quotes, percent or dollar signs and backslashes: values also go into shell commands and unit files.
_TEXT = re.compile(r"[A-Za-z0-9_.,:=+ -]*")


_ROWS = [(re.compile("[^.]+".join(map(re.escape, row.file.split("*")))), row) for row in CONTROLS]


@functools.cache
def control(file: str) -> Control | None:
    """The row of a control file, None for one without an option."""
    return next((row for pattern, row in _ROWS if pattern.fullmatch(file)), None)


def with_option(existing: Iterable[str]) -> list[str]:
    """The control files that have an option: those of any cgroup, and what is ``existing`` of others."""
    families = [file for file in existing if "*" in getattr(control(file), "file", "")]
    return [*(row.file for row in CONTROLS if "*" not in row.file), *families]


def other_controls(value: Any) -> dict[str, Value]:
    """The option ``controls``: kernel file names with their values as the kernel would show them."""
    return {str(file): _other_value(str(file), text) for file, text in sorted(value.items())}


def _other_value(file: str, value: Any) -> Value:
    if not _FILE.fullmatch(file):
        raise ValueError(f"kernel names of control files such as cgroup.max.depth, not {file!r}")
    why = _no_setting(file)
    if why:
        raise ValueError(f"control files that have no option, not {file}: {why}")
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, (str, int, float)) or not _TEXT.fullmatch(str(value)):
        raise ValueError(f"for {file} one line of text as the kernel shows it, not {value!r}")
    # The kernel takes 4M and shows 4194304 (memparse()).
    return size(value) if re.fullmatch(r"\s*\d+[KMGTP]\s*", str(value)) else kinds.plain(str(value))


def _no_setting(file: str) -> str | None:
    row = control(file)
    if row is not None:
        return f"it has an option of its own, {row.option}"
    return _NO_SETTINGS.get(file) or ("it tells and keeps no value" if _READ_ONLY.fullmatch(file) else None)


def other_default(file: str) -> Value | None:
    """The kernel's default of a control file without an option, or None where it can't be told.

    By convention an upper limit is named ``max`` or ``high`` and is "max", a lower one ``min`` or ``low`` and
    is 0 (cgroup-v2, "Conventions").
    """
    conventions: Mapping[str, Value] = {"max": "max", "high": "max", "min": 0, "low": 0}
    return _DEFAULTS.get(file, conventions.get(file.rpartition(".")[2]))


def controller_of(file: str) -> str | None:
    """The controller that a control file belongs to, None for those every cgroup has."""
    controller = file.partition(".")[0]
    return None if controller == "cgroup" else controller


def controllers(values: Iterable[str]) -> list[tuple[str, str]]:
    """Each of these files that belongs to a controller, by what a user calls it, with that controller."""
    pairs = ((label(file), controller_of(file)) for file in values)
    return [(name, controller) for name, controller in pairs if controller is not None]


def default(file: str) -> Value | None:
    """The kernel's default in normal form; None where it can't be told."""
    row = control(file)
    return row.default if row else other_default(file)


def parse(file: str, text: str) -> Value:
    """What the kernel's file reads, in normal form."""
    row = control(file)
    value: Value = row.kind.parse(text) if row else kinds.plain(text)
    return value


def writes(file: str, before: Value | None, after: Value) -> tuple[str, ...]:
    """The texts that get the file from one value to another, each to be written by itself."""
    row = control(file)
    return row.kind.writes(before, after) if row else (str(after),)


def releases(file: str, before: Value | None, after: Value | None) -> bool:
    """Whether that gives way to what others are set to, and so has to be written before them.

    The kernel takes no cpu.max below the burst (tg_set_cfs_bandwidth()), and no cpu.weight while cpu.idle is
    set (sched_group_set_shares()).
    """
    return after == default(file) or (
        file == "cpu.max.burst" and isinstance(before, int) and isinstance(after, int) and after < before
    )


def declared_values(declaration: Mapping[str, Any]) -> dict[str, Value]:
    """What a declaration (normal form) says of control files, by file; devices as they were declared."""
    values: dict[str, Value] = {}
    for row in CONTROLS:
        if declaration.get(row.option) is not None:
            values.update(row.values(declaration[row.option]))
    if "cpu_weight_nice" in declaration:
        values["cpu.weight"] = kinds.weight_of_nice(declaration["cpu_weight_nice"])
    return {**values, **declaration.get("controls", {})}


def beside_default(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """Those values that are not the kernel's default: what a state shows, in one order for all."""
    return {
        name: _ordered(value)
        for name, value in sorted(values.items(), key=lambda item: order(item[0]))
        if value is not None and value != default(name)
    }


def _ordered(value: Any) -> Any:
    return {key: _ordered(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


def order(file: str) -> tuple[int, str]:
    """A sorting key: as their options are, and then by name."""
    row = control(file)
    return (CONTROLS.index(row) if row else len(CONTROLS)), file


def label(file: str) -> str:
    """What a user calls the file: its option."""
    row = control(file)
    return row.option if row else f"controls: {file}"

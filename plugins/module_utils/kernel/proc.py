# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc/PID tells of a process (proc(5)), as plain data.

All functions raise OSError; FileNotFoundError and ProcessLookupError are those of a process that has ended.
Texts that the process itself chose are made printable: what is not UTF-8 is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from . import capability, mount, process

CAPABILITY_SETS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}
"""The field of /proc/PID/status by the set's name in the OCI runtime specification."""

_SECCOMP = {"0": "disabled", "1": "strict", "2": "filter"}


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status (proc_pid_status(5))."""
    lines = (line.partition(":") for line in _read(pid, "status").split("\n"))
    return {field: value.strip() for field, _colon, value in lines}


def capabilities(status: Mapping[str, str]) -> dict[str, list[str]]:
    """The five sets of a status(), decoded (capabilities(7))."""
    return {name: capability.names(int(status[field], 16)) for name, field in CAPABILITY_SETS.items()}


def seccomp(status: Mapping[str, str]) -> dict[str, Any]:
    """``mode`` (disabled, strict, filter) of a status(), and how many ``filters`` there are (since 5.9)."""
    return {"mode": _SECCOMP[status["Seccomp"]], "filters": int(status.get("Seccomp_filters", "0"))}


def command(pid: int) -> list[str]:
    """The words that it was started with, or what it has made of them; the name in brackets where it has
    none, as in ps(1)."""
    text = _read(pid, "cmdline").rstrip("\0")
    return text.split("\0") if text else [f"[{_read(pid, 'comm')}]"]


def started_at(pid: int) -> str | None:
    """When it was started, in UTC as ISO 8601 to the second; None where it has ended."""
    ticks = process.start_time(pid)
    if ticks is None:
        return None
    with open("/proc/stat", encoding="ascii") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    started = booted + ticks // os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(started, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def namespaces(pid: int | str) -> dict[str, int]:
    """The inode of each namespace that it is in, by type (namespaces(7))."""
    directory = f"/proc/{pid}/ns"
    names = sorted(name for name in os.listdir(directory) if not name.endswith("_for_children"))
    return {name: os.stat(f"{directory}/{name}").st_ino for name in names}


def id_map(pid: int, name: str) -> list[dict[str, int]]:
    """``uid_map`` or ``gid_map`` with the OCI runtime specification's names (user_namespaces(7))."""
    lines = (map(int, line.split()) for line in _read(pid, name).splitlines())
    return [dict(zip(("container_id", "host_id", "size"), numbers)) for numbers in lines]


def cgroup(pid: int) -> str | None:
    """Its cgroup below the root of cgroup2, such as ``/bare/web``; None where none is mounted
    (cgroups(7))."""
    lines = _read(pid, "cgroup").splitlines()
    return next((line[len("0::") :] for line in lines if line.startswith("0::")), None)


def label(pid: int) -> str | None:
    """What the security module calls it: an AppArmor profile, an SELinux context; None without one."""
    try:
        return _read(pid, "attr/current").rstrip("\0\n") or None
    except OSError:
        # ENOENT where the kernel has no security modules, EINVAL where none of them has labels.
        return None


def oom_score_adj(pid: int) -> int:
    """How much likelier than others it is to be killed when memory runs out, -1000 to 1000."""
    return int(_read(pid, "oom_score_adj"))


def rlimits(pid: int) -> dict[str, dict[str, int | str]]:
    """``soft`` and ``hard`` limit of each resource, by its name in getrlimit(2): ``nofile``, ``nproc``."""
    return parse_limits(_read(pid, "limits"))


def parse_limits(text: str) -> dict[str, dict[str, int | str]]:
    """/proc/PID/limits, a table with a head and columns of fixed width (proc_pid_limits(5)); what asks the
    kernel instead, prlimit(2), takes a privilege."""
    limits = {}
    for line in text.split("\n")[1:]:
        soft, hard = (_limit(word) for word in line[_LIMIT_WIDTH:].split()[:2])
        limits[_LIMITS[line[:_LIMIT_WIDTH].strip()]] = {"soft": soft, "hard": hard}
    return limits


_LIMIT_WIDTH = 26
_LIMITS = {
    "Max address space": "as",
    "Max core file size": "core",
    "Max cpu time": "cpu",
    "Max data size": "data",
    "Max file locks": "locks",
    "Max file size": "fsize",
    "Max locked memory": "memlock",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max open files": "nofile",
    "Max pending signals": "sigpending",
    "Max processes": "nproc",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
    "Max resident set": "rss",
    "Max stack size": "stack",
}
"""What the kernel calls them there (fs/proc/base.c)."""


def _limit(word: str) -> int | str:
    return word if word == "unlimited" else int(word)


def mounts(pid: int) -> list[dict[str, Any]]:
    """The mounts that it sees, in the order of the kernel's table.

    Each has ``destination``, ``type``, ``source``, ``root`` (what of the file system is mounted), ``options``
    of the mount, ``filesystem_options``, and ``propagation`` as findmnt(8) calls it.
    """
    return [parse_mount([_printable(field) for field in fields]) for fields in mount.table(pid)]


def parse_mount(fields: Sequence[str]) -> dict[str, Any]:
    """One line of mountinfo, by its fields (proc_pid_mountinfo(5))."""
    dash = fields.index("-", 6)
    kind, source, super_options = fields[dash + 1 : dash + 4]
    return {
        "destination": fields[4],
        "type": kind,
        "source": source,
        "root": fields[3],
        "options": fields[5].split(","),
        "filesystem_options": super_options.split(","),
        "propagation": _propagation([field.partition(":")[0] for field in fields[6:dash]]),
    }


def _propagation(tags: Sequence[str]) -> str:
    """mount_namespaces(7): a mount may be shared and a slave at once."""
    words = {"shared": "shared", "master": "slave", "unbindable": "unbindable"}
    return ",".join(words[tag] for tag in tags if tag in words) or "private"


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().decode("utf-8", "backslashreplace").rstrip("\n")


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's processes are to the kernel, as it is told to people."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import host
from ..kernel import cgroup, proc
from . import check
from . import health as declared_health
from .state import running


def of(name: str) -> dict[str, Any] | None:
    """Its first process, or None where none runs. Raises OSError, Failure."""
    found = running(name)
    if found is None:
        return None
    try:
        facts = _facts(found[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Else it has ended meanwhile, and these may be another's.
    return facts if running(name) == found else None


def _facts(pid: int) -> dict[str, Any]:
    """Namespaces, identity, privileges, limits and mounts of a process."""
    status = proc.status(pid)
    namespaces, own = proc.namespaces(pid), proc.namespaces("self")
    uid, gid = (int(status[field].split()[1]) for field in ("Uid", "Gid"))
    return {
        "pid": pid,
        "started_at": proc.started_at(pid),
        "command": proc.command(pid),
        "cgroup": proc.cgroup(pid),
        "namespaces": namespaces,
        "shared_namespaces": [name for name, inode in namespaces.items() if own.get(name) == inode],
        "uid": uid,
        "gid": gid,
        "groups": [int(group) for group in status["Groups"].split()],
        "uid_map": proc.id_map(pid, "uid_map"),
        "gid_map": proc.id_map(pid, "gid_map"),
        "capabilities": proc.capabilities(status),
        "seccomp": proc.seccomp(status),
        "no_new_privileges": status["NoNewPrivs"] == "1",
        "label": proc.label(pid),
        "oom_score_adj": proc.oom_score_adj(pid),
        "rlimits": proc.rlimits(pid),
        "mounts": proc.mounts(pid),
    }


def health(name: str, declared: Mapping[str, Any]) -> dict[str, Any] | None:
    """How it stands by its check, None where it does not run or has none. Raises OSError, Failure."""
    found = running(name) if declared_health.is_declared(declared) else None
    if found is None:
        return None
    kept = check.read(str(host.RUN / name), found)
    last = {key: kept[key] for key in ("at", "rc", "output")} if "at" in kept else None
    return {"status": kept["status"], "failing_streak": kept["failing_streak"], "last_check": last}


def processes(directory: Path) -> list[dict[str, Any]]:
    """Every process in the cgroup ``directory`` and below: ``pid`` as the host sees it, ``container_pid`` as
    the container does, effective ``uid`` and ``command``. Raises OSError."""
    found = (_process(pid) for pid in cgroup.processes(directory))
    return [process for process in found if process is not None]


def _process(pid: int) -> dict[str, Any] | None:
    """None for one that has ended meanwhile."""
    try:
        status = proc.status(pid)
        return {
            "pid": pid,
            "container_pid": int(status["NSpid"].split()[:2][-1]),
            "uid": int(status["Uid"].split()[1]),
            "command": proc.command(pid),
        }
    except (FileNotFoundError, ProcessLookupError):
        return None


def disk_usage(directories: Iterable[Path]) -> dict[str, int]:
    """The bytes that each of these takes on the disk, as du(1) counts them with one walk for all; without
    those that are not there."""
    there = [str(directory) for directory in directories if directory.is_dir()]
    if not there:
        return {}
    # That something went away while it was counted is no failure.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["du", "--summarize", "--block-size=1", "--one-file-system", "--", *there],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.split("\t", 1) for line in done.stdout.splitlines())
    return {directory: int(size) for size, directory in lines}

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a run could have left behind on a machine, counted, as the kernel shows it.

What is counted is told apart by what it is, not by its number: two censuses of a machine are equal when
nothing has come to it and nothing has gone, though every process may be another one.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("mounts", "namespaces", "cgroups", "processes", "descriptors", "files", "links", "rules")

_WHERE = ("run", "var/lib", "var/log/bare-containers", "usr/local/lib/bare-containers")
"""What of its file system a Machine has for itself, or is the collection's own."""

_NAMESPACE = re.compile(r"(\w+):\[\d+\]")
_NUMBER = re.compile(r":\[?\d+\]?$")

Census = dict[str, Counter[str]]


def take(machine: Any, cgroups: Path) -> Census:
    """The census of a Machine and of the containers' processes, whose cgroups are below ``cgroups``."""
    holder = Path(f"/proc/{machine.pid}")
    mounts = [line.split() for line in (holder / "mountinfo").read_text().splitlines()]
    processes = list(_processes(holder, cgroups))
    held = [link for process in processes for link in process.links]
    return {
        # Root, place and file system: proc(5), /proc/PID/mountinfo.
        "mounts": Counter(f"{line[4]} {_NUMBER.sub('', line[3])} {line[-3]}" for line in mounts),
        "namespaces": _by_kind([*held, *(line[3] for line in mounts)]),
        "cgroups": Counter(str(path) for path in _cgroups(cgroups)),
        "processes": Counter(process.label for process in processes),
        "descriptors": Counter(line for process in processes for line in process.descriptors),
        "files": Counter(_files(holder / "root")),
        "links": Counter(link["ifname"] for link in json.loads(machine.run("ip", "-json", "link"))),
        "rules": Counter(machine.run("nft", "--stateless", "list", "ruleset").splitlines()),
    }


def difference(before: Census, after: Census) -> dict[str, list[str]]:
    """What has come (+) and gone (-), by kind; nothing of a kind that is the same."""
    found = {}
    for kind in KINDS:
        lines = [f"+ {line}" for line in (after[kind] - before[kind]).elements()]
        lines += [f"- {line}" for line in (before[kind] - after[kind]).elements()]
        if lines:
            found[kind] = sorted(lines)
    return found


class _Process:
    """A living process. Raises OSError when it ends meanwhile."""

    def __init__(self, entry: Path) -> None:
        self.namespaces = {name: os.readlink(entry / "ns" / name) for name in os.listdir(entry / "ns")}
        groups = [line for line in (entry / "cgroup").read_text().splitlines() if line.startswith("0::")]
        self.cgroup = groups[0][len("0::") :]
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        self.label = f"{self.cgroup} {command}"
        self._entry = entry

    def read_descriptors(self) -> None:
        folder = self._entry / "fd"
        targets = [os.readlink(folder / number) for number in os.listdir(folder)]
        self.descriptors = [f"{self.label}: {_NUMBER.sub('', target)}" for target in targets]
        self.links = [*self.namespaces.values(), *targets]


def _processes(holder: Path, cgroups: Path) -> Iterator[_Process]:
    """Those in a namespace of the machine's, or in a cgroup of its containers."""
    own = {os.readlink(holder / "ns" / name) for name in ("net", "mnt")}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            process = _Process(entry)
            if not own & set(process.namespaces.values()) and not _is_own(process.cgroup, cgroups):
                continue
            process.read_descriptors()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            # It has privileges that we have not, as no process that we start.
            continue
        yield process


def _is_own(cgroup: str, cgroups: Path) -> bool:
    """Whether it is below ``cgroups``, and not a container's of another test on this machine."""
    first, *below = cgroup.strip("/").split("/")
    others = re.match(r"t(\d+)-", below[0]) if below else None
    return first == cgroups.name and bool(below) and (others is None or int(others[1]) == os.getpid())


def _cgroups(top: Path) -> Iterator[Path]:
    below = (Path(where).relative_to(top.parent) for where, *__ in os.walk(top))
    return (path for path in below if _is_own(str(path), top))


def _files(root: Path) -> Iterator[str]:
    for place in _WHERE:
        for where, folders, files in os.walk(root / place):
            # What Python has compiled of the launcher, when it was first run.
            folders[:] = [name for name in folders if name != "__pycache__"]
            yield from (f"{where[len(str(root)) :]}/{name}" for name in (*folders, *files))


def _by_kind(links: list[str]) -> Counter[str]:
    """How many different namespaces of each kind there are among what links lead to."""
    return Counter(found[1] for link in set(links) if (found := _NAMESPACE.fullmatch(link)))

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cgroup2 mount and a systemd that are not there: directories are real and empty, control files simulated.

They follow Documentation/admin-guide/cgroup-v2.rst and systemd.resource-control(5), not the code under test.
"""

from __future__ import annotations

import errno
import math
import mmap
import re
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host, systemctl
from ansible_collections.bare.containers.plugins.module_utils.cgroup import hierarchy
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import cgroup

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
# What a new cgroup reads, by Documentation/admin-guide/cgroup-v2.rst.
DEFAULTS = {
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "memory.min": "0",
    "memory.low": "0",
    "memory.high": "max",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "pids.max": "max",
    "io.weight": "default 100",
    "hugetlb.2MB.max": "max",
    "cgroup.max.depth": "max",
    "cgroup.freeze": "0",
}


class Kernel:
    """The control files below ``root``. ``fail_at`` counts down with every write; at 0 it fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.controllers = CONTROLLERS
        self.texts: dict[tuple[Path, str], str] = {}
        self.writes: list[tuple[Path, str, str]] = []
        self.fail_at: int | None = None

    def read(self, path: Path, file: str) -> str | None:
        self._forget_removed()
        if not path.is_dir() or not self._exists(path, file):
            return None
        if file == "cgroup.controllers":
            return " ".join(self.controllers)
        if file == "cgroup.events":
            return f"populated 0\nfrozen {self.texts.get((path, 'cgroup.freeze'), '0')}"
        return self.texts.get((path, file), DEFAULTS.get(file, ""))

    def write(self, path: Path, file: str, value: str) -> None:
        self._forget_removed()
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                raise OSError(errno.EIO, "Input/output error", str(path / file))
        if not path.is_dir() or not self._exists(path, file):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path / file))
        self.writes.append((path, file, value))
        self.texts[path, file] = self._stored(path, file, value)

    def _stored(self, path: Path, file: str, value: str) -> str:
        if file == "cgroup.subtree_control":
            enabled = set(self.texts.get((path, file), "").split())
            for word in value.split():
                available = self.controllers if path == self.root else self._enabled(path.parent)
                if word[1:] not in available:
                    raise OSError(errno.ENOENT, "No such file or directory", str(path / file))
                enabled = enabled | {word[1:]} if word[0] == "+" else enabled - {word[1:]}
            return " ".join(sorted(enabled))
        if file.startswith("memory.") and value.isdigit() and file != "memory.oom.group":
            return str(int(value) // mmap.PAGESIZE * mmap.PAGESIZE)
        if file == "io.weight":
            lines = dict(line.split() for line in self.texts.get((path, file), DEFAULTS[file]).splitlines())
            device, weight = value.split()
            lines.pop(device) if weight == "default" else lines.update({device: weight})
            return "\n".join(f"{key} {weight}" for key, weight in lines.items())
        if file == "cpu.max":
            quota, period = value.split()
            if not (1000 <= int(period) <= 1000000 and (quota == "max" or int(quota) >= 1000)):
                raise OSError(errno.EINVAL, "Invalid argument", str(path / file))
        return value

    def _enabled(self, path: Path) -> list[str]:
        return self.texts.get((path, "cgroup.subtree_control"), "").split()

    def _exists(self, path: Path, file: str) -> bool:
        controller = file.split(".")[0]
        if controller == "cgroup":
            return path != self.root or file in (
                "cgroup.controllers",
                "cgroup.subtree_control",
                "cgroup.procs",
            )
        if file.endswith((".pressure", ".stat", ".events", ".current", ".effective")):
            return False
        return path != self.root and controller in self._enabled(path.parent)

    def _forget_removed(self) -> None:
        self.texts = {key: text for key, text in self.texts.items() if key[0].is_dir()}


class Systemd:
    """A manager that has loaded some drop-ins, and units that run: those with a cgroup."""

    def __init__(self, kernel: Kernel, units: Path) -> None:
        self.kernel = kernel
        self.units = units
        self.loaded: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self.fails: tuple[str, ...] | None = None

    def start(self, name: str, slice_: str = "system.slice") -> Path:
        """Runs bare-NAME.service, delegated to."""
        path = self.kernel.root / slice_ / f"bare-{name}.service"
        path.parent.mkdir(exist_ok=True)
        for parent in (self.kernel.root, path.parent):
            self.kernel.write(parent, "cgroup.subtree_control", "+cpuset +cpu +io +memory +pids")
        path.mkdir()
        self._apply(path, self._texts().get(path.name, ""))
        return path

    def systemctl(self, *words: str) -> str:
        self.calls.append(words)
        if words == self.fails:
            raise Failure("systemctl failed.")
        if words == ("daemon-reload",):
            self.loaded = self._texts()
            for path in self.kernel.root.glob("*.slice/*.service"):
                self._apply(path, self.loaded.get(path.name, ""))
            return ""
        if words[0] == "show":
            texts = self._texts()
            return "\n".join(
                f"Id={unit}\nNeedDaemonReload={'yes' if texts.get(unit) != self.loaded.get(unit) else 'no'}\n"
                for unit in words[words.index("--") + 1 :]
            )
        if words[0] in ("freeze", "thaw"):
            path = self.kernel.root / "system.slice" / words[1]
            self.kernel.write(path, "cgroup.freeze", str(int(words[0] == "freeze")))
            return ""
        raise AssertionError(words)

    def _texts(self) -> dict[str, str]:
        return {path.parent.name[:-2]: path.read_text() for path in self.units.glob("*.service.d/*.conf")}

    def _apply(self, path: Path, text: str) -> None:
        lines = [line.split("=", 1) for line in text.splitlines() if "=" in line]
        for command in [value for key, value in lines if key == "ExecStartPre"]:
            value, file = re.fullmatch(r"\+/bin/sh -c 'echo (.*) > (/[^ ]+)'", command).groups()
            if (path, Path(file).name) not in self.kernel.texts:  # only when it starts
                self.kernel.write(path, Path(file).name, value)
        properties = dict(lines)
        limit = {"infinity": "max"}
        percent = properties.get("CPUQuota", "")
        period = int(properties.get("CPUQuotaPeriodSec", "100000us").replace("us", ""))
        quota = math.floor(round(float(percent[:-1]) * 100) * period / 10_000) if percent else "max"
        values = {
            "cpu.max": f"{quota} {period}",
            "cpu.weight": properties.get("CPUWeight", "100"),
            "memory.oom.group": str(int(properties.get("OOMPolicy") == "kill")),
            "pids.max": properties.get("TasksMax", "1153"),
            "io.weight": f"default {properties.get('IOWeight', '100')}",
        }
        for name in ("Min", "Low", "High", "Max", "SwapMax"):
            file = f"memory.{name.replace('SwapMax', 'swap.max').lower()}"
            values[file] = properties.get(f"Memory{name}", DEFAULTS[file])
        for file, name in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
            if properties.get(name):
                values[file] = properties[name]
        for file, value in values.items():
            self.kernel.write(path, file, limit.get(value, value))


@pytest.fixture
def kernel_defaults():
    """What a new cgroup reads, by control file."""
    return DEFAULTS


@pytest.fixture
def make_host(tmp_path_factory, monkeypatch):
    """Gives a fresh machine each time it is called, as hypothesis needs one for every example."""

    def make():
        top = tmp_path_factory.mktemp("host")
        kernel = Kernel(top / "cgroup")
        kernel.root.mkdir()
        manager = Systemd(kernel, top / "units")
        manager.units.mkdir()
        monkeypatch.setattr(cgroup, "read", kernel.read)
        monkeypatch.setattr(cgroup, "write", kernel.write)
        monkeypatch.setattr(cgroup, "wait_for", lambda path, event, value, seconds: True)
        monkeypatch.setattr(hierarchy, "root", lambda: kernel.root)
        monkeypatch.setattr(host, "STATE", top / "lib")
        monkeypatch.setattr(systemctl, "UNITS", manager.units)
        monkeypatch.setattr(systemctl, "systemd_is_init", lambda: True)
        monkeypatch.setattr(systemctl, "systemctl", manager.systemctl)
        return manager

    return make


@pytest.fixture
def machine(make_host):
    """The machine, as its systemd; ``machine.kernel`` has the control files."""
    return make_host()

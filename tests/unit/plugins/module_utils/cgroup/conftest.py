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
import shlex
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host, systemctl
from ansible_collections.bare.containers.plugins.module_utils.cgroup import hierarchy, systemd
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import block, cgroup

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc", "dmem")
# What a new cgroup reads, by Documentation/admin-guide/cgroup-v2.rst.
DEFAULTS = {
    "cgroup.type": "domain",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.weight": "100",
    "cpu.idle": "0",
    "cpu.uclamp.min": "0.00",
    "cpu.uclamp.max": "max",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "cpuset.cpus.exclusive": "",
    "cpuset.cpus.partition": "member",
    "memory.min": "0",
    "memory.low": "0",
    "memory.high": "max",
    "memory.max": "max",
    "memory.swap.high": "max",
    "memory.swap.max": "max",
    "memory.zswap.max": "max",
    "memory.zswap.writeback": "1",
    "memory.oom.group": "0",
    "pids.max": "max",
    "io.weight": "default 100",
    "io.max": "",
    "io.latency": "",
    "io.prio.class": "no-change",
    "hugetlb.2MB.max": "max",
    "hugetlb.2MB.rsvd.max": "max",
    "hugetlb.1GB.max": "9223372036854771712",  # so Linux 6.18 has it
    "rdma.max": "mlx5_0 hca_handle=max hca_object=max",
    "misc.max": "sev max\nsev_es max",
    "dmem.min": "drm/0/vram0 0",
    "dmem.low": "drm/0/vram0 0",
    "dmem.max": "drm/0/vram0 max",
}
OTHERS = {"cgroup.max.depth": "max", "cgroup.freeze": "0", "io.bfq.weight": "default 100"}
DISKS = {"/dev/vda": "254:0", "/dev/vda1": "254:0", "/dev/disk/by-id/data": "8:16"}
NOTHING = {  # what a line that sets nothing reads, by file; elsewhere it is gone
    "rdma.max": "hca_handle=max hca_object=max",
    "misc.max": "max",
    "dmem.min": "0",
    "dmem.low": "0",
    "dmem.max": "max",
}
LIMITS = {"rbps": "max", "wbps": "max", "riops": "max", "wiops": "max"}


class Kernel:
    """The control files below ``root``. ``fail_at`` counts down with every write; at 0 it fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.controllers = CONTROLLERS
        self.texts: dict[tuple[Path, str], str] = {}
        self.writes: list[tuple[Path, str, str]] = []
        self.fail_at: int | None = None
        self.owner: dict[Path, int] = {}
        self.missing: set[str] = set()

    def read(self, path: Path, file: str) -> str | None:
        self._forget_removed()
        if not path.is_dir() or not self._exists(path, file):
            return None
        if file == "cgroup.controllers":
            return " ".join(self.controllers if path == self.root else self._enabled(path.parent))
        if file == "cgroup.events":
            return f"populated 0\nfrozen {self.texts.get((path, 'cgroup.freeze'), '0')}"
        if file == "cpu.weight" and self.texts.get((path, "cpu.idle")) == "1":
            return "0"
        return self.texts.get((path, file), {**DEFAULTS, **OTHERS}.get(file, ""))

    def files(self, path: Path) -> list[str]:
        return [file for file in {**DEFAULTS, **OTHERS} if path.is_dir() and self._exists(path, file)]

    def owners(self, path: Path) -> list[int]:
        return [self.owner.get(path, 0)]

    def delegate(self, path: Path, uid: int) -> None:
        self.owner[path] = uid

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
        if value.isdigit() and file.startswith("memory.") and not file.endswith((".group", ".writeback")):
            return str(int(value) // mmap.PAGESIZE * mmap.PAGESIZE)
        if file in ("io.weight", "io.max", "io.latency", *NOTHING):
            lines = dict(line.split(" ", 1) for line in (self.read(path, file) or "").splitlines())
            key, text = value.split(" ", 1)
            lines[key] = self._line(file, text)
            return "\n".join(f"{key} {text}" for key, text in lines.items() if text)
        if file == "cpu.max":
            quota, period = value.split()
            burst = int(self.read(path, "cpu.max.burst"))
            if not (1000 <= int(period) <= 1000000 and (quota == "max" or int(quota) >= max(1000, burst))):
                raise OSError(errno.EINVAL, "Invalid argument", str(path / file))
        if file == "cpu.max.burst":
            quota = self.read(path, "cpu.max").split()[0]
            if quota != "max" and int(value) > int(quota):
                raise OSError(errno.EINVAL, "Invalid argument", str(path / file))
        if file == "cpu.idle" and value == "0":
            self.texts.pop((path, "cpu.weight"), None)
        if file == "cpu.weight" and self.texts.get((path, "cpu.idle")) == "1":
            raise OSError(errno.EINVAL, "Invalid argument", str(path / file))
        if file == "cgroup.type" and value != "threaded":
            raise OSError(errno.EINVAL, "Invalid argument", str(path / file))
        return value

    def _line(self, file: str, text: str) -> str:
        """What a line reads when ``text`` was written for its key; nothing where it is gone."""
        if file == "io.max":
            limits = {**LIMITS, **dict(pair.split("=") for pair in text.split())}
            return "" if limits == LIMITS else " ".join("=".join(pair) for pair in limits.items())
        return "" if text in ("default", "target=max", "target=0") else text

    def _enabled(self, path: Path) -> list[str]:
        return self.texts.get((path, "cgroup.subtree_control"), "").split()

    def _exists(self, path: Path, file: str) -> bool:
        controller = file.split(".")[0]
        if file in self.missing:
            return False
        if file == "io.cost.qos":
            return path == self.root
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
        self.owner = {path: uid for path, uid in self.owner.items() if path.is_dir()}


class Systemd:
    """A manager that has loaded some drop-ins, and units that run: those with a cgroup."""

    def __init__(self, kernel: Kernel, units: Path) -> None:
        self.kernel = kernel
        self.units = units
        self.loaded: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self.fails: tuple[str, ...] | None = None
        self.version = 252

    def start(self, name: str, slice_: str = "system.slice") -> Path:
        """Runs bare-NAME.service, delegated to."""
        path = self.kernel.root / slice_ / f"bare-{name}.service"
        path.parent.mkdir(exist_ok=True)
        for parent in (self.kernel.root, path.parent):
            self.kernel.write(parent, "cgroup.subtree_control", "+cpuset +cpu +io +memory +pids")
        path.mkdir()
        text = self._texts().get(path.name, "")
        self._apply(path, text)
        self._start(path, text)
        return path

    def systemctl(self, *words: str) -> str:
        self.calls.append(words)
        if words == self.fails:
            raise Failure("systemctl failed.")
        if words == ("--version",):
            return f"systemd {self.version} ({self.version}.1-1)\n+PAM\n"
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

    def _start(self, path: Path, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("ExecStartPre="):
                command = re.fullmatch(r'ExecStartPre=\+/bin/sh -c "(.*)"', line)[1].replace("$$", "$")
                if command.startswith("for file in . $(cat /sys/kernel/cgroup/delegate);"):
                    uid, given = re.search(r"chown (\d+) (\S+)/\$file; done$", command).groups()
                    self.kernel.delegate(Path(given), int(uid))
                else:
                    __, value, __, file = shlex.split(command)
                    self.kernel.write(path, Path(file).name, value)

    def _apply(self, path: Path, text: str) -> None:
        """Writes what it has a property for; a cpuset and a device that are not said stay as they are."""
        lines = [line.split("=", 1) for line in text.splitlines() if "=" in line]
        properties = dict(lines)
        limit = {"infinity": "max"}
        percent = properties.get("CPUQuota", "")
        period = int(properties.get("CPUQuotaPeriodSec", "100000us").replace("us", ""))
        quota = math.floor(round(float(percent[:-1]) * 100) * period / 10_000) if percent else "max"
        weight = properties.get("CPUWeight", "100")
        writes = [
            ("cpu.idle", str(int(weight == "idle"))),
            *([] if weight == "idle" else [("cpu.weight", weight)]),
            ("cpu.max", f"{quota} {period}"),
            ("memory.oom.group", str(int(properties.get("OOMPolicy") == "kill"))),
            ("pids.max", properties.get("TasksMax", "1153")),
            ("io.weight", f"default {properties.get('IOWeight', '100')}"),
        ]
        for name in ("Min", "Low", "High", "Max", "SwapMax"):
            file = f"memory.{name.replace('SwapMax', 'swap.max').lower()}"
            writes.append((file, properties.get(f"Memory{name}", DEFAULTS[file])))
        if self.version >= 253:
            writes.append(("memory.zswap.max", properties.get("MemoryZSwapMax", "max")))
        for file, name in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
            if properties.get(name):
                writes.append((file, properties[name]))
        writes += self._device_writes(lines)
        for file, value in writes:
            self.kernel.write(path, file, limit.get(value, value))

    def _device_writes(self, lines: list[list[str]]) -> list[tuple[str, str]]:
        writes, limits = [], {}
        fields = {
            "IOReadBandwidthMax": "rbps",
            "IOWriteBandwidthMax": "wbps",
            "IOReadIOPSMax": "riops",
            "IOWriteIOPSMax": "wiops",
        }
        for name, value in lines:
            disk = DISKS.get(value.split()[0], value.split()[0].replace("/dev/block/", "")) if value else ""
            if name in fields:
                limits.setdefault(disk, dict(LIMITS))[fields[name]] = value.split()[1]
            if name == "IODeviceWeight":
                writes.append(("io.weight", f"{disk} {value.split()[1]}"))
            if name == "IODeviceLatencyTargetSec":
                writes.append(("io.latency", f"{disk} target={value.split()[1][:-2]}"))
        for disk, each in limits.items():
            writes.append(("io.max", f"{disk} " + " ".join("=".join(pair) for pair in each.items())))
        return writes


def _disk(device: str) -> str:
    if device in DISKS.values():
        return device
    if device not in DISKS:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", device)
    return DISKS[device]


@pytest.fixture
def make_host(tmp_path_factory, monkeypatch):
    """Gives a fresh machine each time it is called, as hypothesis needs one for every example."""

    def make():
        top = tmp_path_factory.mktemp("host")
        kernel = Kernel(top / "cgroup")
        kernel.root.mkdir()
        kernel.texts[kernel.root, "io.cost.qos"] = "254:0 enable=1\n8:16 enable=1"
        manager = Systemd(kernel, top / "units")
        manager.units.mkdir()
        monkeypatch.setattr(cgroup, "read", kernel.read)
        monkeypatch.setattr(cgroup, "write", kernel.write)
        monkeypatch.setattr(cgroup, "files", kernel.files)
        monkeypatch.setattr(cgroup, "owners", kernel.owners)
        monkeypatch.setattr(cgroup, "delegate", kernel.delegate)
        monkeypatch.setattr(block, "disk", _disk)
        monkeypatch.setattr(cgroup, "wait_for", lambda path, event, value, seconds: True)
        monkeypatch.setattr(hierarchy, "root", lambda: kernel.root)
        monkeypatch.setattr(host, "STATE", top / "lib")
        monkeypatch.setattr(systemctl, "UNITS", manager.units)
        monkeypatch.setattr(systemctl, "systemd_is_init", lambda: True)
        monkeypatch.setattr(systemctl, "systemctl", manager.systemctl)
        systemd._version.cache_clear()
        return manager

    return make


@pytest.fixture
def machine(make_host):
    """The machine, as its systemd; ``machine.kernel`` has the control files."""
    return make_host()

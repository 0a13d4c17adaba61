# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One QEMU process: its command line, its start, and its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import qmp
from image import GUEST_ADDRESS, Image
from progress import HostError, wait_for

SNAPSHOT = "booted"


@dataclass(frozen=True)
class Hardware:
    """What a snapshot is tied to: it can only be loaded by a machine that is the same in all of this."""

    accel: str
    cpus: int
    memory: int  # MiB

    def arguments(self) -> list[str]:
        return [
            "-accel", {"tcg": "tcg,thread=multi"}.get(self.accel, self.accel),
            "-cpu", {"kvm": "host"}.get(self.accel, "max"),
            "-machine", "q35,sata=off,smbus=off,vmport=off", "-smp", str(self.cpus), "-m", str(self.memory),
            "-nodefaults", "-display", "none", "-device", "virtio-rng-pci",
        ]  # fmt: skip


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with its pid by the start time (proc_pid_stat(5), field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, int(_stat(pid)[19]))

    def alive(self) -> bool:
        try:
            stat = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat[0] not in "ZX" and int(stat[19]) == self.started


NO_PROCESS = Process(0, 0)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (the state) on; the second may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass(frozen=True)
class Machine:
    """A virtual machine's place: `directory` has its disk and logs, `sockets` (a short path) its monitor."""

    directory: Path
    sockets: Path
    image: Image
    hardware: Hardware

    @property
    def overlay(self) -> Path:
        return self.directory / "overlay.qcow2"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def monitor(self) -> Path:
        return self.sockets / "qmp"

    def command(self, forwards: Mapping[int, int], restore: bool) -> list[str]:
        """QEMU's argument vector. `forwards`: by port of the guest a port of 127.0.0.1, 0 for a free one."""
        hostfwd = "".join(
            f",hostfwd=tcp:127.0.0.1:{here}-{GUEST_ADDRESS}:{guest}" for guest, here in forwards.items()
        )
        return [
            "qemu-system-x86_64", *self.hardware.arguments(),
            "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", "console=ttyS0 net.ifnames=0 rw quiet systemd.show_status=1 mitigations=off panic=-1",
            "-drive", f"if=none,id=disk,file={self.overlay},format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", f"user,id=net,restrict=on{hostfwd}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-qmp", f"unix:{self.monitor},server=on,wait=off",
            *(["-loadvm", SNAPSHOT] if restore else []),
        ]  # fmt: skip

    @property
    def log(self) -> Path:
        return self.directory / "qemu.log"

    def start(self, forwards: Mapping[int, int], restore: bool) -> Process:
        """Start QEMU, in a session of its own so that it outlives the program that started it."""
        self.monitor.unlink(missing_ok=True)
        self.console.unlink(missing_ok=True)
        with open(self.log, "w", encoding="utf-8") as output:
            child = subprocess.Popen(
                self.command(forwards, restore), cwd=self.directory, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        return Process.of(child.pid)

    def wait_for_monitor(self, process: Process) -> None:
        """Return once QEMU's monitor answers, which is after a restore."""

        def answers() -> bool:
            if not process.alive():
                raise HostError(f"QEMU ended at once: {self.log.read_text().strip()}")
            try:
                with qmp.connect(self.monitor):
                    return True
            except (OSError, HostError):
                return False

        wait_for("QEMU's monitor", answers, timeout=60, every=0.02)

    def forwards(self) -> dict[int, int]:
        """By port of the guest the port of 127.0.0.1 that leads to it, as QEMU has them now."""
        with qmp.connect(self.monitor) as client:
            return parse_usernet(client.monitor("info usernet"))

    def add_forward(self, guest: int, here: int) -> None:
        with qmp.connect(self.monitor) as client:
            refusal = client.monitor(f"hostfwd_add net tcp:127.0.0.1:{here}-{GUEST_ADDRESS}:{guest}").strip()
        if refusal:
            raise HostError(f"cannot forward 127.0.0.1:{here} to port {guest}: {refusal}")

    def snapshot(self) -> None:
        with qmp.connect(self.monitor, timeout=120) as client:
            client.monitor(f"savevm {SNAPSHOT}")

    def stop(self, process: Process) -> None:
        """End QEMU, in an orderly way if it listens. The guest gets no notice."""
        if not process.alive():
            return
        try:
            with qmp.connect(self.monitor, timeout=5) as client:
                client.execute("quit")
            wait_for("QEMU to end", lambda: not process.alive(), timeout=5, every=0.02)
        except (OSError, HostError):
            end(process)


def end(process: Process) -> None:
    if process.alive():
        os.kill(process.pid, signal.SIGKILL)
        wait_for("QEMU to be gone", lambda: not process.alive(), timeout=30, every=0.02)


def parse_usernet(table: str) -> dict[int, int]:
    """Read QEMU's `info usernet`: lines of `TCP[HOST_FORWARD] fd address port address port …`."""
    line = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)\s")
    return {int(guest): int(here) for here, guest in line.findall(table)}


def ssh_answers(port: int) -> bool:
    """Whether an SSH server greets on 127.0.0.1:port; that it connects says nothing, QEMU does that."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False

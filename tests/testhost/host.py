# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named test hosts: each a virtual machine restored from a snapshot of the freshly booted image.

An image is booted once for a kind of hardware; that boot is kept, disk and memory, beside the image. Every host
starts as a copy of it, and so does every reset.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cache
import image
import qmp
from access import Login
from image import Image
from machine import Hardware, Machine, Process, ssh_answers
from progress import HostError, run, say, wait_for

SSH_PORT = 22
# Read into the page cache before the snapshot, so that no host pays for it again.
WARM_UP = "python3 -c 'import ast,asyncio,base64,ctypes,json,logging,platform,ssl,subprocess,tempfile,zipfile'; ip link"


@dataclass(frozen=True)
class Host:
    """A running test host, as its state file has it."""

    name: str
    suite: str
    base: str
    image: str  # directory
    hardware: Hardware
    sockets: str  # directory; short, because a socket's address has room for 107 bytes (unix(7))
    process: Process
    forwards: dict[int, int]  # port of the guest: port of 127.0.0.1

    @property
    def directory(self) -> Path:
        return _directory(self.name)

    @property
    def machine(self) -> Machine:
        return Machine(self.directory, Path(self.sockets), Image(Path(self.image)), self.hardware)

    @property
    def login(self) -> Login:
        return Login(self.name, self.forwards[SSH_PORT], Path(self.sockets) / "ssh", cache.keys())

    @property
    def published(self) -> dict[int, int]:
        return {guest: here for guest, here in self.forwards.items() if guest != SSH_PORT}

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    def save(self) -> None:
        self.ssh_config.write_text(self.login.ssh_config())
        state = self.directory / "state.json"
        partial = state.with_suffix(".new")
        partial.write_text(json.dumps(asdict(self), indent=2))
        partial.rename(state)

    @classmethod
    def load(cls, name: str) -> Host | None:
        try:
            state = json.loads((_directory(name) / "state.json").read_text())
        except FileNotFoundError:
            return None
        state["hardware"] = Hardware(**state["hardware"])
        state["process"] = Process(**state["process"])
        state["forwards"] = {int(guest): here for guest, here in state["forwards"].items()}
        return cls(**state)

    def ssh(self, *command: str, timeout: float = 120) -> str:
        """Run a shell command on the host; its output. Raises HostError when it fails."""
        try:
            done = subprocess.run(
                ["ssh", "-F", self.ssh_config, "-o", "BatchMode=yes", self.name, *command],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise HostError(f"`{' '.join(command)}` on {self.name} took more than {timeout:.0f} s") from None
        if done.returncode:
            raise HostError(f"`{' '.join(command)}` on {self.name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def hang_up(self) -> None:
        """End the shared ssh connection, which would otherwise outlive the machine at its other end."""
        if self.ssh_config.exists() and self.login.control_path.exists():
            subprocess.run(
                ["ssh", "-F", self.ssh_config, "-O", "exit", self.name], capture_output=True, timeout=30, check=False
            )

    def wait_until_up(self, timeout: float) -> None:
        """Return once sshd greets and systemd has finished starting units, all of them well."""
        console = self.machine.console
        wait_for(f"{self.name} to answer on its ssh port", lambda: self._greets(), timeout, console)
        state = self.ssh("systemctl is-system-running --wait || systemctl --failed --no-legend", timeout=timeout)
        if state.strip() != "running":
            raise HostError(f"{self.name} came up with units that failed: {' '.join(state.split())}")

    def _greets(self) -> bool:
        if not self.process.alive():
            raise HostError(f"QEMU of {self.name} ended while its host was starting")
        return ssh_answers(self.forwards[SSH_PORT])


def _directory(name: str) -> Path:
    return cache.root() / "hosts" / name


def running(name: str) -> Host | None:
    """The host of that name if its machine runs; what a dead one left behind is removed."""
    host = Host.load(name)
    if host and not host.process.alive():
        say(f"{name} is no longer running; removing what it left")
        _remove(host)
        return None
    return host


def get(name: str) -> Host:
    host = running(name)
    if not host:
        raise HostError(f"there is no test host {name} running; `testhost up {name}` starts it")
    return host


def all_running() -> list[Host]:
    names = sorted(state.parent.name for state in (cache.root() / "hosts").glob("*/state.json"))
    return [host for host in map(running, names) if host]


def up(name: str, suite: str, base: str, memory: int, cpus: int, forwards: Mapping[int, int]) -> Host:
    """Start the host `name`, or add what is missing of `forwards` to the one that runs already."""
    with _held(name):
        host = running(name)
        if host:
            say(f"{name} is running already")
            return _forward(host, forwards)
        made = image.ensure(suite, base)
        hardware, booted = _booted(made, memory, cpus)
        start = time.monotonic()
        say(f"restoring {name} from the boot of {made.directory.name}")
        host = _start(
            Host(name, suite, base, str(made.directory), hardware, "", Process(0, 0), {SSH_PORT: 0, **forwards}), booted
        )
        say(f"{name} is up after {time.monotonic() - start:.1f} s")
        return host


def down(name: str) -> bool:
    """End the host and remove everything of it; whether there was one."""
    with _held(name):
        host = Host.load(name)
        if host:
            _remove(host)
        return host is not None


def reset(name: str) -> Host:
    """Put the host back to the state it came up in, on the same ports."""
    with _held(name):
        host = get(name)
        host.hang_up()
        host.machine.stop(host.process)
        _, booted = _booted(Image(Path(host.image)), host.hardware.memory, host.hardware.cpus)
        return _start(host, booted)


def reboot(name: str) -> Host:
    """Reboot the host from within, and return once it is up again."""
    with _held(name):
        host = get(name)
        before = host.ssh("cat /proc/sys/kernel/random/boot_id")
        with qmp.connect(host.machine.monitor) as client:
            host.ssh("systemctl --no-block reboot")
            host.hang_up()
            client.wait_event("RESET", timeout=120)
        host.wait_until_up(timeout=180)
        if host.ssh("cat /proc/sys/kernel/random/boot_id") == before:
            raise HostError(f"{name} was told to reboot and did not")
        return host


def _start(host: Host, booted: Path) -> Host:
    """Start `host` from the kept boot; on any failure or interruption nothing is left of it."""
    sockets = host.sockets or tempfile.mkdtemp(prefix="testhost-")
    host = replace(host, sockets=sockets)
    try:
        host.directory.mkdir(parents=True, exist_ok=True)
        _copy(booted, host.machine.overlay)
        process = host.machine.start(host.forwards, restore=True)
        host = replace(host, process=process)
        host = replace(host, forwards=host.machine.forwards())
        host.save()
        host.wait_until_up(timeout=60)
        # A restored clock stands where the snapshot was taken.
        host.ssh(f"date -s @{time.time():.3f} >/dev/null && hostname {host.name} && hostname >/etc/hostname"
                 f" && sed -i 's/^127.0.1.1.*/127.0.1.1 {host.name}/' /etc/hosts")
    except BaseException:
        _remove(host)
        raise
    return host


def _forward(host: Host, forwards: Mapping[int, int]) -> Host:
    have = host.machine.forwards()
    for guest, here in forwards.items():
        if have.get(guest, 0) != here or guest not in have:
            host.machine.add_forward(guest, here)
    host = replace(host, forwards=host.machine.forwards())
    host.save()
    return host


def _remove(host: Host) -> None:
    host.hang_up()
    host.machine.stop(host.process)
    shutil.rmtree(host.sockets, ignore_errors=True)
    shutil.rmtree(host.directory, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    run(["cp", "--reflink=auto", "--sparse=always", source, target])


@contextmanager
def _held(name: str) -> Iterator[None]:
    with cache.locked(_directory(name), f"its work on {name}"):
        yield


def _booted(made: Image, memory: int, cpus: int) -> tuple[Hardware, Path]:
    """The kept boot of an image and the hardware it is for; booted now if it never was."""
    qemu = run(["qemu-system-x86_64", "--version"]).splitlines()[0]
    verdict = cache.root() / f"accel-{hashlib.sha256(f'{qemu} {platform.release()}'.encode()).hexdigest()[:16]}"
    with cache.locked(made.directory / "boot", f"booting {made.directory.name}"):
        if verdict.exists():
            candidates = [verdict.read_text()]
        else:
            candidates = ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]
        for accel in candidates:
            hardware = Hardware(accel, cpus, memory)
            material = json.dumps([asdict(hardware), qemu])
            booted = made.directory / f"booted-{hashlib.sha256(material.encode()).hexdigest()[:16]}.qcow2"
            try:
                if not booted.exists():
                    _boot(made, hardware, booted)
            except HostError as error:
                if accel == candidates[-1]:
                    raise
                say(f"{accel} does not boot a guest here ({str(error).splitlines()[0]}); using {candidates[-1]}")
                continue
            verdict.write_text(accel)
            return hardware, booted
    raise AssertionError("the last candidate returns or raises")


def _boot(made: Image, hardware: Hardware, booted: Path) -> None:
    """Boot the image from its beginning and keep the result at `booted`."""
    start = time.monotonic()
    say(f"booting {made.directory.name} with {hardware.accel} (once for this image)")
    name = f".{booted.stem}"
    host = Host(
        name, "", "", str(made.directory), hardware, tempfile.mkdtemp(prefix="testhost-"), Process(0, 0), {SSH_PORT: 0}
    )
    try:
        host.directory.mkdir(parents=True, exist_ok=True)
        overlay = host.machine.overlay
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", made.disk, overlay])
        host = replace(host, process=host.machine.start(host.forwards))
        host = replace(host, forwards=host.machine.forwards())
        host.save()
        kvm = hardware.accel == "kvm"
        console = host.machine.console
        wait_for(
            "the kernel to come up", lambda: image.KERNEL_UP in console.read_text(errors="replace"),
            10 if kvm else 120, console,
        )  # fmt: skip
        host.wait_until_up(timeout=60 if kvm else 300)
        host.ssh(WARM_UP)
        host.hang_up()
        host.machine.snapshot()
        host.machine.stop(host.process)
        overlay.rename(booted)
    finally:
        _remove(host)
    say(f"booted in {time.monotonic() - start:.0f} s")


def ssh_command(host: Host, command: Sequence[str]) -> list[str]:
    return ["ssh", "-F", str(host.ssh_config), host.name, *command]

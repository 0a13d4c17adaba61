# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named test hosts: each a virtual machine restored from a snapshot of the freshly booted image.

An image is booted once for a kind of hardware; that boot is kept, disk and memory, beside the image.
Every host starts as a copy of it, and so does every reset.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cache
import image
import qmp
from access import Login
from image import Image
from machine import NO_PROCESS, Hardware, Machine, Process, ssh_answers
from progress import HostError, run, say, tail, wait_for

SSH_PORT = 22
# Read into the page cache before the snapshot, so that no host pays for it again.
WARM_UP = "python3 -c 'import ast,base64,ctypes,json,logging,platform,subprocess,tempfile,zipfile'; ip link"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Host:
    """A test host as its state file has it. `down` finds by it whatever a host consists of."""

    name: str
    image: str  # directory
    hardware: Hardware
    sockets: str = ""  # directory; a short path, because a socket's address has room for 107 bytes (unix(7))
    process: Process = NO_PROCESS
    forwards: Mapping[int, int] = field(default_factory=dict)  # guest's port: 127.0.0.1's, 0 for any

    @property
    def directory(self) -> Path:
        return _directory(self.name)

    @property
    def kind(self) -> str:
        """Suite and base, as `bookworm-bare`."""
        return Path(self.image).name.rpartition("-")[0]

    def __str__(self) -> str:
        hardware = self.hardware
        return f"{self.kind}, {hardware.cpus} CPUs, {hardware.memory} MiB, {hardware.accel}"

    @property
    def machine(self) -> Machine:
        return Machine(self.directory, Path(self.sockets), Image(Path(self.image)), self.hardware)

    @property
    def login(self) -> Login:
        return Login(self.name, self.forwards[SSH_PORT], Path(self.sockets) / "ssh", cache.keys())

    @property
    def published(self) -> dict[int, int]:
        """The forwards that `up` was asked for."""
        return {guest: here for guest, here in self.forwards.items() if guest != SSH_PORT}

    def save(self) -> None:
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


def _directory(name: str) -> Path:
    return cache.root() / "hosts" / name


def _held(name: str) -> AbstractContextManager[None]:
    return cache.locked(_directory(name), f"its work on {name}")


def running(name: str) -> Host | None:
    """The host of that name if its machine runs."""
    host = Host.load(name)
    return host if host and host.process.alive() else None


def get(name: str) -> Host:
    host = running(name)
    if not host:
        raise HostError(f"no test host {name} is running; `testhost up {name}` starts one")
    return host


def all_running(pattern: str = "[!.]*") -> list[Host]:
    """The running hosts by name; the pattern leaves out those only booted to be kept, named with a dot."""
    states = sorted((cache.root() / "hosts").glob(f"{pattern}/state.json"))
    return [host for host in (running(state.parent.name) for state in states) if host]


def up(name: str, suite: str, base: str, memory: int, cpus: int, forwards: Mapping[int, int]) -> Host:
    """Start the host `name`, or add what is missing of `forwards` to the one that runs already."""
    with _held(name):
        if host := running(name):
            kind = (f"{suite}-{base}", memory, cpus)
            if kind != (host.kind, host.hardware.memory, host.hardware.cpus):
                raise HostError(f"{name} is running already as something else ({host}); `down` it first")
            say(f"{name} is running already")
            return _add_forwards(host, forwards)
        _down(name)
        made = image.ensure(suite, base)
        hardware, booted = _booted(made, memory, cpus)
        return _restore(Host(name, str(made.directory), hardware, forwards={SSH_PORT: 0, **forwards}), booted)


def down(name: str) -> bool:
    """End the host and remove everything of it, also of one that died; whether there was anything."""
    with _held(name):
        return _down(name)


def _down(name: str) -> bool:
    host = Host.load(name)
    if host:
        _remove(host)
    return host is not None


def reset(name: str) -> Host:
    """Put the host back to the state it came up in, on the same ports."""
    with _held(name):
        host = get(name)
        hardware, booted = _booted(Image(Path(host.image)), host.hardware.memory, host.hardware.cpus)
        _stop(host)
        return _restore(replace(host, hardware=hardware), booted)


def reboot(name: str) -> Host:
    """Reboot the host from within, and return once it is up again."""
    with _held(name):
        host = get(name)
        say(f"rebooting {name}")
        before = host.login.run(BOOT_ID)
        with qmp.connect(host.machine.monitor, timeout=120) as client:
            host.login.run("systemctl --no-block reboot")
            host.login.hang_up()
            try:
                client.wait_event("RESET")
            except HostError as error:
                raise HostError(f"{name} did not go down: {error}\n{tail(host.machine.console)}") from None
        _wait_until_up(host, timeout=300)
        if host.login.run(BOOT_ID) == before:
            raise HostError(f"{name} was told to reboot and did not")
        return host


def console(name: str) -> str:
    """What the host has said on its console and QEMU in its log, also those of a host that died."""
    host = Host.load(name)
    if not host:
        raise HostError(f"there is no test host {name}")
    logs = (host.machine.console, host.machine.log)
    return "".join(log.read_text(errors="replace") for log in logs if log.exists())


def prune() -> list[str]:
    """Remove images that are no longer made and not in use; their names."""
    return image.prune(host.image for host in all_running("*"))


def _add_forwards(host: Host, forwards: Mapping[int, int]) -> Host:
    for guest, here in forwards.items():
        have = host.forwards.get(guest)
        if have is None or here not in (0, have):
            host.machine.add_forward(guest, here)
    host = replace(host, forwards=host.machine.forwards())
    host.save()
    return host


def _restore(host: Host, booted: Path) -> Host:
    """Start `host` from the kept boot; on any failure or interruption nothing is left of it."""
    start = time.monotonic()
    say(f"restoring {host.name} from the boot of {Path(host.image).name}")
    try:
        host = _start(host, booted)
        _wait_until_up(host, timeout=120)
        # A restored clock stands where the snapshot was taken.
        host.login.run(
            f"date --set=@{time.time():.3f} >/dev/null"
            f" && hostname {host.name} && hostname >/etc/hostname"
            f" && sed -i 's/^127.0.1.1.*/127.0.1.1 {host.name}/' /etc/hosts"
        )
    except BaseException:
        _down(host.name)
        raise
    say(f"{host.name} is up after {time.monotonic() - start:.1f} s")
    return host


def _start(host: Host, booted: Path | None) -> Host:
    """Start QEMU on a copy of the kept boot or on a fresh disk. The state file is there first."""
    host.directory.mkdir(parents=True, exist_ok=True)
    host = replace(host, sockets=host.sockets or tempfile.mkdtemp(prefix="testhost-"))
    host.save()
    machine = host.machine
    if booted:
        run(["cp", "--reflink=auto", "--sparse=always", booted, machine.overlay])
    else:
        disk = machine.image.disk
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, machine.overlay])
    host = replace(host, process=machine.start(host.forwards, restore=booted is not None))
    host.save()
    machine.wait_for_monitor(host.process)
    host = replace(host, forwards=machine.forwards())
    host.save()
    return host


def _stop(host: Host) -> None:
    if SSH_PORT in host.forwards:
        host.login.hang_up()
    host.machine.stop(host.process)


def _remove(host: Host) -> None:
    _stop(host)
    if host.sockets:
        shutil.rmtree(host.sockets, ignore_errors=True)
    shutil.rmtree(host.directory, ignore_errors=True)


def _wait_until_up(host: Host, timeout: float) -> None:
    """Return once sshd greets and systemd has finished starting units, all of them well."""

    def greets() -> bool:
        if not host.process.alive():
            raise HostError(f"QEMU of {host.name} ended while its host was starting")
        return ssh_answers(host.forwards[SSH_PORT])

    wait_for("its ssh server", greets, timeout, host.machine.console)
    state = host.login.run("systemctl is-system-running --wait || systemctl --failed --no-legend", timeout)
    if state.strip() != "running":
        raise HostError(f"{host.name} came up with units that failed: {' '.join(state.split())}")


def _booted(made: Image, memory: int, cpus: int) -> tuple[Hardware, Path]:
    """The kept boot of an image, and the hardware it is for; booted now if it never was.

    /dev/kvm may be there and yet never get a kernel up, so KVM is tried first, and a failure is remembered.
    """
    without_kvm = cache.root() / f"without-kvm-{_digest(_qemu(), platform.release(), platform.node())}"
    failure = ""
    with cache.locked(made.directory / "boot", f"booting {made.directory.name}"):
        if os.access("/dev/kvm", os.R_OK | os.W_OK) and not without_kvm.exists():
            hardware = Hardware("kvm", cpus, memory)
            try:
                return hardware, _boot(made, hardware)
            except HostError as error:
                failure = f"KVM does not get a guest up here: {error}"
                say(f"{failure.splitlines()[0]}; taking software emulation instead")
        hardware = Hardware("tcg", cpus, memory)
        booted = _boot(made, hardware)
        if failure:
            without_kvm.write_text(f"{failure}\n")
        return hardware, booted


def _qemu() -> str:
    return run(["qemu-system-x86_64", "--version"]).splitlines()[0]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _boot(made: Image, hardware: Hardware) -> Path:
    """Boot the image from its beginning unless the result of that is kept; where it is kept."""
    machine = Machine(made.directory, made.directory, made, hardware)
    made_from = _digest(_qemu(), *machine.command({}, restore=False), WARM_UP)
    booted = made.directory / f"booted-{made_from}.qcow2"
    if booted.exists():
        return booted
    start = time.monotonic()
    say(f"booting {made.directory.name} with {hardware.accel} (once for this image)")
    name = f".boot-{made_from}"
    host = Host(name, str(made.directory), hardware, forwards={SSH_PORT: 0})
    _down(name)
    kernel_patience, host_patience = (10, 60) if hardware.accel == "kvm" else (120, 300)
    try:
        host = _start(host, None)
        console = host.machine.console
        wait_for(
            "the kernel to come up", lambda: image.KERNEL_UP in console.read_text(errors="replace"),
            kernel_patience, console,
        )  # fmt: skip
        _wait_until_up(host, host_patience)
        host.login.run(WARM_UP)
        host.login.hang_up()
        host.machine.snapshot()
        host.machine.stop(host.process)
        host.machine.overlay.rename(booted)
    finally:
        _down(name)
    say(f"booted in {time.monotonic() - start:.0f} s")
    return booted

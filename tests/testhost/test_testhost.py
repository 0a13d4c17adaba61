# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test host itself, on real virtual machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cache
import pytest
from machine import Process
from progress import wait_for

PROGRAM = Path(__file__).with_name("testhost")


def call(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program; it must end with `status`."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


@dataclass(frozen=True)
class Host:
    name: str

    def ssh(self, *command: str, status: int = 0) -> str:
        return call("ssh", self.name, "--", *command, status=status).stdout

    @property
    def directory(self) -> Path:
        return cache.root() / "hosts" / self.name

    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads((self.directory / "state.json").read_text())
        return state

    def process(self) -> Process:
        process = self.state()["process"]
        assert isinstance(process, dict)
        return Process(**process)

    def sockets(self) -> Path:
        return Path(str(self.state()["sockets"]))


def unique(word: str) -> Host:
    return Host(f"{word}-{os.getpid()}")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Host, Host]]:
    """Two hosts that came up at the same time, each with port 8080 forwarded."""
    hosts = unique("one"), unique("two")
    try:
        starting = [
            subprocess.Popen([sys.executable, PROGRAM, "up", host.name, "--forward", "auto:8080"])
            for host in hosts
        ]
        assert [process.wait() for process in starting] == [0, 0]
        yield hosts
    finally:
        for host in hosts:
            call("down", host.name)


@pytest.fixture
def host(pair: tuple[Host, Host]) -> Host:
    return pair[0]


@pytest.fixture
def passing() -> Iterator[Host]:
    """A name for a host that the test itself brings up and ends; ended in any case."""
    host = unique("passing")
    yield host
    call("down", host.name)


def test_two_hosts_run_at_once_and_are_apart(pair: tuple[Host, Host]) -> None:
    assert [host.ssh("hostname").strip() for host in pair] == [host.name for host in pair]
    pair[0].ssh("touch /root/mine")
    assert "mine" not in pair[1].ssh("ls /root")


def test_is_a_whole_machine(host: Host) -> None:
    assert host.ssh("ps -p 1 -o comm=").strip() == "systemd"
    assert host.ssh("systemctl is-system-running").strip() == "running"
    assert host.ssh("stat -f -c %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(
        host.ssh("cat /sys/fs/cgroup/cgroup.controllers").split()
    )
    host.ssh("modprobe -a bridge nf_tables overlay veth")
    host.ssh("systemd-cat -t testhost echo a line of the journal && journalctl --sync")
    assert "a line of the journal" in host.ssh("journalctl -t testhost")


def test_clock_is_this_machines(host: Host) -> None:
    here = subprocess.run(["date", "+%s"], stdout=subprocess.PIPE, check=True).stdout
    assert abs(int(host.ssh("date +%s")) - int(here)) < 10


def test_ssh_passes_arguments_lines_and_exit_status(host: Host) -> None:
    assert host.ssh("printf", "<%s>", "a b", "$HOME", "it's") == "<a b><$HOME><it's>"
    assert host.ssh("echo $HOME | tr / -").strip() == "-root"
    host.ssh("exit 7", status=7)


def test_a_forwarded_port_leads_into_the_host(host: Host) -> None:
    host.ssh("mkdir -p /root/www && echo hello >/root/www/index.html && busybox httpd -p 8080 -h /root/www")
    found = re.search(rf"{host.name}: 127.0.0.1:(\d+) leads to its port 8080", call("list", host.name).stdout)
    assert found
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/", timeout=60) as answer:
        assert answer.read() == b"hello\n"


def test_up_again_adds_a_forward_and_keeps_the_machine(host: Host) -> None:
    process = host.process()
    assert "leads to its port 9090" in call("up", host.name, "--forward", "auto:9090").stdout
    assert host.process() == process


def test_up_refuses_to_turn_a_host_into_another(host: Host) -> None:
    process = host.process()
    refusal = call("up", host.name, "--suite", "trixie", status=1).stderr
    assert "running already as something else (bookworm-prepared, 2 CPUs" in refusal
    assert host.process() == process


def test_inventory_serves_ansible(pair: tuple[Host, Host], tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(call("inventory", *(host.name for host in pair)).stdout)
    answer = subprocess.run(
        ["ansible", "-i", inventory, "container_hosts", "-m", "command", "-a", "hostname", "--one-line"],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for host in pair:
        assert re.search(rf"^{host.name} \| CHANGED .*{host.name}$", answer.stdout, re.MULTILINE)


def test_ssh_config_serves_openssh(host: Host, tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(call("ssh-config", host.name).stdout)
    answer = subprocess.run(
        ["ssh", "-F", config, host.name, "hostname"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == host.name


def test_reboot_keeps_the_disk(host: Host) -> None:
    host.ssh("echo kept >/root/kept")
    boot = host.ssh("cat /proc/sys/kernel/random/boot_id")
    call("reboot", host.name)
    assert host.ssh("cat /proc/sys/kernel/random/boot_id") != boot
    assert host.ssh("cat /root/kept; hostname").split() == ["kept", host.name]


def test_reset_drops_what_was_written_and_keeps_the_ports(host: Host) -> None:
    host.ssh("echo dropped >/root/dropped")
    forwards = host.state()["forwards"]
    call("reset", host.name)
    assert "dropped" not in host.ssh("ls /root")
    assert host.state()["forwards"] == forwards


def test_bare_base_gets_the_roles_packages_without_a_network(passing: Host) -> None:
    call("up", passing.name, "--base", "bare")
    passing.ssh("command -v nft", status=1)
    passing.ssh("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q --yes install nftables")
    assert passing.ssh("nft list ruleset") == ""


def test_down_leaves_nothing(passing: Host) -> None:
    call("up", passing.name)
    passing.ssh("true")
    process, sockets, directory = passing.process(), passing.sockets(), passing.directory
    assert process.alive()
    assert sockets.is_dir()
    call("down", passing.name)
    assert not process.alive()
    assert not sockets.exists()
    assert not directory.exists()
    assert not processes_naming(str(sockets))


def test_a_dead_host_is_seen_and_started_anew(passing: Host) -> None:
    call("up", passing.name)
    passing.ssh("logger --priority user.err its last words")
    wait_for("its last words", lambda: "its last words" in call("console", passing.name).stdout, timeout=30)
    dead = passing.process()
    os.kill(dead.pid, signal.SIGKILL)
    wait_for("QEMU to be gone", lambda: not dead.alive(), timeout=30)
    assert passing.name not in call("list").stdout
    assert "its last words" in call("console", passing.name).stdout
    refusal = call("ssh", passing.name, "--", "true", status=1).stderr
    assert (
        refusal
        == f"testhost: no test host {passing.name} is running; `testhost up {passing.name}` starts one\n"
    )
    call("up", passing.name)
    assert passing.process() != dead
    assert passing.ssh("hostname").strip() == passing.name


def test_an_interrupted_up_leaves_nothing(passing: Host) -> None:
    starting = subprocess.Popen([sys.executable, PROGRAM, "up", passing.name])
    state = passing.directory / "state.json"
    wait_for("QEMU to run", lambda: state.exists() and passing.process().alive(), timeout=300, every=0.01)
    process = passing.process()
    sockets = passing.sockets()
    starting.send_signal(signal.SIGTERM)
    assert starting.wait() == 128 + signal.SIGTERM
    assert not process.alive()
    assert not sockets.exists()
    assert not passing.directory.exists()


def test_bad_ports_are_refused(passing: Host) -> None:
    for bad in ("8080", "0:80", "80:65536", "any:80"):
        assert f"{bad!r} is not HERE:GUEST" in call("up", passing.name, "--forward", bad, status=2).stderr
    assert not passing.directory.exists()


@pytest.mark.parametrize("name", ["../elsewhere", ".boot", "Upper", "-", "a_b"])
def test_bad_names_are_refused(name: str) -> None:
    assert f"{name!r} is no host name" in call("down", name, status=2).stderr


def processes_naming(text: str) -> list[str]:
    """Command lines of this machine's processes that contain `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in command:
            found.append(command)
    return found

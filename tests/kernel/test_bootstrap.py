# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian systems by rootfs_fetch: one that mmdebstrap makes of real packages, with a server in it that runs
as a container; and what becomes of it when the programs are missing, fail, hang or are killed, with programs
of these names that are quick."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rootfs import STORE, entries, fetch, ours, without

from tests.kernel.conftest import Containers, Machine

TESTHOST = Path(__file__).parents[1] / "testhost"
MODULE = Path(__file__).parents[2] / "plugins/modules/rootfs_fetch.py"

SLEEP = f"sleep {100_000 + os.getpid()}"

_SOURCES = """
from sources import debian_sources, machine_sources
for source in debian_sources("bookworm", machine_sources()):
    print(source.line())
"""

# Where the programs are looked for; what else is there does not have to be seen.


def example() -> dict[str, Any]:
    """The bootstrap of the module's EXAMPLES."""
    text = MODULE.read_text().partition('EXAMPLES = r"""')[2].partition('"""')[0]
    tasks = [task["bare.containers.rootfs_fetch"] for task in yaml.safe_load(text)]
    (found,) = [task["bootstrap"] for task in tasks if "bootstrap" in task]
    return dict(found)


@dataclass
class Debian:
    """A Machine on which the example was made, with the packages that this machine's own apt sources have."""

    machine: Machine
    bootstrap: dict[str, Any]
    result: dict[str, Any]


@pytest.fixture(scope="session")
def debian(module_utils: Path) -> Iterator[Debian]:
    listed = subprocess.run(
        [sys.executable, "-c", _SOURCES], cwd=TESTHOST, capture_output=True, text=True, check=True
    )
    machine = Machine(module_utils)
    bootstrap = {**example(), "mirror": listed.stdout.splitlines()}
    yield Debian(machine, bootstrap, fetch(machine, name="made", bootstrap=bootstrap, online=True))
    machine.end()


def test_a_debian_system_is_made_of_packages(debian: Debian) -> None:
    tree = debian.result["path"]
    installed = debian.machine.run(
        "dpkg-query", f"--root={tree}", "--show", "--showformat=${Package} ${Status}\n"
    )
    packages = {line.split(" ")[0]: line.split(" ", 1)[1] for line in installed.splitlines()}
    assert {"redis-server", "apt", "base-files", "libc6"} <= packages.keys()
    assert set(packages.values()) == {"install ok installed"}
    assert "systemd" not in packages  # minbase
    assert debian.machine.run("cat", f"{tree}/etc/debian_version").startswith("12.")
    suid = debian.machine.run("find", f"{tree}/usr/bin/passwd", "-printf", "%U %G %m")
    assert suid == "0 0 4755"
    # What made it is gone.
    assert debian.machine.run("ls", "-A", STORE).split() == ["images", "layers"]


def test_what_was_made_is_not_made_again(debian: Debian) -> None:
    for name, changed in (("made", False), ("another", True), ("another", False)):
        result = fetch(debian.machine, name=name, bootstrap=debian.bootstrap)  # there is no way out of here
        assert (result["changed"], result["digest"], result["path"]) == (
            changed,
            debian.result["digest"],
            debian.result["path"],
        )
    assert fetch(debian.machine, name="another", state="absent", gc=True)["changed"]


def test_a_server_of_the_distribution_runs_and_answers(
    debian: Debian, eventually: Callable[..., Any]
) -> None:
    containers = Containers(debian.machine)
    name = containers.name("cache")
    try:
        fetch(debian.machine, name=name, bootstrap=debian.bootstrap)
        network = {"name": name, "bridge": "bare0", "address": "10.200.0.7/24"}
        assert not debian.machine.module("netns_veth", network).get("failed")
        command = ["redis-server", "--bind", "10.200.0.7", "--protected-mode", "no", "--save", ""]
        process = {"name": name, "command": command, "stop_timeout": 0, "workdir": "/var/lib/redis"}
        result = debian.machine.module("container_process", process)
        assert not result.get("failed"), result
        ask = ["nc", "-w", "2", "10.200.0.7", "6379"]

        def answer() -> str:
            # From the host, by the container's address.
            words = debian.machine.command("/bin/busybox", *ask)
            return subprocess.run(words, input="PING\r\n", capture_output=True, text=True, check=False).stdout

        assert eventually(answer, 60) == "+PONG\n"
        inside = {"name": name, "command": ["redis-cli", "-h", "10.200.0.7", "set", "key", "value"]}
        assert debian.machine.module("nsenter_exec", inside)["stdout"].strip() == "OK"
        assert containers.status("cache")["Seccomp"] == "2"
        tree = debian.result["path"]
        assert not debian.machine.shell(f"ls {tree}/var/lib/redis")
    finally:
        debian.machine.module("container_process", {"name": name, "state": "absent"})
        debian.machine.module("netns_veth", {"name": name, "state": "absent"})
        fetch(debian.machine, name=name, state="absent")
        containers.end()


# With programs that are quick


def program(machine: Machine, name: str, text: str) -> None:
    """Puts a shell script in the place of a program."""
    machine.shell("mountpoint -q /usr/local/sbin || mount -t tmpfs -o mode=0755 tmpfs /usr/local/sbin")
    path = f"/usr/local/sbin/{name}"
    machine.run("sh", "-c", f"cat > {path} && chmod +x {path}", input=f"#!/bin/sh -e\n{text}\n")


def hide(machine: Machine, *names: str) -> None:
    for name in names:
        machine.shell(f"mount --bind /dev/null $(command -v {name})")


@pytest.fixture
def quick(machine: Machine, tmp_path: Path) -> Machine:
    """A Machine whose mmdebstrap makes a tree of two files: its arguments, and some of its environment."""
    hide(machine, "mmdebstrap")
    program(
        machine,
        "mmdebstrap",
        f"""
        echo run >> {tmp_path}/runs
        cd "$(mktemp -d)"
        for word in "$@"; do echo "$word"; done > arguments
        echo "$SOURCE_DATE_EPOCH $http_proxy" > environment
        tar --create --owner=7 --group=8 .
    """,
    )
    return machine


def test_what_is_declared_is_what_the_program_gets(quick: Machine, tmp_path: Path) -> None:
    (tmp_path / "keys.gpg").touch()
    declared = {
        "suite": "trixie",
        "mirror": ["http://mirror.example/debian", "deb [trusted=yes] file:///srv/more ./"],
        "variant": "essential",
        "include": ["nginx-light", "ca-certificates"],
        "components": ["main", "contrib"],
        "keyring": str(tmp_path / "keys.gpg"),
        "architecture": "amd64",
    }
    environment = {"SOURCE_DATE_EPOCH": "1700000000", "http_proxy": "http://proxy.example:3128"}
    result = fetch(quick, name="web", bootstrap=declared, environment=environment)
    assert quick.run("cat", f"{result['path']}/environment").split() == list(environment.values())
    assert quick.run("cat", f"{result['path']}/arguments").splitlines() == [
        "--mode=root",
        "--format=tar",
        "--variant=essential",
        "--include=ca-certificates,nginx-light",
        "--components=main,contrib",
        "--architectures=amd64",
        "trixie",
        "-",
        f"deb [signed-by={tmp_path}/keys.gpg] http://mirror.example/debian trixie main contrib",
        "deb [trusted=yes] file:///srv/more ./",
    ]
    assert quick.run("stat", "--format=%u %g", f"{result['path']}/arguments") == "7 8\n"


def test_it_is_made_anew_when_that_is_asked_for(quick: Machine, tmp_path: Path) -> None:
    declared = {"name": "web", "bootstrap": {"suite": "bookworm"}}

    def runs() -> int:
        return len((tmp_path / "runs").read_text().splitlines()) if (tmp_path / "runs").exists() else 0

    predicted = fetch(quick, check=True, **declared)
    assert (runs(), ours(quick)) == (0, [])
    first = fetch(quick, **declared)
    assert (predicted["changed"], predicted["diff"], predicted["commands"]) == (
        True,
        first["diff"],
        first["commands"],
    )
    assert not fetch(quick, **declared)["changed"]
    assert runs() == 1
    assert (
        fetch(quick, name="too", bootstrap={"suite": "bookworm", "variant": "minbase"})["path"]
        == first["path"]
    )
    assert runs() == 1
    forced = fetch(quick, force=True, **declared)
    assert forced["changed"]
    assert forced["digest"] != first["digest"]
    assert runs() == 2
    again = fetch(quick, **declared)
    assert (again["changed"], again["digest"]) == (False, forced["digest"])
    more = fetch(quick, name="web", bootstrap={"suite": "bookworm", "include": ["nano"]})
    assert (more["changed"], runs()) == (True, 3)
    quick.shell(f"rm -r {STORE}")
    assert fetch(quick, name="web", bootstrap={"suite": "bookworm", "include": ["nano"]})["changed"]
    assert runs() == 4


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo I: fine >&2; echo 'E: Unable to locate package x' >&2; echo 'E: setup failed' >&2; exit 25",
            "bootstrap: Unable to locate package x; nothing was changed.",
        ),
        ("echo unheard of >&2; exit 3", "bootstrap: unheard of; nothing was changed."),
        ("exit 3", "bootstrap: it has ended with status 3; nothing was changed."),
        (
            "echo 'E: Failed to fetch http://u:sesame@a/b' >&2; exit 1",
            "bootstrap: Failed to fetch http://u:********@a/b; nothing was changed.",
        ),
        # What it has made does not count then.
        ("tar --create /etc/hostname; echo E: late >&2; exit 1", "bootstrap: late; nothing was changed."),
        (
            "head -c 1000000 /dev/urandom",
            "bootstrap: what was made is damaged or no tar archive (ReadError: invalid header); nothing was "
            "changed.",
        ),
        (
            f"exec {SLEEP}",
            "bootstrap: bookworm took longer than the 1 seconds that max_time allows; nothing was changed.",
        ),
        (
            f"{SLEEP} & exec cat /dev/zero",
            "bootstrap: what was made has more than the 1048576 bytes that max_size allows; nothing was "
            "changed.",
        ),
    ],
)
def test_what_the_program_says_is_what_is_wrong(machine: Machine, script: str, reason: str) -> None:
    program(machine, "mmdebstrap", script)
    before = machine.run("cat", "/proc/self/mountinfo")
    limit = {"max_time": 1} if script.startswith("exec") else {"max_size": "1M"}
    result = fetch(machine, name="web", bootstrap={"suite": "bookworm"}, ok=False, **limit)
    assert result["msg"] == f"web: {reason}"
    assert not result["changed"]
    assert ours(machine) == []
    assert machine.run("cat", "/proc/self/mountinfo") == before
    assert not is_asleep()


def is_asleep() -> bool:
    """Whether there is a process of SLEEP, which no other test has."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == SLEEP.replace(" ", "\0").encode() + b"\0":
                return True
    return False


def test_it_sees_nothing_of_the_store_and_of_other_processes(machine: Machine) -> None:
    fetch(machine, name="other", busybox=True)
    program(
        machine,
        "mmdebstrap",
        f"""
        cd "$(mktemp -d)"
        ls -A {STORE} > store
        ps -e -o pid= | head -1 > first
        stat --format=%a {STORE} "$TMPDIR" > modes
        hostname inside
        mkdir under && mount -t tmpfs none under
        tar --create store first modes
    """,
    )
    result = fetch(machine, name="web", bootstrap={"suite": "bookworm"})
    assert machine.run("cat", f"{result['path']}/store") == "tmp\n"
    assert machine.run("cat", f"{result['path']}/first").strip() == "1"
    assert machine.run("cat", f"{result['path']}/modes").split() == ["755", "755"]
    assert machine.run("hostname").strip() != "inside"
    assert "/under" not in machine.run("cat", "/proc/self/mountinfo")


def test_killed_in_the_midst_of_it_nothing_runs_on(machine: Machine, tmp_path: Path, eventually: Any) -> None:
    program(machine, "mmdebstrap", f"setsid {SLEEP} & echo x > {tmp_path}/began; {SLEEP}")
    words = machine.module_command("rootfs_fetch")
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert running.stdin is not None
    running.stdin.write(json.dumps({"name": "web", "bootstrap": {"suite": "bookworm"}}).encode())
    running.stdin.close()
    eventually(lambda: (tmp_path / "began").exists() and is_asleep())
    running.kill()
    running.wait()
    eventually(lambda: not is_asleep())
    program(machine, "mmdebstrap", "cd $(mktemp -d); tar --create .")
    assert fetch(machine, name="web", bootstrap={"suite": "bookworm"})["changed"]
    assert machine.run("ls", "-A", STORE).split() == ["images", "layers"]


# debootstrap, as far as we have to do with it: OPTIONS SUITE TARGET [MIRROR].
_DEBOOTSTRAP = """
echo I: beginning >&2; echo progress
words="$*"
while [ "${1#--}" != "$1" ]; do shift; done
mkdir -p "$2/etc" "$2/bin"
cp /bin/busybox "$2/bin/"
ln -s busybox "$2/bin/sh"
chmod 4755 "$2/bin/busybox"
printf '%s\\n' "$words" | sed "s|$TMPDIR|TMPDIR|" > "$2/etc/arguments"
setcap cap_net_raw+ep "$2/bin/busybox"
chown -R 5:6 "$2/etc"
find "$2" -exec touch -h -d 2001-02-03 {} +
"""


def test_debootstrap_where_it_is_the_only_one(machine: Machine) -> None:
    hide(machine, "mmdebstrap")
    program(machine, "debootstrap", _DEBOOTSTRAP)
    declared = {
        "suite": "bookworm",
        "mirror": ["http://a/b"],
        "include": ["b", "a"],
        "keyring": "/etc/hostname",
        "architecture": "amd64",
    }
    result = fetch(machine, name="web", bootstrap=declared)
    made = entries(machine, result["path"])
    assert machine.run("cat", f"{result['path']}/etc/arguments") == (
        "--variant=minbase --keyring=/etc/hostname --force-check-gpg --include=a,b --arch=amd64 bookworm "
        "TMPDIR/tree http://a/b\n"
    )
    assert made["etc/arguments"]["owner"] == [5, 6]
    assert made["bin/busybox"]["xattrs"].keys() == {"security.capability"}
    fetch(machine, name="web", state="absent", gc=True)
    assert ours(machine) == []
    machine.shell("\n".join(result["commands"]))
    assert not fetch(machine, name="web", bootstrap=declared)["changed"]
    (layer,) = machine.shell(f"ls -d {STORE}/layers/*/tree").split()
    assert without(entries(machine, layer), "same") == without(made, "same")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"variant": "apt"},
            "bootstrap.variant: 'apt' takes mmdebstrap, which is not on this host; debootstrap has minbase, "
            "buildd, important; nothing was changed.",
        ),
        (
            {"mirror": ["http://a/b", "http://c/d"]},
            "bootstrap.mirror: more than one address takes mmdebstrap, which is not on this host; "
            "debootstrap takes a single one; nothing was changed.",
        ),
        (
            {"mirror": ["http://a/b"], "keyring": "/no"},
            "bootstrap.keyring: there is no file /no on this host; nothing was changed.",
        ),
    ],
)
def test_what_debootstrap_can_t_do(machine: Machine, declared: dict[str, Any], message: str) -> None:
    hide(machine, "mmdebstrap")
    for check in (True, False):
        result = fetch(
            machine, name="web", bootstrap={"suite": "bookworm", **declared}, check=check, ok=False
        )
        assert result["msg"] == f"web: {message}"
    assert ours(machine) == []


def test_without_the_programs(machine: Machine) -> None:
    hide(machine, "mmdebstrap", "debootstrap")
    result = fetch(machine, name="web", bootstrap={"suite": "bookworm"}, check=True, ok=False)
    assert result["msg"] == (
        "web: bootstrap: neither mmdebstrap nor debootstrap is on this host; install the package mmdebstrap, "
        "or debootstrap; nothing was changed."
    )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that mean something else than the container that they are declared for: paths, PIDs of others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

VICTIM = "/var/lib/victim"

MODULES = {
    "rootfs_fetch": {"state": "absent"},
    "cgroup_v2": {"state": "absent"},
    "netns_veth": {"state": "absent"},
    "container_process": {"state": "absent"},
    "nsenter_exec": {"command": ["true"]},
}


def tree(machine):
    return machine.shell(f"find {VICTIM} -printf '%p %M %U %T@\\n' | sort")


@pytest.fixture
def victim(containers):
    """A directory of the host's that looks like one of ours."""
    containers.write(f"{VICTIM}/config.json", "{}")
    containers.write(f"{VICTIM}/etc/hosts", "precious")
    return lambda: tree(containers.machine)


@pytest.mark.parametrize("module", MODULES)
def test_a_container_s_name_is_a_path(containers, collection, victim, module):
    """What is kept of it is somewhere else then, and goes with it."""
    containers.converge(state="stopped")
    before = victim()
    attack = {"name": "../../victim", **MODULES[module]}
    message = containers.machine.module(module, attack)["msg"]
    assert message.startswith("name: '../../victim' is not accepted, it takes up to 64 letters"), message
    assert victim() == before
    if module == "container_process":
        collection.weaken("host.py", "if not _NAME.fullmatch(value):", "if not value:")
        collection.module(module, attack)
        assert containers.machine.shell(f"ls {VICTIM} 2>&1 || :").endswith("No such file or directory\n")


def test_the_path_of_a_cgroup_leads_elsewhere(containers, launcher, victim):
    """A cgroup that is delegated is given to the container's root, whatever directory it is."""
    launcher.declare(uidmap=["0:100000:65536"])

    def delegate(config):
        config["linux"]["cgroupsPath"] = f"/../../../..{VICTIM}"
        cgroup = next(mount for mount in config["mounts"] if mount["type"] == "cgroup2")
        cgroup["options"].remove("ro")
        del config["linux"]["resources"]

    launcher.tamper(delegate)
    before = victim()
    assert "linux.cgroupsPath: '/../../../../var/lib/victim' is no path of a cgroup" in launcher.start()
    assert victim() == before
    launcher.weaken("container/config.py", 'not all(names) or {".", ".."} & set(names)', "False")
    launcher.start()
    assert containers.machine.run("stat", "-c", "%u", VICTIM) == "100000\n"


# A process with the PID that was somebody else's (clone3(2): the fifth word of its structure is the signal,
# the ninth and tenth are the PIDs to have).
SAME_PID = """
import ctypes, os, signal, sys
words, wanted = (ctypes.c_uint64 * 11)(), ctypes.c_int(int(sys.argv[1]))
words[4], words[8], words[9] = signal.SIGCHLD, ctypes.addressof(wanted), 1
pid = ctypes.CDLL(None).syscall(435, words, ctypes.sizeof(words))
if pid == 0:
    os.execvp("sleep", ["sleep", "1000"])
assert pid == wanted.value, "somebody else was faster"
print(flush=True)
os.waitpid(pid, 0)
"""


@pytest.fixture
def same_pid(containers, launcher, eventually):
    """Ends the container, and has a process on the machine, in a cgroup of its own, that has its PID."""
    cgroup = containers.cgroup("bystander")

    @contextlib.contextmanager
    def bystander():
        pid = containers.pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        cgroup.mkdir()
        # With a namespace of its own there is something to be entered.
        words = ("unshare", "--uts", "/usr/bin/python3", "-c", SAME_PID, str(pid))
        command = containers.machine.command(*words)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout.readline() == "\n"
            (cgroup / "cgroup.procs").write_text(str(pid))
            try:
                yield parent
            finally:
                if parent.poll() is None:
                    os.kill(pid, signal.SIGKILL)

    return bystander


RUNNING = ("return (pid, started) if process.start_time(pid) == started else None", "return pid, started")
OPEN = ("    if start_time(pid) == started:\n", "    if pid:\n")


def test_the_pid_of_the_container_is_another_s_to_be_killed(containers, collection, same_pid):
    """It has ended, and its number has come round again by the time it is to be stopped."""
    containers.converge()
    state = containers.state()
    with same_pid() as bystander:
        assert state["pid"] == containers.state()["pid"]
        assert containers.converge(state="stopped", check=True)["pid"] is None
        containers.converge(state="absent")
        assert bystander.poll() is None
        containers.write(f"/run/bare-containers/{containers.name('one')}/state.json", json.dumps(state))
        collection.weaken("container/bundle.py", *RUNNING)
        gone = {**containers.options("one"), "state": "absent"}
        # Each is enough: to know that it runs, and to open what is sent a signal.
        assert not collection.module("container_process", gone).get("failed")
        assert bystander.poll() is None
        containers.write(f"/run/bare-containers/{containers.name('one')}/state.json", json.dumps(state))
        collection.weaken("kernel/process.py", *OPEN)
        assert not collection.module("container_process", gone).get("failed")
        bystander.wait(10)


def test_the_pid_of_the_container_is_another_s_to_be_entered(containers, launcher, same_pid):
    """A command for the container is run on the host."""
    containers.write("/var/lib/of-the-host", "secret")
    launcher.declare()
    assert launcher.start() == ""
    with same_pid():
        attack = ("cat", "/var/lib/of-the-host")
        assert launcher.execute(*attack).endswith("is not running")
        launcher.weaken("container/bundle.py", *RUNNING)
        assert launcher.execute(*attack).endswith("is not running")
        launcher.weaken("kernel/process.py", *OPEN)
        assert launcher.execute(*attack) == "secret"

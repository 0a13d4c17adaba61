# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process may not inherit of who starts it: descriptors, variables, groups, keys, a terminal."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest


@pytest.fixture
def leak(containers):
    """A directory of the host's that is open as 77: options for who is to inherit it."""
    containers.write("/var/lib/victim/secret", "of the host")
    directory = os.open(f"/proc/{containers.machine.pid}/root/var/lib/victim", os.O_PATH)
    os.dup2(directory, 77)
    yield {"pass_fds": (77,)}
    os.close(directory)
    os.close(77)


def test_a_descriptor_leads_to_the_host(containers, launcher, leak):
    """CVE-2024-21626: one that was not meant to be inherited."""
    look = ("sh", "-c", "ls /proc/self/fd; cat /proc/self/fd/77/secret 2> /dev/null")
    launcher.declare()

    def open_inside():
        return sorted(os.listdir(f"/proc/{containers.pid()}/fd"))

    assert launcher.start(**leak) == ""
    assert open_inside() == ["0", "1", "2"]
    links = [os.readlink(f"/proc/{containers.pid()}/fd/{number}") for number in range(3)]
    log = f"/var/log/bare-containers/{containers.name('one')}.log"
    assert links == ["/dev/null", log, log]
    # 3 is the listing's own.
    assert launcher.execute(*look, **leak).split() == ["0", "1", "2", "3"]
    launcher.weaken(*LAYERS["nothing else is open"])
    assert launcher.start(**leak) == ""
    assert "77" in open_inside()
    assert Path(f"/proc/{containers.pid()}/fd/77/secret").read_text() == "of the host"
    assert launcher.execute(*look, **leak).endswith("of the host")


LAYERS = {
    "it is looked up in the root": (
        "container/init.py",
        '        os.close(path.make_directories(root, self._process["cwd"]))\n',
        "",
    ),
    "nothing else is open": ("kernel/process.py", 'call("close_range", first, 0xFFFFFFFF, 0)', "return"),
    "where we are has a path": ("container/privileges.py", "        os.getcwd()\n", "        pass\n"),
}
"""What keeps the working directory in the root, each of it enough, and what takes it out."""


@pytest.mark.parametrize("only", LAYERS)
def test_the_working_directory_is_a_descriptor_s(containers, launcher, leak, only):
    """CVE-2024-21626: its path leads through /proc/self/fd to what the launcher has open."""
    launcher.declare()
    launcher.tamper(lambda config: config["process"].update(cwd="/proc/self/fd/77", args=["cat", "secret"]))
    assert "workdir" in launcher.start(**leak)
    assert not containers.alive()
    for layer in LAYERS.keys() - {only}:
        launcher.weaken(*LAYERS[layer])
    assert "workdir" in launcher.start(**leak)
    launcher.weaken(*LAYERS[only])
    assert launcher.start(**leak) == ""
    assert containers.log() == "of the host"


def test_the_working_directory_is_a_descriptor_of_the_launcher_s(containers, launcher):
    """CVE-2024-21626, without one that was inherited: the cgroup's and the root's are open, for instance."""
    launcher.declare()

    def reached():
        for number in range(3, 16):
            cwd = f"/proc/self/fd/{number}"
            launcher.tamper(lambda config, cwd=cwd: config["process"].update(cwd=cwd))
            if "workdir" not in launcher.start():
                return os.readlink(f"/proc/{containers.pid()}/cwd")
        return None

    assert reached() is None
    for layer in LAYERS.values():
        launcher.weaken(*layer)
    assert reached() is not None


def test_a_command_s_working_directory_is_a_descriptor_s(containers, launcher, leak):
    """CVE-2024-21626, by exec."""
    launcher.declare()
    assert launcher.start() == ""
    attack = {"cwd": "/proc/self/fd/77", **leak}
    assert "workdir" in launcher.execute("cat", "secret", **attack)
    launcher.weaken(*LAYERS["nothing else is open"])
    assert "outside of the container's root" in launcher.execute("cat", "secret", **attack)
    launcher.weaken(*LAYERS["where we are has a path"])
    assert launcher.execute("cat", "secret", **attack) == "of the host"


def test_the_environment_tells_of_the_host(containers, launcher):
    """What is in the caller's may be a token."""
    launcher.declare(env={"GREETING": "hello", "YES": True}, user="1000")
    through = ("env", "SECRET=of the host")

    def environment():
        assert launcher.start(through=through) == ""
        raw = Path(f"/proc/{containers.pid()}/environ").read_text().rstrip("\0")
        return dict(item.split("=", 1) for item in raw.split("\0"))

    own = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": containers.name("one"),
        "HOME": "/",
        "GREETING": "hello",
        "YES": "true",
    }
    assert environment() == own
    assert "SECRET" not in launcher.execute("env", through=through)
    execute = "            os.execve(place, arguments, {})\n"
    launcher.weaken(
        "container/privileges.py",
        execute.format("environment"),
        execute.format("{**os.environ, **environment}"),
    )
    assert environment()["SECRET"] == "of the host"
    assert "SECRET=of the host" in launcher.execute("env", through=through)


def test_groups_are_kept(containers, launcher):
    """CVE-2014-8989: the supplementary groups of who starts it open what is theirs on the host."""
    launcher.declare()
    through = ("setpriv", "--groups", "4,5")
    look = ("grep", "^Groups:", "/proc/self/status")
    assert launcher.start(through=through) == ""
    assert containers.status()["Groups"] == ""
    assert launcher.execute(*look, through=through).split() == ["Groups:"]
    launcher.weaken("container/privileges.py", "    os.setgroups(account.groups)\n", "")
    assert launcher.start(through=through) == ""
    assert containers.status()["Groups"].split() == ["4", "5"]
    assert launcher.execute(*look, through=through).split() == ["Groups:", "4", "5"]


KEYRING = """
import ctypes, os, sys
libc, numbers = ctypes.CDLL(None), {"x86_64": (248, 250), "aarch64": (217, 219)}
add_key, keyctl = numbers[os.uname().machine]
JOIN, SETPERM, SESSION, OF_THE_POSSESSOR_ALONE = 1, 5, -3, 0x3F000000
assert libc.syscall(keyctl, JOIN, None) > 0
key = libc.syscall(add_key, b"user", b"of-the-host", b"x", 1, SESSION)
assert key > 0 and libc.syscall(keyctl, SETPERM, key, OF_THE_POSSESSOR_ALONE) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_the_keys_of_the_session_are_there(containers, launcher):
    """Keyrings are of no namespace: what is in the caller's session is the container's to read
    (keyrings(7))."""
    through = ("/usr/bin/python3", "-c", KEYRING)
    launcher.declare(privileged=True, command=["sh", "-c", "cat /proc/keys; exec sleep 1000"])
    assert "of-the-host" in containers.machine.run(*through, "cat", "/proc/keys")

    def keys():
        assert launcher.start(through=through) == ""
        ran = launcher.execute("cat", "/proc/keys", through=through)
        return "of-the-host" in containers.log(), "of-the-host" in ran

    assert keys() == (False, False)
    launcher.weaken(
        "kernel/process.py",
        '        call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)\n',
        "        pass\n",
    )
    assert keys() == (True, True)


PUSH = """
import fcntl, os, termios
try:
    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), termios.TIOCSTI, b"!")
    print("pushed", flush=True)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""


def test_input_is_pushed_into_the_caller_s_terminal(containers, launcher, with_python, eventually):
    """CVE-2017-5226: TIOCSTI types a command for the operator, who has it run by their shell on the host.

    With a capability that has newer kernels allow it (dev.tty.legacy_tiocsti) in any case.
    """
    attack = ("/usr/bin/python3", "-c", PUSH)
    launcher.declare(
        command=["sh", "-c", f"{shlex.join(attack)}; exec sleep 1000"], cap_add=["SYS_ADMIN"], **with_python
    )
    master, slave = os.openpty()
    # A session ends with its leader, who stays until the container has said something.
    log = f"/var/log/bare-containers/{containers.name('one')}.log"
    leader = ("sh", "-ec", '"$@"; until grep -q . "$0"; do sleep 0.05; done', log)
    terminal = {
        "through": leader,
        "start_new_session": True,
        "preexec_fn": lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
    }
    os.set_blocking(master, False)

    def typed():
        try:
            return os.read(master, 100)
        except BlockingIOError:
            return b""

    try:
        assert launcher.start(**terminal) == ""
        assert eventually(containers.log) == "No such device or address\n"
        assert launcher.execute(*attack, **terminal) == "No such device or address\n"
        assert typed() == b""
        launcher.weaken("container/init.py", "        os.setsid()\n", "")
        assert launcher.start(**terminal) == ""
        assert eventually(containers.log) == "pushed\n"
        assert typed() == b"!"
        launcher.weaken("container/enter.py", "            os.setsid()\n", "")
        assert launcher.execute(*attack, **terminal) == "pushed\n"
        assert typed() == b"!"
    finally:
        os.close(master)
        os.close(slave)


LISTEN = """
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0shim")
listener.listen()
print(flush=True)
input()
"""


def test_a_socket_of_the_launcher_s_is_reached(containers, launcher):
    """CVE-2020-15257: in the host's network namespace are the abstract sockets of who watches a container.

    Nobody does, and a command's attendant has none. One of another program's shows that they would be seen.
    """
    look = ("sh", "-c", "grep -c @ /proc/net/unix")
    containers.converge(network="host")
    containers.converge("two")
    assert containers.execute(command=list(look), rc=1)["stdout"] == "0"
    command = containers.machine.command(sys.executable, "-c", LISTEN)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shim:
        assert shim.stdout.readline() == "\n"
        assert containers.execute(command=list(look))["stdout"] == "1"
        assert containers.execute("two", command=list(look), rc=1)["stdout"] == "0"
        shim.communicate("\n")

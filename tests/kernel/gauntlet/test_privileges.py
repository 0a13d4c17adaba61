# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to more privileges than declared: by files, by names, by settings, by cgroups, by calls."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

# By their numbers in capabilities(7).
CHOWN = 0

VFS_CAP_REVISION_2 = 0x02000000

AS_ANOTHER_USER = """
import os, sys
os.setgroups([])
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
os.execv(sys.argv[1], sys.argv[2:])
"""


def test_inheritable_capabilities_come_back_by_a_file(containers, launcher, with_python):
    """CVE-2022-24769, CVE-2022-27650, CVE-2022-29162: another user has those of a file that are inheritable
    too, of a set that is not meant to have any."""
    containers.machine.shell(f"cp {containers.tree}/bin/busybox {containers.tree}/bin/tool")
    place = f"/proc/{containers.machine.pid}/root{containers.tree}/bin/tool"
    os.setxattr(place, "security.capability", struct.pack("<5I", VFS_CAP_REVISION_2, 0, 1 << CHOWN, 0, 0))
    through = ("setpriv", "--inh-caps", "+chown,+kill")
    launcher.declare(no_new_privileges=False, **with_python)
    attack = ("/usr/bin/python3", "-c", AS_ANOTHER_USER, "/bin/tool", "grep", "CapPrm", "/proc/self/status")

    def gained():
        assert launcher.start(through=through) == ""
        said = launcher.execute(*attack, through=through)
        return int(containers.status()["CapInh"], 16), int(said.split()[1], 16)

    assert gained() == (0, 0)
    launcher.weaken(
        "container/privileges.py",
        'set_thread(masks["effective"], masks["permitted"], masks["inheritable"])',
        'set_thread(masks["effective"], masks["permitted"], masks["permitted"])',
    )
    assert gained() == (int(containers.status()["CapBnd"], 16), 1 << CHOWN)


def test_a_user_s_name_is_taken_for_an_id(containers, launcher):
    """CVE-2016-3697: the root file system has a user by that name, who is root."""
    containers.write(f"{containers.tree}/etc/passwd", "1000:x:0:0::/:/bin/sh\n0x0:x:1000:0::/:/bin/sh\n")
    launcher.declare(user="1000")

    def users():
        assert launcher.start() == ""
        return containers.status()["Uid"].split()[0], launcher.execute("id", "-u", user="1000").strip()

    assert users() == ("1000", "1000")
    # A name is one of the container's, whoever is called so on the host.
    for name in ("daemon", "-1", "+0", "4294967295", "1:2:3", "0:x"):
        assert launcher.execute("id", user=name).startswith("failed user: "), name
    launcher.weaken("container/privileges.py", "column = 2 if wanted.isdecimal() else 0", "column = 0")
    launcher.weaken(
        "container/privileges.py", "user if entry is None or user.isdecimal() else entry[2]", "entry[2]"
    )
    assert users() == ("0", "0")


def test_a_user_of_the_host_runs_a_program_of_the_container_s_root(containers, launcher, with_python):
    """CVE-2021-41091, CVE-2021-41103: it lies, set-user-ID, in what the container has written to its root."""
    launcher.declare(**with_python)
    assert launcher.start() == ""
    program = f"{containers.directory()}/upper/tool"
    assert launcher.execute("sh", "-c", "cp /usr/bin/id /tool && chmod 4755 /tool") == ""
    assert containers.machine.run("stat", "-c", "%a %u", program) == "4755 0\n"

    def run():
        user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
        return containers.machine.run(*user, "sh", "-c", f"{program} -u 2>&1 || :")

    assert "Permission denied" in run()
    launcher.weaken("container/launch.py", "os.chmod(self._bundle, 0o700)", "os.chmod(self._bundle, 0o755)")
    assert launcher.start() == ""
    assert run() == "0\n"


# Settings


CORE_PATTERN = "/proc/sys/kernel/core_pattern"


@pytest.fixture
def core_pattern(containers):
    """What the setting of the machine is, which is not this host's but a file in its place."""
    containers.machine.shell(f"echo core > /run/pattern; mount --bind /run/pattern {CORE_PATTERN}")
    return lambda: containers.machine.run("cat", CORE_PATTERN).strip()


@pytest.mark.parametrize("key", ["kernel.core_pattern", "kernel/core_pattern", "net/../kernel/core_pattern"])
def test_a_setting_is_the_host_s(containers, launcher, core_pattern, key):
    """CVE-2022-0811: what the host runs when a process crashes, anywhere on it."""
    launcher.declare()
    launcher.tamper(lambda config: config["linux"]["sysctl"].update({key: "|/evil"}))
    assert f"linux.sysctl: '{key}' is no setting of a container's own" in launcher.start()
    assert core_pattern() == "core"
    launcher.weaken("container/config.py", "if not strict or namespace is None:", "if False:")
    launcher.weaken("container/config.py", "if namespace not in own:", "if False:")
    # In a key a dot is a slash, so the way up is none even so.
    if ".." not in key:
        assert launcher.start() == ""
        assert core_pattern() == "|/evil"


@pytest.mark.parametrize("path", [None, "/proc/self/ns/net", "/proc/{}/ns/net"])
def test_a_setting_is_of_the_host_s_network(containers, launcher, path):
    """CVE-2022-0811: the key is one of a namespace, which the container has none of its own of."""
    launcher.declare()
    own = path and path.format(containers.machine.pid)
    key = "net.ipv4.ip_forward"

    def share(config):
        kinds = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "network"]
        config["linux"]["namespaces"] = kinds + ([{"type": "network", "path": own}] if own else [])
        config["linux"]["sysctl"] = {key: "1"}

    def forwarding():
        return containers.machine.run("cat", "/proc/sys/net/ipv4/ip_forward").strip()

    launcher.tamper(share)
    before = forwarding()
    assert before == "0"
    assert "linux.sysctl: " in launcher.start()
    assert forwarding() == before
    launcher.weaken("container/config.py", "if namespace not in own:", "if False:")
    launcher.weaken("container/init.py", 'if own and self._config["linux"].get("sysctl")', "if False")
    assert launcher.start() == ""
    assert forwarding() == "1"


# Cgroups


def test_a_hierarchy_of_cgroup_v1_is_mounted(containers, launcher, eventually):
    """CVE-2022-0492: its release_agent is a program that the host runs, as root, outside of all containers.

    A hierarchy without a controller is mounted, and gone with the container; its agent is never called.
    """
    name = containers.name("one")
    mount = f"mkdir -p /v1; mount -t cgroup -o none,name={name} cgroup /v1 2>&1 && "
    attack = ("sh", "-c", mount + "echo /evil > /v1/release_agent && cat /v1/release_agent")
    kinds = ("sh", "-c", "sed 's/.* - //' /proc/self/mountinfo | grep -c '^cgroup '")
    make = ("sh", "-c", "mkdir /sys/fs/cgroup/more 2>&1; rmdir /sys/fs/cgroup/more 2> /dev/null")

    def attempt(**options):
        launcher.declare(**options)
        assert launcher.start() == ""
        return launcher.execute(*attack), launcher.execute(*make)

    containers.write("/var/lib/profile.json", json.dumps(WITHOUT_MOUNT))
    refused, made = attempt()
    assert "permission denied" in refused
    assert "Read-only file system" in made
    assert launcher.execute(*kinds) == "0\n"
    # Each is enough: the filter, the capability, and the cgroup namespace, which no hierarchy is made in.
    for options in (
        {"seccomp": "unconfined"},
        {"cgroupns": "host", "seccomp": "unconfined"},
        {"cgroupns": "host", "cap_add": ["SYS_ADMIN"], "seccomp": "/var/lib/profile.json"},
        {"privileged": True},
    ):
        refused, made = attempt(**options)
        assert "permission denied" in refused
    assert made == ""
    assert attempt(privileged=True, cgroupns="host")[0] == "/evil\n"
    launcher.end()
    eventually(lambda: name not in Path("/proc/self/cgroup").read_text())


WITHOUT_MOUNT = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mount", "fsopen"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}


# System calls


SURFACE = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "x86_64": {"bpf": 321, "userfaultfd": 323, "perf_event_open": 298, "add_key": 248, "keyctl": 250,
               "kexec_load": 246, "open_by_handle_at": 304, "unshare": 272, "setns": 308},
    "aarch64": {"bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "add_key": 217, "keyctl": 219,
                "kexec_load": 104, "open_by_handle_at": 265, "unshare": 97, "setns": 268},
}[os.uname().machine]
numbers.update(io_uring_setup=425, open_tree=428, move_mount=429, fsopen=430, pidfd_getfd=438)
numbers["mount_setattr"] = 442
NEWUSER, NEWNS, CLONE_TREE = 0x10000000, 0x20000, 1
attempts = {
    "fsopen": (b"tmpfs", 0), "open_tree": (-100, b"/", CLONE_TREE), "move_mount": (-1, b"", -1, b"", 4),
    "mount_setattr": (-1, b"", 0x1000, None, 0), "bpf": (9999, None, 0), "keyctl": (0, -3, 0),
    "add_key": (b"user", b"x", b"x", 1, -2), "perf_event_open": (None, 0, -1, -1, 0), "userfaultfd": (0,),
    "io_uring_setup": (1, None), "pidfd_getfd": (-1, 0, 0), "open_by_handle_at": (-1, None, 0),
    "kexec_load": (0, 1 << 20, None, 0), "setns": (-1, 0), "unshare": (NEWUSER | NEWNS,),
}
for name, arguments in attempts.items():
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    failed = libc.syscall(ctypes.c_long(numbers[name]), *words) == -1
    print(name, errno.errorcode[ctypes.get_errno()] if failed else "done")
"""


def test_the_kernel_s_newest_and_least_needed_calls_are_there(containers, launcher, with_python):
    """CVE-2022-0185 and others: a file system's options by fsopen(2), in a user namespace of its own; bpf(2),
    keyrings, io_uring. Each of the calls here is harmless."""

    def outcomes(**options):
        launcher.declare(**with_python, **options)
        assert launcher.start() == ""
        said = launcher.execute("/usr/bin/python3", "-c", SURFACE)
        return dict(line.split() for line in said.splitlines())

    found = outcomes()
    assert len(found) == 15
    assert set(found.values()) == {"EPERM"}
    # Filtered for a privileged user too, and for root with all capabilities refused by nothing else.
    unconfined = outcomes(privileged=True)
    assert unconfined.keys() == found.keys()
    assert "EPERM" not in unconfined.values()
    assert unconfined["fsopen"] == unconfined["unshare"] == unconfined["open_tree"] == "done"

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems made to have the launcher mount, make or write something elsewhere than in them."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

VICTIM = "/var/lib/victim"

LOOKUP = 'return call("openat2", root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)'
BY_NAME = 'return os.open(f"/proc/self/fd/{root}/{path}", flags | os.O_CLOEXEC, mode)'
BY_A_CHECKED_NAME = (
    'assert os.path.realpath(f"/proc/self/fd/{root}/{path}").startswith(os.readlink(f"/proc/self/fd/{root}"))'
    # The moment in between is what a busy machine makes of it now and then.
    f"; __import__('time').sleep(0.001); {BY_NAME}"
)


@pytest.fixture
def victim(containers):
    """A directory of the host's: gives what there is in it."""
    containers.machine.shell(f"mkdir {VICTIM}; chmod 755 {VICTIM}")
    return lambda: set(containers.machine.shell(f"ls -A {VICTIM}").split())


def mountinfo(containers, place):
    """Of what is mounted last at a place in the container: root, options and type (proc(5), mountinfo)."""
    lines = [line.split() for line in containers.inside("cat /proc/self/mountinfo").splitlines()]
    fields = next(fields for fields in reversed(lines) if fields[4] == place)
    return fields[3], fields[5].split(","), fields[fields.index("-") + 1]


# Links on the way to a mount point


def test_mount_points_are_links_to_the_host(containers, launcher, victim):
    """CVE-2021-30465: /dev, a file, and the parent of a volume."""
    containers.machine.shell(
        f"mkdir /var/lib/devices; cd {containers.tree}; mkdir -p var/lib/victim var/lib/devices\n"
        f"ln -s /var/lib/devices dev; ln -s {VICTIM} volume; cd etc\n"
        f"ln -s {VICTIM}/file hosts; ln -s {'../' * 9}{VICTIM}/x resolv.conf"
    )
    launcher.declare(volumes=["/etc/hostname:/volume/inside", "/etc:/volume/directory"])
    assert launcher.start() == ""
    assert victim() == set()
    # They are followed, inside.
    assert set(containers.inside(f"ls {VICTIM}").split()) == {"file", "x", "inside", "directory"}
    assert "null" in containers.inside("ls /var/lib/devices").split()
    assert "localhost" in containers.inside("cat /etc/hosts")
    launcher.weaken("kernel/path.py", LOOKUP, BY_NAME)
    launcher.weaken("container/filesystem.py", 'if place in ("", "/"):', "if place is None:")
    launcher.start()
    # What an absolute link leads to is made inside even so, as the launcher reads that itself.
    assert victim() == {"x", "inside", "directory"}


SWAP = """
import ctypes, itertools
libc, AT_FDCWD, RENAME_EXCHANGE = ctypes.CDLL(None), -100, 2
for _round in itertools.count():
    assert libc.renameat2(AT_FDCWD, b"/volume", AT_FDCWD, b"/link", RENAME_EXCHANGE) == 0
"""


def test_a_mount_point_is_swapped_for_a_link(containers, launcher, with_python, victim, eventually):
    """CVE-2021-30465, CVE-2024-45310: between a check of the path and its use, by who shares the root."""
    containers.machine.shell(
        f"cp -a {containers.tree} /var/lib/shared; cd /var/lib/shared; mkdir volume; ln -s {VICTIM} link"
    )
    containers.converge(
        "two",
        command=["/usr/bin/python3", "-c", SWAP],
        rootfs="/var/lib/shared",
        rootfs_mode="direct",
        **with_python,
    )
    volumes = [f"/etc:/volume/{name}/{name}" for name in "abcdefghijklmnop"]
    launcher.declare(rootfs="/var/lib/shared", rootfs_mode="direct", volumes=volumes)

    def attempt():
        # It may fail, as something that was there a moment ago is not any more.
        launcher.start()
        return victim()

    for _attempt in range(20):
        assert attempt() == set()
    launcher.weaken("kernel/path.py", LOOKUP, BY_A_CHECKED_NAME)
    eventually(attempt)
    assert containers.alive("two")


SWAP_FILES = SWAP.replace("/volume", "/data/file").replace("/link", "/data/link")
COPIED_BY = "_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC"
FOLLOWED = "_NAME = os.O_PATH | os.O_CLOEXEC"


def test_what_is_copied_is_swapped_for_a_link(containers, launcher, with_python, victim, eventually):
    """With tmpcopyup, by who shares the root: a file for a link to one of the host's."""
    containers.machine.shell(
        f"cp -a {containers.tree} /var/lib/shared; mkdir /var/lib/shared/data; cd /var/lib/shared/data\n"
        f"echo secret > {VICTIM}/secret; echo harmless > file; ln -s {VICTIM}/secret link; mkfifo pipe"
    )
    root = {"rootfs": "/var/lib/shared", "rootfs_mode": "direct"}
    containers.converge("two", command=["/usr/bin/python3", "-c", SWAP_FILES], **root, **with_python)
    launcher.declare(tmpfs={"/data": "tmpcopyup"}, **root)

    def attempt():
        assert launcher.start() == ""
        return "secret" in containers.inside("cd /data; cat file link 2>/dev/null || :")

    assert not any(attempt() for _attempt in range(20))
    launcher.weaken("kernel/tree_copy.py", COPIED_BY, FOLLOWED)
    eventually(attempt)
    assert containers.alive("two")


def test_a_volume_covers_the_root(containers, launcher):
    """Its mount point is a link to the root, so that who enters the container is in the volume instead.

    Nobody looks at it from inside: the root of who enters a mount namespace is what is on top there
    (setns(2)), without /proc, masks and the users of the container.
    """
    containers.machine.shell(
        f"mkdir /var/lib/evil; cp {containers.tree}/bin/busybox /var/lib/evil; ln -s . {containers.tree}/data"
    )
    for users in ({}, {"uidmap": ["0:100000:65536"]}):
        launcher.declare(volumes=["/var/lib/evil:/data"], **users)
        assert "mount of /data: it is the root of the root file system" in launcher.start()
        assert not containers.alive()
    launcher.weaken("container/filesystem.py", 'if place in ("", "/"):', "if place is None:")
    assert launcher.start() == ""
    assert launcher.execute("/busybox", "ls", "/") == "busybox\n"


# The kernel's own file systems


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_are_faked(containers, launcher, name):
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: a link, so that what is looked for there is made up."""
    containers.machine.shell(
        f"mkdir -p /var/lib/evil/kernel {containers.tree}/fake; ln -s fake {containers.tree}/{name}"
    )
    containers.write("/var/lib/evil/kernel/version", "faked")
    launcher.declare(volumes=["/var/lib/evil:/fake"])
    assert f"mount of /{name}: it is a symbolic link in the root file system" in launcher.start()
    assert not containers.alive()
    launcher.weaken("container/filesystem.py", "symlinks=not ordinary", "symlinks=True")
    assert launcher.start() == ""
    assert launcher.execute("cat", f"/{name}/kernel/version") == "faked"


@pytest.mark.parametrize("destination", ["/data", "/proc/self/attr"])
def test_a_volume_covers_a_part_of_proc(containers, launcher, destination):
    """CVE-2019-16884: it is there that a security module is told of the container's profile."""
    containers.write("/var/lib/evil/current", "unconfined")
    containers.machine.shell(f"ln -s /proc/self/attr {containers.tree}/data")
    launcher.declare(volumes=["/var/lib/evil:/data"])
    launcher.tamper(lambda config: config["mounts"][-1].update(destination=destination))
    assert f"mount of {destination}: it lies in /proc/1/attr, where nothing may be" in launcher.start()
    assert not containers.alive()
    launcher.weaken(
        "container/filesystem.py", 'place.split("/")[1:2] in (["proc"], ["sys"])', "place == 'elsewhere'"
    )
    assert launcher.start() == ""
    assert launcher.execute("cat", "/proc/1/attr/current") == "unconfined"


# Devices


CORE_PATTERN = "/proc/sys/kernel/core_pattern"


def without_dev(config):
    """The root file system's own /dev in the place of the launcher's, as a swap would have it."""
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]


def test_masking_is_by_a_null_device_of_the_container_s(containers, launcher):
    """CVE-2025-31133: what is to be hidden becomes whatever /dev/null there is a link to, to be written."""
    containers.machine.shell(f"mkdir {containers.tree}/dev; ln -s {CORE_PATTERN} {containers.tree}/dev/null")
    launcher.declare()
    launcher.tamper(without_dev)
    assert launcher.start() == ""
    assert mountinfo(containers, "/proc/keys")[0] == "/null"
    assert containers.inside("cat /proc/keys") == ""
    launcher.weaken(
        "container/filesystem.py",
        "null = _open_null()",
        'null = path.open_in_root(self.descriptor, "/dev/null", os.O_PATH)',
    )
    assert launcher.start() == ""
    root, options, _kind = mountinfo(containers, "/proc/keys")
    assert root == "/sys/kernel/core_pattern"
    assert "rw" in options


def test_the_null_device_of_the_host_is_none(containers, launcher):
    """CVE-2025-31133, by who can make files in the host's /dev."""
    containers.machine.shell("touch /run/file; mount --bind /run/file /dev/null")
    launcher.declare()
    assert "/dev/null of the host is not the null device" in launcher.start()
    launcher.weaken("container/filesystem.py", "status.st_rdev != _NULL_DEVICE", "False")
    launcher.weaken("container/filesystem.py", "not stat.S_ISCHR(status.st_mode)", "False")
    assert launcher.start() == ""
    containers.machine.shell("umount --lazy /dev/null; echo secret > /run/file")
    assert launcher.execute("cat", "/proc/keys") == "secret\n"


@contextlib.contextmanager
def listening(containers):
    """A socket on the machine to hand a terminal over to: gives the launcher's words for it."""
    place = f"/proc/{containers.machine.pid}/root/run/console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        yield "--console-socket", "/run/console"
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection, _address = listener.accept()
            with connection:
                for descriptor in socket.recv_fds(connection, 100, 1)[1]:
                    os.close(descriptor)
    os.unlink(place)


def test_the_console_is_a_link_to_the_host(containers, launcher, victim):
    """CVE-2025-52565: at /dev/console, which the terminal is mounted on."""
    containers.machine.shell(
        f"cd {containers.tree}; mkdir -p dev var/lib/victim; ln -s {VICTIM}/file dev/console"
    )
    launcher.declare()
    launcher.tamper(
        lambda config: (
            config["process"].update(terminal=True),
            config["mounts"].remove(next(each for each in config["mounts"] if each["destination"] == "/dev")),
        )
    )
    with listening(containers) as words:
        assert launcher.start(words=words) == ""
        assert mountinfo(containers, "/dev/console")[2] == "devpts"
    assert victim() == set()
    launcher.end()
    containers.machine.shell(f"rm -r {containers.directory()}/upper/dev")
    launcher.weaken("container/terminal.py", "os.path.lexists(", "os.path.exists(")
    launcher.weaken("container/terminal.py", "os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW", "os.O_CREAT")
    with listening(containers) as words:
        launcher.start(words=words)
    assert victim() == {"file"}


def test_the_terminal_is_a_link_to_a_file(containers, launcher):
    """CVE-2025-52565: at /dev/pts/0, which becomes /dev/console and is then there for the container to use.

    A volume over /dev/pts is what a swap at the right moment would make of it.
    """
    containers.machine.shell(
        f"mkdir /var/lib/evil; cd /var/lib/evil; ln -s {CORE_PATTERN} 0; ln -s /pts/ptmx ."
    )
    launcher.declare(volumes=["/var/lib/evil:/evil"])

    def cover(config):
        config["process"]["terminal"] = True
        pts = next(mount for mount in config["mounts"] if mount["destination"] == "/dev/pts")
        config["mounts"].append({**pts, "destination": "/pts"})
        config["mounts"].append({**config["mounts"][-2], "destination": "/dev/pts"})

    launcher.tamper(cover)
    with listening(containers) as words:
        assert launcher.start(words=words) == ""
        assert mountinfo(containers, "/dev/console")[2] == "devpts"
    launcher.weaken(
        "container/terminal.py",
        "mount.clone_tree(slave)",
        'mount.clone_tree(path.open_in_root(root, "/dev/pts/0", os.O_PATH))',
    )
    with listening(containers) as words:
        assert launcher.start(words=words) == ""
        assert mountinfo(containers, "/dev/console")[0] == "/sys/kernel/core_pattern"


# What is written to /proc


def test_writes_to_proc_are_redirected(containers, launcher):
    """CVE-2025-52881: settings and scores are written to what is called like that in the container."""
    containers.machine.shell(
        f"cd {containers.tree}; mkdir -p proc/sys/kernel proc/self; touch written\n"
        "for name in sys/kernel/shmmax self/oom_score_adj; do ln -s /written proc/$name; done"
    )
    launcher.declare(sysctl={"kernel.shmmax": 4096}, oom_score_adj=500)

    def planted_proc(config):
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/proc"]

    launcher.tamper(planted_proc)
    assert launcher.start() == ""
    assert containers.inside("cat /written") == ""
    with open(f"/proc/{containers.pid()}/oom_score_adj") as file:
        assert file.read() == "500\n"
    # The host's /proc has it, of the container's own namespace.
    read = ("nsenter", f"--target={containers.pid()}", "--ipc", "cat", "/proc/sys/kernel/shmmax")
    assert containers.machine.run(*read) == "4096\n"
    # A launcher that writes them from inside, as they are the container's.
    launcher.weaken(
        "container/init.py",
        "            self._root.pivot()\n",
        "            self._root.pivot()\n"
        "            _write('/proc/sys/kernel/shmmax', '4096')\n"
        "            _write('/proc/self/oom_score_adj', '500')\n",
    )
    assert launcher.start() == ""
    assert containers.inside("cat /written") == "5006"


# What the host reads of it


def test_a_file_of_its_own_is_larger_than_memory(containers, launcher):
    """It writes to its hosts(5) as it likes, and the launcher has to add to that at the next start."""
    through = ("prlimit", f"--as={1 << 30}")
    launcher.declare()
    assert launcher.start(through=through) == ""
    size = containers.inside("truncate -s 8G /etc/hosts; stat -c %s /etc/hosts")
    assert int(size) == 8 << 30
    assert launcher.start(through=through) == ""
    assert int(containers.inside("stat -c %s /etc/hosts")) < 8 << 30
    containers.inside("truncate -s 8G /etc/hosts")
    containers.converge(state="restarted")
    assert containers.inside("tail -n 1 /etc/hosts").split() == ["127.0.1.1", containers.name("one")]
    containers.inside("truncate -s 8G /etc/hosts")
    launcher.weaken("container/launch.py", "file.read(bundle.ETC_LIMIT)", "file.read()")
    assert "MemoryError" in launcher.start(through=through)

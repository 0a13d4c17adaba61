# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's process on this kernel: what it is from inside and outside, and how it converges."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

NAMESPACES = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
NO_HANDLER = ["sleep", "1000"]
# By their numbers in capabilities(7): podman's default set, containers.conf(5).
DEFAULT = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))
NET_RAW, NET_BIND_SERVICE, CHOWN = 13, 10, 0
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def sets(status):
    return {name: int(status[name], 16) for name in SETS}


class TestInside:
    """What the process sees."""

    def test_it_is_pid_1_and_sees_only_its_own_processes(self, containers):
        result = containers.converge(command=["sh", "-c", "sleep 1001 & exec sleep 1000"])
        assert result["pid"] == containers.pid()
        assert containers.status()["NSpid"].split() == [str(containers.pid()), "1"]
        seen = containers.inside("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
        own = [line.strip() for line in seen.splitlines() if line and not line.startswith(("tr", "/bin/sh"))]
        assert sorted(own) == ["sleep 1000", "sleep 1001"]

    def test_its_namespaces_are_its_own(self, containers):
        containers.converge()
        for name in NAMESPACES:
            inside = os.stat(f"/proc/{containers.pid()}/ns/{name}").st_ino
            assert inside != os.stat(f"/proc/self/ns/{name}").st_ino, name
            assert inside != os.stat(f"/proc/{containers.machine.pid}/ns/{name}").st_ino, name

    def test_its_host_name_is_its_own(self, containers):
        before = os.uname().nodename
        containers.converge(hostname="inside.example")
        assert containers.inside("hostname") == "inside.example\n"
        assert containers.inside("cat /etc/hostname") == "inside.example\n"
        assert os.uname().nodename == before
        containers.converge("two")
        assert containers.inside("hostname", "two") == f"{containers.name('two')}\n"

    def test_the_root_is_the_declared_one_and_the_old_one_is_out_of_reach(self, containers):
        containers.machine.shell("touch /var/lib/of-the-host")
        containers.converge()
        assert set(containers.inside("ls /").split()) == {"bin", "dev", "etc", "proc", "sys", "tmp"}
        root = containers.inside("stat -c %d:%i /")
        for way in ("/..", "/../../..", "/proc/1/root/..", "/proc/self/root/../..", "/proc/1/cwd/.."):
            assert containers.inside(f"stat -c %d:%i {way}") == root, way
            assert containers.inside(f"ls {way}/var/lib 2>&1 || :").endswith("No such file or directory\n")
        mounts = [line.split() for line in containers.inside("cat /proc/self/mountinfo").splitlines()]
        points = [mount[4] for mount in mounts]
        kernel = {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}
        assert points.count("/") == 1
        assert kernel <= set(points)
        # Each file system has a parent that is inside too, so nothing is stacked on what can't be seen.
        below = [mount for mount in mounts if mount[4] != "/"]
        assert {mount[1] for mount in below} <= {mount[0] for mount in mounts}
        assert not any("shared:" in field or "master:" in field for mount in mounts for field in mount)

    def test_the_kernel_s_file_systems_are_as_runc_mounts_them(self, containers):
        containers.converge()
        mounts = {
            line.split()[1]: (line.split()[2], set(line.split()[3].split(",")))
            for line in containers.inside("cat /proc/self/mounts").splitlines()
        }
        assert mounts["/proc"][0] == "proc"
        assert {"rw", "nosuid", "nodev", "noexec"} <= mounts["/proc"][1]
        assert mounts["/sys"][0] == "sysfs"
        assert {"ro", "nosuid", "nodev", "noexec"} <= mounts["/sys"][1]
        assert mounts["/sys/fs/cgroup"][0] == "cgroup2"
        assert "ro" in mounts["/sys/fs/cgroup"][1]
        assert {"nosuid", "mode=755"} <= mounts["/dev"][1]
        assert {"nosuid", "noexec", "mode=620", "ptmxmode=666"} <= mounts["/dev/pts"][1]
        assert mounts["/tmp"][0] == "tmpfs"
        assert {"nosuid", "nodev", "size=65536k"} <= mounts["/tmp"][1]
        assert containers.inside("stat -c %a /tmp /dev/shm").split() == ["1777", "1777"]
        assert {"ro"} <= mounts["/proc/sys"][1]
        assert "nodev" in mounts["/"][1]
        assert containers.inside("echo 1 > /proc/sys/kernel/panic 2>&1 || echo refused").endswith("refused\n")
        assert containers.inside("cat /proc/keys | wc -c") == "0\n"

    def test_dev_has_the_usual_devices_and_they_work(self, containers):
        containers.converge()
        listed = containers.inside("cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty")
        assert listed.splitlines() == [
            "null 1:3 666",
            "zero 1:5 666",
            "full 1:7 666",
            "random 1:8 666",
            "urandom 1:9 666",
            "tty 5:0 666",
        ]
        assert containers.inside(
            "head -c 4 /dev/zero | wc -c; echo x > /dev/null; readlink /dev/fd; readlink /dev/ptmx"
        ) == ("4\n/proc/self/fd\npts/ptmx\n")

    def test_its_environment_has_nothing_of_the_host(self, containers):
        containers.machine.module(
            "container_process",
            containers.options("one", env={"GREETING": "hello", "YES": True}, user="1000"),
            environment={"SECRET": "of the host"},
        )
        raw = Path(f"/proc/{containers.pid()}/environ").read_text().rstrip("\0")
        environment = dict(item.split("=", 1) for item in raw.split("\0"))
        assert environment == {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": containers.name("one"),
            "HOME": "/",
            "GREETING": "hello",
            "YES": "true",
        }

    def test_loopback_is_up_and_there_is_no_other_link(self, containers):
        containers.converge()
        assert containers.inside("ls /sys/class/net").split() == ["lo"]
        assert "LOOPBACK,UP" in containers.inside("ip link show lo")
        assert containers.inside("ping -c 1 -W 5 127.0.0.1 > /dev/null && echo answered") == "answered\n"

    def test_it_joins_the_network_that_is_declared(self, containers):
        name = containers.name("one")
        containers.declare("network", {"address": ["10.9.8.7/24", "fd00::7/64"]})
        containers.machine.shell(f"ip netns add {name}")
        containers.converge(hostname="inside", etc_hosts={"peer": "10.9.8.9"})
        joined = containers.machine.shell(f"stat -Lc %i /run/netns/{name}")
        assert os.stat(f"/proc/{containers.pid()}/ns/net").st_ino == int(joined)
        assert containers.inside("cat /etc/hosts").splitlines() == [
            "127.0.0.1 localhost",
            "::1 localhost ip6-localhost ip6-loopback",
            "10.9.8.9 peer",
            "# Of this container, added when it was started:",
            "10.9.8.7 inside",
            "fd00::7 inside",
        ]
        assert not containers.converge(hostname="inside", etc_hosts={"peer": "10.9.8.9"})["changed"]
        # A namespace of that name, but another one: the process is in the wrong network.
        containers.machine.shell(f"ip netns delete {name}; ip netns add {name}")
        before = containers.pid()
        result = containers.converge(hostname="inside", etc_hosts={"peer": "10.9.8.9"})
        assert result["changed"]
        assert "network namespace" in result["diff"][0]["before"]
        assert containers.pid() != before
        containers.converge(hostname="inside", network="none")
        assert containers.inside("cat /etc/hosts").splitlines()[-1] == "127.0.1.1 inside"
        containers.machine.shell(f"ip netns delete {name}")

    def test_with_the_host_s_network_it_has_the_host_s_links(self, containers):
        containers.machine.shell("ip link add marker type veth peer name other")
        containers.converge(network="host")
        assert set(containers.inside("ls /sys/class/net").split()) == {"lo", "marker", "other"}


class TestPrivileges:
    def test_the_default(self, containers):
        containers.converge()
        status = containers.status()
        assert sets(status) == {
            "CapInh": 0, "CapPrm": DEFAULT, "CapEff": DEFAULT, "CapBnd": DEFAULT, "CapAmb": 0,
        }  # fmt: skip
        assert status["NoNewPrivs"] == "1"
        assert status["Groups"].split() in ([], ["0"])
        assert int(status["SigBlk"], 16) == 0
        # 32 and 33 are the C library's own: nobody else may change them; it sets them before it uses them.
        assert int(status["SigIgn"], 16) & ~(0b11 << 31) == 0

    def test_added_and_dropped(self, containers):
        containers.converge(cap_add=["net_raw"], cap_drop=["CAP_CHOWN"])
        expected = DEFAULT & ~(1 << CHOWN) | 1 << NET_RAW
        assert sets(containers.status())["CapEff"] == expected
        containers.converge(cap_add=["NET_RAW"], cap_drop=["ALL"])
        assert {sets(containers.status())[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {1 << NET_RAW}

    def test_privileged_has_all_that_the_host_has(self, containers):
        containers.converge(privileged=True)
        status = containers.status()
        every = int(
            next(
                line.split()[1]
                for line in Path("/proc/self/status").read_text().splitlines()
                if "CapBnd" in line
            ),
            16,
        )
        assert {sets(status)[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {every}
        assert sets(status)["CapInh"] == 0
        assert status["NoNewPrivs"] == "0"
        options = {
            line.split()[1]: line.split()[3] for line in containers.inside("cat /proc/mounts").splitlines()
        }
        assert "/proc/sys" not in options
        assert options["/sys"].startswith("rw")
        assert options["/sys/fs/cgroup"].startswith("rw")

    def test_another_user_has_nothing(self, containers):
        containers.converge(user="1000:1001")
        status = containers.status()
        assert status["Uid"].split() == ["1000"] * 4
        assert status["Gid"].split() == ["1001"] * 4
        assert status["Groups"].split() in ([], ["1001"])
        assert sets(status) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": DEFAULT, "CapAmb": 0}

    def test_another_user_has_what_was_added_by_name(self, containers):
        containers.converge(user="1000", cap_add=["NET_BIND_SERVICE"])
        own = 1 << NET_BIND_SERVICE
        found = sets(containers.status())
        assert {found[name] for name in ("CapPrm", "CapEff", "CapAmb")} == {own}
        assert found["CapBnd"] == DEFAULT

    def test_names_are_looked_up_in_the_container(self, containers):
        containers.machine.shell(
            f"echo 'app:x:1234:1235:An app:/home/app:/bin/sh' > {containers.tree}/etc/passwd\n"
            # A user called like an id, which is another's: the number is meant.
            f"echo '1000:x:0:0::/:/bin/sh' >> {containers.tree}/etc/passwd\n"
            f"printf 'app:x:1235:\\naudio:x:29:app,other\\n' > {containers.tree}/etc/group"
        )
        containers.converge(user="app")
        status = containers.status()
        assert status["Uid"].split()[0] == "1234"
        assert status["Gid"].split()[0] == "1235"
        assert status["Groups"].split() == ["29"]
        assert "HOME=/home/app" in Path(f"/proc/{containers.pid()}/environ").read_text().split("\0")
        containers.converge(user="app:audio")
        assert containers.status()["Gid"].split()[0] == "29"
        assert containers.status()["Groups"].split() in ([], ["29"])
        containers.converge(user="1000")
        assert containers.status()["Uid"].split() == ["1000"] * 4
        result = containers.converge(user="nobody", fails=True)
        assert "user: 'nobody' is not in the container's /etc/passwd" in result["msg"]

    def test_limits_and_scores(self, containers):
        containers.converge(ulimit=["nofile=100:200", "core=0"], oom_score_adj=500)
        limits = Path(f"/proc/{containers.pid()}/limits").read_text()
        assert next(
            line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")
        ) == ["100", "200"]
        assert Path(f"/proc/{containers.pid()}/oom_score_adj").read_text() == "500\n"

    def test_sysctls_are_the_container_s_own(self, containers):
        before = (
            Path("/proc/sys/net/ipv4/ip_forward").read_text(),
            Path("/proc/sys/kernel/shmmax").read_text(),
        )
        containers.converge(sysctl={"net.ipv4.ip_forward": 1, "kernel.shmmax": 4096, "fs.mqueue.msg_max": 7})
        read = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max"
        assert containers.inside(read).split() == ["1", "4096", "7"]
        after = Path("/proc/sys/net/ipv4/ip_forward").read_text(), Path("/proc/sys/kernel/shmmax").read_text()
        assert after == before


class TestFileSystem:
    def test_what_it_writes_stays_in_its_own_layer(self, containers):
        containers.converge()
        containers.inside("echo mine > /written; rm /bin/yes")
        assert containers.machine.shell(f"ls {containers.tree}").split() == ["bin", "etc"]
        assert containers.machine.shell(f"ls {containers.tree}/bin/yes")
        containers.converge(state="restarted")
        assert containers.inside("cat /written") == "mine\n"

    def test_another_root_file_system_starts_afresh(self, containers):
        containers.converge()
        containers.inside("echo mine > /written")
        containers.machine.shell(f"cp -a {containers.tree} /var/lib/other; touch /var/lib/other/newer")
        containers.converge(rootfs="/var/lib/other")
        assert containers.inside("ls /newer /written 2>/dev/null || :") == "/newer\n"
        assert not containers.converge(rootfs="/var/lib/other")["changed"]

    def test_layers_lie_above_one_another(self, containers):
        name = containers.name("one")
        layers = ["/var/lib/low", "/var/lib/a:b,c"]
        containers.machine.shell(f"cp -a {containers.tree} {layers[0]}")
        for layer, text in zip(layers, ("low\n", "high\n"), strict=True):
            containers.write(f"{layer}/which", text)
        containers.declare("rootfs", {"layers": layers})
        containers.machine.module(
            "container_process", {"name": name, "command": NO_HANDLER, "stop_timeout": 0}
        )
        assert containers.inside("cat /which") == "high\n"

    def test_a_read_only_root_refuses_writing_but_its_volumes_do_not(self, containers):
        containers.machine.shell("mkdir /var/lib/shared")
        containers.converge(
            rootfs_mode="read_only", volumes=["/var/lib/shared:/srv/data"], tmpfs={"/cache": "size=1m"}
        )
        assert containers.inside("touch /x 2>&1 || :").endswith("Read-only file system\n")
        containers.inside("touch /srv/data/written /cache/x /tmp/x")
        assert containers.machine.shell("ls /var/lib/shared") == "written\n"

    def test_direct_is_the_directory_itself(self, containers):
        containers.converge(rootfs_mode="direct")
        containers.inside("echo mine > /written")
        assert containers.machine.shell(f"cat {containers.tree}/written") == "mine\n"
        # and no layer of its own is kept for it
        files = containers.machine.shell(f"ls /var/lib/bare-containers/containers/{containers.name('one')}")
        assert set(files.split()) == {"config.json", "etc", "process.json", "seccomp.bpf"}
        containers.converge()
        assert containers.inside("rm /written; ls /written 2>&1 || :").endswith("No such file or directory\n")
        assert containers.machine.shell(f"cat {containers.tree}/written") == "mine\n"

    def test_volumes(self, containers):
        containers.machine.shell(
            "mkdir -p /var/lib/a/below; echo one > /var/lib/a/file\n"
            "mount -t tmpfs t /var/lib/a/below; touch /var/lib/a/below/deep"
        )
        containers.converge(
            volumes=["/var/lib/a:/data:ro", "/var/lib/a/file:/etc/one/file", "/var/lib/a:/plain:bind,noexec"],
        )
        assert containers.inside("cat /data/file /etc/one/file; ls /data/below") == "one\none\ndeep\n"
        assert containers.inside("ls /plain/below") == ""
        assert containers.inside("touch /data/x 2>&1 || :").endswith("Read-only file system\n")
        # read-only holds for what is mounted below too
        assert containers.inside("touch /data/below/x 2>&1 || :").endswith("Read-only file system\n")
        containers.inside("echo two > /etc/one/file")
        assert containers.machine.shell("cat /var/lib/a/file") == "two\n"
        options = {
            line.split()[1]: line.split()[3].split(",")
            for line in containers.inside("cat /proc/mounts").splitlines()
        }
        assert "noexec" in options["/plain"]

    def test_tmp_can_be_declared_otherwise(self, containers):
        containers.converge(tmpfs={"/tmp": "size=1m,mode=700,exec"})
        lines = [line for line in containers.inside("cat /proc/mounts").splitlines() if " /tmp " in line]
        assert len(lines) == 1
        assert {"size=1024k", "mode=700", "nosuid", "nodev"} <= set(lines[0].split()[3].split(","))

    def test_its_working_directory_is_made(self, containers):
        containers.converge(workdir="/made/for/it")
        assert os.readlink(f"/proc/{containers.pid()}/cwd") == "/made/for/it"


class TestSignals:
    def test_without_a_handler_term_is_ignored_and_kill_ends_all(self, containers, eventually):
        containers.converge(command=["sh", "-c", "sleep 1001 & exec sleep 1000"])
        pid = containers.pid()
        child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        descriptor = os.pidfd_open(child)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGUSR1)
        # What is ignored leaves no trace: that both arrive on the way of a signal that does is the proof.
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: containers.status()["State"].startswith("T"))
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: containers.status()["State"].startswith("S"))
        assert containers.pid() == pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not containers.alive())
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(10_000), "the child has outlived its PID 1"
        os.close(descriptor)

    def test_stopping_asks_first(self, containers):
        command = ["sh", "-c", "trap 'echo asked; exit 0' USR1; while :; do sleep 0.05; done"]
        containers.converge(command=command, stop_signal="SIGUSR1", stop_timeout=30)
        began = time.monotonic()
        containers.converge(command=command, stop_signal="SIGUSR1", stop_timeout=30, state="stopped")
        assert time.monotonic() - began < 25
        assert not containers.alive()
        assert containers.log() == "asked\n"

    def test_and_kills_after_the_timeout(self, containers):
        containers.converge(stop_timeout=1)
        began = time.monotonic()
        containers.converge(state="stopped", stop_timeout=1)
        assert time.monotonic() - began >= 1
        assert not containers.alive()


class TestConverging:
    def test_a_second_run_changes_nothing_and_writes_nothing(self, containers):
        containers.converge(env={"A": "b"}, tmpfs={"/cache": None}, cap_add=["NET_RAW"])
        pid, before = containers.pid(), containers.files()
        again = containers.converge(env={"A": "b"}, tmpfs={"/cache": None}, cap_add=["NET_RAW"])
        assert not again["changed"]
        assert again["commands"] == []
        assert again["diff"] == []
        assert containers.files() == before
        assert containers.pid() == pid

    CHANGES = (
        {"command": ["sleep", "1001"]},
        {"env": {"A": "B"}},
        {"user": "1000"},
        {"workdir": "/tmp"},
        {"hostname": "other"},
        {"rootfs_mode": "read_only"},
        {"rootfs_mode": "tmpfs", "rootfs_size": "8M"},
        {"network": "host"},
        {"volumes": ["/etc:/etc/host:ro"]},
        {"tmpfs": {"/cache": "size=1m"}},
        {"cap_drop": ["CHOWN"]},
        {"privileged": True},
        {"no_new_privileges": False},
        {"sysctl": {"net.ipv4.ip_forward": "1"}},
        {"ulimit": ["core=0"]},
        {"oom_score_adj": 100},
    )

    def test_a_change_starts_it_again_and_so_does_taking_it_back(self, containers):
        containers.converge(env={"A": "b"})
        for change in self.CHANGES:
            for declared in ({"env": {"A": "b"}, **change}, {"env": {"A": "b"}}):
                before = containers.pid()
                foretold = containers.converge(check=True, **declared)
                assert foretold["changed"], declared
                assert containers.pid() == before
                done = containers.converge(**declared)
                assert done["changed"]
                assert done["diff"] == foretold["diff"], declared
                assert done["commands"] == foretold["commands"]
                assert containers.pid() != before, declared
                assert not containers.converge(**declared)["changed"], declared

    def test_what_does_not_concern_the_process_leaves_it_alone(self, containers):
        containers.converge(dns=["10.0.0.1"], dns_search=["old.example"])
        pid = containers.pid()
        for change in ({"stop_timeout": 7}, {"stop_signal": "SIGINT"}):
            assert containers.converge(dns=["10.0.0.1"], dns_search=["old.example"], **change)["changed"]
            assert containers.pid() == pid
        declared = {
            "dns": ["10.0.0.2"],
            "dns_search": ["new.example"],
            "dns_options": ["ndots:2"],
            "etc_hosts": {"x": "10.0.0.3"},
        }
        assert containers.converge(**declared)["changed"]
        assert containers.pid() == pid
        assert (
            containers.inside("cat /etc/resolv.conf")
            == "nameserver 10.0.0.2\nsearch new.example\noptions ndots:2\n"
        )
        hosts = containers.inside("cat /etc/hosts").splitlines()
        assert "10.0.0.3 x" in hosts
        assert hosts[-1] == f"127.0.1.1 {containers.name('one')}"

    def test_drift_is_told_and_repaired(self, containers):
        containers.converge(dns=["10.0.0.1"])
        directory = containers.directory()
        drifts = {
            f"sed -i s/noexec/exec/ {directory}/config.json": True,
            f"rm {directory}/config.json": True,
            f"rm -r {directory}/etc": False,
            f"echo nameserver 6.6.6.6 > {directory}/etc/resolv.conf": False,
            f"rm {directory}/process.json": False,
            f"echo broken > {directory}/config.json": True,
            f"rm /run/bare-containers/{containers.name('one')}/config.json": True,
        }
        for drift, restarts in drifts.items():
            pid = containers.pid()
            containers.machine.shell(drift)
            told = containers.converge(dns=["10.0.0.1"], check=True)
            assert told["changed"], drift
            assert told["diff"], drift
            done = containers.converge(dns=["10.0.0.1"])
            assert done["diff"] == told["diff"], drift
            assert not containers.converge(dns=["10.0.0.1"])["changed"], drift
            assert (containers.pid() != pid) is restarts, drift

    def test_whatever_it_writes_to_its_etc_is_replaced(self, containers):
        containers.converge(dns=["10.0.0.1"])
        pid = containers.pid()
        containers.inside(
            "for file in /etc/hosts /etc/resolv.conf /etc/hostname; do printf '\\377\\0\\n' > $file; done"
        )
        assert containers.converge(dns=["10.0.0.1"])["changed"]
        assert containers.pid() == pid
        assert containers.inside("cat /etc/resolv.conf") == "nameserver 10.0.0.1\n"
        assert not containers.converge(dns=["10.0.0.1"])["changed"]
        containers.inside("printf '\\377' >> /etc/hosts")
        containers.converge(state="restarted", dns=["10.0.0.1"])
        assert containers.inside("tail -n 1 /etc/hosts").startswith("127.0.1.1 ")

    def test_a_dead_process_is_started(self, containers, eventually):
        containers.converge()
        before = containers.pid()
        os.kill(before, signal.SIGKILL)
        eventually(lambda: not containers.alive())
        told = containers.converge(check=True)
        assert told["changed"]
        assert not containers.alive()
        assert containers.converge()["changed"]
        assert containers.pid() != before

    def test_stopped_and_started_and_restarted(self, containers):
        containers.converge()
        assert containers.converge(state="stopped")["changed"]
        assert not containers.alive()
        assert not containers.converge(state="stopped")["changed"]
        assert containers.converge()["changed"]
        first = containers.pid()
        name = {"name": containers.name("one")}
        assert containers.machine.module("container_process", {**name, "state": "restarted"}, check=True)[
            "changed"
        ]
        assert containers.pid() == first
        result = containers.machine.module("container_process", {**name, "state": "restarted"})
        assert result["changed"]
        assert result["pid"] == containers.pid() != first
        # The declaration that was kept is the one that was started.
        assert not containers.converge()["changed"]
        assert containers.machine.module("container_process", {**name, "state": "stopped"})["changed"]
        assert not containers.alive()

    def test_absent_leaves_nothing(self, containers):
        before = set(containers.files())
        containers.converge(
            command=["sh", "-c", "mkdir -p /a/b/c; ln -s / /a/link; echo said; exec sleep 1000"]
        )
        containers.machine.shell(f"cd {containers.tree}")
        pid = containers.pid()
        told = containers.converge(state="absent", check=True)
        assert told["changed"]
        assert containers.alive()
        assert containers.converge(state="absent")["changed"]
        assert not Path(f"/proc/{pid}/exe").exists()
        assert not containers.cgroup("one").exists()
        left = {
            path for path in containers.files() if "/netns" not in path and "__pycache__" not in path
        } - before
        assert not left
        assert not containers.converge(state="absent")["changed"]
        # Unknown to us, it is absent too.
        assert not containers.converge("never", state="absent")["changed"]

    def test_a_declared_cgroup_is_joined_and_left_alone(self, containers):
        directory = containers.cgroup("one")
        directory.mkdir(parents=True)
        containers.declare("cgroup", {"manager": "cgroupfs", "path": str(directory)})
        containers.converge()
        assert (directory / "cgroup.procs").read_text().split() == [str(containers.pid())]
        assert "0::/" in containers.inside("cat /proc/1/cgroup").splitlines()
        containers.converge(state="absent")
        assert directory.exists()

    def test_the_commands_do_the_same_on_another_machine(self, containers, new_machine):
        other = type(containers)(new_machine())
        options = {"env": {"A": "it's"}, "dns": ["10.0.0.1"], "hostname": "inside"}
        commands = containers.converge(**options)["commands"]
        kept = containers.sums()
        containers.converge(state="absent")
        other.machine.shell("\n".join(commands))
        other.name("one")
        assert other.inside("hostname; cat /proc/1/cmdline") == "inside\nsleep\x001000\x00"
        assert not other.converge(**options)["changed"]
        assert kept == other.sums()
        stop = other.converge(state="stopped", check=True, **options)["commands"]
        other.machine.shell("\n".join(stop))
        assert not other.alive()
        assert not other.converge(state="stopped", **options)["changed"]
        other.end()

    def test_the_recipe_gives_the_same_view(self, containers):
        look = (
            "cat /proc/1/mounts | sed s/,uuid=on// | sort; hostname; readlink /proc/1/cwd; ip address;"
            "tr '\\0' '\\n' < /proc/1/environ | sort; ls -l /dev | sed 's/ [A-Z].*:.. / /';"
            "grep -e ^Cap -e ^NoNewPrivs -e ^NSpid -e ^Umask /proc/1/status;"
            "cat /etc/hosts /proc/sys/net/ipv4/ping_group_range; grep -e files /proc/1/limits;"
            "stat -c '%n %a %u:%g %h %Y' /copied /copied/*; echo $$"
        )
        command = ["sh", "-c", f"{look}; exec sleep 1000"]
        options = {
            "workdir": "/w/d",
            "ulimit": ["nofile=100:200"],
            "cap_add": ["NET_RAW"],
            "volumes": ["/etc:/host:ro"],
            "tmpfs": {"/copied": "tmpcopyup,mode=751,gid=4,ro"},
        }
        containers.machine.shell(
            f"mkdir {containers.tree}/copied; cd {containers.tree}/copied; chown 3:3 .; umask 027\n"
            "echo text > file; ln file hard; chown 5:6 file; mkfifo pipe; ln -s / link"
        )
        result = containers.converge(command=command, **options)
        launched = eventually_log(containers)
        containers.converge(state="stopped", command=command, **options)
        recipe = "\n".join(result["recipe"])
        assert recipe.count("exec sleep 1000") == 1
        done = containers.machine.shell(recipe.replace("exec sleep 1000", "exit 0"))
        assert done == launched

    def test_a_batch_starts_fifty_and_one_that_fails_does_not_stop_the_others(self, containers):
        batch = [containers.options(f"n{number}") for number in range(50)]
        batch[25]["command"] = ["/no/such/command"]
        result = containers.machine.module("container_process", {"batch": batch})
        assert result["failed"]
        assert "/no/such/command" in result["msg"]
        outcomes = list(result["containers"].values())
        assert [outcome["failed"] for outcome in outcomes] == [number == 25 for number in range(50)]
        assert all(containers.alive(f"n{number}") is (number != 25) for number in range(50))
        batch[25]["command"] = ["sleep", "1"]
        del batch[25]
        again = containers.machine.module("container_process", {"batch": batch})
        assert not again["changed"]
        gone = [{"name": entry["name"], "state": "absent"} for entry in batch]
        gone.append({"name": containers.name("n25"), "state": "absent"})
        assert containers.machine.module("container_process", {"batch": gone})["changed"]
        assert not any(containers.alive(f"n{number}") for number in range(50))


def eventually_log(containers):
    """The log once all of it is there: its last line is the shell's PID."""
    deadline = time.monotonic() + 20
    while not (log := containers.log()).endswith("\n1\n"):
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    return log


class TestBadInput:
    BAD: ClassVar = {
        "command": ({"command": []}, ["command"]),
        "user": ({"user": "1:2:3"}, ["user", "'1:2:3'"]),
        "hexadecimal user": ({"user": "0x0"}, ["user", "0x0"]),
        "workdir": ({"workdir": "../x"}, ["workdir", "../x"]),
        "capability": ({"cap_add": ["EVERYTHING"]}, ["cap_add", "EVERYTHING"]),
        "sysctl of the host": ({"sysctl": {"kernel.core_pattern": "x"}}, ["sysctl", "kernel.core_pattern"]),
        "sysctl with a path": ({"sysctl": {"net/../kernel.x": "1"}}, ["sysctl", "net/../kernel.x"]),
        "sysctl with two lines": (
            {"sysctl": {"net.ipv4.ip_forward": "1\n2"}},
            ["sysctl", "net.ipv4.ip_forward"],
        ),
        "sysctl of the host's network": (
            {"network": "host", "sysctl": {"net.ipv4.ip_forward": "1"}},
            ["sysctl", "net.ipv4.ip_forward", "host"],
        ),
        "volume": ({"volumes": ["data:/data"]}, ["volumes", "data:/data"]),
        "volume option": ({"volumes": ["/a:/b:loud"]}, ["volumes", "loud"]),
        "volume in proc": ({"volumes": ["/a:/proc/self"]}, ["volumes", "/proc"]),
        "tmpfs option": ({"tmpfs": {"/a": "size=x"}}, ["tmpfs", "size=x"]),
        "ulimit": ({"ulimit": ["files=1"]}, ["ulimit", "files=1"]),
        "oom_score_adj": ({"oom_score_adj": 1001}, ["oom_score_adj", "1001"]),
        "dns": ({"dns": ["localhost"]}, ["dns", "localhost"]),
        "signal": ({"stop_signal": "SIGNOTHING"}, ["stop_signal", "SIGNOTHING"]),
        "policy": ({"restart_policy": "always"}, ["restart_policy", "always", "systemd"]),
        "supervisor": ({"supervisor": "systemd"}, ["supervisor", "systemd"]),
        "hostname": ({"hostname": "a b"}, ["hostname", "a b"]),
        "rootfs": ({"rootfs": "/no/such/tree"}, ["rootfs", "/no/such/tree"]),
        "no rootfs": ({"rootfs": None}, ["rootfs"]),
        "no command": ({"command": None}, ["command"]),
    }

    @pytest.mark.parametrize("case", BAD)
    def test_one_sentence_and_nothing_changed(self, containers, case):
        options, words = self.BAD[case]
        before = {path for path in containers.files() if "/run/bare-containers" not in path}
        message = containers.converge(fails=True, **options)["msg"]
        assert all(word in message for word in words), message
        assert message.endswith("nothing was changed.")
        assert len(message.splitlines()) == 1
        assert {path for path in containers.files() if "/run/bare-containers" not in path} == before

    NOT_STARTED: ClassVar = {
        "no such command": (
            {"command": ["/no/such/command"]},
            "command: '/no/such/command' is not in the root file system",
        ),
        "no such command in PATH": (
            {"command": ["nothing"]},
            "command: 'nothing' is not in the root file system",
        ),
        "not executable": (
            {"command": ["/etc/text"]},
            "command: '/etc/text' in the root file system may not be executed",
        ),
        "no interpreter": ({"command": ["/etc/script"]}, "command: '/etc/script' needs an interpreter"),
        "a volume's source": ({"volumes": ["/no/such/source:/data"]}, "mount of /data"),
        "a network namespace": ({}, "network namespace"),
        "a damaged network": ({}, "network.json is damaged, the network has to be declared again"),
    }

    @pytest.mark.parametrize("case", NOT_STARTED)
    def test_what_can_not_be_started_is_named_and_cleaned_up(self, containers, case):
        options, words = self.NOT_STARTED[case]
        containers.machine.shell(
            f"cd {containers.tree}/etc; echo x > text; printf '#!/no/such\\n' > script; chmod +x script"
        )
        if case == "a network namespace":
            containers.declare("network", {"address": []})
        elif case == "a damaged network":
            containers.declare("network", {"address": 5})
            containers.machine.shell(f"ip netns add {containers.name('one')}")
        message = containers.converge(fails=True, **options)["msg"]
        assert words in message, message
        assert len(message.splitlines()) == 1
        assert "Traceback" not in message
        assert containers.state() is None
        assert not containers.cgroup("one").exists()
        assert containers.converge(state="absent")["changed"]

    def test_a_command_that_ends_at_once_is_told(self, containers):
        """At once is within a moment, which a busy machine may exceed: then the next run starts it again."""
        for _attempt in range(20):
            options = containers.options("one", command=["sh", "-c", "echo why >&2; exit 3"])
            result = containers.machine.module("container_process", options)
            if result.get("failed"):
                break
        assert "command" in result["msg"]
        assert f"{containers.name('one')}.log" in result["msg"]
        assert set(containers.log().splitlines()) == {"why"}

    def test_an_old_launcher_is_refused(self, containers):
        launcher = "/usr/local/lib/bare-containers/bare_containers/container/init.py"
        containers.machine.shell(f"echo '# older' >> {launcher}")
        message = containers.converge(fails=True)["msg"]
        assert "bare.containers.launcher" in message
        assert message.endswith("nothing was changed.")
        containers.converge(check=True)


def test_the_examples_run(containers):
    source = Path(__file__).parents[2] / "plugins/modules/container_process.py"
    text = source.read_text().split('EXAMPLES = r"""')[1].split('"""')[0]
    containers.machine.shell("mkdir -p /run/host-srv/www && mkdir -p /srv && mount --bind /run/host-srv /srv")
    for task in yaml.safe_load(text):
        ((module, arguments),) = [(key, value) for key, value in task.items() if key != "name"]
        assert module == "bare.containers.container_process"
        for entry in arguments.get("batch", [arguments]):
            entry["name"] = containers.name(entry["name"])
            if entry.get("state", "started") == "started":
                entry["rootfs"] = containers.tree
            # The host of the example may have a capability more than this machine.
            if "SYS_TIME" in entry.get("cap_add", []):
                assert entry["name"].endswith("clock")
        result = containers.machine.module("container_process", arguments)
        if "on a host with systemd" in task["name"]:
            # There it is run by tests/systemd/test_health.py.
            assert "without systemd nobody does" in result["msg"]
            continue
        assert not result.get("failed"), result
        assert result["changed"], task["name"]
        if arguments.get("state") != "absent":
            assert not containers.machine.module("container_process", arguments)["changed"], task["name"]

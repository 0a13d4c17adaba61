# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declaration can say of isolation beyond the default.

User and time namespaces, what is shared with the host, filters, an init, pausing, config.json to the letter.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

FIRST = 100000
RANGE = f"0:{FIRST}:65536"


def subordinate(containers, line="containers:200000:196608"):
    """Gives the machine ranges of ids for user namespaces."""
    containers.machine.shell(
        "mkdir -p /run/etc; for kind in uid gid; do\n"
        f"  echo {line} > /run/etc/$kind; touch /etc/sub$kind; mount --bind /run/etc/$kind /etc/sub$kind\n"
        "done"
    )


class TestUserNamespace:
    def test_root_inside_is_nobody_outside(self, containers):
        containers.machine.shell("mkdir -p /var/lib/shared && chmod 777 /var/lib/shared")
        containers.converge(uidmap=[RANGE], volumes=["/var/lib/shared:/shared"])
        assert containers.status()["Uid"].split() == [str(FIRST)] * 4
        assert containers.inside("id -u; cat /proc/self/uid_map").split() == ["0", "0", str(FIRST), "65536"]
        containers.inside("touch /shared/made /made; mkdir /dir")
        assert containers.machine.shell("stat -c %u:%g /var/lib/shared/made").strip() == f"{FIRST}:{FIRST}"
        upper = f"{containers.directory()}/upper"
        assert containers.machine.shell(f"stat -c %u {upper}/made {upper}/dir").split() == [str(FIRST)] * 2
        # The layer below shows its own owners, though nothing on the disk has changed hands.
        assert containers.inside("stat -c %u /bin /bin/busybox").split() == ["0", "0"]
        assert containers.machine.shell(f"stat -c %u {containers.tree}/bin/busybox") == "0\n"

    def test_its_namespaces_are_its_own_root_s(self, containers):
        """Who may what in a namespace is for the user namespace that owns it (ioctl_ns(2), NS_GET_USERNS)."""
        containers.converge(uidmap=[RANGE])
        pid = containers.pid()
        user = os.stat(f"/proc/{pid}/ns/user").st_ino
        assert user != os.stat("/proc/self/ns/user").st_ino
        for name in ("mnt", "uts", "ipc", "net", "cgroup", "pid"):
            with open(f"/proc/{pid}/ns/{name}") as file:
                owner = ctypes.CDLL(None, use_errno=True).ioctl(file.fileno(), 0xB701)
            assert os.fstat(owner).st_ino == user, name
            os.close(owner)

    def test_it_can_not_touch_what_is_the_host_s(self, containers):
        containers.machine.shell(
            "mkdir -p /var/lib/host; cd /var/lib/host; echo secret > closed; chmod 600 closed; touch open"
        )
        containers.converge(
            uidmap=[RANGE], volumes=["/var/lib/host:/host", "/var/lib/host:/ro:ro"], cap_add=["ALL"]
        )
        for attempt in (
            "cat /host/closed",
            "echo x > /host/open",
            "chown 0 /host/open",
            "rm /host/open",
            "mknod /tmp/null c 1 3",
            "mount -o remount,rw /ro",
            "mount -o remount,bind,rw /ro",
            "umount /ro",
            "echo 1 > /proc/sys/kernel/panic",
            "echo b > /proc/sysrq-trigger",
        ):
            assert (
                containers.inside(f"({attempt}) 2>/dev/null && echo done || echo refused") == "refused\n"
            ), attempt
        # All capabilities are there, and count for what is its own.
        assert int(containers.status()["CapEff"], 16) & (1 << 21)
        assert containers.inside("mkdir /m && mount -t tmpfs t /m && echo mounted") == "mounted\n"

    def test_users_files_in_memory_and_devices_are_mapped(self, containers):
        containers.converge(
            uidmap=[RANGE],
            user="7:8",
            tmpfs={"/own": "uid=7,gid=8,mode=700"},
            command=["sh", "-c", "echo in > /own/file; exec sleep 1000"],
        )
        assert containers.status()["Uid"].split()[0] == str(FIRST + 7)
        assert containers.status()["Gid"].split()[0] == str(FIRST + 8)
        assert containers.inside("stat -c %u:%g /own /own/file /tmp /dev/null /dev/pts").split() == [
            "7:8", "7:8", "0:0", "0:0", "0:0",
        ]  # fmt: skip
        look = "head -c 2 /dev/zero | wc -c; echo x > /dev/null; cat /etc/hostname; stat -c %u /etc/hosts"
        assert containers.inside(look).split() == ["2", containers.name("one"), "0"]

    def test_a_direct_root_and_its_limits(self, containers):
        containers.machine.shell(f"cp -a {containers.tree} /var/lib/copy")
        containers.converge(
            rootfs="/var/lib/copy",
            rootfs_mode="direct",
            uidmap=[RANGE],
            ulimit=["nofile=100:200", "core=0"],
            oom_score_adj=500,
        )
        containers.inside("touch /made")
        assert containers.inside("stat -c %u /made /bin").split() == ["0", "0"]
        limits = Path(f"/proc/{containers.pid()}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [
            ["100", "200"]
        ]
        assert Path(f"/proc/{containers.pid()}/oom_score_adj").read_text() == "500\n"

    def test_auto_gives_each_its_own_range_that_stays(self, containers):
        subordinate(containers)
        batch = [containers.options(name, userns="auto") for name in ("one", "two", "three")]
        result = containers.machine.module("container_process", {"batch": batch})
        assert not result.get("failed"), result
        firsts = {name: containers.status(name)["Uid"].split()[0] for name in ("one", "two", "three")}
        assert sorted(firsts.values()) == ["200000", "265536", "331072"]
        again = containers.machine.module("container_process", {"batch": batch})
        assert not again["changed"]
        refused = containers.converge("four", userns="auto", fails=True)
        assert "userns: 'auto'" in refused["msg"]
        containers.converge("two", state="absent")
        containers.converge("four", userns="auto")
        assert containers.status("four")["Uid"].split()[0] == firsts["two"]

    def test_without_ids_it_says_where_they_come_from(self, containers):
        subordinate(containers, "somebody:200000:65536")
        assert "/etc/subuid" in containers.converge(userns="auto", fails=True)["msg"]

    def test_commands_in_it_are_in_it(self, containers):
        containers.converge(uidmap=[RANGE])
        result = containers.execute(
            command=["sh", "-c", "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status"]
        )
        uid, namespace, _cap, effective = result["stdout"].split()
        assert uid == "0"
        assert namespace == os.readlink(f"/proc/{containers.pid()}/ns/user")
        assert int(effective, 16) == int(containers.status()["CapEff"], 16)


def test_a_time_namespace_has_clocks_of_its_own(containers):
    containers.converge(time_offsets={"boottime": 1000000, "monotonic": 5})
    uptime = float(containers.inside("cut -d' ' -f1 /proc/uptime"))
    assert uptime > 1000000
    assert os.stat(f"/proc/{containers.pid()}/ns/time").st_ino != os.stat("/proc/self/ns/time").st_ino
    assert os.readlink("/proc/self/ns/time") == os.readlink("/proc/self/ns/time_for_children")
    ran = containers.execute(command=["cut", "-d.", "-f1", "/proc/uptime"])
    assert int(ran["stdout"]) > 1000000


@pytest.mark.parametrize("option", ["pid", "ipc", "uts", "cgroupns", "network"])
def test_a_namespace_is_shared_with_the_host_when_asked(containers, option):
    containers.converge(**{option: "host"})
    shared = {"cgroupns": "cgroup", "network": "net"}.get(option, option)
    for name in ("pid", "ipc", "uts", "cgroup", "net", "mnt"):
        inside = os.stat(f"/proc/{containers.pid()}/ns/{name}").st_ino
        machine = os.stat(f"/proc/{containers.machine.pid}/ns/{name}").st_ino
        assert (inside == machine) is (name == shared), name
    if option == "pid":
        # Nothing ends with PID 1, which is another: the cgroup has all.
        containers.converge(
            pid="host", command=["sh", "-c", "trap 'exit 0' TERM; sleep 1234 & wait"], stop_timeout=10
        )
        children = (containers.cgroup("one") / "cgroup.procs").read_text().split()
        assert len(children) == 2
        containers.converge(state="stopped", pid="host", stop_timeout=10)
        assert (containers.cgroup("one") / "cgroup.procs").read_text() == ""


def test_a_network_namespace_by_its_path(containers):
    containers.machine.shell("ip netns add shared; ip -n shared link add probe type veth peer name other")
    containers.converge(network="ns:/run/netns/shared")
    assert "probe" in containers.inside("ls /sys/class/net")
    assert not containers.converge(network="ns:/run/netns/shared")["changed"]
    # Another one by the same name: the process is where nobody else is.
    containers.machine.shell("ip netns delete shared; ip netns add shared")
    result = containers.converge(network="ns:/run/netns/shared", check=True)
    assert "network namespace" in result["diff"][0]["before"]
    containers.converge(network="ns:/run/netns/shared")
    assert "probe" not in containers.inside("ls /sys/class/net")
    assert not containers.converge(network="ns:/run/netns/shared")["changed"]


def test_the_network_of_another_container(containers):
    network = {"name": containers.name("one"), "address": ["10.201.0.2/24"]}
    assert not containers.machine.module("netns_veth", network).get("failed")
    server = ["sh", "-c", "while :; do echo hello | nc -l -p 80; done"]
    containers.converge("one", command=server)
    joining = f"container:{containers.name('one')}"
    containers.converge("two", network=joining)
    assert not containers.converge("two", network=joining)["changed"]
    one, two = (os.stat(f"/proc/{containers.pid(name)}/ns/net").st_ino for name in ("one", "two"))
    assert one == two
    assert containers.execute("two", command=["nc", "127.0.0.1", "80"])["stdout"] == "hello"
    message = containers.converge("three", network="container:nobody", fails=True)["msg"]
    assert "/run/netns/nobody" in message


def test_no_network_but_a_loopback(containers):
    network = {"name": containers.name("one"), "address": ["10.201.0.2/24"]}
    assert not containers.machine.module("netns_veth", network).get("failed")
    containers.converge(network="none")
    assert containers.inside("ls /sys/class/net").split() == ["lo"]
    assert "UP" in containers.inside("ip link show lo")
    assert not containers.converge(network="none")["changed"]


@pytest.mark.parametrize("value", ["container:", "container:../web", "ns:relative", "bridge", "ns:"])
def test_other_networks_are_refused_in_one_sentence(containers, value):
    message = containers.converge(network=value, fails=True)["msg"]
    assert message.startswith(f"network: '{value}' is not accepted, it takes ")
    assert message.endswith("; nothing was changed.")


def test_it_is_paused_and_goes_on(containers, eventually):
    counting = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /tmp/i; done"]
    containers.converge(command=counting)
    pid = containers.pid()
    result = containers.converge(command=counting, state="paused", check=True)
    assert result["changed"]
    assert containers.converge(command=counting, state="paused")["commands"] == result["commands"]
    events = containers.cgroup("one") / "cgroup.events"
    assert "frozen 1" in events.read_text()
    paused = containers.converge(command=counting, state="paused")
    assert (paused["changed"], paused["state"]) == (False, "paused")
    assert "paused" in containers.execute(command=["true"], fails=True)["msg"]
    containers.converge(command=counting)
    assert "frozen 0" in events.read_text()
    assert containers.pid() == pid
    containers.converge(command=counting, state="paused")
    containers.converge(command=counting, state="stopped", stop_timeout=0)
    assert not containers.alive()
    containers.converge(state="absent")


def test_an_init_passes_signals_on_and_reaps(containers, eventually):
    command = [
        "sh",
        "-c",
        "trap 'exit 7' TERM; (sleep 0.1 & exec true); echo ready; while :; do sleep 0.1; done",
    ]
    containers.converge(command=command, init=True, stop_timeout=20)
    assert containers.inside("tr '\\0' ' ' < /proc/1/cmdline").startswith("/dev/init -- sh -c ")
    eventually(lambda: "ready" in containers.log())
    assert containers.inside("touch /dev/init 2>&1 || echo refused").endswith("refused\n")
    containers.converge(command=command, init=True, stop_timeout=20, state="stopped")
    assert not containers.alive()
    message = containers.converge(init=True, init_path="/no/such", fails=True)["msg"]
    assert "/no/such" in message


def test_groups_umask_shm_masks_and_limits(containers):
    containers.write(f"{containers.tree}/etc/group", "root:x:0:\nwheel:x:77:\n")
    containers.write(f"{containers.tree}/etc/secret", "x")
    containers.converge(
        command=["sh", "-c", "touch /made; exec sleep 1000"],
        group_add=["wheel", "5"],
        umask="027",
        shm_size="1M",
        mask=["/etc/secret"],
        unmask=["/proc/interrupts", "/proc/sys"],
        annotations={"who": 'she said "no"'},
    )
    assert containers.status()["Groups"].split() == ["5", "77"]
    assert stat.S_IMODE(os.stat(f"/proc/{containers.pid()}/root/made").st_mode) == 0o640
    assert containers.inside("df -k /dev/shm | tail -1").split()[1] == "1024"
    assert containers.inside("cat /etc/secret | wc -c; cat /proc/interrupts | wc -l").split()[0] == "0"
    assert int(containers.inside("wc -l < /proc/interrupts")) > 0
    mounts = containers.inside("cut -d' ' -f2 /proc/self/mounts").split()
    assert "/proc/sys" not in mounts
    assert "/proc/irq" in mounts
    assert containers.state()["annotations"]["who"] == 'she said "no"'


class TestToTheLetter:
    """What has no option, by the words of the OCI runtime spec."""

    def test_scheduler_io_priority_and_personality(self, containers):
        containers.converge(
            command=["sh", "-c", "uname -m > /tmp/machine; exec sleep 1000"],
            oci={
                "process": {
                    "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
                    "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
                },
                "linux": {"personality": {"domain": "LINUX32"}},
            },
        )
        assert os.sched_getscheduler(containers.pid()) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, containers.pid()) == 5
        shown = subprocess.run(
            ["ionice", "-p", str(containers.pid())], capture_output=True, text=True, check=True
        )
        assert shown.stdout.strip() == "idle"
        assert containers.inside("cat /tmp/machine") in ("i686\n", "armv8l\n")

    def test_hooks_run_where_and_when_they_should(self, containers):
        tell = (
            "exec > /var/lib/told/$0; cat; readlink /proc/self/ns/mnt /proc/self/ns/net;"
            "test ! -e /var/lib/of-the-host || echo host"
        )
        containers.machine.shell("mkdir -p /var/lib/told; touch /var/lib/of-the-host")
        points = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
        hooks = {
            point: [{"path": "/bin/sh", "args": ["sh", "-c", tell, point], "env": ["PATH=/bin:/usr/bin"]}]
            for point in points
        }
        inside = "cat > /tmp/told; readlink /proc/self/ns/mnt >> /tmp/told"
        hooks["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"]}]
        containers.converge(oci={"hooks": hooks})
        pid = containers.pid()
        own = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "net")]

        def told(point):
            text = containers.machine.shell(f"cat /var/lib/told/{point}").splitlines()
            return json.loads(text[0]), text[1:3], "host" in text

        for point in ("prestart", "createRuntime", "createContainer", "poststart"):
            state, namespaces, of_host = told(point)
            assert state["pid"] == pid, point
            assert state["bundle"] == containers.directory()
            assert of_host
            assert (namespaces == own) is (point == "createContainer"), point
        text = containers.inside("cat /tmp/told").splitlines()
        assert (json.loads(text[0])["pid"], text[1]) == (pid, own[0])
        containers.converge(state="stopped", oci={"hooks": hooks})
        assert told("poststop")[0]["status"] == "stopped"

    def test_a_hook_that_fails_stops_the_start_and_leaves_nothing(self, containers):
        for point, hook in (
            ("createRuntime", {"path": "/bin/false"}),
            ("createContainer", {"path": "/bin/sh", "args": ["sh", "-c", "sleep 60"], "timeout": 1}),
            ("startContainer", {"path": "/bin/false"}),
            ("poststart", {"path": "/bin/false"}),
        ):
            message = containers.converge(oci={"hooks": {point: [hook]}}, fails=True)["msg"]
            assert f"hooks.{point}: {hook['path']}" in message
            assert containers.state() is None
            assert not containers.cgroup("one").exists()

    def test_a_terminal_is_handed_to_who_listens(self, containers):
        """By the slave of its own devpts, whatever is at /dev/console and /dev/pts/0 (CVE-2025-52565)."""
        oci = {"process": {"terminal": True, "consoleSize": {"height": 33, "width": 99}}}
        refused = containers.converge(
            oci=oci, command=["sh", "-c", "tty; stty size; exec sleep 1000"], fails=True
        )
        assert "console-socket" in refused["msg"]
        place = f"/proc/{containers.machine.pid}/root/run/console"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
            listener.listen()
            launch = [
                "/usr/local/lib/bare-containers/launch",
                "start",
                "--console-socket",
                "/run/console",
                containers.name("one"),
            ]
            done = subprocess.run(
                containers.machine.command(*launch), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            connection, _address = listener.accept()
            with connection:
                _data, descriptors, _flags, _from = socket.recv_fds(connection, 100, 1)
            said = b""
            while b"33 99" not in said:
                said += os.read(descriptors[0], 1000)
            assert b"/dev/console" in said or b"/dev/pts/0" in said
        assert containers.inside("stat -c %t /dev/console") == containers.inside("stat -c %t /dev/pts/0")
        os.close(descriptors[0])

    @pytest.mark.parametrize(
        ("oci", "named"),
        [
            ({"linux": {"intelRdt": {}}}, "linux.intelRdt"),
            ({"linux": {"resources": {"memory": {"limit": 1}}}}, "linux.resources.memory"),
            ({"process": {"args": "sleep"}}, "process.args"),
            ({"process": {"cwd": "tmp"}}, "process.cwd"),
            ({"process": {"oomScoreAdj": 2000}}, "process.oomScoreAdj"),
            ({"linux": {"sysctl": {"kernel.core_pattern": "|/x"}}}, "kernel.core_pattern"),
            ({"linux": {"sysctl": {"net.ipv4.ip_forward": "1\nkernel"}}}, "not printable"),
            ({"linux": {"sysctl": {"net/../kernel.core_pattern": "1"}}}, "core_pattern"),
            ({"linux": {"namespaces": [{"type": "pid"}]}}, "mount namespace"),
            ({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}, "timeOffsets"),
            ({"linux": {"devices": [{"type": "c", "path": "/etc/x", "major": 1, "minor": 1}]}}, "/etc/x"),
            ({"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["tmpcopyup"]}]}, "tmpcopyup"),
            ({"windows": {}}, "windows"),
            ({"process": {"apparmorProfile": "no-such"}}, "apparmorProfile"),
            ({"ociVersion": "2.0.0"}, "ociVersion"),
        ],
    )
    def test_what_can_not_be_honoured_is_refused_by_name(self, containers, oci, named):
        message = containers.converge(oci=oci, fails=True)["msg"]
        assert named in message
        assert "\n" not in message
        assert containers.state() is None


def test_mounts_have_their_options(containers):
    containers.machine.shell(
        "mkdir -p /var/lib/v/below; cd /var/lib/v\n"
        "mount --make-rshared --bind . /var/lib/v; mount -t tmpfs t /var/lib/v/below"
    )
    containers.converge(
        volumes=[
            "/var/lib/v:/tree:ro",
            "/var/lib/v:/top:bind,nosuid",
            "/var/lib/v:/slave:rslave",
            "/var/lib/v:/private",
        ],
        oci=None,
    )
    fields = {line.split()[4]: line for line in containers.inside("cat /proc/self/mountinfo").splitlines()}
    assert " ro," in fields["/tree"]
    assert " ro," in fields["/tree/below"]
    assert "nosuid" in fields["/top"]
    assert "/top/below" not in fields
    assert "master:" in fields["/slave"]
    assert "master:" not in fields["/private"]
    containers.machine.shell(
        "mkdir /var/lib/v/late; mount -t tmpfs t /var/lib/v/late; touch /var/lib/v/late/there"
    )
    assert containers.inside("ls /slave/late; ls /private/late").split() == ["there"]


class TestFilters:
    def test_calls_are_filtered_in_the_container_and_in_commands(self, containers):
        containers.converge()
        assert containers.status()["Seccomp"] == "2"
        refused = "unshare --uts true 2>/dev/null || echo refused; grep ^Seccomp: /proc/self/status"
        ran = containers.execute(command=["sh", "-c", refused])
        assert ran["stdout"].split() == ["refused", "Seccomp:", "2"]
        # Other users, and those who may gain privileges, are under it too.
        containers.converge(user="1000:1000", no_new_privileges=False)
        assert containers.status()["Seccomp"] == "2"
        assert containers.status()["NoNewPrivs"] == "0"
        assert int(containers.status()["CapEff"], 16) == 0
        containers.converge(seccomp="unconfined")
        assert containers.status()["Seccomp"] == "0"
        containers.converge(privileged=True)
        assert containers.status()["Seccomp"] == "0"

    def test_a_profile_of_one_s_own(self, containers):
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        }
        containers.write("/var/lib/profile.json", json.dumps(profile))
        containers.converge(seccomp="/var/lib/profile.json")
        full = "mkdir: can't create directory '/x': No space left on device\n"
        assert containers.execute(command=["mkdir", "/x"], rc=1)["stderr"] + "\n" == full
        assert not containers.converge(seccomp="/var/lib/profile.json")["changed"]
        # In the file it is only what it was when it was declared.
        profile["syscalls"][0]["errnoRet"] = 13
        containers.write("/var/lib/profile.json", json.dumps(profile))
        assert containers.converge(seccomp="/var/lib/profile.json")["changed"]
        containers.converge(seccomp="unconfined", oci={"linux": {"seccomp": profile}})
        assert "Permission denied" in containers.execute(command=["mkdir", "/x"], rc=1)["stderr"]
        assert "seccomp" in containers.converge(seccomp="/no/such", fails=True)["msg"]

    def test_a_lost_filter_is_written_again_and_never_gone_without(self, containers):
        containers.converge()
        containers.machine.shell(f"rm {containers.directory()}/seccomp.bpf")
        launch = ["/usr/local/lib/bare-containers/launch", "start", containers.name("one")]
        os.kill(containers.pid(), 9)
        done = subprocess.run(
            containers.machine.command(*launch), capture_output=True, text=True, check=False
        )
        assert done.returncode == 125
        assert "seccomp.bpf" in done.stderr
        assert containers.converge()["changed"]
        assert containers.status()["Seccomp"] == "2"

    def test_devices_are_those_that_are_declared(self, containers):
        containers.machine.shell("mknod /var/lib/loop b 7 200; mknod /var/lib/full c 1 7")
        look = "dd if=$0 of=/dev/null bs=1 count=0 2>&1 | grep -q permitted && echo refused || echo opened"
        containers.converge(cap_add=["MKNOD"], devices=["/var/lib/full:/dev/own:r"])
        assert containers.inside("stat -c '%F %t:%T' /dev/own") == "character special file 1:7\n"

        def opens(node, **options):
            return containers.execute(command=["sh", "-c", look, node], **options)["stdout"]

        containers.execute(command=["mknod", "/dev/mem", "c", "1", "1"])
        assert opens("/dev/mem") == "refused"
        assert opens("/dev/zero") == "opened"
        containers.converge(cap_add=["MKNOD"], device_cgroup_rules=["c 1:1 r"], command=["sleep", "2000"])
        containers.execute(command=["mknod", "/dev/mem", "c", "1", "1"])
        assert opens("/dev/mem") == "opened"
        assert "devices" in containers.converge(devices=["/no/such"], fails=True)["msg"]

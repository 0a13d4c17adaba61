# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a container apart where systemd is the host's PID 1, and all controllers are in cgroup2.

A systemd of its own inside, its cgroup, its users, devices, privileges, pauses; read by the host's own tools.
"""

from __future__ import annotations

import json
import time

import pytest

NAME = "isolation-test"
UNIT = f"bare-{NAME}.service"
CGROUP = f"/sys/fs/cgroup/system.slice/{UNIT}"
TREE = "/var/lib/isolation-test-tree"
SYSTEM = "/var/lib/isolation-test-system"
SHARED = "/run/isolation-test"
INNER = "system.slice/inner.service"

PREPARE = f"""
mkdir -p {TREE}/bin {TREE}/etc {SHARED}
cp /bin/busybox {TREE}/bin/
chroot {TREE} /bin/busybox --install -s /bin
"""

# The host's own system, with units of its own: nobody writes to a layer below, so links will do for /usr.
PREPARE_SYSTEM = f"""
mkdir {SYSTEM}
cd {SYSTEM}
mkdir -p dev proc sys run tmp root var/lib var/tmp var/log/journal
ln -s /run var/run
cp --archive --link /usr .
cp --archive /etc /bin /sbin /lib* .
rm -r etc/fstab etc/systemd/system
: > etc/machine-id
mkdir -p etc/systemd/system/multi-user.target.wants
cat > etc/systemd/system/inner.service <<END
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/touch /shared/stopped
MemoryMax=16M
TasksMax=7
END
ln -s ../inner.service etc/systemd/system/multi-user.target.wants/
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
"""

SYSTEMD = {
    "rootfs": SYSTEM,
    "command": ["/lib/systemd/systemd"],
    "systemd": True,
    "stop_timeout": 100,
    "volumes": [f"{SHARED}:/shared"],
}

# podman's default (containers.conf(5)), by the numbers of linux/capability.h.
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
    "SETPCAP": 8, "NET_BIND_SERVICE": 10, "SYS_CHROOT": 18, "SETFCAP": 31,
}  # fmt: skip
DEFAULT = sum(1 << number for number in CAPABILITIES.values())

FIRST, COUNT = 300000, 65536


def declared(**options):
    return {"name": NAME, "command": ["sleep", "1000"], "rootfs": TREE, "stop_timeout": 1, **options}


@pytest.fixture(scope="module", autouse=True)
def launcher(host):
    host.shell(PREPARE)
    assert not host.module("launcher", {}).get("failed")
    yield
    host.module("container_process", {"name": NAME, "state": "absent"})
    host.module("launcher", {"state": "absent"})
    host.shell(f"rm -r {TREE} {SHARED}")


@pytest.fixture(scope="module")
def system(launcher, host):
    """A root file system that has a systemd, made of the host's packages."""
    host.shell(PREPARE_SYSTEM)
    yield
    host.module("container_process", {"name": NAME, "state": "absent"})
    host.shell(f"rm -r {SYSTEM}")


@pytest.fixture(scope="module")
def identifiers(host):
    """One range of ids for user namespaces."""
    host.shell(
        "for kind in uid gid; do\n"
        f"  cp /etc/sub$kind /run/sub$kind.before; echo containers:{FIRST}:{COUNT} > /etc/sub$kind\n"
        "done"
    )
    yield
    host.shell("for kind in uid gid; do mv /run/sub$kind.before /etc/sub$kind; done")


@pytest.fixture
def converge(host):
    def run(**options):
        result = host.module("container_process", declared(**options))
        assert not result.get("failed"), result["msg"]
        return result

    return run


@pytest.fixture
def execute(host):
    """A command inside by nsenter_exec, as whatever the container is."""

    def run(script, *, fails=False):
        result = host.module("nsenter_exec", {"name": NAME, "command": ["/bin/sh", "-c", script]})
        assert result.get("failed", False) is fails, result
        return result["msg"] if fails else result["stdout"]

    return run


def eventually(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return answer


def shown(host, *properties):
    text = host.shell(f"systemctl show --property={','.join(properties)} {UNIT}")
    return dict(line.split("=", 1) for line in text.splitlines())


def status(host, pid):
    """The fields of /proc/PID/status (proc(5))."""
    lines = host.shell(f"cat /proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def has_booted(host, pid):
    """Waits until the systemd inside has started all it is to start, and asserts that nothing has failed."""
    ask = f"nsenter -t {pid} -a systemctl"
    state = eventually(
        lambda: (
            (said := host.shell(f"{ask} is-system-running 2>/dev/null || :").strip())
            in ("running", "degraded")
            and said
        )
    )
    assert state == "running", host.shell(f"{ask} list-units --failed; nsenter -t {pid} -a journalctl -b")


class TestInitSystem:
    """``systemd: true``, with a systemd."""

    def test_it_boots_and_stays(self, host, system, converge, execute):
        pid = converge(**SYSTEMD)["pid"]
        has_booted(host, pid)
        assert host.shell(f"cat /proc/{pid}/comm") == "systemd\n"
        assert status(host, pid)["NSpid"].split() == [str(pid), "1"]
        assert host.shell(f"nsenter -t {pid} -a findmnt -n -o FSTYPE /run") == "tmpfs\n"
        assert execute("systemctl is-active inner.service; systemd-detect-virt --container").split() == [
            "active", "container-other",
        ]  # fmt: skip
        assert shown(host, "KillSignal")["KillSignal"] == host.shell("kill -l RTMIN+3").strip()
        again = converge(**SYSTEMD)
        assert not again["changed"], json.dumps(again["diff"])
        assert again["pid"] == pid

    def test_its_cgroup_is_its_own_to_divide_but_not_to_widen(self, host, system, converge, execute):
        pid = converge(**SYSTEMD)["pid"]
        has_booted(host, pid)
        assert host.shell(f"cat /proc/{pid}/cgroup") == f"0::/system.slice/{UNIT}/init.scope\n"
        own = f"cat {CGROUP}/{INNER}/memory.max {CGROUP}/{INNER}/pids.max"
        assert host.shell(own).split() == [str(16 << 20), "7"]
        # What the host's systemd writes anew to its own stops at the container's cgroup.
        host.shell("systemctl daemon-reload")
        assert host.shell(own).split() == [str(16 << 20), "7"]
        given = host.shell("cat /sys/fs/cgroup/system.slice/cgroup.controllers").split()
        # The host may have more, which systemd knows nothing of (systemd.resource-control(5), Delegate=).
        delegated = {"cpu", "cpuset", "io", "memory", "pids"} & set(given)
        assert {"cpu", "io", "memory", "pids"} <= delegated
        assert set(execute("cat /sys/fs/cgroup/cgroup.controllers").split()) == delegated
        limits = ("memory.max", "memory.high", "pids.max", "cpu.max", "cgroup.freeze")
        host.shell(f"systemctl set-property --runtime {UNIT} MemoryMax=500M TasksMax=500")
        before = host.shell(f"cd {CGROUP}; cat {' '.join(limits)}")
        try:
            for file in limits:
                value = "max" if file != "cgroup.freeze" else "0"
                told = execute(f"echo {value} | tee /sys/fs/cgroup/{file} 2>&1 >/dev/null || :")
                assert "Operation not permitted" in told, (file, told)
            assert host.shell(f"cd {CGROUP}; cat {' '.join(limits)}") == before
        finally:
            host.shell(f"systemctl revert {UNIT}")

    def test_it_is_asked_to_end_and_does(self, host, system, converge):
        pid = converge(**SYSTEMD)["pid"]
        has_booted(host, pid)
        host.shell(f"rm -f {SHARED}/stopped")
        began = time.monotonic()
        host.shell(f"systemctl stop {UNIT}")
        assert time.monotonic() - began < SYSTEMD["stop_timeout"]
        assert shown(host, "Result", "ActiveState", "ExecMainCode", "ExecMainStatus") == {
            "Result": "success", "ActiveState": "inactive", "ExecMainCode": "1", "ExecMainStatus": "0",
        }  # fmt: skip
        # It has stopped its own in order.
        host.shell(f"test -e {SHARED}/stopped")
        assert host.shell(f"ls -d {CGROUP} 2>/dev/null || :") == ""

    def test_it_is_root_of_nothing_of_the_host_s(self, host, system, identifiers, converge, execute):
        host.shell(f"chmod 777 {SHARED}; rm -f {SHARED}/made")
        pid = converge(**SYSTEMD, userns="auto")["pid"]
        has_booted(host, pid)
        for kind in ("uid", "gid"):
            assert host.shell(f"cat /proc/{pid}/{kind}_map").split() == ["0", str(FIRST), str(COUNT)]
        assert status(host, pid)["Uid"].split() == [str(FIRST)] * 4
        execute("touch /shared/made /root/made")
        upper = f"/var/lib/bare-containers/containers/{NAME}/upper"
        made = host.shell(f"stat -c %u:%g {SHARED}/made {upper}/root/made").split()
        assert made == [f"{FIRST}:{FIRST}"] * 2
        assert execute("stat -c %u:%g /shared/made /usr/bin/true").split() == ["0:0", "0:0"]
        assert host.shell(f"stat -c %u:%g {SYSTEM}/usr/bin/true") == "0:0\n"
        # Of its cgroup it has what divides it (cgroup-v2, "Delegation"), and none of the limits.
        own = ". cgroup.procs cgroup.threads cgroup.subtree_control"
        assert host.shell(f"cd {CGROUP}; stat -c %u {own}").split() == [str(FIRST)] * 4
        assert host.shell(f"cd {CGROUP}; stat -c %u memory.max pids.max cpu.max cgroup.freeze").split() == (
            ["0"] * 4
        )
        assert host.shell(f"stat -c %u {CGROUP}/{INNER}; cat {CGROUP}/{INNER}/memory.max").split() == [
            str(FIRST), str(16 << 20),
        ]  # fmt: skip
        again = converge(**SYSTEMD, userns="auto")
        assert not again["changed"], json.dumps(again["diff"])

    def test_a_pause_is_for_all_that_it_runs(self, host, system, converge, execute):
        pid = converge(**SYSTEMD)["pid"]
        has_booted(host, pid)
        assert converge(**SYSTEMD, state="paused")["state"] == "paused"
        assert "frozen 1" in host.shell(f"cat {CGROUP}/{INNER}/cgroup.events")
        message = execute("true", fails=True)
        assert "paused" in message
        assert len(message.splitlines()) == 1
        assert not converge(**SYSTEMD, state="paused")["changed"]
        assert converge(**SYSTEMD)["pid"] == pid
        assert "frozen 0" in host.shell(f"cat {CGROUP}/{INNER}/cgroup.events")
        assert execute("systemctl is-active inner.service") == "active"


def test_a_cgroup_that_is_not_delegated_is_the_host_s(host, identifiers, converge, execute):
    for options in ({}, {"userns": "auto"}):
        converge(**options)
        assert host.shell(f"stat -c %u {CGROUP} {CGROUP}/cgroup.procs").split() == ["0", "0"]
        assert execute("mkdir /sys/fs/cgroup/own 2>/dev/null && echo made || echo refused") == "refused"
        assert host.shell(f"find {CGROUP} -mindepth 1 -type d") == ""


def test_a_user_namespace_of_a_unit(host, identifiers, converge, execute):
    pid = converge(userns="auto", volumes=[f"{SHARED}:/shared"])["pid"]
    assert host.shell(f"cat /proc/{pid}/uid_map").split() == ["0", str(FIRST), str(COUNT)]
    assert status(host, pid)["Gid"].split() == [str(FIRST)] * 4
    host.shell(f"cd {SHARED}; echo secret > closed; chmod 600 closed")
    assert execute("cat /shared/closed 2>&1 || :") == "cat: can't open '/shared/closed': Permission denied"
    assert execute("id -u") == "0"


def test_devices_are_opened_as_the_unit_says(host, converge, execute):
    number = host.shell("cat /sys/class/block/vda/dev").strip()
    block = number.replace(":", " ")
    attempt = f"test -e /dev/disk || mknod /dev/disk b {block}; head -c 1 /dev/disk 2>&1 >/dev/null || :"
    refused, opened = "head: /dev/disk: Operation not permitted", ""
    allowed = f"/dev/block/{number}"

    def allow():
        lines = host.shell(f"systemctl show --property=DevicePolicy,DeviceAllow {UNIT}").splitlines()
        assert "DevicePolicy=strict" in lines
        return {
            device: access
            for name, _equals, value in (line.partition("=") for line in lines)
            if name == "DeviceAllow"
            for device, access in [value.split()]
        }

    converge(cap_add=["MKNOD"])
    assert allowed not in allow()
    assert execute(attempt) == refused
    host.shell("systemctl daemon-reload")
    assert execute(attempt) == refused
    assert execute("head -c 2 /dev/zero | wc -c; echo x > /dev/null && echo written").split() == [
        "2", "written",
    ]  # fmt: skip

    assert converge(cap_add=["MKNOD"], device_cgroup_rules=[f"b {number} r"])["changed"]
    assert "r" in allow()[allowed]
    assert execute(attempt) == opened
    host.shell("systemctl daemon-reload")
    assert execute(attempt) == opened
    # Opened, and nothing written.
    write = "true 3<>{} || :"
    assert "Operation not permitted" in execute(f"({write.format('/dev/disk')}) 2>&1")

    result = converge(devices=["/dev/vda:/dev/own:r"])
    assert "r" in allow()[allowed]
    assert "w" not in allow()[allowed]
    assert execute("head -c 1 /dev/own | wc -c") == "1"
    assert "Operation not permitted" in execute(f"({write.format('/dev/own')}) 2>&1")
    again = converge(devices=["/dev/vda:/dev/own:r"])
    assert (again["changed"], again["pid"]) == (False, result["pid"])

    converge(cap_add=["MKNOD"])
    assert allowed not in allow()
    assert execute(attempt) == refused


def test_it_has_the_privileges_that_are_documented_and_nothing_of_systemd_s(host, converge):
    pid = converge()["pid"]
    found = status(host, pid)
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")
    sets = {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {"CapInh": 0, "CapPrm": DEFAULT, "CapEff": DEFAULT, "CapBnd": DEFAULT, "CapAmb": 0}
    assert host.shell(f"ls /proc/{pid}/fd").split() == ["0", "1", "2"]
    # systemd ignores SIGPIPE for its services (systemd.exec(5)), and tells them who they are.
    assert (int(found["SigIgn"], 16), int(found["SigBlk"], 16)) == (0, 0)
    names = host.shell(f"tr '\\0' '\\n' < /proc/{pid}/environ | cut -d= -f1").split()
    assert sorted(names) == ["HOME", "HOSTNAME", "PATH"]
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        inside, outside = host.shell(f"readlink /proc/{pid}/ns/{name} /proc/1/ns/{name}").split()
        assert inside != outside, name


def test_a_privileged_one_has_them_all(host, converge, execute):
    found, init = status(host, converge(privileged=True)["pid"]), status(host, 1)
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("0", "0")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert found[name] == init["CapBnd"], name
    number = host.shell("cat /sys/class/block/vda/dev").replace(":", " ").strip()
    assert execute(f"mknod /dev/disk b {number}; head -c 1 /dev/disk | wc -c") == "1"


def test_it_is_paused_and_goes_on(host, converge, execute):
    counting = {"command": ["sh", "-c", "while :; do i=$((i+1)); echo $i > /tmp/i; sleep 0.01; done"]}
    pid = converge(**counting)["pid"]
    ticks = f"cut -d' ' -f14-15 /proc/{pid}/stat; cat /proc/{pid}/root/tmp/i"
    result = converge(**counting, state="paused")
    assert (result["changed"], result["state"]) == (True, "paused")
    assert "frozen 1" in host.shell(f"cat {CGROUP}/cgroup.events")
    assert shown(host, "FreezerState") == {"FreezerState": "frozen"}
    before = host.shell(ticks)
    message = execute("true", fails=True)
    assert "paused" in message
    assert len(message.splitlines()) == 1
    assert not converge(**counting, state="paused")["changed"]
    assert host.shell(ticks) == before
    assert converge(**counting)["pid"] == pid
    assert "frozen 0" in host.shell(f"cat {CGROUP}/cgroup.events")
    eventually(lambda: host.shell(ticks) != before)
    # What stands still is stopped all the same.
    converge(**counting, state="paused")
    converge(**counting, state="stopped")
    assert shown(host, "ActiveState") == {"ActiveState": "inactive"}

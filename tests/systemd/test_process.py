# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's process under systemd: who watches it, what survives, what is repaired, how it stops."""

from __future__ import annotations

import json
import time

import pytest

NAME = "process-test"
UNIT = f"bare-{NAME}.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
TREE = "/var/lib/process-test-tree"

PREPARE = f"""
mkdir -p {TREE}/bin {TREE}/etc
cp /bin/busybox {TREE}/bin/
chroot {TREE} /bin/busybox --install -s /bin
"""


def declared(**options):
    return {"name": NAME, "command": ["sleep", "1000"], "rootfs": TREE, "stop_timeout": 1, **options}


@pytest.fixture(scope="module", autouse=True)
def launcher(host):
    host.shell(PREPARE)
    assert not host.module("launcher", {}).get("failed")
    yield
    host.module("container_process", {"name": NAME, "state": "absent"})
    host.module("launcher", {"state": "absent"})
    host.shell(f"rm -r {TREE}")


@pytest.fixture
def converge(host):
    def run(*, check=False, fails=False, **options):
        result = host.module("container_process", declared(**options), check=check)
        assert result.get("failed", False) is fails, result.get("msg", "it did not fail")
        return result

    return run


def shown(host, *properties):
    text = host.shell(f"systemctl show --property={','.join(properties)} {UNIT}")
    return dict(line.split("=", 1) for line in text.splitlines())


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return answer


def test_its_process_is_the_unit_s_and_nothing_of_ours_stays(host, converge):
    result = converge(command=["sh", "-c", "echo said; exec sleep 1000"], hostname="inside")
    state = shown(host, "MainPID", "ActiveState", "SubState", "Type", "NotifyAccess", "ControlGroup")
    assert state["ActiveState"] == "active"
    assert state["SubState"] == "running"
    assert state["MainPID"] == str(result["pid"])
    assert result["supervisor"] == "systemd"
    assert result["unit"] == UNIT
    assert host.shell(f"cat /sys/fs/cgroup{state['ControlGroup']}/cgroup.procs").split() == [
        str(result["pid"])
    ]
    assert host.shell("ps -e -o args= | grep -e bare-containers -e bare_containers | grep -v grep || :") == ""
    assert host.shell(f"cat /proc/{result['pid']}/comm") == "sleep\n"
    assert host.shell(f"nsenter -t {result['pid']} -a /bin/hostname") == "inside\n"
    assert "said" in host.shell(f"journalctl --unit={UNIT} --output=cat")
    # Its cgroup is the root of what it sees.
    assert host.shell(f"nsenter -t {result['pid']} -a /bin/cat /proc/1/cgroup") == "0::/\n"
    assert host.shell(f"systemctl is-enabled {UNIT}") == "enabled\n"
    again = converge(command=["sh", "-c", "echo said; exec sleep 1000"], hostname="inside")
    assert not again["changed"]
    assert again["pid"] == result["pid"]


def test_a_limit_of_its_unit_is_what_is_read_inside(host, converge):
    drop_in = f"{UNIT_FILE}.d/10-cgroup.conf"
    host.shell(
        f"mkdir -p {UNIT_FILE}.d; printf '[Service]\\nMemoryMax=64M\\n' > {drop_in}; systemctl daemon-reload"
    )
    pid = converge()["pid"]
    assert host.shell(f"nsenter -t {pid} -a /bin/cat /sys/fs/cgroup/memory.max") == f"{64 << 20}\n"
    host.shell(f"rm -r {UNIT_FILE}.d; systemctl daemon-reload")


def test_a_unit_changed_by_hand_is_repaired_without_a_restart(host, converge):
    pid = converge()["pid"]
    before = host.shell(f"cat {UNIT_FILE}")
    for drift in (
        f"sed -i s/^KillMode=.*/KillMode=process/ {UNIT_FILE}; systemctl daemon-reload",
        f"sed -i s/^KillMode=.*/KillMode=process/ {UNIT_FILE}",
        f"systemctl disable --quiet {UNIT}",
        # as a run leaves it that was killed before the reload
        f"sed -i s/^KillMode=.*/KillMode=process/ {UNIT_FILE}; systemctl daemon-reload; "
        f"sed -i s/^KillMode=.*/KillMode=mixed/ {UNIT_FILE}",
    ):
        host.shell(drift)
        told, done, again = host.modules(
            "container_process", [declared(), declared(), declared()], check=[True, False, False]
        )
        assert told["changed"], drift
        assert told["diff"] == done["diff"], drift
        assert told["commands"] == done["commands"], drift
        assert not again["changed"], drift
        assert again["pid"] == pid, drift
        assert host.shell(f"cat {UNIT_FILE}") == before, drift
        assert shown(host, "KillMode", "NeedDaemonReload") == {"KillMode": "mixed", "NeedDaemonReload": "no"}
        assert host.shell(f"systemctl is-enabled {UNIT}") == "enabled\n"


def test_a_changed_policy_does_not_restart_it_and_holds(host, converge):
    pid = converge()["pid"]
    assert converge(restart_policy="on-failure")["pid"] == pid
    host.shell(f"kill -KILL {pid}")
    back = eventually(
        lambda: (
            (state := shown(host, "MainPID", "ActiveState"))["ActiveState"] == "active"
            and state["MainPID"] not in ("0", str(pid))
            and state["MainPID"]
        )
    )
    result = converge(restart_policy="on-failure")
    assert not result["changed"]
    assert result["pid"] == int(back)
    assert converge()["changed"]
    host.shell(f"kill -KILL {back}")
    eventually(lambda: shown(host, "ActiveState")["ActiveState"] == "failed")
    told = converge(check=True)
    assert told["changed"]
    assert converge()["pid"] != int(back)


def test_it_stops_in_its_own_time(host, converge):
    """Also where no daemon-reload has made systemd look at its processes anew since it was started."""
    handler = ["sh", "-c", "trap 'exit 0' USR1; while :; do sleep 0.1; done"]
    commands = converge(command=handler, stop_signal="USR1", stop_timeout=60)["commands"]
    # The one before is stopped as it was declared.
    assert commands.index(f"systemctl stop {UNIT}") < commands.index("systemctl daemon-reload")
    began = time.monotonic()
    host.shell(f"systemctl stop {UNIT}")
    assert time.monotonic() - began < 50
    assert shown(host, "Result")["Result"] == "success"
    converge(stop_timeout=2)
    host.shell(f"systemctl restart {UNIT}")
    began = time.monotonic()
    assert converge(stop_timeout=2, state="stopped")["changed"]
    assert time.monotonic() - began >= 2
    assert shown(host, "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
    }
    assert not converge(stop_timeout=2, state="stopped")["changed"]


def test_what_can_not_be_started_is_told_by_the_launcher_and_does_not_flap(host, converge):
    message = converge(command=["/no/such/command"], restart_policy="always", fails=True)["msg"]
    assert "command: '/no/such/command' is not in the root file system" in message
    assert len(message.splitlines()) == 1
    state = shown(host, "ActiveState", "NRestarts", "MainPID")
    assert state == {"ActiveState": "inactive", "NRestarts": "0", "MainPID": "0"}
    assert host.shell(f"ls -d /sys/fs/cgroup/system.slice/{UNIT} 2>/dev/null || :") == ""
    assert host.shell(f"ls /run/bare-containers/{NAME}/state.json 2>/dev/null || :") == ""
    assert converge()["changed"]


def test_a_command_that_ends_at_once_is_told(host, converge):
    message = converge(command=["sh", "-c", "exit 3"], fails=True)["msg"]
    assert f"journalctl -u {UNIT}" in message
    converge()


def test_one_that_systemd_runs_but_has_no_state_is_started_again(host, converge):
    pid = converge()["pid"]
    host.shell("rm -r /run/bare-containers")
    result = converge()
    assert result["changed"]
    assert result["pid"] != pid
    assert host.shell(f"test -e /proc/{pid} || echo gone") == "gone\n"


COUNTING = """
test ! -e /usr/bin/systemctl.real
mkdir -p /run/counting
cp /usr/bin/systemctl /usr/bin/systemctl.real
cat > /run/counting/systemctl <<'END'
#!/bin/sh
echo "$@" >> /run/counting/log
exec /usr/bin/systemctl.real "$@"
END
chmod +x /run/counting/systemctl
mount --bind /run/counting/systemctl /usr/bin/systemctl
"""


def test_a_batch_is_one_start_one_stop_and_one_question(host):
    host.shell(COUNTING)
    batch = [{**declared(), "name": f"{NAME}-{number}"} for number in range(5)]
    gone = [{"name": entry["name"], "state": "absent"} for entry in batch]
    try:
        first, again, absent = host.modules(
            "container_process", [{"batch": batch}, {"batch": batch}, {"batch": gone}]
        )
        log = [line.split()[0] for line in host.shell("cat /run/counting/log").splitlines()]
    finally:
        host.shell("umount /usr/bin/systemctl; rm -r /run/counting /usr/bin/systemctl.real")
    assert first["changed"]
    assert not first.get("failed"), first.get("msg")
    assert not again["changed"]
    assert absent["changed"]
    # Asked before the plan, under the locks, and afterwards; the run that changes nothing asks once.
    assert log == [
        "show", "show", "daemon-reload", "restart", "show",
        "show",
        "show", "show", "stop", "reset-failed", "daemon-reload", "show",
    ]  # fmt: skip


def test_the_commands_do_the_same(host, converge):
    options = {"restart_policy": "always", "env": {"A": "b"}}
    converge(state="absent")
    commands = converge(check=True, **options)["commands"]
    host.shell("\n".join(commands))
    result = converge(**options)
    assert not result["changed"], json.dumps(result["diff"])
    stop = converge(check=True, state="stopped", **options)["commands"]
    host.shell("\n".join(stop))
    assert not converge(state="stopped", **options)["changed"]
    gone = converge(check=True, state="absent")["commands"]
    host.shell("\n".join(gone))
    assert not converge(state="absent")["changed"]


def test_absent_leaves_no_failure_of_one_that_ended_by_itself(host, converge):
    host.shell(f"kill -KILL {converge()['pid']}")
    eventually(lambda: shown(host, "ActiveState")["ActiveState"] == "failed")
    assert f"systemctl reset-failed {UNIT}" in converge(state="absent")["commands"]
    assert host.shell("systemctl list-units --all --no-legend --plain 'bare-*'") == ""


def test_absent_leaves_nothing(host, converge):
    converge(stop_timeout=0)
    assert converge(state="absent")["changed"]
    assert host.shell("find /etc/systemd/system -name 'bare-*'") == ""
    assert host.shell("systemctl list-units --all --no-legend --plain 'bare-*'") == ""
    assert host.shell("ls /sys/fs/cgroup/system.slice | grep bare- || :") == ""
    assert (
        host.shell(f"find /run/bare-containers /var/lib/bare-containers -name '*{NAME}*' 2>/dev/null || :")
        == ""
    )
    assert not converge(state="absent")["changed"]

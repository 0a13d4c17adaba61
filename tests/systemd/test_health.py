# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd does for a container beside running it: checks of its health, its log, pauses in restarts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

NAME = "health-test"
UNIT, TIMER = f"bare-{NAME}.service", f"bare-health@{NAME}.timer"
UNITS = "/etc/systemd/system"
TREE = "/var/lib/health-test-tree"
FLAG = "/run/health-test"

PREPARE = f"""
mkdir -p {TREE}/bin {TREE}/etc {FLAG}
cp /bin/busybox {TREE}/bin/
chroot {TREE} /bin/busybox --install -s /bin
"""

CHECK = {
    "volumes": [f"{FLAG}:/flag:ro"],
    "healthcheck": "test -e /flag/ready || { echo not ready; exit 3; }",
    "healthcheck_interval": "1s",
    "healthcheck_retries": 2,
}


def declared(**options):
    return {"name": NAME, "command": ["sleep", "1000"], "rootfs": TREE, "stop_timeout": 1, **options}


@pytest.fixture(scope="module", autouse=True)
def launcher(host):
    host.shell(PREPARE)
    assert not host.module("launcher", {}).get("failed")
    yield
    host.module("container_process", {"name": NAME, "state": "absent"})
    host.module("launcher", {"state": "absent"})
    host.shell(f"rm -r {TREE} {FLAG}")


@pytest.fixture
def converge(host):
    def run(*, check=False, **options):
        result = host.module("container_process", declared(**options), check=check)
        assert not result.get("failed"), result["msg"]
        return result

    return run


def shown(host, name, unit=UNIT):
    return host.shell(f"systemctl show --property={name} --value {unit}").strip()


def eventually(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return answer


def health(host):
    """What the launcher has noted of it, as container_info reads it."""
    text = host.shell(f"cat /run/bare-containers/{NAME}/health.json 2>/dev/null || :")
    return json.loads(text) if text else {"status": "starting"}


def inside(host, text):
    return host.shell(f"nsenter -t {shown(host, 'MainPID')} -a /bin/sh -c '{text}'")


def journal(host, *matches):
    """Messages of the journal, oldest first."""
    return host.shell(
        f"journalctl --sync; journalctl --output=cat --no-pager {' '.join(matches)}"
    ).splitlines()


def test_the_timer_finds_it_healthy_unhealthy_and_healthy_again(host, converge):
    pid = converge(**CHECK, log_opt={"tag": "of-health"})["pid"]
    eventually(lambda: health(host)["status"] == "unhealthy")
    told = host.module("container_info", {"name": [NAME]})["containers"][NAME]
    assert (told["state"], told["pid"]) == ("started", pid)
    assert (told["drift"], told["errors"]) == ([], [])
    assert told["health"]["status"] == "unhealthy"
    assert told["health"]["failing_streak"] >= 2
    assert (told["health"]["last_check"]["rc"], told["health"]["last_check"]["output"]) == (3, "not ready")
    host.shell(f"touch {FLAG}/ready")
    eventually(lambda: health(host)["status"] == "healthy")
    host.shell(f"rm {FLAG}/ready")
    eventually(lambda: health(host)["status"] == "unhealthy")
    again = converge(**CHECK, log_opt={"tag": "of-health"})
    assert not again["changed"], json.dumps(again["diff"])
    assert again["pid"] == pid
    # The journal has what was found out, and nothing of every time that it was looked.
    lines = journal(host, f"CONTAINER_NAME={NAME}", f"_SYSTEMD_UNIT=bare-health@{NAME}.service")
    assert f"{NAME} is healthy" in lines
    assert f"{NAME} is unhealthy: the check ended with 3, saying 'not ready'" in lines
    assert journal(host, f"UNIT=bare-health@{NAME}.service") == []
    assert host.shell("systemctl list-units --failed --no-legend --plain 'bare-*'") == ""


def test_it_goes_with_the_container_and_comes_with_it(host, converge):
    converge(**CHECK)
    for verb, state in (("stop", "inactive"), ("start", "active"), ("restart", "active")):
        host.shell(f"systemctl {verb} {UNIT}")
        eventually(lambda state=state: shown(host, "ActiveState", TIMER) == state)
    converge(**CHECK, state="stopped")
    assert shown(host, "ActiveState", TIMER) == "inactive"
    converge(**CHECK)
    assert shown(host, "ActiveState", TIMER) == "active"


def test_what_is_changed_of_it_by_hand_is_found_and_repaired(host, converge):
    """And what is declared of it anew does not restart the container either."""
    options = {**CHECK, "healthcheck_interval": "1h"}
    pid = converge(**options)["pid"]
    files = f"cat {UNITS}/{UNIT} {UNITS}/bare-health@{NAME}.* {host_directory()}/health.json"
    before = host.shell(files)
    for drift in (
        f"sed -i s/=3600$/=1000/ {UNITS}/{TIMER}; systemctl daemon-reload",
        f"rm {UNITS}/bare-health@{NAME}.service",
        f"systemctl stop {TIMER}; rm {UNITS}/{TIMER}; systemctl daemon-reload",
        f"systemctl stop {TIMER}",
        f"rm {host_directory()}/health.json",
    ):
        host.shell(drift)
        told, done, again = host.modules(
            "container_process", [declared(**options)] * 3, check=[True, False, False]
        )
        assert told["changed"], drift
        assert told["diff"] == done["diff"], drift
        assert told["commands"] == done["commands"], drift
        assert not again["changed"], drift
        assert (done["pid"], again["pid"]) == (pid, pid), drift
        assert host.shell(files) == before, drift
        assert shown(host, "ActiveState", TIMER) == "active", drift
        assert shown(host, "NeedDaemonReload", TIMER) == "no", drift
    assert converge(**{**options, "healthcheck_interval": "2h"})["pid"] == pid
    assert "2h" in shown(host, "TimersMonotonic", TIMER)
    assert converge(volumes=CHECK["volumes"])["pid"] == pid
    assert host.shell("systemctl list-units --all --no-legend --plain 'bare-health@*'") == ""
    assert host.shell(f"ls {UNITS} | grep bare-health@ || :") == ""


def host_directory():
    return f"/var/lib/bare-containers/containers/{NAME}"


@pytest.mark.parametrize("action", ["restart", "kill", "stop"])
def test_of_an_unhealthy_one_is_done_what_was_declared(host, converge, action):
    options = {**CHECK, "healthcheck_failure_action": action}
    if action == "stop":
        options["command"] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
    if action == "kill":
        options["restart_policy"] = "on-failure"
    host.shell(f"rm -f {FLAG}/ready")
    converge(state="absent")
    pid = converge(**options)["pid"]
    if action == "stop":
        eventually(lambda: shown(host, "ActiveState") == "inactive")
        assert shown(host, "Result") == "success"
        eventually(lambda: shown(host, "ActiveState", TIMER) == "inactive")
        return
    eventually(lambda: shown(host, "MainPID") not in ("0", str(pid)))
    host.shell(f"touch {FLAG}/ready")
    eventually(lambda: health(host)["status"] == "healthy")
    new = shown(host, "MainPID")
    assert str(health(host)["pid"]) == new != str(pid)
    assert int(shown(host, "NRestarts")) >= (1 if action == "kill" else 0)
    result = converge(**options)
    assert not result["changed"], json.dumps(result["diff"])
    assert str(result["pid"]) == new


def test_the_commands_do_the_same(host, converge):
    options = {**CHECK, "healthcheck_interval": "1h", "log_driver": "file", "log_opt": {"max_size": "1M"}}
    converge(state="absent")
    host.shell("\n".join(converge(check=True, **options)["commands"]))
    result = converge(**options)
    assert not result["changed"], json.dumps(result["diff"])
    for other in ({}, options, {"state": "absent"}):
        host.shell("\n".join(converge(check=True, **other)["commands"]))
        result = converge(**other)
        assert not result["changed"], json.dumps(result["diff"])


def test_its_lines_are_found_in_the_journal_by_its_name(host, converge):
    """Also what it says after a restart by systemd, and under a tag."""
    converge(state="absent")
    converge(command=["sh", "-c", "echo said $$; exec sleep 1000"])
    # Beside what other tests had it say, or found out about it.
    assert "said 1" in journal(host, f"CONTAINER_NAME={NAME}", f"SYSLOG_IDENTIFIER={NAME}")
    assert "said 1" not in journal(host, f"CONTAINER_NAME={NAME}-other")
    pid = shown(host, "MainPID")
    options = {"command": ["sh", "-c", "echo tagged; exec sleep 1000"], "log_opt": {"tag": "the-tag"}}
    assert str(converge(**options)["pid"]) != pid
    matches = (f"CONTAINER_NAME={NAME}", "CONTAINER_TAG=the-tag", "SYSLOG_IDENTIFIER=the-tag")
    assert journal(host, *matches) == ["tagged"]
    host.shell(f"systemctl restart {UNIT}")
    eventually(lambda: journal(host, *matches) == ["tagged", "tagged"])
    assert not converge(**options)["changed"]


def test_a_file_is_written_and_rotated_by_the_host(host, converge):
    writes = "head -c 3000 /dev/zero; until test -e /tmp/more; do sleep 0.1; done; echo more; exec sleep 1000"
    options = {"command": ["sh", "-c", writes], "log_driver": "file", "log_opt": {"max_size": "2K"}}
    file = converge(**options)["log"]
    assert file == f"/var/log/bare-containers/{NAME}.log"
    eventually(lambda: host.shell(f"stat -c %s {file}") == "3000\n")
    assert journal(host, f"CONTAINER_NAME={NAME}", "MESSAGE=more") == []
    # All that the host rotates, as its own timer has it.
    host.shell("systemctl start logrotate.service")
    assert host.shell(f"stat -c %s {file} {file}.1").split() == ["0", "3000"]
    inside(host, "touch /tmp/more")
    eventually(lambda: host.shell(f"cat {file}") == "more\n")
    pid = shown(host, "MainPID")
    host.shell(f"rm /etc/logrotate.d/bare-{NAME}.conf")
    result = converge(**options)
    assert result["changed"]
    assert str(result["pid"]) == pid


def test_pauses_between_restarts_grow_and_end(host, converge):
    converge(state="absent")
    policy = {"restart_policy": "always", "restart_sec": 1, "restart_max_delay_sec": 4}
    ends = {"command": ["sh", "-c", "sleep 1; exit 3"], **policy}
    host.shell("journalctl --sync")
    before = host.shell("journalctl --lines=0 --show-cursor").partition("cursor: ")[2].strip()
    converge(**ends)
    eventually(lambda: int(shown(host, "NRestarts")) >= 5, seconds=180)
    # When it has ended, and when it was started again, by the journal's clock in microseconds.
    host.shell("journalctl --sync")
    told = f"journalctl --unit={UNIT} --after-cursor='{before}' --output=json --no-pager"
    entries = [json.loads(line) for line in host.shell(told).splitlines()]
    ended = [
        float(each["__MONOTONIC_TIMESTAMP"]) for each in entries if "Main process exited" in each["MESSAGE"]
    ]
    began = [
        float(each["__MONOTONIC_TIMESTAMP"])
        for each in entries
        if str(each["MESSAGE"]).startswith("Started ")
    ]
    pauses = [(after - before) / 1e6 for before, after in zip(ended, began[1:], strict=False)]
    for least, pause in zip([1, 2, 4, 4], pauses, strict=False):
        assert pause >= least, pauses
    assert len(pauses) >= 4
    # By hand it is started at once, and counted anew.
    converge(**policy)
    assert shown(host, "NRestarts") == "0"
    pid = shown(host, "MainPID")
    host.shell(f"kill -KILL {pid}")
    eventually(lambda: shown(host, "MainPID") not in ("0", pid) and shown(host, "ActiveState") == "active")
    assert shown(host, "NRestarts") == "1"


def test_the_example_runs(host):
    source = Path(__file__).parents[2] / "plugins/modules/container_process.py"
    tasks = yaml.safe_load(source.read_text().split('EXAMPLES = r"""')[1].split('"""')[0])
    (example,) = (task for task in tasks if "on a host with systemd" in task["name"])
    arguments = {**example["bare.containers.container_process"], "rootfs": TREE}
    first, again, gone = host.modules(
        "container_process", [arguments, arguments, {"name": arguments["name"], "state": "absent"}]
    )
    for result in (first, again, gone):
        assert not result.get("failed"), result["msg"]
    assert (first["changed"], again["changed"]) == (True, False)


def test_absent_leaves_nothing(host, converge):
    """Also with the timer's file gone while it goes, and with the container just being checked."""
    options = {**CHECK, "healthcheck": "sleep 1000", "log_driver": "file", "log_opt": {"max_size": "1M"}}
    converge(**options)
    eventually(lambda: shown(host, "ActiveState", f"bare-health@{NAME}.service") == "activating")
    host.shell(f"rm {UNITS}/{TIMER}")
    assert converge(state="absent")["changed"]
    assert host.shell(f"find {UNITS} /etc/logrotate.d -name 'bare-*'") == ""
    eventually(lambda: host.shell("systemctl list-units --all --no-legend --plain 'bare-*'") == "")
    assert (
        host.shell(f"find /run/bare-containers /var/lib/bare-containers /var/log -name '*{NAME}*' || :") == ""
    )
    assert not converge(state="absent")["changed"]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health check in a container on this kernel, and where a container's output goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCHER = "/usr/local/lib/bare-containers/launch"
BY_HAND = {"healthcheck_interval": "disable"}


@pytest.fixture
def check(containers):
    """One check by the launcher: its exit status, and what it says."""

    def run(name="one"):
        command = containers.machine.command(LAUNCHER, "check", containers.name(name))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def health(containers, name="one"):
    """What container_info says of it."""
    result = containers.machine.module("container_info", {"name": [containers.name(name)]})
    told = result["containers"][containers.name(name)]
    assert (told["drift"], told["errors"]) == ([], [])
    return told["health"]


class TestCheck:
    """``launch check``."""

    def test_it_starts_and_is_healthy_and_fails_and_is_healthy_again(self, containers, check):
        name = containers.name("one")
        options = {"healthcheck": "test -e /ready || { echo not ready; exit 3; }", "healthcheck_retries": 2}
        pid = containers.converge(**options, **BY_HAND)["pid"]
        assert health(containers) == {"status": "starting", "failing_streak": 0, "last_check": None}
        assert check() == (0, f"{name} is starting: the check ended with 3, saying 'not ready'\n")
        containers.inside("touch /ready")
        assert check() == (0, f"{name} is healthy\n")
        assert check() == (0, "")
        containers.inside("rm /ready")
        assert check() == (0, f"{name} is healthy: the check ended with 3, saying 'not ready'\n")
        assert check() == (1, f"{name} is unhealthy: the check ended with 3, saying 'not ready'\n")
        told = health(containers)
        assert (told["status"], told["failing_streak"]) == ("unhealthy", 2)
        assert (told["last_check"]["rc"], told["last_check"]["output"]) == (3, "not ready")
        at = time.mktime(time.strptime(told["last_check"]["at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        assert abs(at - time.time()) < 60
        containers.inside("touch /ready")
        assert check() == (0, f"{name} is healthy\n")
        assert health(containers)["failing_streak"] == 0
        assert containers.pid() == pid

    def test_in_its_start_period_nothing_counts_until_it_passes(self, containers, check):
        options = {"healthcheck": ["test", "-e", "/ready"], "healthcheck_retries": 1, **BY_HAND}
        containers.converge(**options, healthcheck_start_period="1h")
        assert check()[0] == 0
        assert (health(containers)["status"], health(containers)["failing_streak"]) == ("starting", 0)
        containers.inside("touch /ready")
        assert check()[0] == 0
        containers.inside("rm /ready")
        assert check()[0] == 1
        assert health(containers)["status"] == "unhealthy"

    def test_what_takes_too_long_is_killed_with_all_it_started(self, containers, check, eventually):
        slow = ["sh", "-c", "echo begun; sleep 1234 & exec sleep 1234"]
        containers.converge(healthcheck=slow, healthcheck_timeout="1", healthcheck_retries=1, **BY_HAND)
        status, said = check()
        assert status == 1
        assert said.endswith("is unhealthy: it took longer than 1 seconds and was killed\n")
        assert health(containers)["last_check"]["rc"] is None
        procs = containers.cgroup("one") / "cgroup.procs"
        eventually(lambda: procs.read_text().split() == [str(containers.pid())])

    def test_what_can_not_be_run_is_a_failure_of_the_container(self, containers, check):
        containers.converge(healthcheck=["/no/such"], healthcheck_retries=1, **BY_HAND)
        status, said = check()
        assert status == 1
        assert "'/no/such'" in said
        assert len(said.splitlines()) == 1

    def test_a_signal_and_much_output(self, containers, check):
        text = "yes | head -n 300000; echo the end; kill -9 $$"
        containers.converge(healthcheck=text, healthcheck_retries=1, **BY_HAND)
        assert check()[0] == 1
        last = health(containers)["last_check"]
        assert last["rc"] == 128 + signal.SIGKILL
        assert last["output"].endswith("y\nthe end")
        assert len(last["output"]) <= 1000

    def test_it_is_run_as_a_command_inside_is(self, containers, check):
        """In the same namespaces and cgroup, with no more privileges than the container has."""
        look = (
            "grep -e ^Cap -e ^Seccomp: -e ^NoNewPrivs /proc/self/status; echo $OWN; id -u; "
            "cat /proc/self/cgroup; ls /proc/self/fd; tr '\\0' / < /proc/1/cmdline"
        )
        containers.converge(healthcheck=look, env={"OWN": "set"}, user="1000", cap_drop=["CHOWN"], **BY_HAND)
        assert check()[0] == 0
        last = health(containers)["last_check"]["output"].splitlines()
        told = containers.execute(command=["sh", "-c", look])["stdout_lines"]
        assert last == told
        assert "NoNewPrivs:\t1" in last
        assert "Seccomp:\t2" in last
        assert last[-1] == "sleep/1000/"

    def test_what_does_not_run_is_no_failed_check(self, containers, check):
        name = containers.name("one")
        assert check() == (125, f"{name}: healthcheck: none is declared.\n")
        containers.converge(healthcheck="true", state="stopped", **BY_HAND)
        before = containers.files()
        assert check() == (125, f"{name}: name: '{name}' is not running.\n")
        assert containers.files() == before
        assert health(containers) is None
        containers.converge()
        assert check() == (125, f"{name}: healthcheck: none is declared.\n")

    def test_one_that_is_paused_is_left_alone(self, containers, check):
        options = {"healthcheck": "false", "healthcheck_retries": 1, **BY_HAND}
        containers.converge(**options, state="paused")
        assert check() == (0, "")
        assert health(containers)["status"] == "starting"
        containers.converge(**options)
        assert check()[0] == 1

    def test_one_that_ends_meanwhile_leaves_nothing(self, containers, check, eventually):
        """Neither of a check that has still been running, nor of the process before to the one after it."""
        options = {"healthcheck": "echo > /tmp/begun; exec sleep 1000", "healthcheck_retries": 1, **BY_HAND}
        containers.converge(**options)
        name = containers.name("one")
        running = subprocess.Popen(
            containers.machine.command(LAUNCHER, "check", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: "begun" in containers.inside("ls /tmp"))
        containers.converge(state="absent")
        assert running.communicate(timeout=60)[0] == b""
        assert running.returncode == 0
        containers.machine.shell(f"test ! -e /run/bare-containers/{name}")
        containers.converge(**{**options, "healthcheck": "false"})
        assert check()[0] == 1
        os.kill(containers.pid(), signal.SIGKILL)
        eventually(lambda: not containers.alive())
        containers.converge(**{**options, "healthcheck": "false"})
        assert health(containers)["status"] == "starting"


class TestDeclaration:
    """It is a part of the state."""

    def test_a_changed_check_leaves_the_process_and_a_removed_one_is_gone(self, containers, check):
        first = containers.converge(healthcheck="true", **BY_HAND)
        file = f"{containers.directory()}/health.json"
        told = json.loads(containers.machine.shell(f"cat {file}"))
        assert told["args"] == ["/bin/sh", "-c", "true"]
        assert not containers.converge(healthcheck="true", **BY_HAND)["changed"]
        foretold = containers.converge(healthcheck=["true"], check=True, **BY_HAND)
        done = containers.converge(healthcheck=["true"], **BY_HAND)
        assert foretold["diff"] == done["diff"]
        assert foretold["commands"] == done["commands"]
        assert done["pid"] == first["pid"]
        for damage in (f"rm {file}", f"echo '{{' > {file}", f"echo '[]' > {file}"):
            containers.machine.shell(damage)
            status, said = check()
            assert (status, len(said.splitlines())) == (125, 1)
            assert containers.converge(healthcheck=["true"], **BY_HAND)["pid"] == first["pid"]
            assert check()[0] == 0
        assert containers.converge()["changed"]
        containers.machine.shell(f"test ! -e {file}")

    def test_what_nobody_would_do_is_refused(self, containers):
        before = containers.files()
        message = containers.converge(healthcheck="true", fails=True)["msg"]
        assert message.startswith("healthcheck_interval: 30 seconds")
        message = containers.converge(
            healthcheck="true", healthcheck_failure_action="kill", fails=True, **BY_HAND
        )["msg"]
        assert message.startswith("healthcheck_failure_action: 'kill'")
        assert containers.files() == before


class TestLog:
    """Where the output goes."""

    SAYS: tuple[str, ...] = ("sh", "-c", "echo to stdout; echo to stderr >&2; exec sleep 1000")

    def test_to_a_file_elsewhere_which_goes_with_the_container(self, containers):
        file = "/var/log/elsewhere/own.log"
        options = {"command": list(self.SAYS), "log_opt": {"path": file}}
        result = containers.converge(**options)
        assert result["log"] == file
        assert containers.machine.shell(f"cat {file}; stat -c %a {file}") == "to stdout\nto stderr\n640\n"
        containers.machine.shell(f"test ! -e /var/log/bare-containers; touch {file}.1")
        assert not containers.converge(**options)["changed"]
        pid = containers.pid()
        moved = containers.converge(command=list(self.SAYS))
        assert moved["pid"] != pid
        assert containers.log() == "to stdout\nto stderr\n"
        containers.converge(**options)
        containers.converge(state="absent")
        assert containers.machine.shell("find /var/log -type f") == ""

    def test_nowhere(self, containers):
        result = containers.converge(command=list(self.SAYS), log_driver="none")
        assert result["log"] is None
        assert os.readlink(f"/proc/{containers.pid()}/fd/1") == "/dev/null"
        assert os.readlink(f"/proc/{containers.pid()}/fd/2") == "/dev/null"
        message = containers.converge(command=["false"], log_driver="none", fails=True)["msg"]
        assert "its output is not kept" in message

    def test_logrotate_keeps_it_as_small_as_declared(self, containers, eventually):
        """By the program itself, on a log that the container keeps open."""
        config = f"/etc/logrotate.d/bare-{containers.name('one')}.conf"
        writes = (
            "head -c 2000 /dev/zero; until test -e /tmp/more; do sleep 0.1; done; echo more; exec sleep 1000"
        )
        options = {"command": ["sh", "-c", writes], "log_opt": {"max_size": "1K"}}
        machine = containers.machine
        machine.shell("mount -t tmpfs tmpfs /etc/logrotate.d")
        file = containers.converge(**options)["log"]
        eventually(lambda: machine.shell(f"stat -c %s {file}") == "2000\n")
        for status in (f"rm {config}", f"sed -i s/1024/4096/ {config}"):
            pid = containers.pid()
            machine.shell(status)
            assert containers.converge(**options)["pid"] == pid
        for size in ("0", "0"):
            machine.shell(f"/usr/sbin/logrotate --state /var/lib/logrotate.state {config}")
            assert machine.shell(f"stat -c %s {file} {file}.1").split() == [size, "2000"]
        containers.inside("touch /tmp/more")
        eventually(lambda: machine.shell(f"cat {file}") == "more\n")
        containers.converge(command=options["command"])
        machine.shell(f"test ! -e {config}")
        containers.converge(**options)
        containers.converge(state="absent")
        assert machine.shell("ls /etc/logrotate.d; find /var/log -type f") == ""

    def test_what_nobody_would_do_is_refused(self, containers):
        before = containers.files()
        message = containers.converge(log_driver="journald", fails=True)["msg"]
        assert message.startswith("log_driver: 'journald'")
        message = containers.converge(log_opt={"tag": "x"}, fails=True)["msg"]
        assert message.startswith("log_opt: 'tag'")
        assert containers.files() == before


def test_the_log_of_the_default_path_is_as_before(containers):
    containers.converge(command=["sh", "-c", "echo said; exec sleep 1000"], log_driver="file")
    assert containers.log() == "said\n"
    assert Path(f"/proc/{containers.pid()}/fd/1").readlink().name == f"{containers.name('one')}.log"

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in a container: how they run, what is expected of them, what they may do."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

# By their numbers in capabilities(7): podman's default set, containers.conf(5).
DEFAULT = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))


@pytest.fixture(autouse=True)
def running(containers):
    containers.converge(env={"OWN": "of the container"}, hostname="inside", workdir="/work")


def test_it_runs_in_the_container(containers):
    look = (
        "hostname; pwd; cat /proc/1/cmdline | tr '\\0' ' '; for ns in /proc/self/ns/*; do readlink $ns; done"
    )
    result = containers.execute(command=["sh", "-c", look])
    lines = result["stdout_lines"]
    assert lines[:2] == ["inside", "/work"]
    assert lines[2].startswith("sleep 1000")
    inside = {link.split(":")[0]: link for link in lines[2].removeprefix("sleep 1000 ").split() + lines[3:]}
    for name in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert inside[name] == os.readlink(f"/proc/{containers.pid()}/ns/{name}"), name
    assert result["rc"] == 0
    assert result["changed"]


def test_it_is_in_the_container_s_cgroup_and_session_of_its_own(containers):
    done = []
    run = threading.Thread(target=lambda: done.append(containers.execute(command=["sleep", "2"])))
    run.start()
    others = eventually(lambda: set(procs(containers)) - {str(containers.pid())})
    (pid,) = others
    session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]
    assert session == pid
    run.join()
    assert done[0]["rc"] == 0


def procs(containers):
    return (containers.cgroup("one") / "cgroup.procs").read_text().split()


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return answer


def test_it_has_the_container_s_privileges_and_nothing_is_left_open(containers):
    look = "grep -e ^Cap -e ^NoNewPrivs /proc/self/status; ls /proc/self/fd; id -G"
    lines = containers.execute(command=["sh", "-c", look])["stdout_lines"]
    status = dict(line.split() for line in lines if ":" in line)
    assert {name: int(status[f"{name}:"], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == dict.fromkeys(
        ("CapPrm", "CapEff", "CapBnd"), DEFAULT
    )
    assert int(status["CapInh:"], 16) == int(status["CapAmb:"], 16) == 0
    assert status["NoNewPrivs:"] == "1"
    # 3 is the listing's own.
    assert lines[-5:-1] == ["0", "1", "2", "3"]
    assert lines[-1] == "0"


def test_its_environment_is_the_container_s_and_its_own(containers):
    machine = containers.machine
    arguments = {
        "name": containers.name("one"),
        "command": ["env"],
        "env": {"GIVEN": "here", "OWN": "replaced"},
    }
    result = machine.module("nsenter_exec", arguments, environment={"SECRET": "of the host"})
    assert dict(line.split("=", 1) for line in result["stdout_lines"]) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": "inside",
        "HOME": "/",
        "OWN": "replaced",
        "GIVEN": "here",
    }


def test_another_user_and_directory(containers):
    containers.inside("echo 'app:x:1234:1235::/home/app:' > /etc/passwd")
    command = ["sh", "-c", "id -u; id -g; echo $HOME; pwd; grep ^CapEff /proc/self/status"]
    result = containers.execute(command=command, user="app", chdir="/tmp")
    assert result["stdout_lines"] == ["1234", "1235", "/home/app", "/tmp", "CapEff:\t0000000000000000"]
    message = containers.execute(command=["id"], user="nobody", fails=True)["msg"]
    assert "user: 'nobody'" in message


def test_standard_input_output_and_error(containers):
    text = "first\nsecond\n" * 100_000
    result = containers.execute(command=["sh", "-c", "tee /dev/stderr"], stdin=text)
    assert result["stdout"] == result["stderr"] == text.rstrip("\n")
    assert result["stdout_lines"][:2] == ["first", "second"]
    assert containers.execute(command=["cat"])["stdout"] == ""


def test_expectations(containers):
    assert containers.execute(command=["sh", "-c", "exit 3"], rc=3)["rc"] == 3
    message = containers.execute(command=["sh", "-c", "echo why >&2; exit 3"], fails=True)["msg"]
    assert "ended with 3, not 0" in message
    assert "'why'" in message
    check = containers.execute(command=["echo", "hello world"], stdout="lo wo")
    assert not check["changed"]
    message = containers.execute(command=["echo", "hello"], stdout="bye", fails=True)["msg"]
    assert "stdout: 'bye'" in message
    assert not containers.execute(command=["true"], read_only=True)["changed"]
    assert containers.execute(command=["sh", "-c", "kill -TERM $$"], rc=128 + signal.SIGTERM)["rc"] == 143


def test_creates_and_removes_are_paths_inside(containers):
    command = ["sh", "-c", "echo ran >> /tmp/ran"]
    assert containers.execute(command=command, creates="/tmp/ran")["changed"]
    again = containers.execute(command=command, creates="/tmp/ran")
    assert not again["changed"]
    assert "/tmp/ran exists" in again["msg"]
    assert not containers.execute(command=command, removes="/no/such")["changed"]
    # A link is looked up inside, where it leads nowhere.
    containers.inside("ln -s /etc/passwd /tmp/link; ln -s circle /tmp/circle")
    for link in ("/tmp/link", "/tmp/circle"):
        assert not containers.execute(command=command, removes=link)["changed"]
    assert containers.inside("cat /tmp/ran") == "ran\n"


def test_check_mode_runs_nothing(containers):
    command = ["touch", "/tmp/x"]
    assert containers.execute(command=command, check=True)["changed"]
    assert not containers.execute(command=command, creates="/tmp", check=True)["changed"]
    assert not containers.execute(command=["cat", "/tmp/x"], read_only=True, check=True)["changed"]
    assert containers.inside("ls /tmp") == ""
    containers.execute("never", command=command, check=True)


def test_a_timeout_kills_all_that_was_started(containers):
    script = "sleep 1001 & setsid sleep 1002 & (sleep 1003 &) ; sleep 1004"
    began = time.monotonic()
    message = containers.execute(command=["sh", "-c", script], timeout=1, fails=True)["msg"]
    assert time.monotonic() - began < 30
    assert "timeout" in message
    eventually(lambda: procs(containers) == [str(containers.pid())])


def test_within_waits_for_what_is_yet_to_come(containers):
    containers.execute(command=["sh", "-c", "(sleep 1; echo up > /tmp/up) > /dev/null 2>&1 &"])
    result = containers.execute(command=["cat", "/tmp/up"], stdout="up", within=20)
    assert not result["changed"]
    began = time.monotonic()
    message = containers.execute(command=["cat", "/tmp/never"], stdout="up", within=1, fails=True)["msg"]
    assert 1 <= time.monotonic() - began < 15
    assert "/tmp/never" in message


def test_a_batch_runs_in_order_and_goes_on(containers):
    name = containers.name("one")
    batch = [
        {"name": name, "command": ["sh", "-c", "echo 1 > /tmp/n"]},
        {"name": containers.name("never"), "command": ["true"]},
        {"name": name, "command": ["false"]},
        {"name": name, "command": ["cat", "/tmp/n"], "read_only": True},
    ]
    result = containers.machine.module("nsenter_exec", {"batch": batch})
    assert result["failed"]
    assert [run["failed"] for run in result["runs"]] == [False, True, True, False]
    assert result["runs"][3]["stdout"] == "1"
    assert f"name: '{containers.name('never')}' is not running" in result["msg"]
    assert "rc: false ended with 1, not 0" in result["msg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": ["/no/such"]}, "command: '/no/such' is not in the root file system"),
        ({"command": ["true"], "chdir": "/no/such"}, "workdir /no/such"),
        ({"command": ["true"], "chdir": "/proc/self/fd/4"}, "workdir"),
        ({"command": []}, "command"),
        ({}, "command"),
        ({"command": ["true"], "user": "1:2:3"}, "user: '1:2:3'"),
    ],
)
def test_what_can_not_be_run_is_told(containers, options, words):
    message = containers.execute(fails=True, **options)["msg"]
    assert words in message
    assert len(message.splitlines()) == 1


def test_the_command_by_hand_does_the_same(containers):
    for options, output in (
        ({"command": ["echo", "it's"]}, "it's\n"),
        ({"command": ["cat"], "stdin": "given"}, "given"),
        ({"command": ["sh", "-c", "echo $A; pwd"], "env": {"A": "b c"}, "chdir": "/tmp"}, "b c\n/tmp\n"),
        ({"command": ["sh", "-c", "exit 3"], "rc": 3}, ""),
        ({"command": ["sh", "-c", "id -u; id -g"], "user": "1000:1001"}, "1000\n1001\n"),
        ({"command": ["echo", "hello"], "stdout": "ell", "within": 5}, "hello\n"),
    ):
        (line,) = containers.execute(check=True, **options)["commands"]
        assert containers.machine.shell(f"PATH=$PATH:/bin; {line}") == output, line


def test_the_examples_run(containers):
    source = Path(__file__).parents[2] / "plugins/modules/nsenter_exec.py"
    text = source.read_text().split('EXAMPLES = r"""')[1].split('"""')[0]
    server = "mkdir -p /srv; echo hello > /srv/index.html; httpd -p 8080 -h /srv; exec sleep 1000"
    containers.converge("web", command=["sh", "-c", server])
    containers.converge("worker", tmpfs={"/var/cache": None})
    for task in yaml.safe_load(text):
        arguments = task["bare.containers.nsenter_exec"]
        for entry in arguments.get("batch", [arguments]):
            entry["name"] = containers.name(entry["name"])
        result = containers.machine.module("nsenter_exec", arguments)
        assert not result.get("failed"), result

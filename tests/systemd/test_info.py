# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""container_info where systemd watches, and all controllers are in cgroup2."""

from __future__ import annotations

import time

import pytest

NAMES = ("info-web", "info-gone")
WEB, GONE = (f"bare-{name}.service" for name in NAMES)
CGROUP = f"/sys/fs/cgroup/system.slice/{WEB}"
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def containers(host):
    """One that was killed, and then started again by systemd; and one that has failed."""
    web = {"name": NAMES[0], "command": ["sleep", "1000"], "restart_policy": "always", "stop_timeout": 0}
    ends = "until test -e /end; do sleep 0.1; done; exit 3"
    gone = {"name": NAMES[1], "command": ["sh", "-c", ends], "stop_timeout": 0}
    limits = {"name": NAMES[0], "memory_max": "64M", "pids_max": 20, "cpu_max": 0.5}
    made = {
        "launcher": {},
        "rootfs_fetch": {"batch": [{"name": name, "busybox": True} for name in NAMES]},
        "cgroup_v2": limits,
        "container_process": {"batch": [web, gone]},
    }
    host.play([{f"bare.containers.{module}": arguments} for module, arguments in made.items()])
    pid = shown(host, WEB, "MainPID")
    host.shell(f"kill -KILL {pid}; touch /proc/{shown(host, GONE, 'MainPID')}/root/end")
    eventually(
        lambda: shown(host, WEB, "MainPID") not in ("0", pid) and shown(host, WEB, "ActiveState") == "active"
    )
    eventually(lambda: shown(host, GONE, "ActiveState") == "failed")
    yield
    absent = {"batch": [{"name": name, "state": "absent"} for name in NAMES]}
    modules = ("container_process", "cgroup_v2", "rootfs_fetch")
    host.play([{f"bare.containers.{module}": absent} for module in modules])
    host.module("launcher", {"state": "absent"})


def shown(host, unit, name):
    return host.shell(f"systemctl show --property={name} --value {unit}").strip()


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_unit_restarts_last_exit_limits_usage_and_drift(host):
    told, drifted = (
        result["containers"]
        for result in (
            host.module("container_info", {}),
            host.shell(f"echo 30 > {CGROUP}/pids.max") or host.module("container_info", {"name": [NAMES[0]]}),
        )
    )
    web, gone = (told[name] for name in NAMES)
    assert (web["state"], web["supervisor"], web["unit"], web["log"]) == ("started", "systemd", WEB, None)
    assert web["pid"] == int(shown(host, WEB, "MainPID"))
    assert (web["restarts"], web["last_exit"]) == (1, None)
    assert (web["drift"], web["errors"]) == ([], [])

    assert web["cgroup"]["path"] == CGROUP
    controls = {"memory.max": 64 * MIB, "pids.max": 20}
    assert {file: web["cgroup"]["controls"][file] for file in controls} == controls
    assert web["cgroup"]["pids_current"] == len(web["process"]["processes"]) == 1
    assert 0 < web["cgroup"]["memory_current"] < 64 * MIB
    assert web["cgroup"]["memory_events"]["oom_kill"] == 0

    assert (gone["state"], gone["pid"], gone["restarts"], gone["cgroup"]) == ("stopped", None, 0, None)
    ended = shown(host, GONE, "ExecMainExitTimestamp")
    at = host.shell(f"date --utc --date='{ended}' +%s")
    told_at = host.shell(f"date --date={gone['last_exit'].pop('at')} +%s")
    assert gone["last_exit"] == {"status": 3, "result": "exit-code"}
    assert abs(int(told_at) - int(at)) <= 1
    assert [each["part"] for each in gone["drift"]] == ["process"]
    assert "process" in gone["drift"][0]["changes"]

    (drift,) = drifted[NAMES[0]]["drift"]
    assert (drift["part"], drift["changes"]) == ("cgroup", ["pids.max"])
    assert (drift["before"], drift["after"]) == (
        {"controls": {"pids.max": 30}},
        {"controls": {"pids.max": 20}},
    )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals, restarts, stopping, and the reboot of the host."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent.parent
RUNNING = ("web", "worker", "stubborn", "bare", "app")


def test_a_pid_1_without_a_handler_ignores_term_and_dies_of_kill_with_all_its_processes(
    host, container, eventually
):
    bare = container("bare")
    pid = bare.pid
    host.check_output(
        f"echo $$ > {bare.cgroup}/cgroup.procs &&"
        f" exec setsid --fork nsenter --target {pid} --all sleep 86403 >/dev/null 2>&1"
    )

    def children():
        return host.run("pgrep -f 'sleep 86403'").stdout.split()

    child = eventually(children)[0]
    host.check_output("kill -TERM %s", pid)
    # A signal that is ignored leaves no trace: what comes after it on the same path is waited for instead.
    assert bare.output("true") == ""
    assert bare.pid == pid
    assert host.check_output("awk '/^State/ {print $2}' %s", f"/proc/{pid}/status") in "SR"
    host.check_output("kill -KILL %s", pid)
    eventually(lambda: not host.file(f"/proc/{pid}").exists and not host.file(f"/proc/{child}").exists)
    # No restart policy: it stays away until it is declared again.
    eventually(
        lambda: host.run("systemctl is-active bare-bare.service").stdout.strip() in ("failed", "inactive")
    )


def test_with_a_restart_policy_it_comes_back_by_itself(host, container, eventually):
    for name in ("web", "stubborn", "worker"):
        pid = container(name).pid
        host.check_output("kill -KILL %s", pid)
        back = eventually(
            lambda name=name, pid=pid: (
                host.check_output("systemctl show --property=MainPID --value bare-%s.service", name)
                not in ("0", pid)
                and host.run("systemctl is-active bare-%s.service", name).stdout.strip() == "active"
            )
        )
        assert back
    assert container("web").output("hostname") == "web.example"
    eventually(
        lambda: (
            host.run("curl --silent --max-time 5 http://203.0.113.1:8080/").stdout.strip()
            == "hello from web.example"
        )
    )


def test_stopping_asks_first_and_kills_after_the_timeout(host, container, play):
    for name, least, most in (("worker", 0, 20), ("stubborn", 2, 22)):
        began = time.monotonic()
        host.check_output("systemctl stop bare-%s.service", name)
        assert least <= time.monotonic() - began <= most, name
    assert host.check_output("systemctl show --property=Result --value bare-worker.service") == "success"
    assert play("containers.yml").changed == ["bare.containers.containers : Converge the processes"]


def test_after_a_reboot_everything_runs_again(host, container, eventually, play, astray):
    boot = host.check_output("cat /proc/sys/kernel/random/boot_id")
    subprocess.run(
        [PROJECT / "tests/testhost/testhost", "reboot", "molecule-default"], check=True, capture_output=True
    )
    assert host.check_output("cat /proc/sys/kernel/random/boot_id") != boot
    for name in RUNNING:
        eventually(
            lambda name=name: host.run("systemctl is-active bare-%s.service", name).rc == 0, within=120
        )
    web = container("web")
    assert web.control("memory.max") == "268435456"
    assert web.control("cpu.max") == "100000 100000"
    assert web.control("pids.max") == "128"
    eventually(
        lambda: (
            host.run("curl --silent --max-time 5 http://203.0.113.1:8080/").stdout.strip()
            == "hello from web.example"
        )
    )
    assert host.run("nsenter --target %s --net ping -c 1 -W 10 10.201.0.1", container("stubborn").pid).rc == 0
    addresses = json.loads(host.check_output("ip -json -n web -4 address show"))
    assert {item["local"] for link in addresses for item in link["addr_info"]} == {
        "127.0.0.1", "10.200.0.2", "10.203.0.2",
    }  # fmt: skip
    assert "rate 16Mbit" in host.check_output("tc -n web qdisc show dev eth0")
    assert astray() == []
    assert play("containers.yml").changed == []

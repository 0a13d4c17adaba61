# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroup: what it says inside and outside, and what it does to who goes beyond."""

from __future__ import annotations

WEB_LIMITS = {"memory.max": "268435456", "cpu.max": "100000 100000", "pids.max": "128"}


def test_the_limits_read_the_same_inside_and_outside(container):
    web = container("web")
    for file, value in WEB_LIMITS.items():
        assert web.output(f"cat /sys/fs/cgroup/{file}") == value
        assert web.control(file) == value


def test_every_process_of_the_container_is_in_its_cgroup(host, container):
    for name in ("web", "stubborn"):
        one = container(name)
        inside = set(host.check_output("pgrep --ns %s --nslist pid", one.pid).split())
        assert one.pid in inside
        assert set(one.control("cgroup.procs").split()) == inside
        assert host.check_output("cat %s", f"/proc/{one.pid}/cgroup").startswith("0::/")
        assert one.output("cat /proc/self/cgroup") == "0::/"


def test_allocating_more_than_the_limit_is_killed_and_counted(container):
    web = container("web")
    before, pid = web.counters("memory.events")["oom_kill"], web.pid
    assert web.run("dd if=/dev/zero of=/dev/null bs=300M count=1").rc != 0
    assert web.counters("memory.events")["oom_kill"] == before + 1
    assert web.pid == pid
    assert web.run("dd if=/dev/zero of=/dev/null bs=100M count=1").rc == 0


def test_a_busy_loop_is_throttled_to_the_quota(host, container):
    web = container("web")
    uptime = "cut -d' ' -f1 /proc/uptime"
    before, began = web.counters("cpu.stat"), float(host.check_output(uptime))
    loop = "timeout 5 sh -c 'while :; do :; done'"
    web.run(f"{loop} & {loop}; wait")
    after, lasted = web.counters("cpu.stat"), float(host.check_output(uptime)) - began
    assert after["nr_throttled"] > before["nr_throttled"]
    # Two loops on two CPUs, and the quota is one.
    assert (after["usage_usec"] - before["usage_usec"]) / 1e6 <= 1.1 * lasted


def test_one_task_more_than_the_limit_is_refused(host, container, eventually):
    web = container("web")
    before = web.counters("pids.events")["max"]
    refused = web.run("for n in $(seq 140); do sleep 86404 >/dev/null 2>&1 & done")
    assert "fork" in refused.stderr
    assert web.counters("pids.events")["max"] > before
    assert int(web.control("pids.current")) <= 128
    # From the host: at the limit, nothing can be started inside.
    host.check_output("pkill -KILL --ns %s --nslist pid --full 'sleep 86404'", web.pid)
    eventually(lambda: int(web.control("pids.current")) < 20)


def test_the_limits_survive_a_daemon_reload(host, container):
    web = container("web")
    pid = web.pid
    host.check_output("systemctl daemon-reload")
    assert web.pid == pid
    assert {file: web.control(file) for file in WEB_LIMITS} == WEB_LIMITS


def test_changing_them_changes_them_live(container, play, declare):
    web = container("web")
    pid = web.pid
    others = {name: container(name).pid for name in ("worker", "stubborn", "bare")}
    run = play(
        "containers.yml",
        declared=declare("web", cgroup={"cpu_max": 0.5, "memory_max": "200M", "pids_max": 100}),
    )
    assert run.changed == ["bare.containers.containers : Converge the cgroups"]
    assert web.control("memory.max") == "209715200"
    assert web.control("cpu.max") == "50000 100000"
    assert web.control("pids.max") == "100"
    assert web.pid == pid
    assert {name: container(name).pid for name in others} == others
    play("containers.yml")
    assert {file: web.control(file) for file in WEB_LIMITS} == WEB_LIMITS
    assert web.pid == pid

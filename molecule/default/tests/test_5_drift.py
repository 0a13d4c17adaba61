# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second run writes nothing, check mode tells the truth, drift is repaired and the rest left alone."""

from __future__ import annotations

import contextlib

import pytest

OURS = (
    "/etc/systemd/system",
    "/var/lib/bare-containers",
    "/run/bare-containers",
    "/run/netns",
    "/usr/local/lib",
)
RUNNING = ("web", "worker", "stubborn", "bare", "app")


@pytest.fixture
def pids(container):
    return lambda: {name: container(name).pid for name in RUNNING}


MONITORS = {
    "links": "ip -oneline monitor all",
    "inside": "ip -oneline -n web monitor all",
    "rules": "nft monitor",
}
# The kernel's own doing: neighbours that come and go with the traffic of the tests.
NEIGHBOURS = ("STALE", "REACHABLE", "DELAY", "PROBE", "FAILED", "INCOMPLETE", "NOARP", "PERMANENT")
# The host's own way out, whose router advertises itself every few minutes.
UPLINK = "eth0"


@contextlib.contextmanager
def nothing_written(host):
    """Fails when a file of ours, a link, address, route or rule is written meanwhile."""
    host.check_output("touch /run/before")
    for name, command in MONITORS.items():
        host.check_output(
            f"systemd-run --quiet --unit=monitor-{name}"
            f" --property=StandardOutput=truncate:/run/monitor-{name} {command}"
        )
    yield
    found = host.check_output(f"find {' '.join(OURS)} -newer /run/before")
    for name in MONITORS:
        assert host.run("systemctl is-active monitor-%s", name).rc == 0, "the monitor itself has to run"
        host.check_output("systemctl stop monitor-%s", name)
    assert found == ""
    links, inside = (host.check_output("cat %s", f"/run/monitor-{name}") for name in ("links", "inside"))
    seen = [line for line in links.splitlines() if UPLINK not in line] + inside.splitlines()
    assert [line for line in seen if line.strip() and not line.rstrip().endswith(NEIGHBOURS)] == []
    assert host.check_output("cat /run/monitor-rules") == ""


def test_a_second_run_changes_nothing_and_writes_nothing(host, play, pids):
    before = pids()
    with nothing_written(host):
        run = play()
    assert run.changed == []
    assert [result["commands"] for result in run.ours if "commands" in result and result["changed"]] == []
    assert pids() == before


def test_check_mode_tells_exactly_what_the_run_then_changes(host, play, pids, declare):
    changed = declare(
        "web",
        cgroup={"memory_max": "300M"},
        network={"bridge": "bare0", "address": "10.200.0.22/24", "nat": True, "publish": ["8088:80"]},
        process={
            "command": ["sh", "-c", "echo changed > /tmp/index.html; exec httpd -f -p 80 -h /tmp"],
            "hostname": "web.example",
        },
    )
    changed = [{**one, "checks": []} for one in changed]
    before = pids()
    with nothing_written(host):
        foretold = play("containers.yml", declared=changed, check=True)
    assert pids() == before
    done = play("containers.yml", declared=changed)
    assert (
        foretold.changed
        == done.changed
        == [
            f"bare.containers.containers : Converge the {part}"
            for part in ("cgroups", "networks", "processes")
        ]
    )
    assert foretold.differences == done.differences
    assert [result["commands"] for result in foretold.ours if "commands" in result] == [
        result["commands"] for result in done.ours if "commands" in result
    ]
    assert {name: pid for name, pid in pids().items() if name != "web"} == {
        name: pid for name, pid in before.items() if name != "web"
    }
    assert pids()["web"] != before["web"]
    assert host.check_output("curl --silent --fail --max-time 20 http://203.0.113.1:8088/") == "changed"
    play("containers.yml")


WEB = "/etc/systemd/system/bare-web.service"

DRIFT = {
    "limits, links and processes": {
        "ip -n stubborn link delete eth0": ("netns_veth", "stubborn"),
        "systemctl kill --signal=KILL bare-bare.service": ("container_process", "bare"),
        "systemctl disable --quiet bare-worker.service": ("container_process", "worker"),
        # After what makes systemd reload, which alone would put it back.
        "echo 100000000 > /sys/fs/cgroup/system.slice/bare-web.service/memory.max": ("cgroup_v2", "web"),
    },
    "rules, addresses and units": {
        "nft flush ruleset": ("netns_veth", "_firewall"),
        "ip -n stubborn address flush dev eth0": ("netns_veth", "stubborn"),
        "ip netns exec web nft flush ruleset; tc -n web qdisc delete dev eth0 root": ("netns_veth", "web"),
        f"sed -i s/^Restart=.*/Restart=no/ {WEB}; systemctl daemon-reload": ("container_process", "web"),
    },
}


@pytest.mark.parametrize("kind", DRIFT)
def test_drift_is_reported_and_repaired_and_the_rest_is_left_alone(host, play, pids, eventually, kind):
    drifts = DRIFT[kind]
    before = pids()
    links = {name: host.check_output("ip -n %s -json link show eth0", name) for name in ("web", "stubborn")}
    for command in drifts:
        host.check_output(command)
    killed = ("container_process", "bare") in drifts.values()
    if killed:
        eventually(lambda: host.run("systemctl is-active bare-bare.service").stdout.strip() != "active")
    reported = play("containers.yml", check=True)
    assert reported.differing == sorted(drifts.values())
    repaired = play("containers.yml")
    assert repaired.changed == reported.changed
    assert repaired.differences == reported.differences
    after = pids()
    if killed:
        assert after.pop("bare") != before.pop("bare")
    assert after == before
    assert host.check_output("ip -n web -json link show eth0") == links["web"]
    if "ip -n stubborn link delete eth0" not in drifts:
        assert host.check_output("ip -n stubborn -json link show eth0") == links["stubborn"]
    # That nothing is left to repair shows in the next test, which expects its own drift and no other.
    assert (
        host.check_output("curl --silent --fail --max-time 20 http://203.0.113.1:8080/")
        == "hello from web.example"
    )

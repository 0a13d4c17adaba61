# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bridge's name server as a service: who starts it, and when."""

from __future__ import annotations

import time

import pytest

UNIT = "bare-dns@bare7.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
NAMES = ("dns-one", "dns-two")
DECLARED = {
    "batch": [
        {"name": name, "bridge": "bare7", "subnet": ["10.207.0.0/24", "fd00:207::/64"]} for name in NAMES
    ]
}
SERVED = {"batch": [{**entry, "dns": "dynamic"} for entry in DECLARED["batch"]]}
GONE = {"batch": [{"name": name, "state": "absent"} for name in NAMES]}


def converge(host, arguments, *, check=False):
    result = host.module("netns_veth", arguments, check=check)
    assert not result.get("failed"), result
    return result


@pytest.fixture(scope="module", autouse=True)
def _removed(host):
    yield
    converge(host, GONE)
    left = host.shell(
        "pgrep dnsmasq || true; ls /run /etc/systemd/system; systemctl list-units --all 'bare-dns*'"
    )
    assert "dnsmasq" not in left
    assert "bare-dns" not in left


@pytest.fixture
def served(host):
    converge(host, SERVED)


def shown(host, *properties):
    text = host.shell(f"systemctl show --property={','.join(properties)} {UNIT}")
    return dict(line.split("=", 1) for line in text.splitlines())


def answer(host):
    """What one of them is told of the other, over both families."""
    ask = "ip netns exec dns-one timeout 5 busybox nslookup dns-two {} || true\n"
    return host.shell(ask.format("10.207.0.1") + ask.format("fd00:207::1"))


def eventually_answers(host, seconds=60):
    deadline = time.monotonic() + seconds
    while not (told := answer(host)).count("10.207.0.3") == told.count("fd00:207::3") == 2:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def test_the_commands_make_the_service(host):
    host.shell("\n".join(converge(host, SERVED, check=True)["commands"]))
    assert not converge(host, SERVED)["changed"]
    eventually_answers(host)
    host.shell("\n".join(converge(host, DECLARED, check=True)["commands"]))
    assert not converge(host, DECLARED)["changed"]
    assert host.shell("pgrep dnsmasq || true") == ""


def test_it_is_a_service_of_an_unprivileged_user(host, served):
    eventually_answers(host)
    found = shown(host, "ActiveState", "UnitFileState", "MainPID")
    assert (found["ActiveState"], found["UnitFileState"]) == ("active", "enabled")
    assert host.shell(f"ps -o user= -p {found['MainPID']}").strip() == "dnsmasq"
    assert host.shell("pgrep --oldest dnsmasq").strip() == found["MainPID"]
    # One capability is left to it, of those that are more than anybody's: to listen on port 53.
    status = host.shell(f"cat /proc/{found['MainPID']}/status")
    assert f"CapEff:\t{1 << 10:016x}" in status


def test_killed_it_comes_back_by_itself(host, served):
    before = shown(host, "MainPID")
    host.shell(f"kill -KILL {before['MainPID']}")
    eventually_answers(host)
    assert shown(host, "MainPID") != before
    assert not converge(host, SERVED)["changed"]


DRIFTS = {
    "stopped": f"systemctl stop {UNIT}",
    "not at boot": f"systemctl disable {UNIT}",
    "unit changed": f"sed -i s/RestartSec=1/RestartSec=99/ {UNIT_FILE}",
    "another command": f"""
        sed -i s/--no-hosts// {UNIT_FILE}
        systemctl daemon-reload
        systemctl restart {UNIT}
    """,
    "unit gone": f"rm {UNIT_FILE}",
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_reported_and_repaired(host, served, drift):
    before = host.shell(f"cat {UNIT_FILE}")
    host.shell(drift)
    foretold, repaired, again = host.modules("netns_veth", [SERVED] * 3, check=[True])
    assert repaired["changed"]
    assert repaired["diff"] == foretold["diff"]
    assert not again["changed"]
    assert host.shell(f"cat {UNIT_FILE}") == before
    assert shown(host, "ActiveState", "UnitFileState", "NeedDaemonReload") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NeedDaemonReload": "no",
    }
    eventually_answers(host)


def test_after_a_reboot_it_is_there_without_a_playbook(host, served):
    host.reboot()
    eventually_answers(host)
    assert not converge(host, SERVED)["changed"]
    # Whoever needs names at boot waits for it.
    assert "nss-lookup.target" in shown(host, "Before")["Before"].split()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils import systemctl
from ansible_collections.bare.containers.plugins.module_utils.network import dns, dnsmasq, names
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.network.survey import Survey
from settling import settle

UNIT = "bare-dns@b.service"
DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def network(name: str, address: str, **options: Any) -> Network:
    declared = {**DEFAULTS, "name": name, "bridge": "b", "address": [address], "dns": "dynamic", **options}
    return Network.resolve(name, OPTIONS.normalise(declared))


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Systemd as PID 1, whose units are in a folder of the test, and which has a process for each that it has
    started; gives what systemctl(1) was called with."""
    calls = []
    link = tmp_path / "multi-user.target.wants" / UNIT
    running: dict[str, list[str]] = {}

    def call(*words: str) -> str:
        calls.append(" ".join(words))
        link.parent.mkdir(exist_ok=True)
        if words[0] == "enable":
            link.symlink_to(tmp_path / UNIT)
        elif words[0] == "disable":
            link.unlink()
        elif words[0] == "restart":
            lines = (tmp_path / UNIT).read_text().splitlines()
            (started,) = [line for line in lines if line.startswith("ExecStart=")]
            running["b"] = shlex.split(started.partition("=")[2])
        elif words[0] == "stop":
            running.pop("b", None)
        return ""

    monkeypatch.setattr(names, "LISTS", tmp_path / "names")
    (tmp_path / "names/b").mkdir(parents=True)
    monkeypatch.setattr(systemctl, "UNITS", tmp_path)
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: True)
    monkeypatch.setattr(systemctl, "systemctl", call)
    monkeypatch.setattr(dnsmasq, "program", lambda: "/usr/sbin/dnsmasq")
    monkeypatch.setattr(dnsmasq, "bridges", list)
    monkeypatch.setattr(
        dnsmasq, "running", lambda bridge: (1, 1, running[bridge]) if bridge in running else None
    )
    return SimpleNamespace(calls=calls, running=running, link=link, unit=tmp_path / UNIT)


def survey(*networks: Network, unreadable: Sequence[str] = ()) -> Survey:
    """One that has read these networks."""
    made = Survey()
    made.declared = {each.name: each for each in networks}
    made.unreadable = list(unreadable)
    return made


def converge(*networks: Network, unreadable: Sequence[str] = ()) -> bool:
    return settle(dns.NameServers(survey(*networks, unreadable=unreadable)))


def test_the_service_comes_with_the_first_container_and_goes_with_the_last(called):
    assert converge(network("web", "10.0.0.2/24"))
    assert called.calls == ["daemon-reload", f"enable {UNIT}", f"restart {UNIT}"]
    called.calls.clear()
    assert not converge(network("web", "10.0.0.2/24"), network("db", "10.0.0.3/24"))
    assert called.calls == []
    assert converge()
    assert called.calls == [f"disable {UNIT}", f"stop {UNIT}", f"reset-failed {UNIT}", "daemon-reload"]
    assert not called.unit.exists()
    assert not called.running


def test_what_is_asked_of_it_is_another_command_line(called):
    converge(network("web", "10.0.0.2/24"))
    before = called.running["b"]
    assert converge(network("web", "10.0.0.2/24"), network("db", "10.0.1.3/24"))
    assert set(called.running["b"]) - set(before) == {"--rev-server=10.0.1.0/24"}
    assert converge(network("web", "10.0.0.2/24", dns_domain="example", internal=True))
    assert set(called.running["b"]) - set(before) == {
        "--domain=example",
        "--local=/example/",
        "--expand-hosts",
        "--no-resolv",
    }
    assert [call for call in called.calls if call.startswith("restart")] == [f"restart {UNIT}"] * 3


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        (lambda called: called.running.clear(), ["daemon-reload", f"restart {UNIT}"]),
        (lambda called: called.running["b"].append("--no-negcache"), ["daemon-reload", f"restart {UNIT}"]),
        (lambda called: called.unit.write_text("[Unit]\n"), ["daemon-reload"]),
        (lambda called: called.unit.unlink(), ["daemon-reload"]),
        (lambda called: called.link.unlink(), [f"enable {UNIT}"]),
    ],
    ids=("gone", "another", "unit changed", "unit gone", "not at boot"),
)
def test_drift_is_repaired_with_what_it_takes(called, damage, repair):
    web = network("web", "10.0.0.2/24")
    converge(web)
    called.calls.clear()
    damage(called)
    assert converge(web)
    assert called.calls == repair


def test_without_the_folder_that_it_watches_it_is_started_again(called):
    web = network("web", "10.0.0.2/24")
    converge(web)
    (names.LISTS / "b").rmdir()
    resource = dns.NameServers(survey(web))
    actual = resource.read()
    commands = [line for step in resource.plan(actual, resource.expect(actual)) for line in step.commands]
    assert commands == ["systemctl daemon-reload", f"systemctl restart {UNIT}"]


def test_it_stays_while_a_network_can_not_be_read(called):
    converge(network("web", "10.0.0.2/24"))
    assert not converge(unreadable=("web",))
    assert called.unit.exists()


def test_the_pid_of_a_process_that_is_not_ours_counts_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(dnsmasq, "_PIDS", tmp_path)
    path = dnsmasq.pid_file("b")
    for text in ("", "no number", "1", "99999999"):
        path.write_text(text)
        assert dnsmasq.running("b") is None
    assert dnsmasq.bridges() == ["b"]
    dnsmasq.stop("b")
    assert not path.exists()
    assert Path("/proc/1").exists()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.bare.containers.plugins.module_utils import systemctl
from ansible_collections.bare.containers.plugins.module_utils.network import unit
from ansible_collections.bare.containers.plugins.module_utils.network.unit import BootUnit, unit_lines
from settling import settle


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Systemd as PID 1, whose units are in a folder of the test; gives what systemctl(1) was called with."""
    wants = [tmp_path / f"{each}.wants" / unit.UNIT for each in ("multi-user.target", "nftables.service")]
    calls = []

    def call(*words: str) -> str:
        calls.append(" ".join(words))
        if words[0] == "enable":
            for link in wants:
                link.parent.mkdir(exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(tmp_path / unit.UNIT)
        elif words[0] == "disable":
            for link in wants:
                link.unlink(missing_ok=True)
        return ""

    monkeypatch.setattr(systemctl, "UNITS", tmp_path)
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: True)
    monkeypatch.setattr(systemctl, "systemctl", call)
    return calls


def converge(*names: str) -> bool:
    return settle(BootUnit(SimpleNamespace(ours_to_be=list(names))))


def test_the_unit_is_enabled_with_the_first_and_gone_with_the_last(called, tmp_path):
    assert converge("web")
    assert called == ["daemon-reload", "enable bare-network.service"]
    assert "web/network.sh" in (tmp_path / unit.UNIT).read_text()
    called.clear()
    assert converge("db", "web")
    assert called == ["daemon-reload"]
    called.clear()
    assert converge()
    assert called == ["disable --now bare-network.service", "daemon-reload"]
    assert not (tmp_path / unit.UNIT).exists()
    assert not converge()


def test_a_unit_changed_or_disabled_by_hand_is_repaired(called, tmp_path):
    converge("web")
    with (tmp_path / unit.UNIT).open("a") as file:
        file.write("# mine\n")
    assert converge("web")
    for wanting in ("multi-user.target", "nftables.service"):
        systemctl.wants_link(unit.UNIT, wanting).unlink()
        called.clear()
        assert converge("web")
        assert called == ["enable bare-network.service"]
    systemctl.wants_link(unit.UNIT).unlink()
    called.clear()
    assert converge()
    assert called == ["disable --now bare-network.service", "daemon-reload"]


def test_one_that_can_not_be_rebuilt_does_not_stop_the_others():
    starts = [line for line in unit_lines(["db", "web"]) if line.startswith("ExecStart=")]
    assert len(starts) == 3
    assert [line for line in unit_lines(["db", "web"]) if line.startswith("ExecReload=")] == [
        "ExecReload=/bin/sh /var/lib/bare-containers/network/host.sh"
    ]
    assert starts[0] == "ExecStart=/bin/sh /var/lib/bare-containers/network/host.sh"
    assert all(line.startswith("ExecStart=-/bin/sh ") for line in starts[1:])


def test_rules_come_back_with_those_of_the_host():
    """Whether nftables.service is restarted, reloaded, or stopped and started."""
    lines = unit_lines(["web"])
    assert {"PartOf=nftables.service", "ReloadPropagatedFrom=nftables.service"} <= set(lines)
    assert "WantedBy=multi-user.target nftables.service" in lines
    assert "nftables.service" in next(line for line in lines if line.startswith("After="))


def test_without_systemd_there_is_no_unit(monkeypatch):
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: False)
    assert not converge("web")

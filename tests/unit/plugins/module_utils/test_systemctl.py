# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemctl(1) as it is called and answers, and what the supervisor makes of its answers."""

from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils import systemctl
from ansible_collections.bare.containers.plugins.module_utils.container.supervisor import Stop, Systemd
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure

# Prints and ends as the files beside it say that are named after the verb.
PROGRAM = """\
#!/bin/sh
cd "${0%/*}"
echo "$@" >> calls
[ ! -e "$1.out" ] || cat "$1.out"
[ ! -e "$1.err" ] || { cat "$1.err" >&2; exit 1; }
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The folder of a program that stands for systemctl(1)."""
    (tmp_path / "systemctl").write_text(PROGRAM)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def calls(program):
    return (program / "calls").read_text().splitlines()


def test_what_it_complains_of_is_one_sentence(program):
    (program / "stop.err").write_text("Failed to stop a.service:\nUnit a.service not loaded.\n")
    with pytest.raises(Failure) as failure:
        systemctl.systemctl("stop", "a.service")
    assert str(failure.value) == (
        "'systemctl stop a.service' failed: Failed to stop a.service: Unit a.service not loaded."
    )


def test_properties_of_many_units_are_asked_with_one_program(program):
    (program / "show.out").write_text(
        "Id=a.service\nResult=success\nStatusText=a=b\n\nId=b.service\nResult=exit-code\nStatusText=\n"
    )
    assert systemctl.show(["a.service", "b.service"], "Result", "StatusText") == {
        "a.service": {"Id": "a.service", "Result": "success", "StatusText": "a=b"},
        "b.service": {"Id": "b.service", "Result": "exit-code", "StatusText": ""},
    }
    assert calls(program) == ["show --property=Id,Result,StatusText -- a.service b.service"]


def test_about_no_unit_nothing_is_asked(program):
    assert systemctl.show([], "Result") == {}
    assert not (program / "calls").exists()


def test_those_of_a_start_that_failed_are_ended_and_forgotten(program):
    (program / "restart.err").write_text("Job for bare-b.service failed.\n")
    (program / "show.out").write_text(
        "Id=bare-a.service\nActiveState=active\nStatusText=\nResult=success\n\n"
        "Id=bare-b.service\nActiveState=failed\nStatusText=command: it is missing.\nResult=protocol\n"
    )
    (program / "reset-failed.err").write_text("Unit bare-b.service not loaded.\n")
    assert Systemd().start(["a", "b"]) == {"b": "command: it is missing."}
    assert [line for line in calls(program) if not line.startswith("show ")] == [
        "restart bare-a.service bare-b.service",
        "stop bare-b.service",
        "reset-failed bare-b.service",
    ]


def test_what_can_not_be_stopped_is_told_for_each(program):
    (program / "stop.err").write_text("Access denied\n")
    told = Systemd().stop([Stop("a", 15, 1), Stop("b", 15, 1)])
    assert set(told) == {"a", "b"}
    assert all("Access denied" in sentence for sentence in told.values())

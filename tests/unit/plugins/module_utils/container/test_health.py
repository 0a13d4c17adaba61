# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks: what is accepted, what stands in the units, and what results make of a container."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.bare.containers.plugins.module_utils import systemctl
from ansible_collections.bare.containers.plugins.module_utils.container import (
    check,
    health,
    process,
    spec,
    units,
)
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS, duration
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from hypothesis import given
from hypothesis import strategies as st

STARTING = {"status": "starting", "failing_streak": 0}
DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def declare(**options):
    return OPTIONS.normalise({**DEFAULTS, "name": "web", "command": ["true"], **options})


def made(**options):
    declared = declare(**options)
    return units.texts(declared, spec.config(declared, spec.Host(layers=("/x",))))


def lines(text):
    return [line for line in text.splitlines() if "=" in line]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("wget -q http://localhost/", ["/bin/sh", "-c", "wget -q http://localhost/"]),
        (["wget", "-T", 3], ["wget", "-T", "3"]),
        (["CMD", "wget", "-q"], ["wget", "-q"]),
        (["CMD-SHELL", "test -e /x || exit 1"], ["/bin/sh", "-c", "test -e /x || exit 1"]),
    ],
)
def test_a_command_is_words_or_for_a_shell(value, words):
    assert health.spec(declare(healthcheck=value))["args"] == words


@pytest.mark.parametrize("value", ["none", "", ["NONE"]])
def test_none_is_no_check(value):
    declared = declare(healthcheck=value)
    assert health.spec(declared) is None
    assert list(made(healthcheck=value)) == ["bare-web.service"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("healthcheck", []),
        ("healthcheck", ["CMD"]),
        ("healthcheck", {"test": "true"}),
        ("healthcheck", ["a\0b"]),
        ("healthcheck_interval", "0"),
        ("healthcheck_interval", "often"),
        ("healthcheck_timeout", "0s"),
        ("healthcheck_timeout", "-1"),
        ("healthcheck_start_period", "s"),
        ("healthcheck_start_period", "1s1m"),
        ("healthcheck_retries", 0),
        ("restart_sec", 0),
    ],
)
def test_what_is_not_accepted_is_told(option, value):
    with pytest.raises(Failure, match=rf"^{option}: .* is not accepted, it takes .*; nothing was changed\.$"):
        declare(**{option: value})


@given(st.integers(0, 99), st.integers(0, 999), st.integers(0, 9999))
def test_a_duration_is_the_sum_of_its_parts(hours, minutes, rest):
    whole = hours * 3600 + minutes * 60 + rest
    assert duration(f"{hours}h{minutes}m{rest}s") == whole
    assert duration(str(whole)) == duration(f"{whole}s") == whole
    assert duration(f"{hours}h") == hours * 3600


def test_the_units_say_what_was_declared():
    texts = made(
        healthcheck="true", healthcheck_interval="1m", healthcheck_timeout="5", log_opt={"tag": "of-web"}
    )
    own, service, timer = (
        lines(texts[unit])
        for unit in ("bare-web.service", "bare-health@web.service", "bare-health@web.timer")
    )
    assert "Wants=bare-health@web.timer" in own
    assert "OnActiveSec=60" in timer
    assert "OnUnitInactiveSec=60" in timer
    assert "BindsTo=bare-web.service" in timer
    assert "ExecStart=-/usr/local/lib/bare-containers/launch check web" in service
    # The launcher ends the check itself, systemd would only if that failed.
    assert int(dict(line.split("=", 1) for line in service)["TimeoutStartSec"]) > 5
    for unit in (own, service):
        assert "LogExtraFields=CONTAINER_NAME=web CONTAINER_TAG=of-web" in unit
        assert "SyslogIdentifier=of-web" in unit


def test_without_an_interval_there_is_no_timer():
    assert list(made(healthcheck="true", healthcheck_interval="disable")) == ["bare-web.service"]
    assert health.spec(declare(healthcheck="true", healthcheck_interval="disable")) is not None


@pytest.mark.parametrize(
    ("action", "verb"),
    [("kill", "kill --signal=KILL"), ("restart", "--no-block restart"), ("stop", "--no-block stop")],
)
@pytest.mark.parametrize("status", [0, 1, 125])
def test_the_action_is_for_what_is_unhealthy_and_nothing_else(action, verb, status, tmp_path):
    text = made(healthcheck="true", healthcheck_failure_action=action)["bare-health@web.service"]
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    command = line.partition("=-")[2].replace("$$", "$")
    command = command.replace("/usr/local/lib/bare-containers/launch", str(tmp_path / "launch"))
    (tmp_path / "launch").write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@"\n')
    for program in ("launch", "systemctl"):
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
    )
    assert done.stdout == (f"{verb} bare-web.service\n" if status == 1 else "")


def test_who_does_not_watch_does_not_promise_to(monkeypatch):
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: False)
    with pytest.raises(Failure, match=r"^healthcheck_interval: 30 seconds .*/launch check web'"):
        process.check([declare(healthcheck="true")])
    by_hand = {"healthcheck": "true", "healthcheck_interval": "disable"}
    process.check([declare(**by_hand)])
    for systemd in (False, True):
        monkeypatch.setattr(systemctl, "systemd_is_init", lambda systemd=systemd: systemd)
        with pytest.raises(Failure, match=r"^healthcheck_failure_action: 'restart' .* takes 'none'"):
            process.check([declare(**by_hand, healthcheck_failure_action="restart")])
    process.check([declare(healthcheck="true", healthcheck_failure_action="restart")])


def test_options_of_a_check_that_is_not_there_are_told():
    for value in (None, "none"):
        with pytest.raises(Failure, match=r"^healthcheck_retries: web has no healthcheck"):
            process.check([declare(healthcheck=value, healthcheck_retries=3)])


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40),
    st.integers(1, 5),
    st.integers(0, 100),
)
def test_a_status_follows_from_the_results_so_far(results, retries, start_period):
    """Said once more, of the whole row of results: unhealthy is who has failed often enough since it last
    passed, and stays so until it passes; and what fails in the start period of one that never passed is
    nothing."""
    declared = {"retries": retries, "start_period": start_period}
    state, age, counted = STARTING, 0, []
    for passed, pause in results:
        age += pause
        state = check.judge(state, passed, declared, age)
        if passed or any(counted) or age >= start_period or counted[-retries:] == [False] * retries:
            counted.append(passed)
        since = counted[::-1].index(True) if any(counted) else len(counted)
        assert state["failing_streak"] == since
        expected = "unhealthy" if since >= retries else "healthy" if any(counted) else "starting"
        assert state["status"] == expected


def test_what_is_known_of_another_process_is_not_taken_over(tmp_path):
    file = tmp_path / "health.json"
    state = {"status": "unhealthy", "failing_streak": 7}
    text = check._text((10, 20), state, 1, 'said "no"\n\x1b')
    file.write_text(text)
    known = check.read(str(tmp_path), (10, 20))
    assert {key: known[key] for key in state} == state
    assert json.loads(text)["output"] == 'said "no"\n\x1b'
    assert check.read(str(tmp_path), (10, 21)) == check.read(str(tmp_path / "none"), (10, 20)) == STARTING
    file.write_text(text[: len(text) // 2])
    assert check.read(str(tmp_path), (10, 20)) == STARTING


class TestPauses:
    """Those before a restart."""

    @given(st.integers(1, 100), st.integers(0, 5000))
    def test_they_double_up_to_the_longest(self, first, more):
        longest = first + more
        whole = [first + extra for extra in units.pauses(first, longest)]
        # None was restarted yet, or one time: the first pause is RestartSec's alone.
        assert whole[:2] == [first, first]
        for number in range(2, len(whole)):
            assert whole[number] == min(2 * whole[number - 1], longest)
            assert whole[number] > whole[number - 1]
        assert whole[-1] == longest

    @pytest.mark.parametrize(("restarts", "waits"), [(0, 0), (1, 0), (2, 2), (3, 6), (4, 8), (400, 8)])
    def test_the_unit_waits_for_what_systemd_does_not(self, tmp_path, restarts, waits):
        text = made(restart_policy="always", restart_sec=2, restart_max_delay_sec=10)["bare-web.service"]
        assert "RestartSec=2" in text.splitlines()
        assert f"TimeoutStartSec={60 + 8}" in text.splitlines()
        (line,) = (line for line in text.splitlines() if line.startswith("ExecStartPre="))
        for program, said in (
            ("systemctl", f'test "$*" = "show -P NRestarts bare-web.service" && echo {restarts}'),
            ("sleep", "echo $1"),
        ):
            (tmp_path / program).write_text(f"#!/bin/sh\n{said}\n")
            (tmp_path / program).chmod(0o755)
        command = line.partition("=")[2].replace("$$", "$")
        done = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            check=True,
        )
        assert done.stdout == f"{waits}\n"

    def test_one_that_does_not_grow_or_is_not_there_takes_no_time(self):
        for options in ({}, {"restart_policy": "always", "restart_sec": 5, "restart_max_delay_sec": 5}):
            text = made(**options)["bare-web.service"]
            assert "ExecStartPre" not in text
            assert "TimeoutStartSec=60" in text.splitlines()

    def test_what_makes_no_sense_is_told(self, monkeypatch):
        monkeypatch.setattr(systemctl, "systemd_is_init", lambda: True)
        with pytest.raises(Failure, match=r"^restart_sec: web is not restarted"):
            process.check([declare(restart_sec=5)])
        with pytest.raises(
            Failure, match=r"^restart_max_delay_sec: 4 seconds are less than the first pause of 5"
        ):
            process.check([declare(restart_policy="always", restart_sec=5, restart_max_delay_sec=4)])

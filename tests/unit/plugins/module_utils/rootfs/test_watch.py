# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watched work: when it says something, and when its time is up."""

from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.rootfs import watch


@pytest.fixture
def clock(monkeypatch):
    """What time it is; to be set."""
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(watch.syslog, "syslog", lambda priority, text: lines.append(text))
    return lines


def test_it_says_where_it_is_every_ten_seconds(clock, said):
    work = watch.Watch("it", 100)
    for moment in range(35):
        clock[0] = 1000.0 + moment
        work.tick(lambda: f"at {clock[0]:.0f}")
        assert 0 <= work.remaining() <= 10
    assert said == ["it: at 1010", "it: at 1020", "it: at 1030"]


def test_its_time_is_up(clock, said):
    work = watch.Watch("it", 3)
    assert work.remaining() == 3
    clock[0] += 2.9
    work.tick(str)
    clock[0] += 0.1
    assert work.remaining() == 0
    with pytest.raises(
        watch.OutOfTime, match=r"^it took longer than the 3 seconds that max_time allows; nothing"
    ):
        work.tick(str)
    assert said == []


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, None, "0 B, 0 B/s"),
        (512, 1024, "512 B of 1.0 KiB, 256 B/s"),
        (3 << 20, 6 << 30, "3.0 MiB of 6.0 GiB, 1.5 MiB/s"),
    ],
)
def test_amounts(clock, done, total, text):
    work = watch.Watch("it", 100)
    clock[0] += 2
    assert work.amount(done, total) == text


def test_it_says_what_is_done_and_how_long_that_took(clock, said):
    work = watch.Watch("it", 100)
    clock[0] += 4.2
    work.done("fetched 2.0 KiB")
    clock[0] += 2
    assert work.amount(512) == "512 B, 256 B/s"
    work.done("unpacked 1 file")
    assert said == work.said == ["it: fetched 2.0 KiB in 4.2 s", "it: unpacked 1 file in 2.0 s"]

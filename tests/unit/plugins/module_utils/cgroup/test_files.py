# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of control files: every spelling has one normal form, and what is written is what is then read."""

from __future__ import annotations

import mmap
import re

import pytest
from ansible_collections.bare.containers.plugins.module_utils.cgroup import files, systemd
from ansible_collections.bare.containers.plugins.module_utils.cgroup.files import BY_FILE, CONTROLS
from ansible_collections.bare.containers.plugins.module_utils.cgroup.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from hypothesis import assume, given
from hypothesis import strategies as st

PAGE = mmap.PAGESIZE


def declared(option, value):
    return OPTIONS.normalise({option: value})[option]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.file)
def test_a_default_is_what_a_new_cgroup_reads(control, kernel_defaults):
    assert files.parse(control.file, kernel_defaults[control.file]) == control.default
    assert control.file.startswith(f"{control.controller}.")


@pytest.mark.parametrize(
    ("option", "value", "normal"),
    [
        ("cpu_max", "1", "100000 100000"),
        ("cpu_max", "1.5", "150000 100000"),
        ("cpu_max", "0.01", "1000 100000"),
        ("cpu_max", "50000 100000", "50000 100000"),
        ("cpu_max", " 50000   20000 ", "50000 20000"),
        ("cpu_max", "max", "max 100000"),
        ("cpu_max", "max 50000", "max 100000"),
        ("memory_max", "256M", 268435456),
        ("memory_max", "268435456", 268435456),
        ("memory_max", "max", "max"),
        ("memory_max", str(2**63), "max"),
        ("memory_max", str(10 * PAGE + 1), 10 * PAGE),
        ("memory_low", "0", 0),
        ("pids_max", "128", 128),
        ("pids_max", "max", "max"),
        ("cpuset_cpus", "0-2,7", "0-2,7"),
        ("cpuset_cpus", "3,1,2,1", "1-3"),
        ("cpuset_mems", "0, 1", "0-1"),
        ("cpuset_mems", "", ""),
        ("cpu_weight", 1, 1),
        ("memory_oom_group", True, True),
        ("io_weight", 200, {"default": 200}),
    ],
)
def test_normal_forms(option, value, normal):
    assert declared(option, value) == normal


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cpu_max", "0"),
        ("cpu_max", "0.001"),
        ("cpu_max", "150%"),
        ("cpu_max", "-1"),
        ("cpu_max", "999 100000"),
        ("cpu_max", "50000 999"),
        ("cpu_max", "50000 1000001"),
        ("cpu_max", "1 2 3"),
        ("cpu_max", "1e3"),
        ("memory_max", "12Q"),
        ("memory_max", "-1"),
        ("memory_max", ""),
        ("pids_max", "0"),
        ("pids_max", "4194305"),
        ("pids_max", "1.5"),
        ("cpuset_cpus", "2-1"),
        ("cpuset_cpus", "a"),
        ("cpuset_cpus", "1,,2"),
        ("cpu_weight", 0),
        ("cpu_weight", 10001),
        ("io_weight", 0),
    ],
)
def test_refusals_name_the_option_the_value_and_what_is_accepted(option, value):
    with pytest.raises(Failure) as failure:
        declared(option, value)
    assert re.fullmatch(
        rf"{option}: {re.escape(repr(value))} is not accepted, it takes .+; nothing was changed\.",
        str(failure.value),
    )


@given(st.integers(0, 2**70))
def test_sizes_are_whole_pages_and_stay_as_they_are(number):
    value = declared("memory_max", str(number))
    assert value == "max" or 0 <= number - value < PAGE
    assert declared("memory_max", str(value)) == value
    (text,) = files.writes("memory.max", 0, value)
    assert files.parse("memory.max", text) == value


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_say_the_same_numbers_in_the_shortest_way(numbers):
    text = declared("cpuset_cpus", ",".join(map(str, numbers)))
    read = [range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1) for part in text.split(",")]
    assert {number for part in read for number in part} == numbers
    assert all(read[at].start > read[at - 1].stop for at in range(1, len(read)))
    assert declared("cpuset_cpus", text) == text


@given(st.integers(1000, 10**9), st.integers(1000, 10**6))
def test_a_quota_that_systemd_takes_is_the_declared_one_to_the_microsecond(quota, period):
    """systemd keeps microseconds of each second, from a percentage with two decimals
    (config_parse_cpu_quota())."""
    control = BY_FILE["cpu.max"]
    value = declared("cpu_max", f"{quota} {period}")
    try:
        lines = dict(line.split("=") for line in control.properties(value))
    except ValueError:
        assert quota * 10_000 % period
        return
    whole, hundredths = re.fullmatch(r"(\d+)\.(\d\d)%", lines["CPUQuota"]).groups()
    per_second = int(whole + hundredths) * 1_000_000 // 10_000
    assert lines["CPUQuotaPeriodSec"] == f"{period}us"
    assert per_second * period // 1_000_000 == quota


def test_a_quota_that_systemd_can_not_say_is_refused_with_one_that_it_can():
    with pytest.raises(
        Failure, match=r"^cpu_max: '12345 100000' is not accepted, it takes under systemd .* 12340 100000"
    ):
        systemd.require_expressible({"cpu.max": "12345 100000"})
    systemd.require_expressible({"cpu.max": "12340 100000"})


devices = st.dictionaries(st.sampled_from(["8:0", "8:16", "253:1"]), st.integers(1, 10_000))


@given(devices, devices, st.integers(1, 10_000), st.integers(1, 10_000))
def test_weights_of_devices_are_set_and_taken_back_one_by_one(before, after, default_before, default_after):
    before, after = {"default": default_before, **before}, {"default": default_after, **after}
    now = dict(before)
    for text in files.writes("io.weight", before, after):
        device, weight = text.split()
        now = (
            {**now, device: int(weight)}
            if weight != "default"
            else {k: v for k, v in now.items() if k != device}
        )
    assert now == after
    assert files.parse("io.weight", "\n".join(f"{key} {value}" for key, value in after.items())) == after


def test_other_controls_take_kernel_names_and_texts():
    controls = {
        "cgroup.max.depth": 3,
        "hugetlb.2MB.max": "4M",
        "cpu.uclamp.min": "10.00",
        "cgroup.pressure": False,
    }
    assert declared("controls", controls) == {
        "cgroup.max.depth": "3",
        "hugetlb.2MB.max": "4194304",
        "cpu.uclamp.min": "10.00",
        "cgroup.pressure": "0",
    }


@pytest.mark.parametrize(
    ("file", "value", "why"),
    [
        ("memory.max", "1G", "it has an option of its own, memory_max"),
        ("cgroup.procs", "1", "processes are not declared here"),
        ("cgroup.kill", "1", "state: absent"),
        ("cpu.idle", "1", "cpu_weight"),
        ("../memory.max", "1", "kernel names of control files"),
        ("depth", "1", "kernel names of control files"),
        ("cgroup.max.depth", "3; reboot", "one line of text"),
        ("cgroup.max.depth", "1\n2", "one line of text"),
        ("cgroup.max.depth", "'", "one line of text"),
        ("cgroup.max.depth", "%n", "one line of text"),
        ("cgroup.max.depth", ["1"], "one line of text"),
    ],
)
def test_other_controls_refuse_what_is_no_setting(file, value, why):
    with pytest.raises(Failure, match=re.escape(why)):
        declared("controls", {file: value})


@pytest.mark.parametrize(
    ("file", "default"),
    [
        ("memory.swap.high", "max"),
        ("hugetlb.1GB.rsvd.max", "max"),
        ("cgroup.max.depth", "max"),
        ("cpu.max.burst", "0"),
        ("cpu.uclamp.min", "0.00"),
        ("cpuset.cpus.partition", "member"),
        ("memory.new.thing", None),
    ],
)
def test_defaults_of_other_controls(file, default):
    assert files.other_default(file) == default


@given(st.integers(1, 9999), st.booleans())
def test_a_state_shows_what_is_not_default_in_one_order(weight, flag):
    assume(weight != 100)
    values = {"memory.oom.group": flag, "cpu.weight": weight, "memory.max": "max", "cgroup.max.depth": "3"}
    expected = {"cpu.weight": weight, **({"memory.oom.group": True} if flag else {}), "cgroup.max.depth": "3"}
    assert list(files.beside_default(values).items()) == list(expected.items())

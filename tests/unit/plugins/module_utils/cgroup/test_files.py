# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of control files: every spelling has one normal form, and what is written is what is then read."""

from __future__ import annotations

import mmap
import re

import pytest
from ansible_collections.bare.containers.plugins.module_utils.cgroup import files, kinds, statistics, systemd
from ansible_collections.bare.containers.plugins.module_utils.cgroup.files import CONTROLS
from ansible_collections.bare.containers.plugins.module_utils.cgroup.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from hypothesis import assume, given
from hypothesis import strategies as st

from .conftest import DEFAULTS

PAGE = mmap.PAGESIZE


def declared(option, value):
    return OPTIONS.normalise({option: value})[option]


@pytest.mark.parametrize(("file", "text"), DEFAULTS.items())
def test_a_default_is_what_a_new_cgroup_reads(file, text):
    assert files.parse(file, text) == files.control(file).default


def test_every_option_has_a_file_and_every_file_one_option():
    assert {files.control(file) for file in DEFAULTS} == set(CONTROLS)
    assert len({control.option for control in CONTROLS}) == len(CONTROLS)
    assert all(control.option in OPTIONS.argument_spec() for control in CONTROLS)


@pytest.mark.parametrize(
    ("option", "value", "normal"),
    [
        ("cpu_max", "1", {"quota": 100000, "period": 100000}),
        ("cpu_max", "1.5", {"quota": 150000, "period": 100000}),
        ("cpu_max", "0.01", {"quota": 1000, "period": 100000}),
        ("cpu_max", "50000 100000", {"quota": 50000, "period": 100000}),
        ("cpu_max", " 50000   20000 ", {"quota": 50000, "period": 20000}),
        ("cpu_max", "max", {"quota": "max", "period": 100000}),
        ("cpu_max", "max 50000", {"quota": "max", "period": 100000}),
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
        ("io_weight", "200", {"default": 200}),
        ("io_weight", {"/dev/vda": 300}, {"default": 100, "/dev/vda": 300}),
        ("io_weight", {"254:0": "300", "default": 50}, {"default": 50, "254:0": 300}),
        (
            "io_max",
            {"/dev/vda": {"rbps": "10M", "wiops": 100}},
            {"/dev/vda": {"rbps": 10485760, "wiops": 100}},
        ),
        ("io_max", {"8:0": {"rbps": "max"}, "8:16": {"wbps": 1}}, {"8:16": {"wbps": 1}}),
        (
            "io_latency",
            {"/dev/disk/by-id/a-b.c": "75ms", "8:0": 100},
            {"/dev/disk/by-id/a-b.c": 75000, "8:0": 100},
        ),
        ("cpu_max_burst", "5ms", 5000),
        ("cpu_max_burst", "0.1s", 100000),
        ("cpu_max_burst", 5000, 5000),
        ("cpu_uclamp_min", "12.5", 12.5),
        ("cpu_uclamp_max", "100", "max"),
        ("cpu_weight_nice", -5, -5),
        ("hugetlb_max", {"2MB": "5M", "1GB": "max"}, {"2MB": 4194304, "1GB": "max"}),
        ("rdma_max", {"mlx5_0": {"hca_handle": 2, "hca_object": "max"}}, {"mlx5_0": {"hca_handle": 2}}),
        ("misc_max", {"sev": 10, "sev_es": "max"}, {"sev": 10}),
        ("dmem_low", {"drm/0000:03:00.0/vram0": "1G"}, {"drm/0000:03:00.0/vram0": 2**30}),
        ("delegate", "root", 0),
        ("delegate", "1000", 1000),
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
        ("io_weight", {"/dev/vda": 0}),
        ("io_weight", {"/dev/../vda": 1}),
        ("io_weight", {"vda": 1}),
        ("io_weight", {"/dev/a b": 1}),
        ("io_max", {"/dev/vda": 100}),
        ("io_max", {"/dev/vda": {"bps": 100}}),
        ("io_max", {"/dev/vda": {"rbps": 0}}),
        ("io_max", {"/dev/vda": {"wiops": "1K"}}),
        ("io_latency", {"/dev/vda": "1m"}),
        ("cpu_max_burst", "1.5"),
        ("cpu_uclamp_min", "101"),
        ("cpu_uclamp_min", "1.234"),
        ("cpu_weight_nice", 20),
        ("hugetlb_max", {"2M": "4M"}),
        ("hugetlb_max", {"2MB": "lots"}),
        ("rdma_max", {"mlx5_0": {"hca": 2}}),
        ("rdma_max", {"mlx5_0": {"hca_handle": -1}}),
        ("misc_max", {"a b": 1}),
        ("delegate", "nobody-of-that-name"),
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
    control = files.control("cpu.max")
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
        systemd.require_expressible({"cpu.max": declared("cpu_max", "12345 100000")})
    systemd.require_expressible({"cpu.max": declared("cpu_max", "12340 100000")})


limits = st.one_of(st.integers(1, 2**32 - 2), st.just("max"))
numbers = st.sampled_from(["8:0", "8:16", "254:1", "/dev/vda", "/dev/disk/by-id/x"])
spellings = {
    "cpu_max": st.one_of(
        st.just("max"),
        st.integers(1, 9999).map(lambda number: f"{number / 100:.2f}"),
        st.tuples(st.integers(1000, 10**9), st.integers(1000, 10**6)).map("{0[0]}  {0[1]}".format),
    ),
    "cpu_max_burst": st.one_of(st.integers(0, 10**9), st.integers(0, 10**4).map("{}ms".format)),
    "cpu_uclamp_min": st.one_of(
        st.just("max"), st.integers(0, 10000).map(lambda number: f"{number / 100:.2f}")
    ),
    "cpuset_cpus": st.lists(st.integers(0, 99).map(str), max_size=9).map(", ".join),
    "memory_max": st.one_of(st.just("max"), st.integers(0, 2**70), st.integers(0, 999).map("{}.5G".format)),
    "pids_max": st.one_of(st.just("max"), st.integers(1, 4 * 2**20)),
    "io_weight": st.one_of(
        st.integers(1, 10_000),
        st.dictionaries(st.one_of(numbers, st.just("default")), st.integers(1, 10_000)),
    ),
    "io_max": st.dictionaries(
        numbers, st.dictionaries(st.sampled_from(["rbps", "wbps", "riops", "wiops"]), limits)
    ),
    "io_latency": st.dictionaries(numbers, st.one_of(st.integers(0, 10**6), st.just("5ms"))),
    "hugetlb_max": st.dictionaries(st.sampled_from(["2MB", "1GB", "64KB"]), limits),
    "rdma_max": st.dictionaries(
        st.sampled_from(["mlx4_0", "ocrdma1"]),
        st.dictionaries(st.sampled_from(["hca_handle", "hca_object"]), limits.filter(lambda n: n != 2**31)),
    ).filter(
        lambda value: all(n == "max" or n < 2**31 - 1 for each in value.values() for n in each.values())
    ),
    "misc_max": st.dictionaries(st.sampled_from(["sev", "sev_es"]), limits),
    "dmem_min": st.dictionaries(st.sampled_from(["drm/0/vram0", "drm/1/stolen"]), limits),
}
spelled = st.sampled_from(sorted(spellings)).flatmap(
    lambda option: st.tuples(st.just(option), spellings[option], spellings[option])
)


def again(option, normal):
    """A normal form as a user would write it."""
    if option == "cpu_max":
        return f"{normal['quota']} {normal['period']}"
    return normal if isinstance(normal, dict) else str(normal)


@given(spelled)
def test_a_normal_form_is_its_own_normal_form(case):
    option, value, __ = case
    normal = declared(option, value)
    assert declared(option, again(option, normal)) == normal


# What takes a key's value away; elsewhere it is "max" for all that it has.
RESETS = {"io.weight": "default", "io.latency": "target=max", "misc.max": "max", "dmem.min": "0"}


class File:
    """A control file with a line for each key: what is written replaces the line, and its reset takes it
    away (cgroup-v2, "Format")."""

    def __init__(self, file):
        self.file = file
        self.lines = {"default": "100"} if file == "io.weight" else {}

    def write(self, text):
        key, __, value = text.partition(" ")
        nothing = RESETS.get(self.file)
        if value == nothing or (nothing is None and set(re.findall(r"=(\w+)", value)) == {"max"}):
            self.lines.pop(key, None)
        else:
            self.lines[key] = value

    def read(self):
        return "\n".join(f"{key} {value}" for key, value in self.lines.items())


@given(spelled)
def test_what_is_written_is_what_is_read_from_any_value_to_any_other(case):
    option, first, second = case
    (control,) = [control for control in CONTROLS if control.option == option]
    before, after = control.values(declared(option, first)), control.values(declared(option, second))
    for name in after:
        old = before.get(name, files.default(name))
        if not isinstance(control.kind, kinds.ByKey):
            (text,) = files.writes(name, old, after[name])
            assert files.parse(name, text) == after[name]
            continue
        file = File(name)
        for value, last in ((old, files.default(name)), (after[name], old)):
            for text in files.writes(name, last, value):
                file.write(text)
            assert files.parse(name, file.read()) == value


@pytest.mark.parametrize("value", range(-20, 20))
def test_a_nice_value_is_the_weight_that_the_kernel_shows_for_it(value):
    """Each step is worth a tenth of the CPU time, so the weights are a factor 1.25 apart (sched(7))."""
    assert kinds.weight_of_nice(value) == pytest.approx(100 / 1.25**value, rel=0.16, abs=1)


def test_other_controls_take_kernel_names_and_texts():
    controls = {
        "cgroup.max.depth": 3,
        "cpu.new.limit": "4M",
        "io.bfq.weight": "default  200",
        "cgroup.pressure": False,
    }
    assert declared("controls", controls) == {
        "cgroup.max.depth": 3,
        "cpu.new.limit": 4194304,
        "io.bfq.weight": "default 200",
        "cgroup.pressure": 0,
    }


@pytest.mark.parametrize(
    ("file", "value", "why"),
    [
        ("memory.max", "1G", "it has an option of its own, memory_max"),
        ("cgroup.procs", "1", "processes are not declared here"),
        ("cgroup.kill", "1", "state: absent"),
        ("cpu.idle", "1", "it has an option of its own, cpu_idle"),
        ("cpu.weight.nice", "1", "it has an option of its own, cpu_weight_nice"),
        ("hugetlb.16GB.max", "1", "it has an option of its own, hugetlb_max"),
        ("hugetlb.16GB.rsvd.max", "1", "it has an option of its own, hugetlb_rsvd_max"),
        ("io.cost.qos", "254:0 enable=1", "the root alone has it"),
        ("memory.stat", "1", "it tells and keeps no value"),
        ("cpuset.cpus.effective", "1", "it tells and keeps no value"),
        ("cpu.pressure", "some 1 2", "it tells and keeps no value"),
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
        ("cgroup.max.depth", "max"),
        ("cgroup.pressure", 1),
        ("io.bfq.weight", "default 100"),
        ("memory.new.max", "max"),
        ("memory.new.low", 0),
        ("memory.new.thing", None),
    ],
)
def test_defaults_of_other_controls(file, default):
    assert files.other_default(file) == default


@given(st.integers(1, 9999), st.booleans())
def test_a_state_shows_what_is_not_default_in_one_order(weight, flag):
    assume(weight != 100)
    values = {"cgroup.max.depth": 3, "memory.oom.group": flag, "cpu.weight": weight, "memory.max": "max"}
    expected = {"cpu.weight": weight, **({"memory.oom.group": True} if flag else {}), "cgroup.max.depth": 3}
    assert list(files.beside_default(values).items()) == list(expected.items())


# As the kernel prints them (cgroup-v2 at each file; Documentation/accounting/psi.rst).
TOLD = [
    ("memory.current", "4096", 4096),
    ("memory.peak", "8192", 8192),
    ("memory.events.local", "low 0\nhigh 2\nmax 3\noom 0", {"low": 0, "high": 2, "max": 3, "oom": 0}),
    ("memory.stat", "anon 4096\nsec_pagetables 9\nfile 1", {"anon": 4096, "file": 1}),
    ("cgroup.events", "populated 1\nfrozen 0", {"populated": 1, "frozen": 0}),
    ("pids.current", "7", 7),
    (
        "io.stat",
        "8:16 rbytes=1459200 wbytes=314773504 rios=192\n8:0 \n254:0 cost.vrate=100.00 cost.usage=5",
        {
            "8:16": {"rbytes": 1459200, "wbytes": 314773504, "rios": 192},
            "8:0": {},
            "254:0": {"cost.vrate": 100.0, "cost.usage": 5},
        },
    ),
    (
        "cpu.pressure",
        "some avg10=0.50 avg60=1.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0",
        {
            "some": {"avg10": 0.5, "avg60": 1.25, "avg300": 0.0, "total": 1234},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0},
        },
    ),
    (
        "rdma.current",
        "mlx4_0 hca_handle=2 hca_object=max",
        {"mlx4_0": {"hca_handle": 2, "hca_object": "max"}},
    ),
    ("misc.current", "sev 3\nsev_es 0", {"sev": 3, "sev_es": 0}),
    ("hugetlb.2MB.events", "max 4", {"max": 4}),
    ("cpuset.cpus.effective", "0-3", "0-3"),
]


@pytest.mark.parametrize(("file", "text", "value"), TOLD, ids=[file for file, __, __ in TOLD])
def test_what_the_kernel_tells_is_typed(file, text, value):
    assert statistics.parse(file, text) == value

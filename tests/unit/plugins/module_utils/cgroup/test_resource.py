# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroup as a resource, through the engine, under both managers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host, systemctl
from ansible_collections.bare.containers.plugins.module_utils.cgroup import files, resource
from ansible_collections.bare.containers.plugins.module_utils.cgroup.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.cgroup.systemd import Units
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure, converge
from ansible_collections.bare.containers.plugins.module_utils.kernel import cgroup
from ansible_collections.bare.containers.plugins.module_utils.module import as_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import DEFAULTS, OTHERS

UNSET = {option.name: option.default for option in OPTIONS.options}


def converge_all(*entries, check=False):
    normal = [OPTIONS.normalise({**UNSET, **entry}) for entry in entries]
    resource.validate(normal)
    units = Units()
    return converge(resource.build(normal, units), check=check, refresh=units.refresh)


def run(check=False, **entry):
    (outcome,) = converge_all({"name": "web", **entry}, check=check)
    return outcome


def converged(**entry):
    """Runs twice, and the second run has nothing to do."""
    outcome = run(**entry)
    assert outcome.error is None
    assert not run(**entry).changed
    return outcome


def kept():
    return json.loads((host.STATE / "containers/web/cgroup.json").read_text())


# Option, a way to declare it, and what its file then reads.
SETTINGS = [
    ("cpu_max", "1.5", "cpu.max", "150000 100000"),
    ("cpu_max", "50000 20000", "cpu.max", "50000 20000"),
    ("cpu_max", "0.1", "cpu.max", "10000 100000"),
    ("cpu_max_burst", "5ms", "cpu.max.burst", "5000"),
    ("cpu_max_burst", 40000, "cpu.max.burst", "40000"),
    ("cpu_weight", 20, "cpu.weight", "20"),
    ("cpu_idle", True, "cpu.idle", "1"),
    ("cpu_uclamp_min", "12.5", "cpu.uclamp.min", "12.50"),
    ("cpu_uclamp_max", "80", "cpu.uclamp.max", "80.00"),
    ("cpuset_cpus", "1,0", "cpuset.cpus", "0-1"),
    ("cpuset_mems", "0", "cpuset.mems", "0"),
    ("cpuset_cpus_exclusive", "1", "cpuset.cpus.exclusive", "1"),
    ("cpuset_cpus_partition", "isolated", "cpuset.cpus.partition", "isolated"),
    ("memory_min", "4K", "memory.min", "4096"),
    ("memory_low", "1M", "memory.low", "1048576"),
    ("memory_high", "200M", "memory.high", "209715200"),
    ("memory_max", "256M", "memory.max", "268435456"),
    ("memory_swap_high", "1M", "memory.swap.high", "1048576"),
    ("memory_swap_max", "0", "memory.swap.max", "0"),
    ("memory_zswap_max", "0", "memory.zswap.max", "0"),
    ("memory_zswap_writeback", False, "memory.zswap.writeback", "0"),
    ("memory_oom_group", True, "memory.oom.group", "1"),
    ("memory_oom_group", False, "memory.oom.group", "0"),
    ("pids_max", "128", "pids.max", "128"),
    ("io_weight", 50, "io.weight", "default 50"),
    ("io_weight", {"/dev/vda1": 200}, "io.weight", "default 100\n254:0 200"),
    ("io_max", {"/dev/vda": {"rbps": "1M"}}, "io.max", "254:0 rbps=1048576 wbps=max riops=max wiops=max"),
    ("io_max", {"8:16": {"wiops": 9}}, "io.max", "8:16 rbps=max wbps=max riops=max wiops=9"),
    ("io_latency", {"/dev/disk/by-id/data": "75ms"}, "io.latency", "8:16 target=75000"),
    ("io_latency", {"254:0": 5}, "io.latency", "254:0 target=5"),
    ("io_prio_class", "idle", "io.prio.class", "idle"),
    ("controls", {"cgroup.max.depth": 3}, "cgroup.max.depth", "3"),
]
# Those that systemd has no controller for.
CGROUPFS_SETTINGS = [
    ("type", "threaded", "cgroup.type", "threaded"),
    ("hugetlb_max", {"2MB": "5M"}, "hugetlb.2MB.max", "4194304"),
    ("hugetlb_rsvd_max", {"2MB": "4M"}, "hugetlb.2MB.rsvd.max", "4194304"),
    ("rdma_max", {"mlx5_0": {"hca_handle": 2}}, "rdma.max", "mlx5_0 hca_handle=2 hca_object=max"),
    ("misc_max", {"sev": 3}, "misc.max", "sev 3\nsev_es max"),
    ("dmem_min", {"drm/0/vram0": "1M"}, "dmem.min", "drm/0/vram0 1048576"),
    ("dmem_low", {"drm/0/vram0": "1M"}, "dmem.low", "drm/0/vram0 1048576"),
    ("dmem_max", {"drm/0/vram0": "1M"}, "dmem.max", "drm/0/vram0 1048576"),
]
UNDECLARED = {file: {**DEFAULTS, **OTHERS}[file] for __, __, file, __ in SETTINGS + CGROUPFS_SETTINGS}
MANAGERS_AND_SETTINGS = [
    *[("systemd", *setting) for setting in SETTINGS],
    *[("cgroupfs", *setting) for setting in SETTINGS + CGROUPFS_SETTINGS[1:]],
]
EXCLUDE_EACH_OTHER = [{20, True}, {"0.1", 40000}]  # cpu_weight and cpu_idle; a burst above the quota


def go_together(settings_):
    values = [value for __, value, __, __ in settings_ if not isinstance(value, dict)]
    return not any(excluded <= set(values) for excluded in EXCLUDE_EACH_OTHER)


declarations = st.lists(st.sampled_from(SETTINGS), max_size=6, unique_by=lambda setting: setting[0]).filter(
    go_together
)


def value_of(kernel, path, file):
    """What the file reads or, where that is nothing, its default; cpu.weight means none beside cpu.idle."""
    text = kernel.read(path, file)
    idle = file == "cpu.weight" and text == "0"
    return files.default(file) if text is None or idle else files.parse(file, text)


def options(settings_):
    return {option: value for option, value, __, __ in settings_}


@pytest.mark.parametrize(("manager", "option", "value", "file", "text"), MANAGERS_AND_SETTINGS)
def test_each_option_is_written_read_back_and_taken_back(machine, manager, option, value, file, text):
    kernel = machine.kernel
    path = machine.start("web") if manager == "systemd" else kernel.root / "bare/web"
    outcome = converged(manager=manager, **{option: value})
    assert outcome.changed
    assert kernel.read(path, file) in (text, None if text == UNDECLARED.get(file) else text)
    converged(manager=manager)
    if not (manager == "systemd" and file in ("cpuset.cpus", "cpuset.mems")):
        assert kernel.read(path, file) in (UNDECLARED[file], None)


@pytest.mark.parametrize(("option", "value", "file", "text"), SETTINGS)
def test_a_unit_starts_with_what_was_declared_before(machine, option, value, file, text):
    converged(manager="systemd", **{option: value})
    assert machine.kernel.read(machine.start("web"), file) == text
    assert not run(manager="systemd", **{option: value}).changed


@pytest.mark.parametrize("manager", ["cgroupfs", "systemd"])
def test_check_mode_shows_it_in_the_order_in_which_it_is_read(machine, manager):
    if manager == "systemd":
        machine.start("web")
    declared = {"manager": manager, "pids_max": 7, "frozen": False, "delegate": "nobody"}
    predicted = run(check=True, **declared)
    assert as_yaml(predicted.after) == as_yaml(converged(**declared).after)


@given(
    st.lists(declarations, min_size=1, max_size=3), st.sampled_from(["cgroupfs", "systemd"]), st.booleans()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_declaration_after_any_other(make_host, steps, manager, running):
    """Check mode predicts the state then read, a second run has nothing to do, and what is not declared is at
    its default."""
    machine = make_host()
    kernel = machine.kernel
    path = machine.start("web") if manager == "systemd" and running else kernel.root / "bare/web"
    for declared in steps:
        predicted = run(check=True, manager=manager, **options(declared))
        outcome = converged(manager=manager, **options(declared))
        assert predicted.after == outcome.after
        assert predicted.changed == outcome.changed
        assert predicted.commands == outcome.commands
        texts = {**UNDECLARED, **{file: text for __, __, file, text in declared}}
        if path.is_dir():
            for file, text in texts.items():
                if manager == "cgroupfs" or text or not file.startswith("cpuset"):
                    assert value_of(kernel, path, file) == files.parse(file, text)
    assert converged(manager=manager, state="absent").changed
    assert not run(manager=manager, state="absent").changed
    assert not list(host.STATE.rglob("*.json"))
    assert not list(systemctl.UNITS.rglob("*"))
    assert not (kernel.root / "bare").exists()


@given(declarations, declarations, st.integers(0, 12), st.sampled_from(["cgroupfs", "systemd"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_write_that_fails_leaves_what_the_next_run_converges(make_host, first, second, fail_at, manager):
    machine = make_host()
    if manager == "systemd":
        machine.start("web")
    converged(manager=manager, **options(first))
    machine.kernel.fail_at = fail_at
    run(manager=manager, **options(second))
    machine.kernel.fail_at = None
    converged(manager=manager, **options(second))


def test_controllers_are_enabled_from_the_root_down_before_the_child_is_made(machine):
    kernel = machine.kernel
    outcome = converged(manager="cgroupfs", parent="bare/tenant", memory_max="256M", pids_max=128)
    root = kernel.root
    order = [(path, value) for path, file, value in kernel.writes if file == "cgroup.subtree_control"]
    assert order == [(path, "+memory +pids") for path in (root, root / "bare", root / "bare/tenant")]
    made = [command for command in outcome.commands if str(root) in command and "cat" not in command]
    assert made == [
        f"echo '+memory +pids' > {root}/cgroup.subtree_control",
        f"mkdir -p {root}/bare",
        f"echo '+memory +pids' > {root}/bare/cgroup.subtree_control",
        f"mkdir -p {root}/bare/tenant",
        f"echo '+memory +pids' > {root}/bare/tenant/cgroup.subtree_control",
        f"mkdir -p {root}/bare/tenant/web",
        f"echo 268435456 > {root}/bare/tenant/web/memory.max",
        f"echo 128 > {root}/bare/tenant/web/pids.max",
    ]


def test_only_needed_controllers_are_enabled(machine):
    converged(manager="cgroupfs", memory_max="max", cpu_weight=100)
    assert not [file for __, file, __ in machine.kernel.writes if file == "cgroup.subtree_control"]


def test_only_what_drifted_is_written(machine):
    kernel = machine.kernel
    converged(manager="cgroupfs", memory_max="256M", pids_max=128)
    path = kernel.root / "bare/web"
    kernel.write(path, "memory.max", "4096")
    kernel.write(path, "memory.high", "8192")
    kernel.writes.clear()
    outcome = converged(manager="cgroupfs", memory_max="256M", pids_max=128)
    assert [step.changes for step in outcome.steps] == ["memory.high", "memory.max"]
    assert kernel.writes == [(path, "memory.high", "max"), (path, "memory.max", "268435456")]
    assert outcome.before["controls"] == {"memory.high": 8192, "memory.max": 4096, "pids.max": 128}
    assert outcome.after["controls"] == {"memory.max": 268435456, "pids.max": 128}


def test_a_controller_taken_away_comes_back_with_its_limits(machine):
    kernel = machine.kernel
    converged(manager="cgroupfs", memory_max="256M")
    kernel.write(kernel.root / "bare", "cgroup.subtree_control", "-memory")
    assert converged(manager="cgroupfs", memory_max="256M").changed
    assert kernel.read(kernel.root / "bare/web", "memory.max") == "268435456"


def test_a_missing_controller_changes_nothing(machine):
    machine.kernel.controllers = ("cpu", "pids")
    outcome = run(manager="cgroupfs", memory_max="256M", pids_max=128)
    assert outcome.error.startswith("memory_max needs the controller memory, and cgroup2 at ")
    assert outcome.error.endswith("nothing was changed.")
    assert not machine.kernel.writes
    assert not host.STATE.exists()
    assert os.listdir(machine.kernel.root) == []


def test_a_parent_of_others_is_neither_made_nor_removed(machine):
    root = machine.kernel.root
    assert "there is no cgroup" in run(manager="cgroupfs", parent="tenants").error
    (root / "tenants").mkdir()
    converged(manager="cgroupfs", parent="tenants")
    converged(state="absent")
    assert os.listdir(root) == ["tenants"]


def test_a_cgroup_of_others_is_not_taken_over(machine):
    (machine.kernel.root / "web").mkdir()
    assert "exists and was not made by this module" in run(manager="cgroupfs", parent="/").error
    assert not run(manager="cgroupfs", parent="/", state="absent").changed
    assert (machine.kernel.root / "web").is_dir()


def test_bare_goes_with_the_last_one(machine):
    bare = machine.kernel.root / "bare"
    converge_all({"name": "a", "manager": "cgroupfs"}, {"name": "b", "manager": "cgroupfs"})
    converge_all({"name": "a", "state": "absent"})
    assert os.listdir(bare) == ["b"]
    converge_all({"name": "b", "state": "absent"})
    assert not bare.exists()


def test_the_declaration_kept_has_the_manager_and_the_path(machine):
    converged(manager="cgroupfs", memory_max="256M", force=True)
    assert kept() == {
        "manager": "cgroupfs",
        "memory_max": 268435456,
        "parent": "bare",
        "path": str(machine.kernel.root / "bare/web"),
        "state": "present",
    }
    converged(manager="auto", memory_max="256M")
    assert kept()["manager"] == "systemd"
    assert kept()["path"] == str(machine.kernel.root / "system.slice/bare-web.service")


def test_a_move_leaves_nothing_behind(machine):
    root = machine.kernel.root
    converged(manager="cgroupfs", memory_max="256M")
    converged(manager="cgroupfs", parent="bare/deeper", memory_max="256M")
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == [
        "bare",
        "bare/deeper",
        "bare/deeper/web",
    ]
    converged(manager="systemd", memory_max="256M")
    assert list(root.rglob("*")) == []
    assert (systemctl.UNITS / "bare-web.service.d/10-cgroup.conf").exists()
    converged(manager="cgroupfs")
    assert list(systemctl.UNITS.rglob("*")) == []


@pytest.mark.parametrize("change", [{"state": "absent"}, {"parent": "bare/deeper"}, {"manager": "systemd"}])
def test_processes_in_the_way_are_named(machine, monkeypatch, change):
    converged(manager="cgroupfs")
    monkeypatch.setattr(cgroup, "processes", lambda path: [os.getpid(), *range(9_000_001, 9_000_008)])
    outcome = run(**{"manager": "cgroupfs", **change})
    comm = Path("/proc/self/comm").read_text().strip()
    assert f"there are {os.getpid()} ({comm}), 9000001 (ended), " in outcome.error
    assert "9000005" not in outcome.error
    assert "and 3 more; end them, or set force" in outcome.error
    assert not outcome.changed
    killed = []
    monkeypatch.setattr(cgroup, "kill", lambda path, seconds: killed.append(path) or True)
    predicted = run(check=True, **{"manager": "cgroupfs", **change}, force=True)
    assert predicted.error is None
    assert f"echo 1 > {machine.kernel.root}/bare/web/cgroup.kill" in predicted.commands
    assert not killed


@pytest.mark.parametrize(
    ("limit", "refused"),
    [("70M", False), ("69M", True), ("100M", False), ("200M", False)],
)
def test_memory_max_below_what_can_not_be_reclaimed(machine, monkeypatch, limit, refused):
    """In use are 100 MiB, of them 20 page cache, 10 slab; tmpfs is in "file" too, and can't be."""
    converged(manager="cgroupfs", memory_max="300M")
    mib = 2**20
    usage = {
        "memory.current": str(100 * mib),
        "memory.stat": f"anon {60 * mib}\nfile {30 * mib}\nshmem {10 * mib}\nactive_file {5 * mib}\n"
        f"inactive_file {15 * mib}\nslab_reclaimable {10 * mib}",
    }
    read = cgroup.read
    monkeypatch.setattr(cgroup, "read", lambda path, file: usage.get(file) or read(path, file))
    machine.kernel.writes.clear()
    outcome = run(manager="cgroupfs", memory_max=limit)
    assert bool(outcome.error) == refused
    if refused:
        assert f"{70 * mib} bytes in use" in outcome.error
        assert not machine.kernel.writes
        assert kept()["memory_max"] == 300 * mib


def test_a_control_whose_default_is_unknown_is_not_forgotten(machine):
    machine.kernel.texts.clear()
    path = machine.kernel.root / "bare/web"
    converged(manager="cgroupfs")
    machine.kernel._exists = lambda path, file: True
    converged(manager="cgroupfs", controls={"cpu.new.thing": "7"})
    assert machine.kernel.read(path, "cpu.new.thing") == "7"
    assert "cpu.new.thing was declared before" in run(manager="cgroupfs").error
    assert kept()["controls"] == {"cpu.new.thing": 7}


def test_a_broken_declaration_is_told(machine):
    converged(manager="cgroupfs")
    (host.STATE / "containers/web/cgroup.json").write_text("{}")
    assert "cgroup.json is incomplete" in run(manager="cgroupfs").error


# systemd


def test_the_drop_in_comes_before_the_unit(machine):
    outcome = converged(cpu_max="1", memory_max="256M", pids_max=128, controls={"cgroup.max.depth": 3})
    assert "controls" not in outcome.after
    path = machine.start("web")
    assert machine.kernel.read(path, "cpu.max") == "100000 100000"
    assert machine.kernel.read(path, "memory.max") == "268435456"
    assert machine.kernel.read(path, "pids.max") == "128"
    assert machine.kernel.read(path, "cgroup.max.depth") == "3"
    assert not run(cpu_max="1", memory_max="256M", pids_max=128, controls={"cgroup.max.depth": 3}).changed


def test_one_reload_for_all_entries_and_one_program_when_nothing_changes(machine):
    entries = [{"name": f"c{number}", "memory_max": "256M"} for number in range(20)]
    assert all(outcome.changed for outcome in converge_all(*entries))
    assert machine.calls.count(("daemon-reload",)) == 1
    machine.calls.clear()
    assert not any(outcome.changed for outcome in converge_all(*entries))
    assert len(machine.calls) == 1
    assert machine.calls[0][:2] == ("show", "--property=Id,NeedDaemonReload")


def test_nothing_is_asked_of_systemd_before_there_is_a_drop_in(machine):
    run(check=True, memory_max="256M")
    assert machine.calls == []


def test_a_value_changed_by_hand_is_put_back_by_a_reload(machine):
    path = machine.start("web")
    converged(memory_max="256M", controls={"cgroup.max.depth": 3})
    machine.kernel.write(path, "memory.max", "4096")
    machine.kernel.write(path, "pids.max", "5")
    outcome = converged(memory_max="256M", controls={"cgroup.max.depth": 3})
    assert outcome.commands == ["systemctl daemon-reload"]
    assert machine.kernel.read(path, "memory.max") == "268435456"
    assert machine.kernel.read(path, "pids.max") == "max"
    machine.kernel.write(path, "cgroup.max.depth", "9")
    outcome = converged(memory_max="256M", controls={"cgroup.max.depth": 3})
    assert outcome.commands == [f"echo 3 > {path}/cgroup.max.depth"]


def test_a_drop_in_changed_by_hand_is_written_again(machine):
    converged(memory_max="256M")
    drop_in = systemctl.UNITS / "bare-web.service.d/10-cgroup.conf"
    text = drop_in.read_text()
    drop_in.write_text(text.replace("268435456", "1G"))
    assert converged(memory_max="256M").changed
    assert drop_in.read_text() == text


def test_a_drop_in_that_was_written_but_never_loaded_is_loaded(machine):
    converged(memory_max="256M")
    machine.loaded.clear()
    outcome = converged(memory_max="256M")
    assert outcome.commands == ["systemctl daemon-reload"]
    assert outcome.before["loaded"] is False


def test_drop_ins_of_others_stay(machine):
    converged(memory_max="256M")
    other = systemctl.UNITS / "bare-web.service.d/50-other.conf"
    other.write_text("[Unit]\n")
    converged(state="absent")
    assert [path.name for path in systemctl.UNITS.rglob("*")] == ["bare-web.service.d", "50-other.conf"]


def test_a_reload_that_fails_fails_all_who_wait_and_is_made_up_for(machine):
    entries = [{"name": name, "memory_max": "256M"} for name in ("a", "b")]
    machine.fails = ("daemon-reload",)
    assert [outcome.error for outcome in converge_all(*entries)] == ["systemctl failed."] * 2
    machine.fails = None
    assert all(outcome.changed and not outcome.error for outcome in converge_all(*entries))
    assert not any(outcome.changed for outcome in converge_all(*entries))


def test_another_slice(machine):
    outcome = converged(parent="tenants-a.slice")
    assert "Slice=tenants-a.slice" in outcome.after["drop_in"]
    assert kept()["path"].endswith("/tenants.slice/tenants-a.slice/bare-web.service")


def test_a_whole_cpuset_stands_for_the_default_where_processes_are(machine, monkeypatch):
    """A cpuset with processes can't be emptied, neither by systemd nor by hand."""
    path = machine.start("web")
    converged(cpuset_cpus="1")
    read, write = cgroup.read, cgroup.write
    facts = {"cpuset.cpus.effective": "0-1", "cgroup.events": "populated 1\nfrozen 0"}
    monkeypatch.setattr(cgroup, "read", lambda path, file: facts.get(file) or read(path, file))

    def refuse_empty(path, file, value):
        if file == "cpuset.cpus" and not value:
            raise OSError(28, "No space left on device")
        write(path, file, value)

    monkeypatch.setattr(cgroup, "write", refuse_empty)
    outcome = converged()
    assert outcome.commands[-1:] != []
    assert f"echo 0-1 > {path}/cpuset.cpus" in outcome.commands
    assert machine.kernel.read(path, "cpuset.cpus") == "0-1"


@pytest.mark.parametrize("manager", ["cgroupfs", "systemd"])
def test_frozen_and_thawed(machine, manager):
    path = machine.start("web") if manager == "systemd" else machine.kernel.root / "bare/web"
    converged(manager=manager, state="frozen")
    assert machine.kernel.read(path, "cgroup.freeze") == "1"
    converged(manager=manager, state="present")
    assert machine.kernel.read(path, "cgroup.freeze") == "1"
    converged(manager=manager, state="thawed")
    assert machine.kernel.read(path, "cgroup.freeze") == "0"


def test_frozen_takes_a_unit_that_runs(machine):
    assert "bare-web.service does not" in run(state="frozen").error
    assert converged(state="thawed").changed


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"parent": "bare"}, "parent: 'bare' is not accepted, it takes under systemd the name of a slice"),
        (
            {"manager": "cgroupfs", "parent": "../x"},
            "parent: '../x' is not accepted, it takes a cgroup below the root",
        ),
        (
            {"hugetlb_max": {"2MB": "4M"}},
            "hugetlb_max needs the controller hugetlb, which systemd does not give",
        ),
        ({"cpu_max": "12345 100000"}, "cpu_max: '12345 100000' is not accepted"),
    ],
)
def test_what_a_manager_can_not_do_is_refused_before_anything_is_changed(machine, entry, told):
    with pytest.raises(Failure) as failure:
        converge_all({"name": "good", "memory_max": "1G"}, {"name": "bad", **entry})
    assert told in str(failure.value)
    assert str(failure.value).endswith("nothing was changed.")
    assert not host.STATE.exists()


def test_systemd_takes_systemd(machine, monkeypatch):
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: False)
    with pytest.raises(Failure, match=r"^manager: systemd takes a host where it is PID 1"):
        run(manager="systemd")
    assert converged(manager="auto").after["manager"] == "cgroupfs"


def test_absent_needs_no_cgroup2(machine, monkeypatch):
    def fail():
        raise Failure("no mount")

    monkeypatch.setattr(resource.hierarchy, "root", fail)
    assert not converged(state="absent").changed


def test_facts(machine):
    kernel = machine.kernel
    outcome = converged(manager="cgroupfs", memory_max="256M", controls={"cgroup.max.depth": 3})
    assert outcome.facts["manager"] == "cgroupfs"
    assert outcome.facts["cgroup_path"] == str(kernel.root / "bare/web")
    assert outcome.facts["controls"]["memory.max"] == 268435456
    assert outcome.facts["controls"]["memory.oom.group"] is False
    assert outcome.facts["controls"]["cgroup.max.depth"] == 3
    assert "cpu.max" not in outcome.facts["controls"]
    assert run(state="absent").facts == {}

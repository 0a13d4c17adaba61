# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cgroup_v2 with the cgroupfs manager on this kernel.

Each test has a hierarchy of its own: a cgroup of this machine is the root of what its Machine has mounted.
What needs a controller is shown with hugetlb; limits of memory, CPU and processes are shown on the test host
(tests/systemd).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import cgroup, mount

HUGE = "hugetlb.2MB.max"


class Hierarchy:
    """``top`` is the root of the hierarchy in the Machine; ``real`` is the same cgroup to this process."""

    def __init__(self, machine, real):
        self.machine = machine
        self.top = Path(mount.find("cgroup2"))
        self.real = real
        self.processes = []
        machine.run("mount", "--bind", str(real), str(self.top))
        machine.run("touch", "/var/lib/others")  # as everywhere

    def module(self, check=False, **arguments):
        return self.machine.module("cgroup_v2", {"manager": "cgroupfs", **arguments}, check=check)

    def converge(self, **arguments):
        """Runs it, as check mode told before, and a second time, which has nothing to do."""
        predicted = self.module(check=True, **arguments)
        done = self.module(**arguments)
        assert not done.get("failed"), done["msg"]
        for key in ("changed", "diff", "commands"):
            assert predicted[key] == done[key]
        again = self.module(**arguments)
        assert not again["changed"]
        assert again["diff"] == again["commands"] == []
        return done

    def start(self, path, *words):
        """Runs a program in the cgroup ``path``, below the root."""
        words = words or ("sleep", "infinity")
        script = f'echo $$ > {self.real / path}/cgroup.procs; exec "$@"'
        self.processes.append(subprocess.Popen(["sh", "-ec", script, "sh", *words]))
        assert _wait(lambda: self.processes[-1].pid in cgroup.processes(self.real / path))
        return self.processes[-1]

    def tree(self):
        """Every cgroup below the root."""
        return sorted(str(path.relative_to(self.real)) for path in self.real.rglob("*") if path.is_dir())

    def kept(self):
        """All that the collection keeps, but for the folder of locks."""
        everything = self.machine.shell("find /var/lib /run -mindepth 1 -path '*bare-containers/*'")
        return [path for path in everything.splitlines() if path != "/run/bare-containers/lock"]

    def end(self):
        if self.real.exists():
            cgroup.kill(self.real, 10)
            cgroup.remove(self.real)
        for process in self.processes:
            process.wait()


def _wait(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def new_hierarchy(new_machine):
    root = Path(mount.find("cgroup2"))
    made = []

    def new():
        real = root / f"bare-test-{os.getpid()}-{len(made)}"
        cgroup.make(real)
        made.append(Hierarchy(new_machine(), real))
        return made[-1]

    yield new
    for hierarchy in made:
        hierarchy.end()
        assert not hierarchy.real.exists()


@pytest.fixture
def hierarchy(new_hierarchy):
    return new_hierarchy()


@pytest.fixture
def _hugetlb():
    """The controller hugetlb in the machine's root, as long as the test needs it."""
    root = Path(mount.find("cgroup2"))
    if "hugetlb" not in (cgroup.read(root, "cgroup.controllers") or "").split():
        pytest.skip("cgroup2 of this machine has no controller hugetlb")
    enabled = "hugetlb" in cgroup.read(root, "cgroup.subtree_control").split()
    cgroup.write(root, "cgroup.subtree_control", "+hugetlb")
    yield
    if not enabled:
        with contextlib.suppress(OSError):  # EBUSY: another has come to use it
            cgroup.write(root, "cgroup.subtree_control", "-hugetlb")


def test_made_and_removed(hierarchy):
    done = hierarchy.converge(name="web", controls={"cgroup.max.depth": 3})
    assert done["cgroup_path"] == f"{hierarchy.top}/bare/web"
    assert done["controls"] == {"cgroup.type": "domain", "cgroup.max.depth": 3}
    assert set(done["cpu_stat"]) >= {"usage_usec", "user_usec", "system_usec"}
    assert cgroup.read(hierarchy.real / "bare/web", "cgroup.max.depth") == "3"
    (hierarchy.real / "bare/web/inner/most").mkdir(parents=True)
    hierarchy.converge(name="web", state="absent")
    assert hierarchy.tree() == []
    assert hierarchy.kept() == []


def test_what_is_declared_no_longer_goes_back_to_the_default(hierarchy):
    hierarchy.converge(name="web", controls={"cgroup.max.depth": 3, "cgroup.max.descendants": 5})
    done = hierarchy.converge(name="web", controls={"cgroup.max.descendants": 5})
    path = hierarchy.real / "bare/web"
    assert cgroup.read(path, "cgroup.max.depth") == "max"
    assert cgroup.read(path, "cgroup.max.descendants") == "5"
    assert [line for line in done["commands"] if "/bare/web/" in line] == [
        f"echo max > {hierarchy.top}/bare/web/cgroup.max.depth"
    ]


@pytest.mark.usefixtures("_hugetlb")
def test_a_controller_is_enabled_from_the_root_down_and_drift_is_repaired(hierarchy):
    hierarchy.converge(name="web", parent="bare/tenant", hugetlb_max={"2MB": "4M"})
    path = hierarchy.real / "bare/tenant/web"
    assert cgroup.read(path, HUGE) == "4194304"
    cgroup.write(path, HUGE, "max")
    done = hierarchy.converge(name="web", parent="bare/tenant", hugetlb_max={"2MB": "4M"})
    assert done["commands"] == [f"echo 4194304 > {hierarchy.top}/bare/tenant/web/{HUGE}"]
    cgroup.write(path.parent, "cgroup.subtree_control", "-hugetlb")
    hierarchy.converge(name="web", parent="bare/tenant", hugetlb_max={"2MB": "4M"})
    assert cgroup.read(path, HUGE) == "4194304"


@pytest.mark.usefixtures("_hugetlb")
def test_processes_of_the_parent_are_in_the_way_of_a_controller(hierarchy):
    (hierarchy.real / "full").mkdir()
    hierarchy.start("full")
    done = hierarchy.module(name="web", parent="full", hugetlb_max={"2MB": "4M"})
    assert f"parent: {hierarchy.top}/full can't give the controllers hugetlb" in done["msg"]
    cgroup.kill(hierarchy.real / "full", 10)
    hierarchy.converge(name="web", parent="full", hugetlb_max={"2MB": "4M"})


def test_a_missing_controller_is_named_with_where_it_is_bound(hierarchy):
    mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    bound = [fields[1] for fields in mounted if fields[2] == "cgroup" and "memory" in fields[3].split(",")]
    if not bound:
        pytest.skip("the memory controller of this machine is not bound to cgroup v1")
    done = hierarchy.module(name="web", memory_max="256M", controls={"cgroup.max.depth": 3})
    assert done["failed"]
    assert f"memory_max needs the controller memory, and cgroup2 at {hierarchy.top} does not" in done["msg"]
    assert f"memory is bound to cgroup v1 at {bound[0]}, boot with cgroup_no_v1=memory" in done["msg"]
    assert done["msg"].endswith("; nothing was changed.")
    assert not done["changed"]
    assert hierarchy.tree() == []
    assert hierarchy.kept() == []
    hierarchy.converge(name="web", memory_max="max")


def test_no_cgroup2(hierarchy):
    hierarchy.machine.run("sh", "-ec", f"while umount {hierarchy.top} 2>/dev/null; do :; done")
    done = hierarchy.module(name="web")
    assert done["msg"].startswith("This host has no cgroup2 file system mounted")
    assert not hierarchy.module(name="web", state="absent")["changed"]


def test_absent_names_the_processes_and_force_kills_them(hierarchy):
    hierarchy.converge(name="web")
    (hierarchy.real / "bare/web/inner").mkdir()
    # A signal handler does not help, nor does being frozen, nor forking.
    forking = "trap '' TERM HUP INT; while :; do sleep 0.01 & done"
    processes = [hierarchy.start("bare/web"), hierarchy.start("bare/web/inner", "sh", "-c", forking)]
    cgroup.write(hierarchy.real / "bare/web", "cgroup.freeze", "1")
    done = hierarchy.module(name="web", state="absent")
    assert f"{processes[0].pid} (sleep)" in done["msg"]
    assert f"{processes[1].pid} (sh)" in done["msg"]
    assert "set force to have them killed; nothing was changed." in done["msg"]
    assert not done["changed"]
    assert all(process.poll() is None for process in processes)
    done = hierarchy.module(name="web", state="absent", force=True)
    assert done["changed"]
    assert hierarchy.tree() == []
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 2
    assert not hierarchy.module(name="web", state="absent", force=True)["changed"]


def test_without_cgroup_kill_processes_are_frozen_and_killed(hierarchy, monkeypatch):
    """As on kernels before 5.14."""
    hierarchy.converge(name="web")
    path = hierarchy.real / "bare/web"
    write = cgroup.write

    def write_without_kill(path, file, value):
        if file == "cgroup.kill":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
        write(path, file, value)

    monkeypatch.setattr(cgroup, "write", write_without_kill)
    forking = hierarchy.start("bare/web", "sh", "-c", "while :; do sleep 0.01 & done")
    assert cgroup.kill(path, 10)
    assert cgroup.processes(path) == []
    assert forking.wait() == -signal.SIGKILL


def test_frozen_and_thawed(hierarchy):
    def state_of(process):
        return cgroup.keyed(cgroup.read(hierarchy.real / "bare/web", "cgroup.events"))["frozen"]

    hierarchy.converge(name="web")
    process = hierarchy.start("bare/web")
    hierarchy.converge(name="web", state="frozen")
    assert state_of(process) == 1
    hierarchy.converge(name="web", state="thawed")
    assert state_of(process) == 0
    cgroup.write(hierarchy.real / "bare/web", "cgroup.freeze", "1")
    hierarchy.converge(name="web", state="thawed")
    assert state_of(process) == 0
    cgroup.kill(hierarchy.real / "bare/web", 10)


def test_a_batch_with_one_bad_entry(hierarchy):
    (hierarchy.real / "full").mkdir()
    batch = [
        {"name": "a", "manager": "cgroupfs", "controls": {"cgroup.max.depth": 1}},
        {"name": "b", "manager": "cgroupfs", "controls": {"cgroup.max.depth": "many"}},
        {"name": "c", "manager": "cgroupfs", "parent": "missing"},
        {"name": "d", "manager": "cgroupfs", "parent": "full"},
    ]
    done = hierarchy.machine.module("cgroup_v2", {"batch": batch})
    assert {name: entry["failed"] for name, entry in done["containers"].items()} == {
        "a": False,
        "b": True,
        "c": True,
        "d": False,
    }
    assert "controls: cgroup.max.depth: the kernel does not take 'many'" in done["containers"]["b"]["msg"]
    assert "there is no cgroup" in done["containers"]["c"]["msg"]
    assert hierarchy.tree() == ["bare", "bare/a", "bare/b", "full", "full/d"]
    batch = [{"name": name, "state": "absent"} for name in "abcd"]
    done = hierarchy.machine.module("cgroup_v2", {"batch": batch})
    assert {name: entry["changed"] for name, entry in done["containers"].items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
    }
    assert hierarchy.tree() == ["full"]


@pytest.mark.usefixtures("_hugetlb")
def test_commands_build_the_same_on_another_machine(new_hierarchy):
    """Made, changed and removed; every command as it stands, by sh -e."""
    declared = [
        {"name": "web", "hugetlb_max": {"2MB": "4M"}, "controls": {"cgroup.max.depth": 3}},
        {"name": "web", "hugetlb_max": {"2MB": "2M"}, "state": "frozen"},
        {"name": "web", "parent": "bare/deeper", "controls": {"cgroup.max.descendants": 7}},
        {"name": "web", "state": "absent", "force": True},
    ]
    first, second = new_hierarchy(), new_hierarchy()
    for arguments in declared:
        done = first.module(**arguments)
        assert done["changed"], done
        second.machine.shell("\n".join(done["commands"]))
        assert first.tree() == second.tree()
        for path in first.tree():
            files = (
                HUGE,
                "cgroup.max.depth",
                "cgroup.max.descendants",
                "cgroup.subtree_control",
                "cgroup.freeze",
            )
            for file in files:
                assert cgroup.read(first.real / path, file) == cgroup.read(second.real / path, file)
        if arguments.get("state") != "absent":
            assert not second.module(**arguments)["changed"]
            first.start(f"{done['cgroup_path'][len(str(first.top)) + 1 :]}")
            second.start(f"{done['cgroup_path'][len(str(first.top)) + 1 :]}")
            if arguments.get("state") == "frozen":
                for each in (first, second):
                    cgroup.kill(each.real, 10)
    assert second.tree() == []
    assert second.kept() == []


# Runs the module again and again, in forks of one process: from the state ``before`` to ``wanted``, ended by
# SIGKILL when it is about to write, make, rename or remove for the N-th time, for every N; then whole.
_CRASHES = """
import itertools, json, os, sys
from ansible.module_utils import basic
from ansible_collections.bare.containers.plugins.modules import cgroup_v2

top, before, wanted = sys.argv[1], *map(json.loads, sys.argv[2:])
CHANGES = {"os.mkdir", "os.rename", "os.rmdir", "os.remove"}
PLACES = (top, "/var/lib/bare-containers", "/run/bare-containers")
basic._ANSIBLE_PROFILE = "legacy"

def kill_at(number):
    left = itertools.count(number - 1, -1)
    def count(event, arguments):
        change = event in CHANGES or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if change and str(arguments[0]).startswith(PLACES) and next(left) == 0:
            os.kill(os.getpid(), 9)
    sys.addaudithook(count)

def run(arguments, number=None):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        if number:
            kill_at(number)
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        cgroup_v2.main()
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        return None
    return json.loads(text)

def everything():
    cgroups = [where for where, *__ in os.walk(top)]
    files = [os.path.join(where, name) for where, __, names in os.walk(PLACES[1]) for name in names]
    return sorted(cgroups + files)

assert run(before)["changed"] is (before["state"] != "absent")
assert run(wanted)["changed"]
good = everything()
for number in itertools.count(1):
    run(before)
    ended = run(wanted, number) is None
    last = run(wanted)
    assert not last.get("failed"), (number, last)
    assert not run(wanted)["changed"], number
    left = sorted(set(everything()) ^ set(good))
    assert left == [], (number, left)
    if not ended:
        print(number - 1)
        break
"""


@pytest.mark.usefixtures("_hugetlb")
@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ({"state": "absent"}, {"parent": "bare/deeper", "hugetlb_max": {"2MB": "4M"}, "state": "frozen"}),
        ({"controls": {"cgroup.max.depth": 3}}, {"hugetlb_max": {"2MB": "4M"}}),
        ({"parent": "bare/deeper", "hugetlb_max": {"2MB": "4M"}}, {"hugetlb_max": {"2MB": "4M"}}),
        ({"hugetlb_max": {"2MB": "4M"}}, {"state": "absent"}),
    ],
    ids=["made", "changed", "moved", "removed"],
)
def test_killed_at_any_instant_the_next_run_converges(hierarchy, before, wanted):
    defaults = {"name": "web", "manager": "cgroupfs", "state": "present"}
    *command, __ = hierarchy.machine.module_command("cgroup_v2")
    command[-1] = _CRASHES
    states = [json.dumps({**defaults, **state}) for state in (before, wanted)]
    done = subprocess.run(
        [*command, str(hierarchy.top), *states], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5

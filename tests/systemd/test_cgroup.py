# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cgroup_v2 on a host with systemd and all controllers, under both managers.

Units of the tests' own stand in for containers: what is in the cgroup makes no difference to it.
"""

from __future__ import annotations

import re

import pytest
import yaml
from ansible_collections.bare.containers.plugins.modules import cgroup_v2

UNITS = "/etc/systemd/system"
SLICE = "/sys/fs/cgroup/system.slice"
MIB = 2**20

LIMITS = {
    "cpu_max": 1,
    "cpu_max_burst": 5000,
    "cpu_weight": 50,
    "cpuset_cpus": "1",
    "cpuset_mems": "0",
    "memory_min": "1M",
    "memory_low": "2M",
    "memory_high": "192M",
    "memory_max": "256M",
    "memory_swap_max": 0,
    "memory_oom_group": True,
    "pids_max": 128,
    "io_weight": 200,
    "controls": {"cgroup.max.depth": 4},
}
READ = {
    "cpu.max": "100000 100000",
    "cpu.weight": "50",
    "cpuset.cpus": "1",
    "cpuset.mems": "0",
    "memory.min": "1048576",
    "memory.low": "2097152",
    "memory.high": "201326592",
    "memory.max": "268435456",
    "memory.swap.max": "0",
    "memory.oom.group": "1",
    "pids.max": "128",
    "io.weight": "default 200",
    "cgroup.max.depth": "4",
    "cpu.max.burst": "5000",
}
DEFAULTS = {
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpuset.cpus": "0-1",  # all that the parent has: one with processes can't be emptied
    "cpuset.mems": "0",
    "memory.min": "0",
    "memory.low": "0",
    "memory.high": "max",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "pids.max": "max",
    "io.weight": "default 100",
    "cgroup.max.depth": "max",
    "cpu.max.burst": "0",
}
HOG = "/usr/bin/python3 -c 'import signal; x = b\"x\" * (100 << 20); signal.pause()'"


@pytest.fixture(scope="module", autouse=True)
def _units(host):
    """Two units that run, one of which has 100 MiB in use, and one that is to start later."""
    for name, command in (("web", "/bin/sleep infinity"), ("hog", HOG), ("later", "/bin/sleep infinity")):
        unit = f"[Service]\nDelegate=yes\nExecStart={command}\n"
        host.shell(f"cat > {UNITS}/bare-{name}.service <<'END'\n{unit}END")
    host.shell("systemctl daemon-reload; systemctl start bare-web bare-hog")
    host.shell(_until_in_use(f"{SLICE}/bare-hog.service"))
    yield
    host.shell(
        f"systemctl stop bare-web bare-hog bare-later; rm {UNITS}/bare-*.service; systemctl daemon-reload\n"
        f"! ls -d {UNITS}/bare-*.service.d /sys/fs/cgroup/bare /var/lib/bare-containers 2>/dev/null"
    )


def _until_in_use(path):
    return f"until [ $(cat {path}/memory.current) -gt {100 * MIB} ]; do sleep 0.1; done"


def read(host, path, names=tuple(READ)):
    """The control files in one go, by name."""
    shown = host.shell(f"cd {path}; for file in {' '.join(names)}; do echo $file=$(cat $file); done")
    return dict(line.split("=", 1) for line in shown.splitlines())


def main_pids(host):
    return host.shell("systemctl show --property=MainPID --value bare-web bare-hog").split()


def converge(host, arguments):
    """Runs it, as check mode told before, and again, which has nothing to do."""
    predicted, done, again = host.modules("cgroup_v2", [arguments] * 3, check=[True, False, False])
    assert not done["failed"], done
    for key in ("changed", "commands", "diff"):
        assert predicted[key] == done[key]
    assert not again["changed"]
    assert again["commands"] == again["diff"] == []
    return done


def test_systemd(host):
    """From a drop-in before the unit to limits that follow the declaration, whatever is done by hand."""
    pids = main_pids(host)
    batch = [{"name": "web", **LIMITS}, {"name": "later", **LIMITS}, {"name": "hog", "memory_max": "1G"}]
    done = converge(host, {"batch": batch})
    assert done["commands"].count("systemctl daemon-reload") == 1
    assert done["containers"]["web"]["manager"] == "systemd"
    assert done["containers"]["web"]["cgroup_path"] == f"{SLICE}/bare-web.service"
    assert done["containers"]["web"]["controls"]["memory.max"] == 256 * MIB
    assert done["containers"]["web"]["controls"]["memory.oom.group"] is True
    assert set(done["containers"]["web"]["memory_events"]) >= {"max", "oom", "oom_kill"}
    assert set(done["containers"]["web"]["pressure"]) == {"cpu", "io", "memory"}
    assert "controls" not in done["containers"]["later"]

    # They hold in the unit that runs, in one that starts afterwards, after a reload and after a restart.
    assert read(host, f"{SLICE}/bare-web.service") == READ
    host.shell("systemctl start bare-later")
    assert read(host, f"{SLICE}/bare-later.service") == READ
    host.shell("systemctl daemon-reload")
    assert read(host, f"{SLICE}/bare-web.service") == READ
    assert main_pids(host) == pids
    host.shell("systemctl restart bare-later")
    assert read(host, f"{SLICE}/bare-later.service") == READ

    # What is changed by hand is told, and put back, and nothing else is touched.
    host.shell(
        f"cd {SLICE}/bare-web.service; echo max > memory.max; echo 9 > cgroup.max.depth\n"
        f"sed -i s/MemoryMax=.*/MemoryMax=2G/ {UNITS}/bare-hog.service.d/10-cgroup.conf\n"
        "touch /run/since"
    )
    done = converge(host, {"batch": batch})
    changed = [name for name, entry in done["containers"].items() if entry["changed"]]
    assert changed == ["web", "hog"]
    web, __ = done["diff"]
    assert "cgroup.max.depth: 9" in web["before"]
    assert "cgroup.max.depth: 4" in web["after"]
    assert "memory.max: 268435456" not in web["before"]
    assert "memory.max: 268435456" in web["after"]
    assert done["commands"][-1] == f"echo 4 > {SLICE}/bare-web.service/cgroup.max.depth"
    assert read(host, f"{SLICE}/bare-web.service") == READ
    assert read(host, f"{SLICE}/bare-hog.service", ["memory.max"]) == {"memory.max": str(1024 * MIB)}
    written = host.shell(f"find {UNITS} /var/lib/bare-containers -type f -newer /run/since")
    assert written == f"{UNITS}/bare-hog.service.d/10-cgroup.conf\n"
    assert main_pids(host) == pids

    # Taken out of the declaration, a limit goes; the process stays.
    host.module("cgroup_v2", {"batch": [{"name": "web"}, {"name": "later"}, {"name": "hog"}]})
    assert read(host, f"{SLICE}/bare-web.service") == DEFAULTS
    assert main_pids(host) == pids


def test_systemd_memory_max_below_what_is_in_use(host):
    pids = main_pids(host)
    done = host.module("cgroup_v2", {"name": "hog", "memory_max": "50M", "cpu_max": 1})
    assert done["failed"]
    assert done["msg"].startswith(f"hog: memory_max: {50 * MIB} is below the ")
    assert done["msg"].endswith("nothing was changed.")
    assert read(host, f"{SLICE}/bare-hog.service", ["memory.max", "cpu.max"]) == {
        "memory.max": "max",
        "cpu.max": "max 100000",
    }
    assert main_pids(host) == pids


def test_systemd_frozen_and_thawed(host):
    for state, verb, frozen in (("frozen", "freeze", "1"), ("thawed", "thaw", "0")):
        first, again = host.modules("cgroup_v2", [{"name": "web", "state": state}] * 2)
        assert (first["changed"], again["changed"]) == (True, False)
        assert first["commands"][0] == f"systemctl {verb} bare-web.service"
        host.shell("systemctl daemon-reload")
        assert f"frozen {frozen}" in host.shell(f"cat {SLICE}/bare-web.service/cgroup.events")


def test_systemd_absent(host):
    host.shell("systemctl start bare-later")
    declared = [{"name": "later", "memory_max": "1G"}, {"name": "later", "state": "absent"}]
    __, done = host.modules("cgroup_v2", declared)
    assert "(sleep); end them, or set force to have them killed; nothing was changed." in done["msg"]
    assert host.shell("systemctl is-active bare-later") == "active\n"
    batch = [{"name": name, "state": "absent", "force": name == "later"} for name in ("later", "unknown")]
    done = host.module("cgroup_v2", {"batch": batch})
    assert {name: entry["changed"] for name, entry in done["containers"].items()} == {
        "later": True,
        "unknown": False,
    }
    assert host.shell("systemctl is-active bare-later || true") == "inactive\n"
    assert "bare-later.service.d" not in host.shell("ls /etc/systemd/system")


def test_cgroupfs(host):
    """In a tree that systemd owns, for who asks for it: what is below /sys/fs/cgroup/bare stays as it is."""
    batch = [{"name": "mine", "manager": "cgroupfs", **LIMITS}]
    done = converge(host, {"batch": batch})
    path = "/sys/fs/cgroup/bare/mine"
    assert done["containers"]["mine"]["cgroup_path"] == path
    assert read(host, path) == READ
    host.shell("systemctl daemon-reload; systemctl restart bare-web")
    assert read(host, path) == READ

    # The same by hand, on a host where it is gone.
    host.shell(f"rmdir {path}; rmdir /sys/fs/cgroup/bare; rm -r /var/lib/bare-containers/containers/mine")
    host.shell("\n".join(done["commands"]))
    assert read(host, path) == READ
    host.shell(
        f"( echo $BASHPID > {path}/cgroup.procs; "
        f"exec {HOG} ) > /dev/null 2>&1 &\n{_until_in_use(path)}\necho max > {path}/memory.max"
    )
    done = host.module("cgroup_v2", {"batch": batch})
    assert done["commands"] == [f"echo 268435456 > {path}/memory.max"]
    done = host.module("cgroup_v2", {**batch[0], "memory_max": "50M"})
    assert done["msg"].startswith(f"mine: memory_max: {50 * MIB} is below the ")
    assert read(host, path) == READ
    done = host.module("cgroup_v2", {"name": "mine", "manager": "cgroupfs"})
    assert done["changed"]
    assert read(host, path) == DEFAULTS
    done = host.module("cgroup_v2", {"name": "mine", "state": "absent", "force": True})
    assert done["commands"][0] == f"echo 1 > {path}/cgroup.kill"
    host.shell("test ! -e /sys/fs/cgroup/bare")


def test_both_managers_are_equal_in_effect(host):
    """What systemd has properties for, what it has none for, devices by path, and delegation to a user."""
    limits = {
        "cpu_max": "50000 100000",
        "cpu_max_burst": "5ms",
        "cpuset_cpus": "0-1",
        "memory_high": "200M",
        "memory_swap_high": "8M",
        "memory_zswap_max": "16M",
        "io_max": {"/dev/vda": {"rbps": "10M", "wiops": 100}},
        "io_prio_class": "idle",
        "cpu_uclamp_max": "50",
        "controls": {"cgroup.max.descendants": "7"},
        "delegate": "nobody",
    }
    device = host.shell("echo $((0x$(stat -c %t /dev/vda))):$((0x$(stat -c %T /dev/vda)))").strip()
    expected = {
        "cpu.max": "50000 100000",
        "cpu.max.burst": "5000",
        "cpuset.cpus": "0-1",
        "memory.high": str(200 * MIB),
        "memory.swap.high": str(8 * MIB),
        "memory.zswap.max": str(16 * MIB),
        "io.max": f"{device} rbps={10 * MIB} wbps=max riops=max wiops=100",
        "io.prio.class": "idle",
        "cpu.uclamp.max": "50.00",
        "cgroup.max.descendants": "7",
    }
    there = host.shell(f"ls {SLICE}/bare-web.service").split()
    for option in ("cpu_uclamp_max", "memory_zswap_max", "io_prio_class"):
        file = option.replace("_", ".")
        if file not in there:  # This kernel was built without it.
            del limits[option], expected[file]
    batch = [{"name": "web", **limits}, {"name": "mine", "manager": "cgroupfs", **limits}]
    done = converge(host, {"batch": batch})
    for name, path in (("web", f"{SLICE}/bare-web.service"), ("mine", "/sys/fs/cgroup/bare/mine")):
        assert read(host, path, expected) == expected, name
        owners = host.shell(f"cd {path}; stat -c %U . cgroup.procs cgroup.subtree_control memory.max").split()
        assert owners == ["nobody", "nobody", "nobody", "root"], name
        entry = done["containers"][name]
        assert entry["controls"]["io.max"] == {device: {"rbps": 10 * MIB, "wiops": 100}}
        assert entry["memory_current"] >= 0
        assert set(entry["pressure"]["memory"]["some"]) == {"avg10", "avg60", "avg300", "total"}
    host.shell("systemctl daemon-reload; systemctl restart bare-web")
    assert read(host, f"{SLICE}/bare-web.service", expected) == expected
    done = host.module(
        "cgroup_v2", {"batch": [{"name": "web"}, {"name": "mine", "state": "absent", "manager": "cgroupfs"}]}
    )
    assert not done["failed"], done
    after = read(host, f"{SLICE}/bare-web.service", ["io.max", "cpu.max.burst", "memory.swap.high"])
    assert after == {"io.max": "", "cpu.max.burst": "0", "memory.swap.high": "max"}


def test_examples(host):
    """They run as they stand, and leave nothing."""
    host.shell("systemctl stop bare-web bare-hog")
    gone = [{"name": name, "state": "absent"} for name in ("web", "hog")]
    tasks = yaml.safe_load(cgroup_v2.EXAMPLES)
    before = {"bare.containers.cgroup_v2": {"batch": gone}, "changed_when": False}
    printed = host.play([before, *tasks])
    assert re.search(rf"ok={len(tasks) + 1} +changed={len(tasks)} ", printed), printed

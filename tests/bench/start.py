# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starting a container costs, from bundle to exec, against `crun run` and `runc run` of the same bundle.

The bundle has the full default profile: all namespaces, capabilities, masked paths, seccomp. Its filter of
devices is left out for the others, which may not load one on every machine; ours has it. Containers are
started in batches and one at a time, ours and theirs in turns, in network and mount namespaces of their own,
so that nothing of the machine is touched but empty cgroups. Times are medians, per container.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from modules import module

COUNT = 50
SINGLE = 30
RUNTIMES = ("crun", "runc")
THEIRS = Path("/run/theirs")
TREE = Path("/run/tree")
BUNDLES = Path("/var/lib/bare-containers/containers")
LAUNCH = "/usr/local/lib/bare-containers/launch"
OF_ITS_OWN = """
mount -t tmpfs none /run && mount -t tmpfs none /var/log && mount -t tmpfs none /usr/local/lib
mkdir -p /var/lib/bare-containers && mount -t tmpfs none /var/lib/bare-containers
exec "$@"
"""
WHERE_CRUN_LOOKS = """
unified=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
test $unified = /sys/fs/cgroup || mount --rbind $unified /sys/fs/cgroup
exec "$@"
"""


def names() -> list[str]:
    return [f"bench-start-{number}" for number in range(COUNT)]


def declare(state: str, count: int = COUNT) -> float:
    """The seconds that container_process takes for the first ``count``."""
    options = {
        "command": ["sleep", "infinity"],
        "rootfs": str(TREE),
        "rootfs_mode": "direct",
        "stop_timeout": 0,
    }
    began = time.perf_counter()
    module(
        "container_process",
        batch=[{"name": name, **options, "state": state} for name in names()[:count]],
    )
    return time.perf_counter() - began


def launch() -> float:
    """The seconds that one launcher takes for all."""
    began = time.perf_counter()
    subprocess.run([LAUNCH, "start", *names()], check=True)
    return time.perf_counter() - began


def stop_launched() -> None:
    for name in names():
        state = Path("/run/bare-containers", name, "state.json")
        if not state.exists():
            continue
        process = os.pidfd_open(json.loads(state.read_text())["pid"])
        signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
    groups = [Path(f"{cgroup()}/bare/{name}/cgroup.procs") for name in names()]
    while any(group.exists() and group.read_text() for group in groups):
        time.sleep(0.01)
    for name in names():
        Path("/run/bare-containers", name, "state.json").unlink(missing_ok=True)


def cgroup() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    raise SystemExit("no cgroup2 is mounted here")


def run_by(runtime: str, count: int) -> list[float]:
    """The seconds that each of the first ``count`` takes, one after the other as a runtime's users do it."""
    for name in names()[:count]:
        config = json.loads((BUNDLES / name / "config.json").read_text())
        config["linux"].pop("resources")
        config["linux"]["cgroupsPath"] = f"/bare/theirs-{name}"
        (THEIRS / name).mkdir(parents=True, exist_ok=True)
        (THEIRS / name / "config.json").write_text(json.dumps(config))
    seconds = []
    for name in names()[:count]:
        began = time.perf_counter()
        subprocess.run(
            [runtime, "run", "--detach", "--bundle", str(THEIRS / name), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        seconds.append(time.perf_counter() - began)
    for name in names()[:count]:
        subprocess.run([runtime, "delete", "--force", name], check=True)
    return seconds


def run_elsewhere(runtime: str, count: int) -> list[float]:
    """The same where cgroup2 is where other runtimes look for it."""
    inside = ["sh", sys.executable, __file__, "runtime", runtime, str(count)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", WHERE_CRUN_LOOKS, *inside],
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(line) for line in done.stdout.split()]


def launch_each(count: int) -> list[float]:
    """The seconds of a launcher for each container."""
    seconds = []
    for name in names()[:count]:
        began = time.perf_counter()
        subprocess.run([LAUNCH, "start", name], check=True)
        seconds.append(time.perf_counter() - began)
    return seconds


def memory() -> float:
    """The median proportional memory of a container that sleeps, in KiB."""
    found = []
    for name in names():
        pid = json.loads(Path("/run/bare-containers", name, "state.json").read_text())["pid"]
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    return statistics.median(found)


def make_tree() -> None:
    """Busybox is all of it."""
    (TREE / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", TREE / "bin/busybox")
    (TREE / "bin/sleep").symlink_to("busybox")


def measure(rounds: int) -> None:
    """Prints the table. Runs inside the namespaces that main() makes."""
    make_tree()
    module("launcher")
    seconds: dict[str, list[float]] = {}

    def add(what: str, each: float) -> None:
        seconds.setdefault(what, []).append(each)

    for _round in range(rounds):
        one = declare("started", 1)
        declare("absent", 1)
        whole = declare("started")
        kept = memory()
        declare("stopped")
        add("launcher, a batch", launch() / COUNT)
        stop_launched()
        for runtime in RUNTIMES:
            for each in run_elsewhere(runtime, SINGLE // rounds):
                add(f"{runtime} run", each)
        for each in launch_each(SINGLE // rounds):
            add("launcher, one at a time", each)
        stop_launched()
        add("the module, a batch", whole / COUNT)
        add("the module, each further", (whole - one) / (COUNT - 1))
        declare("absent")
    references = [statistics.median(seconds[f"{runtime} run"]) for runtime in RUNTIMES]
    print(f"{'a start':26} {'ms':>7}" + "".join(f"  against {runtime}" for runtime in RUNTIMES) + "  of")
    for what, each in sorted(seconds.items()):
        median = statistics.median(each)
        ratios = "".join(f"{median / reference:14.2f}" for reference in references)
        print(f"{what:26} {median * 1000:7.2f}{ratios}  {len(each)}")
    print(
        f"medians; a batch is {COUNT} containers, and its time per container. The module is container_process"
    )
    print("from the start of its interpreter to its end; each further container is what more than one cost")
    print(f"resident: one process per container, {kept:.0f} KiB (PSS)")


def main(rounds: int = 5) -> None:
    """Measures inside a host of its own."""
    inside = ["sh", sys.executable, __file__, "inside", str(rounds)]
    subprocess.run(["unshare", "--net", "--mount", "sh", "-ec", OF_ITS_OWN, *inside], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        measure(int(sys.argv[2]))
    elif sys.argv[1:2] == ["runtime"]:
        print(*run_by(sys.argv[2], int(sys.argv[3])), sep="\n")
    else:
        main(*map(int, sys.argv[1:]))

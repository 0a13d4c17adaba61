# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starting a container costs, from bundle to exec, against `crun run` of the same bundle.

Containers are started in batches, ours and crun's in turns, in network and mount namespaces of their own, so
that nothing of the machine is touched but empty cgroups. Times are medians of the batches, per container.
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

PROJECT = Path(__file__).parent.parent.parent
COUNT = 50
TREE = Path("/run/tree")
BUNDLES = Path("/var/lib/bare-containers/containers")
LAUNCH = "/usr/local/lib/bare-containers/launch"
RUN_MODULE = """
import json, runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.load(sys.stdin)}).encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.bare.containers.plugins.modules." + sys.argv[1], run_name="__main__")
"""
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


def module(name: str, arguments: dict) -> dict:
    """Runs a module as Ansible does, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_MODULE, name],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT / ".collections")},
    )
    result = json.loads(done.stdout)
    assert not result.get("failed"), result["msg"]
    return result


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
        {"batch": [{"name": name, **options, "state": state} for name in names()[:count]]},
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
        process = os.pidfd_open(json.loads(state.read_text())["pid"])
        signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
    while any(Path(f"{cgroup()}/bare/{name}/cgroup.procs").read_text() for name in names()):
        time.sleep(0.01)


def cgroup() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    raise SystemExit("no cgroup2 is mounted here")


def crun() -> float:
    """The seconds that crun takes for all, one after the other as its users do it."""
    began = time.perf_counter()
    for name in names():
        bundle = ["--bundle", str(BUNDLES / name)]
        subprocess.run(
            ["crun", "run", "--detach", *bundle, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    seconds = time.perf_counter() - began
    for name in names():
        subprocess.run(["crun", "delete", "--force", name], check=True)
    return seconds


def make_tree() -> None:
    """Busybox is all of it."""
    (TREE / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", TREE / "bin/busybox")
    (TREE / "bin/sleep").symlink_to("busybox")


def measure(rounds: int) -> None:
    """Prints the table. Runs inside the namespaces that main() makes."""
    make_tree()
    module("launcher", {})
    seconds: dict[str, list[float]] = {"crun run": [], "launcher": [], "the module": [], "each further": []}
    for _round in range(rounds):
        one = declare("started", 1)
        declare("absent", 1)
        seconds["the module"].append(declare("started"))
        seconds["each further"].append((seconds["the module"][-1] - one) * COUNT / (COUNT - 1))
        declare("stopped")
        seconds["launcher"].append(launch())
        stop_launched()
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", WHERE_CRUN_LOOKS, "sh", sys.executable, __file__, "crun"],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds["crun run"].append(float(done.stdout))
        declare("absent")
    reference = statistics.median(seconds["crun run"])
    print(f"per container of {COUNT}     ms  against crun run")
    for what, each in seconds.items():
        median = statistics.median(each)
        print(f"{what:20}  {median / COUNT * 1000:6.2f}  {median / reference:16.2f}")
    print(
        f"medians of {rounds}; the module is container_process from the start of its interpreter to its end,"
    )
    print("a moment to see who ends at once included; each further container is what 50 cost more than 1")


def main(rounds: int = 5) -> None:
    """Measures inside a host of its own."""
    inside = ["sh", sys.executable, __file__, "inside", str(rounds)]
    subprocess.run(["unshare", "--net", "--mount", "sh", "-ec", OF_ITS_OWN, *inside], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        measure(int(sys.argv[2]))
    elif sys.argv[1:2] == ["crun"]:
        print(crun())
    else:
        main(*map(int, sys.argv[1:]))

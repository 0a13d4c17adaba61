# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks and wall time of the two roles for 1, 10 and 50 containers, and what a container costs to keep.

On this machine with the direct supervisor, in network and mount namespaces of its own, so that nothing of
the machine is touched. Ratios are against the run for one container.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
COUNTS = (1, 10, 50)
PLAY = """
- name: Converge
  hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: bare.containers.host
    - role: bare.containers.containers
"""


def containers(count: int) -> list[dict]:
    """A bridge, an address and a command for each."""
    return [
        {
            "name": f"bench{number}",
            "rootfs": {"busybox": True},
            "network": {
                "bridge": "bench0",
                "address": f"10.203.{number // 250}.{number % 250 + 2}/16",
                "nat": True,
            },
            "process": {"command": ["sleep", "infinity"], "stop_signal": "KILL"},
        }
        for number in range(count)
    ]


def play(folder: Path, declared: list[dict]) -> tuple[float, int, int]:
    """Seconds, tasks and changed tasks of one run."""
    variables = {
        "containers_declared": declared,
        "containers_prune": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    results = folder / "results"
    results.write_text("")
    (folder / "play.yml").write_text(PLAY)
    (folder / "variables.json").write_text(json.dumps(variables))
    began = time.perf_counter()
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-e", f"@{folder / 'variables.json'}", folder / "play.yml"],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "tests/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "BARE_RESULTS": str(results),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    ran = [line for line in lines if line["status"] != "skipped"]
    return seconds, len(ran), sum(bool(line["result"].get("changed")) for line in ran)


def kept(count: int) -> tuple[int, float]:
    """The processes in all containers, and the median proportional memory of a container's first, in KiB."""
    pids = [
        json.loads(path.read_text())["pid"] for path in Path("/run/bare-containers").glob("bench*/state.json")
    ]
    assert len(pids) == count
    namespaces = {os.readlink(f"/proc/{pid}/ns/pid") for pid in pids}
    processes = sum(_namespace(folder, "pid") in namespaces for folder in Path("/proc").glob("[0-9]*"))
    memory = [_proportional_memory(pid) for pid in pids]
    return processes, statistics.median(memory)


def _namespace(process: Path, kind: str) -> str | None:
    try:
        return os.readlink(process / "ns" / kind)
    except OSError:
        return None


def _proportional_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss")


def measure(rounds: int) -> None:
    """Prints the table. Runs inside the namespaces that main() makes."""
    first: dict[int, list[float]] = {count: [] for count in COUNTS}
    second: dict[int, list[float]] = {count: [] for count in COUNTS}
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        play(folder, [])
        for _round in range(rounds):
            for count in COUNTS:
                seconds, tasks, changed = play(folder, containers(count))
                again, tasks_again, changed_again = play(folder, containers(count))
                assert changed
                assert not changed_again
                first[count].append(seconds)
                second[count].append(again)
                rows[count] = (tasks, tasks_again, *kept(count))
                play(folder, [])
    print("containers  tasks  first run s  second run s  second, against 1  processes  KiB each (PSS)")
    one = statistics.median(second[COUNTS[0]])
    for count in COUNTS:
        tasks, _again, processes, memory = rows[count]
        again = statistics.median(second[count])
        print(
            f"{count:10}  {tasks:5}  {statistics.median(first[count]):11.2f}  {again:12.2f}"
            f"  {again / one:17.2f}  {processes:9}  {memory:14.0f}"
        )
    print(f"medians of {rounds}; tasks that were skipped are not counted")


def main(rounds: int = 5) -> None:
    """Measures inside a host of its own."""
    folder = "/var/lib/bare-containers"
    inside = f'mount -t tmpfs none /run && mkdir -p {folder} && mount -t tmpfs none {folder} && exec "$@"'
    subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            inside,
            "sh",
            sys.executable,
            __file__,
            "inside",
            str(rounds),
        ],
        check=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        measure(int(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))

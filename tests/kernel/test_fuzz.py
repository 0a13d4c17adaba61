# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a config.json says, ``launch start`` starts a container, or says in one sentence why not, and then
nothing is left of it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import census
import configs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# All but the root file system and the cgroup, which are the test's own.
PLACES = [place for place in configs.PLACES if place[0] != "root" and place != ("linux", "cgroupsPath")]

MUTATIONS = st.one_of(
    configs.SHAPED.filter(lambda mutation: mutation[0] in PLACES).map(lambda each: (*each, "replace")),
    st.tuples(st.sampled_from(PLACES), configs.JUNK, st.sampled_from(["replace", "remove", "add"])),
)


class Bundle:
    """A bundle on a machine, started by hand with one config after the other."""

    def __init__(self, containers: Any, eventually: Any) -> None:
        self.name = containers.name("one")
        self.machine = containers.machine
        self._containers = containers
        self._eventually = eventually
        containers.converge(state="stopped", rootfs_mode="direct")
        place = containers.directory("one")
        # Where a mount point is made the file system keeps it, and nobody counts there.
        self.machine.shell(
            f"mount -t tmpfs tmpfs /mnt; cp -a {containers.tree} /mnt/tree; ln -s /mnt/tree {place}/rootfs"
        )
        self._config = Path(f"/proc/{self.machine.pid}/root{place}/config.json")

    def start(self, config: Any) -> subprocess.CompletedProcess[str]:
        self._config.write_text(json.dumps(config))
        words = self.machine.command("/usr/local/lib/bare-containers/launch", "start", self.name)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    def started(self) -> bool:
        """Whether the launcher has written down which process it is; that may have ended by now."""
        return self._containers.state()["pid"] > 0

    def end(self) -> None:
        """Kills it, and forgets it as the module does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._containers.state()["pid"], signal.SIGKILL)
        self._eventually(lambda: not self._containers.alive())
        run = f"/run/bare-containers/{self.name}"
        self.machine.shell(f"rm -f {run}/state.json {run}/config.json {run}/seccomp.bpf")
        for cgroup in self.cgroups():
            self._eventually(lambda cgroup=cgroup: not (cgroup / "cgroup.procs").read_text())
            cgroup.rmdir()

    def cgroups(self) -> list[Path]:
        """Those that a config may have had made."""
        top = self._containers.cgroups.parent
        return [
            path for path in (self._containers.cgroup("one"), top / "x", top / "bare/web") if path.exists()
        ]

    def census(self) -> census.Census:
        return census.take(self.machine, self._containers.cgroups)


@pytest.fixture
def bundle(containers: Any, eventually: Any) -> Bundle:
    return Bundle(containers, eventually)


def test_a_config_is_started_or_refused_in_one_sentence(bundle: Bundle, eventually: Any) -> None:
    valid = copy.deepcopy(configs.VALID)
    valid["linux"]["cgroupsPath"] = f"/bare/{bundle.name}"
    valid["process"]["args"] = ["sleep", "1000"]
    started = bundle.start(valid)
    assert started.stderr == ""
    bundle.end()
    empty = bundle.census()
    ways = []

    @settings(
        derandomize=True,
        max_examples=60,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(MUTATIONS)
    def start(mutation: Any) -> None:
        done = bundle.start(configs.changed(*mutation, of=valid))
        ways.append(done.returncode)
        if done.returncode == 0:
            assert done.stderr == ""
            assert bundle.started()
            bundle.end()
        else:
            assert done.returncode == 125
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"{bundle.name}: ")
            assert line.endswith(".")
            assert "Error: " not in line, line
        assert bundle.cgroups() == []
        with contextlib.suppress(AssertionError):
            eventually(lambda: bundle.census() == empty)
        assert census.difference(empty, bundle.census()) == {}

    start()
    assert ways.count(0) > 5
    assert ways.count(125) > 5

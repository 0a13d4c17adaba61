# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk can do to the store: be full, and lose its power. A container keeps what it has."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk import MEBIBYTE, Disk
from images import DIRECTORY, FILE, archive, make_directory
from rootfs import STORE, Entries, entries, fetch, ours, without

Machine = Any  # conftest.Machine
STATE = "/var/lib/bare-containers"


@pytest.fixture
def make_disk(machine: Machine, tmp_path: Path, eventually: Callable[..., Any]) -> Callable[[int], Disk]:
    """Has the machine keep all that is ours on a disk of so many bytes."""
    return lambda size: Disk(machine, tmp_path / "disk", size, STATE, eventually)


@pytest.mark.parametrize(
    ("source", "free"),
    [
        pytest.param("path", 2, id="while a tarball is unpacked"),
        pytest.param("image", 2, id="while an image is fetched"),
        pytest.param("image", 6, id="while an image is unpacked"),
    ],
)
def test_a_full_disk(
    machine: Machine, make_disk: Callable[[int], Disk], tmp_path: Path, source: str, free: int
) -> None:
    """One sentence says so, and there is room again for the next run."""
    make_disk(32 * MEBIBYTE)
    large = archive(("large", FILE, random.randbytes(2 * MEBIBYTE).hex()))
    (tmp_path / "large.tar").write_bytes(large)
    image = make_directory(tmp_path / "image", {}, {}, [large])
    busybox = {"name": "web", "busybox": True}
    fetch(machine, **busybox)
    before = ours(machine)
    room = int(machine.shell(f"df --output=avail --block-size=1 {STATE} | tail -1"))
    machine.shell(f"fallocate --length {room - free * MEBIBYTE} {STATE}/ballast")
    declared = {"path": str(tmp_path / "large.tar")} if source == "path" else {"image": f"dir:{image}"}
    full = fetch(machine, name="web", **declared, ok=False)
    assert "no space left on device" in full["msg"].lower()
    assert full["msg"].startswith(f"web: {source}: {declared[source]} ")
    assert full["msg"].endswith("; nothing was changed.")
    assert "\n" not in full["msg"]
    machine.shell(f"rm {STATE}/ballast")
    assert ours(machine) == before
    assert not fetch(machine, **busybox, verify=True)["changed"]
    assert fetch(machine, name="web", **declared)["changed"]
    assert not fetch(machine, name="web", **declared, verify=True)["changed"]


def many(name: str) -> bytes:
    """An archive of files that are worth being written late."""
    files = [(f"{name}/{number}", FILE, f"{name} {number}\n" * 500) for number in range(100)]
    return archive((name, DIRECTORY, ""), *files)


def stored(machine: Machine) -> Entries:
    """All that is in the layers which are there, but for what the archives say nothing of, and its digest."""
    found = without(entries(machine, f"{STORE}/layers"), "mtime", "same", "xattrs")
    return {path: entry for path, entry in found.items() if not path.endswith("/tree.sha256")}


def start(machine: Machine, **arguments: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        machine.module_command("rootfs_fetch"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(arguments).encode())
    process.stdin.close()
    return process


def test_power_that_is_cut_at_any_moment(
    machine: Machine, make_disk: Callable[[int], Disk], tmp_path: Path, instants: Any
) -> None:
    """What is not on the disk then is lost. A container has what it had, or all of what it is to have."""
    disk = make_disk(48 * MEBIBYTE)
    (tmp_path / "many.tar").write_bytes(many("tarball"))
    image = make_directory(tmp_path / "image", {}, {}, [many("lower"), many("upper")])
    sources = [{"name": "web", "path": str(tmp_path / "many.tar")}, {"name": "app", "image": f"dir:{image}"}]
    fetch(machine, batch=[{"name": each["name"], "busybox": True} for each in sources])
    disk.keep()
    began = time.monotonic()
    fetch(machine, batch=sources)
    taken = time.monotonic() - began
    finished, whole = ours(machine), stored(machine)
    for moment in instants.within(taken / 10, taken * 1.1, 10):
        disk.restore()
        running = start(machine, batch=sources)
        try:
            done = running.wait(moment) == 0
        except subprocess.TimeoutExpired:
            done = False
        disk.cut_power()
        running.kill()
        running.wait()
        disk.unmount()
        disk.mount()
        there = stored(machine)
        assert there == {path: whole[path] for path in there}, moment
        for name in ("web", "app"):
            kept = json.loads(machine.run("cat", f"{STATE}/containers/{name}/rootfs.json"))
            assert {path.removeprefix(f"{STORE}/layers/") for path in kept["layers"]} <= there.keys(), moment
            assert "busybox" not in kept or not done, moment
        next_run = fetch(machine, batch=[{**each, "verify": True} for each in sources])
        assert all("damaged: []" in part["before"] for part in next_run["diff"]), moment
        assert (ours(machine), stored(machine)) == (finished, whole), moment

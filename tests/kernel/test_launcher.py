# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher on a host: installed, repaired, removed; and how little is left of it in a container."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

DIRECTORY = "/usr/local/lib/bare-containers"


def test_it_converges(machine):
    machine.shell("mkdir -p /usr/local/lib; mount -t tmpfs tmpfs /usr/local/lib")
    listing = f"find {DIRECTORY} -type f -not -name '*.pyc' -printf '%p %m %T@\\n' 2>/dev/null | sort || :"
    assert machine.module("launcher", {}, check=True)["changed"]
    assert machine.shell(listing) == ""
    first = machine.module("launcher", {})
    assert first["changed"]
    assert first["program"] == f"{DIRECTORY}/launch"
    before = machine.shell(listing)
    again = machine.module("launcher", {})
    assert not again["changed"]
    assert again["diff"] == []
    assert machine.shell(listing) == before
    for drift in (
        f"echo '#' >> {DIRECTORY}/launch",
        f"chmod 644 {DIRECTORY}/launch",
        f"rm {DIRECTORY}/bare_containers/kernel/mount.py",
        f"touch {DIRECTORY}/bare_containers/kernel/of_an_older_version.py",
    ):
        machine.shell(drift)
        assert machine.module("launcher", {})["changed"], drift
        assert not machine.module("launcher", {})["changed"], drift
    gone = machine.module("launcher", {"state": "absent"})
    assert gone["changed"]
    assert machine.shell("ls /usr/local/lib") == ""
    assert not machine.module("launcher", {"state": "absent"})["changed"]


def test_the_commands_do_the_same(new_machine):
    one, other = new_machine(), new_machine()
    for machine in (one, other):
        machine.shell("mkdir -p /usr/local/lib; mount -t tmpfs tmpfs /usr/local/lib")
    other.shell("\n".join(one.module("launcher", {})["commands"]))
    assert not other.module("launcher", {})["changed"]
    other.shell("\n".join(other.module("launcher", {"state": "absent"}, check=True)["commands"]))
    assert not other.module("launcher", {"state": "absent"})["changed"]


def test_it_says_how_it_is_used(containers):
    launch = containers.machine.command(f"{DIRECTORY}/launch")
    for words in ([], ["start"], ["stop", "x"]):
        done = subprocess.run([*launch, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 125
        assert done.stderr.startswith("usage: ")


def test_a_second_start_is_refused_and_an_unknown_container_too(containers):
    containers.converge()
    launch = [f"{DIRECTORY}/launch", "start"]
    pid = containers.pid()
    command = containers.machine.command(*launch, containers.name("one"), containers.name("never"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    first, second = done.stderr.splitlines()
    assert f"is running already, as process {pid}" in first
    assert "config.json" in second
    assert containers.pid() == pid
    containers.machine.shell(f"rm -r /run/bare-containers/{containers.name('never')}")


def test_the_examples_run(machine):
    machine.shell("mkdir -p /usr/local/lib; mount -t tmpfs tmpfs /usr/local/lib")
    source = Path(__file__).parents[2] / "plugins/modules/launcher.py"
    text = source.read_text().split('EXAMPLES = r"""')[1].split('"""')[0]
    for task in yaml.safe_load(text):
        assert machine.module("launcher", task["bare.containers.launcher"])["changed"], task["name"]

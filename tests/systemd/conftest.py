# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual host with systemd as PID 1 and all controllers in cgroup2, on which Ansible runs the modules.

BARE_TESTHOST names it. One that does not run is brought up for these tests and taken down after them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAME = os.environ.get("BARE_TESTHOST", "systemd-tests")


class Host:
    """A test host that runs."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self._inventory = directory / "hosts.yml"
        self._inventory.write_text(_testhost("inventory", name).stdout)

    def shell(self, text: str) -> str:
        """What a shell script prints on the host; none of its commands may fail."""
        done = _testhost("ssh", self.name, "--", f"set -e\n{text}")
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` on the host."""
        return [*_TESTHOST, "ssh", self.name, "--", shlex.join(words)]

    def run(self, *words: str) -> str:
        """What a program prints on the host; it has to succeed."""
        return self.shell(shlex.join(words))

    def reboot(self) -> None:
        """Has the host reboot, and waits until it has."""
        done = _testhost("reboot", self.name)
        assert done.returncode == 0, done.stderr

    def module(self, name: str, arguments: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
        """The result of one task with a module of the collection, which may have failed."""
        return self.modules(name, [arguments], check=[check])[0]

    def modules(
        self, name: str, each: Sequence[Mapping[str, Any]], *, check: Sequence[bool] = ()
    ) -> list[dict[str, Any]]:
        """The results of several tasks with one module, in one play; ``check`` says which only tell."""
        return self.results(
            [
                {f"bare.containers.{name}": arguments, "check_mode": any(check[number : number + 1])}
                for number, arguments in enumerate(each)
            ]
        )

    def results(self, each: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The results of tasks, in one play; each may fail."""
        tasks: list[dict[str, Any]] = [
            {**task, "register": f"result{number}", "ignore_errors": True} for number, task in enumerate(each)
        ]
        results = "[" + ", ".join(f"result{number}" for number in range(len(each))) + "]"
        file = self._directory / "results.json"
        collect = {"content": f"{{{{ {results} | to_json }}}}", "dest": str(file)}
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        tasks.append({"ansible.builtin.copy": collect, "delegate_to": "localhost", "vars": here})
        self.play(tasks)
        collected: list[dict[str, Any]] = json.loads(file.read_text())
        return collected

    def play(self, tasks: Sequence[Mapping[str, Any]]) -> str:
        """Runs a play, which has to succeed, and gives what it prints."""
        play = {"hosts": self.name, "gather_facts": False, "tasks": [*tasks]}
        file = self._directory / "play.yml"
        file.write_text(json.dumps([play]))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--diff",
                "-i",
                str(self._inventory),
                str(file),
            ],
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


_TESTHOST = (sys.executable, str(ROOT / "tests/testhost/testhost"))


def _testhost(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_TESTHOST, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The test host, in the state that a host prepared for the modules comes up in."""
    running = f"\n{NAME}: " in f"\n{_testhost('list').stdout}"
    if not running:
        up = _testhost("up", NAME)
        assert up.returncode == 0, up.stderr
    yield Host(NAME, tmp_path_factory.mktemp("testhost"))
    if not running:
        _testhost("down", NAME)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of a converged host share. They look with the host's own tools, never through ours."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIO = Path(__file__).parent.parent
PROJECT = SCENARIO.parent.parent
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@dataclass
class Play:
    """What one run of a playbook returned."""

    returncode: int
    output: str
    results: list[dict[str, Any]]

    @property
    def changed(self) -> list[str]:
        """The names of the tasks that changed something."""
        return [line["task"] for line in self.results if line["result"].get("changed")]

    def of(self, module: str) -> dict[str, Any]:
        """The last result of a module of ours."""
        action = f"bare.containers.{module}"
        return [line["result"] for line in self.results if line["action"] == action][-1]

    @property
    def ours(self) -> list[dict[str, Any]]:
        """The results of all modules of ours, in order."""
        return [
            line["result"]
            for line in self.results
            if line["action"].startswith("bare.containers.") and line["status"] != "skipped"
        ]

    @property
    def commands(self) -> list[str]:
        """What a person would type on a prepared host, in order."""
        return [
            command
            for line in self.results
            if line["action"] != "bare.containers.launcher"
            for command in line["result"].get("commands", [])
        ]

    @property
    def differing(self) -> list[tuple[str, str]]:
        """What differed, as module and name, sorted."""
        return sorted((action.rpartition(".")[2], name.split(" ")[0]) for action, name in self._titles)

    @property
    def _titles(self) -> list[tuple[str, str]]:
        return [
            (line["action"], diff["before_header"])
            for line in self.results
            for diff in line["result"].get("diff") or []
            if line["action"].startswith("bare.containers.")
        ]

    @property
    def differences(self) -> dict[str, tuple[dict, dict]]:
        """Before and after of all that differed, by the part and the container."""
        return {
            f"{line['action']} {diff['before_header']}": (
                yaml.safe_load(diff["before"]),
                yaml.safe_load(diff["after"]),
            )
            for line in self.results
            for diff in line["result"].get("diff") or []
            if line["action"].startswith("bare.containers.")
        }


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Play]:
    """Runs a playbook against the host; ``declared`` replaces the containers, ``check`` asks only."""

    def run(
        playbook: str = "converge.yml",
        *,
        declared: list[dict] | None = None,
        check: bool = False,
        fails: bool = False,
        **variables: Any,
    ) -> Play:
        if declared is not None:
            variables["containers_declared"] = declared
        results = tmp_path_factory.mktemp("play") / "results"
        results.touch()
        command = ["ansible-playbook", f"--inventory={EPHEMERAL / 'hosts.yml'}", "--diff"]
        command += ["--check"] if check else []
        command += ["--extra-vars", json.dumps(variables), str(SCENARIO / playbook)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
                "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "tests/callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "results",
                "BARE_RESULTS": str(results),
            },
        )
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return Play(done.returncode, done.stdout, lines)

    return run


@pytest.fixture(scope="session")
def ssh() -> Callable[[str, str], None]:
    """Runs a command on the host with standard input."""

    def run(command: str, stdin: str) -> None:
        ssh_config = str(EPHEMERAL / "ssh_config")
        subprocess.run(
            ["ssh", "-F", ssh_config, "molecule-default", command], input=stdin, text=True, check=True
        )

    return run


@pytest.fixture
def declare() -> Callable[..., list[dict[str, Any]]]:
    """The scenario's containers, with the parts given replaced in the one that is named."""
    declared = yaml.safe_load((SCENARIO / "vars/containers.yml").read_text())["containers_declared"]

    def changed(name: str, **parts: Any) -> list[dict[str, Any]]:
        return [{**one, **parts} if one["name"] == name else one for one in declared]

    return changed


@dataclass
class Container:
    """A running container, seen from its host."""

    host: Any
    name: str

    @property
    def unit(self) -> str:
        return f"bare-{self.name}.service"

    @property
    def pid(self) -> str:
        """The unit's main process, as systemd has it."""
        pid = self.host.check_output("systemctl show --property=MainPID --value %s", self.unit)
        assert pid != "0", self.host.check_output("systemctl status --no-pager %s || true", self.unit)
        return pid

    @property
    def cgroup(self) -> str:
        return "/sys/fs/cgroup" + self.host.check_output(
            "systemctl show --property=ControlGroup --value %s", self.unit
        )

    def run(self, command: str) -> Any:
        """A shell command inside, by the nsenter of util-linux; it joins the container's cgroup first."""
        join = f"echo $$ > {self.cgroup}/cgroup.procs"
        enter = f"exec nsenter --target {self.pid} --all env -i PATH=/bin sh -c {shlex.quote(command)}"
        # The outer shell makes a status of the end by a signal, which ssh can't tell from its own failure.
        return self.host.run("sh -c %s; exit $?", f"{join} && {enter}")

    def output(self, command: str) -> str:
        done = self.run(command)
        assert done.rc == 0, (command, done.stdout, done.stderr)
        return done.stdout.rstrip("\n")

    def control(self, file: str) -> str:
        """A control file of its cgroup, as the host has it."""
        return self.host.check_output("cat %s", f"{self.cgroup}/{file}")

    def counters(self, file: str) -> dict[str, int]:
        """A flat keyed control file such as memory.events."""
        return {key: int(value) for key, value in map(str.split, self.control(file).splitlines())}

    @property
    def status(self) -> Mapping[str, str]:
        """/proc/PID/status of its PID 1."""
        lines = self.host.check_output("cat /proc/%s/status", self.pid).splitlines()
        return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}


@pytest.fixture
def container(host: Any) -> Callable[[str], Container]:
    return lambda name: Container(host, name)


PUBLISHED = "curl --silent --fail --max-time 20 http://203.0.113.1"

REACHES = {
    ("web", "ping -c 1 -W 10 203.0.113.2"): True,  # the internet, over its first link
    ("web", "ping -c 1 -W 10 bare"): True,  # its neighbour on the second, by name
    ("bare", "ping -c 1 -W 10 web"): True,
    ("bare", "timeout 2 wget -qO- http://web/"): False,  # which denies it
    ("stubborn", "ping -c 1 -W 2 10.200.0.2"): False,  # which is isolated
    ("internet", f"{PUBLISHED}:8091/"): True,  # the last port of a range
    ("internet", f"{PUBLISHED}:8090/"): False,  # the first, which leads to where nobody listens
}
"""Who reaches somebody by which command, as the containers are declared."""


@pytest.fixture
def astray(host: Any, container: Callable[[str], Container]) -> Callable[[], list[tuple[str, str]]]:
    """The entries of REACHES that are not so."""

    def succeeds(who: str, command: str) -> bool:
        if who == "internet":
            return host.run(f"ip netns exec internet {command}").rc == 0
        return container(who).run(command).rc == 0

    return lambda: [way for way, reached in REACHES.items() if succeeds(*way) != reached]


def eventually(holds: Callable[[], Any], *, within: float = 60) -> Any:
    """What ``holds`` returns as soon as that is true; fails after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {holds}"
        time.sleep(0.2)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually

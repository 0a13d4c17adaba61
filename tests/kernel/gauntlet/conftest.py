# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attacks share: the launcher run by hand, so that it can be weakened, and bundles tampered with.

Each test makes an attack that has broken a container runtime, sees it fail, takes out what stands in its way,
and sees the same attack succeed. Whatever succeeds reaches no further than the Machine of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DIRECTORY = "/usr/local/lib/bare-containers"


class Launcher:
    """The launcher on a test's machine. The modules would refuse what is done to it here."""

    def __init__(self, containers: Any, eventually: Callable[..., Any]) -> None:
        self._containers = containers
        self._machine = containers.machine
        self._eventually = eventually

    def weaken(self, file: str, old: str, new: str) -> None:
        """Replaces a piece of its text, which is there just once, in ``container/launch.py`` or the like."""
        place = f"{DIRECTORY}/bare_containers/{file}"
        text = self._machine.run("cat", place)
        assert text.count(old) == 1, f"{file} has no longer what is to be taken out: {old!r}"
        self._containers.write(place, text.replace(old, new))
        self._machine.shell(f"rm -rf {os.path.dirname(place)}/__pycache__")

    def declare(self, name: str = "one", **options: Any) -> None:
        """Has the module write the bundle, for start()."""
        self._containers.converge(name, state="stopped", **options)

    def tamper(self, change: Callable[[dict[str, Any]], None], name: str = "one") -> None:
        """Changes the bundle's config.json."""
        place = f"{self._containers.directory(name)}/config.json"
        config = json.loads(self._machine.run("cat", place))
        change(config)
        self._containers.write(place, json.dumps(config))

    def start(
        self,
        name: str = "one",
        *,
        words: tuple[str, ...] = (),
        through: tuple[str, ...] = (),
        **options: Any,
    ) -> str:
        """Starts it, anew if it runs; gives what the launcher complains of, nothing where it succeeds.

        ``words`` are options of the launcher's, ``through`` words in front of it, ``options`` go to
        subprocess.run().
        """
        self.end(name)
        unique = self._containers.name(name)
        self._machine.shell(f"rm -f /var/log/bare-containers/{unique}.log")
        command = self._machine.command(*through, f"{DIRECTORY}/launch", "start", *words, unique)
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert (done.returncode == 0) is (done.stderr == ""), done
        return done.stderr

    def end(self, name: str = "one") -> None:
        """Kills its first process, and waits for that."""
        if self._containers.alive(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._containers.state(name)["pid"], signal.SIGKILL)
            self._eventually(lambda: not self._containers.alive(name))

    def execute(
        self,
        *command: str,
        name: str = "one",
        user: str | None = None,
        cwd: str | None = None,
        timeout: int | None = None,
        through: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
        **options: Any,
    ) -> str:
        """What a command in it writes, or ``failed`` and why it could not be run, or ``timeout``."""
        with (
            tempfile.TemporaryFile() as request,
            tempfile.TemporaryFile() as output,
            open("/dev/null") as null,
        ):
            stdio = [null.fileno(), output.fileno(), output.fileno()]
            wanted = {"name": self._containers.name(name), "args": command, "env": [], "stdio": stdio}
            request.write(json.dumps([{**wanted, "user": user, "cwd": cwd, "timeout": timeout}]).encode())
            request.seek(0)
            launch = (*through, f"{DIRECTORY}/launch", "exec", str(request.fileno()))
            done = subprocess.run(
                self._machine.command(*launch),
                pass_fds=(request.fileno(), *stdio, *pass_fds),
                capture_output=True,
                text=True,
                check=False,
                **options,
            )
            assert done.returncode == 0, done
            output.seek(0)
            verdict = done.stdout.removeprefix("0 ").rstrip("\n")
            return verdict if verdict.startswith(("failed", "timeout")) else output.read().decode()


@pytest.fixture
def launcher(containers: Any, eventually: Callable[..., Any]) -> Launcher:
    """The one that the module has installed."""
    return Launcher(containers, eventually)


class Collection:
    """A copy of the collection, for modules that are weakened themselves."""

    def __init__(self, machine: Any, place: Path) -> None:
        self._machine = machine
        self._place = place
        self._plugins = place / "ansible_collections/bare/containers/plugins"
        shutil.copytree(Path(__file__).parents[3] / "plugins", self._plugins)

    def weaken(self, file: str, old: str, new: str) -> None:
        """Replaces a piece of a file in module_utils, which is there just once."""
        place = self._plugins / "module_utils" / file
        text = place.read_text()
        assert text.count(old) == 1, f"{file} has no longer what is to be taken out: {old!r}"
        place.write_text(text.replace(old, new))

    def module(self, name: str, arguments: dict[str, Any], **variables: str) -> dict[str, Any]:
        """The result of one of its modules, with these variables in its environment."""
        words = self._machine.module_command(name)
        path = next(word for word in words if word.startswith("PYTHONPATH=")).partition("=")[2]
        own = {"PYTHONPATH": f"{self._place}:{path}", "PYTHONDONTWRITEBYTECODE": "1"}
        result: dict[str, Any] = self._machine.module(name, arguments, environment={**own, **variables})
        return result


@pytest.fixture
def collection(machine: Any, tmp_path: Path) -> Collection:
    """A copy of this one."""
    return Collection(machine, tmp_path)

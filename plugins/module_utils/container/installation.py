# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher on the host: this collection's own files, copied to where systemd and the modules run them."""

from __future__ import annotations

import functools
import hashlib
import os
import pkgutil
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..converge import Failure, State, Step
from ..kernel import file
from ..options import Option, Options
from ..shell import command, write_file

if TYPE_CHECKING:
    # Ansible sends a module what is imported anywhere in its text. Here that is all: what the launcher does
    # is not for us to run, and compiling it would take a third of a module's time.
    from ..kernel import (  # noqa: F401
        capability,
        device_filter,
        mount,
        namespace,
        path,
        process,
        scheduling,
        seccomp,
        syscall,
    )
    from . import (  # noqa: F401
        bundle,
        check,
        config,
        enter,
        filesystem,
        hooks,
        identity,
        init,
        launch,
        mount_options,
        privileges,
        protection,
        terminal,
    )

OPTIONS = Options((Option("state", default="present", choices=("present", "absent")),))

DIRECTORY = Path("/usr/local/lib/bare-containers")
LAUNCHER = str(DIRECTORY / "launch")

_PACKAGE = DIRECTORY / "bare_containers"
_MODULES = {
    "kernel": (
        "capability",
        "device_filter",
        "mount",
        "namespace",
        "path",
        "process",
        "scheduling",
        "seccomp",
        "syscall",
    ),
    "container": (
        "bundle",
        "check",
        "config",
        "enter",
        "filesystem",
        "hooks",
        "identity",
        "init",
        "launch",
        "mount_options",
        "privileges",
        "protection",
        "terminal",
    ),
}

_PROGRAM = f"""\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, {str(DIRECTORY)!r})
from bare_containers.container.protection import protect_interpreter

protect_interpreter()

from bare_containers.container.launch import main

sys.exit(main(sys.argv[1:]))
"""


@functools.cache
def files() -> dict[Path, str]:
    """Every file of the launcher and its text. Raises OSError."""
    texts = {_PACKAGE / directory / "__init__.py": "" for directory in ("", "kernel", "container")}
    for directory, modules in _MODULES.items():
        for module in modules:
            texts[_PACKAGE / directory / f"{module}.py"] = _source(directory, module)
    return {**texts, Path(LAUNCHER): _PROGRAM}


def mismatch() -> Failure | None:
    """Why the installed launcher is not to be used, or None: bundles are for the one of this version."""
    if all(file.read_text(path) == text for path, text in files().items()):
        return None
    state = "not of this collection's version" if os.path.exists(LAUNCHER) else "not installed"
    return Failure(
        f"The launcher {LAUNCHER} is {state}; the module bare.containers.launcher, which the role "
        "bare.containers.host runs, installs it; nothing was changed."
    )


def run_launcher(*arguments: str, inherited: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the launcher to its end, with the descriptors ``inherited`` beside pipes for its output."""
    return subprocess.run(  # pylint: disable=ansible-bad-function
        [LAUNCHER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=inherited,
        check=False,
    )


class Installation:
    """The installed launcher as a resource (converge.Resource)."""

    name = "launcher"

    def __init__(self, state: str) -> None:
        self._state = state

    def read(self) -> State:
        found = {}
        for directory, __, names in os.walk(DIRECTORY):
            for place in (Path(directory, name) for name in names if not name.endswith(".pyc")):
                found[str(place)] = _described(place.read_bytes(), stat.S_IMODE(place.lstat().st_mode))
        return {"state": "present" if DIRECTORY.exists() else "absent", "files": dict(sorted(found.items()))}

    def expect(self, __: State) -> State:
        wanted = files() if self._state == "present" else {}
        described = {str(path): _described(text.encode(), _mode(path)) for path, text in wanted.items()}
        return {"state": self._state, "files": dict(sorted(described.items()))}

    def plan(self, actual: State, expected: State) -> list[Step]:
        if actual == expected:
            return []
        if self._state == "absent":
            return [
                Step("launcher", (command(["rm", "-rf", DIRECTORY]),), lambda: file.remove_tree(DIRECTORY))
            ]
        surplus = [Path(path) for path in actual["files"] if path not in expected["files"]]
        steps = [Step(str(path), (command(["rm", path]),), _remover(path)) for path in surplus]
        return steps + [
            Step(str(path), write_file(path, text, _mode(path)), _writer(path, text))
            for path, text in files().items()
            if actual["files"].get(str(path)) != expected["files"][str(path)]
        ]

    def facts(self, __: State) -> Mapping[str, Any]:
        return {"program": LAUNCHER}


def _mode(path: Path) -> int:
    return 0o755 if path == Path(LAUNCHER) else 0o644


def _described(content: bytes, mode: int) -> str:
    return f"mode {mode:04o}, sha256 {hashlib.sha256(content).hexdigest()}"


def _writer(path: Path, text: str) -> Callable[[], None]:
    return lambda: file.write_atomically(path, text, _mode(path))


def _remover(path: Path) -> Callable[[], None]:
    return lambda: file.remove(path)


def _source(directory: str, module: str) -> str:
    """A module's text, also from the archive in which Ansible sends it. Raises OSError."""
    package = __name__.rpartition(".")[0].rpartition(".")[0]
    return (pkgutil.get_data(f"{package}.{directory}", f"{module}.py") or b"").decode()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept on the host, and where: one folder for each container, with one declaration for each part of
it.

::

    /var/lib/bare-containers/containers/NAME/   rootfs.json cgroup.json network.json process.json
                                                config.json: the bundle (OCI runtime spec, "bundle")
                                                seccomp.bpf health.json: its filter, compiled; its check
                                                etc/ upper/ work/ rootfs/: its own files, and where its root
                                                is mounted, or is, by the layers that copied.json tells
    /var/lib/bare-containers/network/           what their networks share: rules, bridges, names
    /var/lib/bare-containers/store/             root file systems, shared
    /run/bare-containers/NAME/                  state.json (OCI runtime spec, "state") of the running process,
                                                health.json: how it stands by its check
    /usr/local/lib/bare-containers/             the launcher
    /run/bare-dns@BRIDGE.pid                    the PID of a bridge's name server; bare-dns@BRIDGE.service
    /run/netns/NAME                             its network namespace (ip-netns(8))
    /etc/systemd/system/bare-NAME.service       its unit, under systemd; bare-health@NAME.{timer,service}: who
                                                checks it
    /etc/logrotate.d/bare-NAME.conf             what keeps its log small, where it has a file for it

The rooms (cgroup, network, rootfs, container) know each other's work only by what is written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import file_steps
from .converge import Failure, Step
from .kernel import file
from .shell import command

STATE = Path("/var/lib/bare-containers")
RUN = Path("/run/bare-containers")
LAUNCHER = Path("/usr/local/lib/bare-containers/launch")
PARTS = ("rootfs", "cgroup", "network", "process")
NETWORK_UNIT = "bare-network.service"
LOCK_TIMEOUT = 60.0
_LOCKS = "lock"

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")


def container_name(value: str) -> str:
    """``value`` where it can name a container, and so a folder, a unit and a namespace. Raises ValueError."""
    if not _NAME.fullmatch(value):
        raise ValueError("up to 64 letters, digits, '_', '.' and '-', beginning with a letter or digit")
    if value == _LOCKS:
        raise ValueError(f"any other name: {RUN / _LOCKS} has the locks of all containers")
    if unit(value) == NETWORK_UNIT:
        raise ValueError(f"any other name: {NETWORK_UNIT} is the unit that rebuilds all networks at boot")
    return value


def directory(name: str) -> Path:
    """The container's folder on disk."""
    return STATE / "containers" / name


def unit(name: str) -> str:
    """The container's unit name."""
    return f"bare-{name}.service"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Holds the container against other runs on this host. Raises Failure naming the holder after
    LOCK_TIMEOUT seconds."""
    try:
        with file.lock(RUN / _LOCKS / name, timeout=LOCK_TIMEOUT):
            yield
        file.remove_empty(RUN / _LOCKS, up_to=RUN.parent)
    except file.Locked as held:
        holder = "another process" if held.pid is None else f"process {held.pid}"
        raise Failure(f"name: {name!r} is being changed by {holder}; nothing was changed.") from None


def sweep_locks() -> None:
    """Removes the files of locks that nobody holds, as a run that was killed leaves them. Raises OSError."""
    folder = RUN / _LOCKS
    for name in os.listdir(folder) if folder.is_dir() else ():
        with contextlib.suppress(file.Locked), file.lock(folder / name, timeout=0):
            continue
    file.remove_empty(folder, up_to=RUN.parent)


class Declaration:
    """One part of a container as it was last declared, in normal form: what a later run compares with.

    It is how a container is known to be ours: it is written before anything of that part is made and removed
    after all of it is gone.
    """

    def __init__(self, name: str, part: str) -> None:
        self.path = directory(name) / f"{part}.json"
        self._part = part

    def read(self) -> dict[str, Any] | None:
        """The declaration, or None. Raises Failure for a damaged file, OSError."""
        try:
            text = file.read_text(self.path)
            declaration = {} if text is None else json.loads(text)
        except (RecursionError, ValueError):
            declaration = None
        if not isinstance(declaration, dict):
            raise Failure(f"{self.path} is no JSON object; remove it to have the container declared anew.")
        return None if text is None else declaration

    def write_step(self, declaration: Mapping[str, Any]) -> Step:
        """The step that keeps ``declaration`` (plain data)."""
        text = json.dumps(declaration, indent=2, sort_keys=True) + "\n"
        return file_steps.write(f"{self._part} declaration", self.path, text, 0o600)

    def is_left(self) -> bool:
        """Whether remove_step() has something to remove: the declaration, or what a killed run left of it.

        Which is half a file, or a folder that has nothing in it any more. Raises OSError.
        """
        if self.path.exists() or file.beside(self.path).exists():
            return True
        nearest = next((folder for folder in self._folders() if folder.is_dir()), None)
        return nearest is not None and not os.listdir(nearest) and not os.path.ismount(nearest)

    def remove_step(self) -> Step:
        """The step that forgets the part, and the container's folder with its last part."""
        folders = [folder for folder in self._folders() if folder.is_dir()]
        clear = (command(["rmdir", "--ignore-fail-on-non-empty", *folders]),) if folders else ()
        return Step(f"{self._part} declaration", (f"rm -f {self.path}", *clear), self._remove)

    def _folders(self) -> tuple[Path, ...]:
        """Those that are only there for what is in them, innermost first."""
        return self.path.parent, self.path.parent.parent, STATE

    def _remove(self) -> None:
        file.remove(self.path)
        file.remove_empty(self.path.parent, up_to=STATE.parent)


def read_json(path: Path) -> Any:
    """What is in a file of ours: None without one, its text where that is no JSON. Raises OSError."""
    text = file.read_text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def names() -> list[str]:
    """The containers of which there is anything on this host: a folder of ours, or a running process; sorted.
    Raises OSError."""
    folders = {path.name for path in (STATE / "containers").glob("*") if path.is_dir()}
    return sorted(folders | {path.parent.name for path in RUN.glob("*/state.json")})


def declared_names(part: str) -> list[str]:
    """The containers of ours that have this part, sorted. Raises OSError."""
    return sorted(path.parent.name for path in (STATE / "containers").glob(f"*/{part}.json"))

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names: in its hosts(5), each container has those of all containers that are behind the same bridge.

There is one list for each bridge; those of a container's bridges are below the lines of its own. A container
that is started gets them from the launcher (container/launch.py); when somebody comes to a bridge or leaves
it, the lists of those that have been started are written anew in place, as the running container has that
very file mounted. A name server that a bridge may have reads the list where it is (dns.py).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..converge import State, Step
from ..kernel import file
from ..options import differences
from ..shell import command
from .script import TextFile, digest
from .survey import DIRECTORY, Survey

LISTS = DIRECTORY / "names"
"""A folder for each bridge, and in it the list of what its containers have in their hosts(5)."""

STARTED = "# Of this container, added when it was started:"
"""The line of a container's hosts(5) below which is what the launcher adds (container/bundle.py)."""

HEAD = "# Of the containers on the same bridge:"
"""The line that begins a list."""

_LIST = "hosts"
_LIMIT = 1 << 20
"""How many bytes of a container's hosts(5) are looked at: it can make that as large as it likes."""


def folder(bridge: str) -> Path:
    """Where the list of a bridge is, and no other."""
    return LISTS / bridge


def _list(bridge: str) -> TextFile:
    return TextFile(folder(bridge) / _LIST)


class Names:
    """The resource of all lists: each bridge's, and each container's copy of it.

    A container that was never started has none as yet, and is left alone.
    """

    name = "_names"

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def read(self) -> State:
        kept = sorted(path.parent.name for path in LISTS.glob(f"*/{_LIST}"))
        containers = {name: _Hosts(name).digest() for name in self._concerned()}
        return {
            "bridges": {bridge: (file.read_text(_list(bridge).path) or "").splitlines() for bridge in kept},
            "containers": {name: copy for name, copy in containers.items() if copy is not None},
        }

    def expect(self, actual: State) -> State:
        lists = {
            bridge: sorted(
                [*self._lines(bridge), *self._lost(actual["bridges"].get(bridge, []))], key=_named_in
            )
            for bridge in sorted({*actual["bridges"], *self._bridges()})
        }
        bridges = {bridge: [HEAD, *lines] for bridge, lines in lists.items() if lines}
        copies = {name: self._copy(name, now, bridges) for name, now in actual["containers"].items()}
        return {"bridges": bridges, "containers": copies}

    def _copy(self, name: str, now: str, bridges: Mapping[str, Sequence[str]]) -> str:
        if name in self._survey.unreadable:
            return now
        return digest(self._lists(name, bridges))

    def _lists(self, name: str, bridges: Mapping[str, Sequence[str]]) -> list[str]:
        """The lists of all bridges that a container is behind, one below the other."""
        return [line for bridge in self._bridges_of(name) for line in bridges.get(bridge, [])]

    def _lines(self, bridge: str) -> list[str]:
        """Who is behind the bridge."""
        return [
            f"{interface.ip} {network.name}"
            for network in self._survey.declared.values()
            for attachment in network.attachments
            if attachment.segment == bridge
            for interface in attachment.main_addresses
        ]

    def _lost(self, lines: Sequence[str]) -> list[str]:
        """Who was behind it when that could still be read."""
        return [line for line in lines if _named_in(line) in self._survey.unreadable]

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        if actual == expected:
            return []
        steps = []
        for bridge, (_now, lines) in differences(actual["bridges"], expected["bridges"]).items():
            kept = _list(bridge)
            changes = f"bridges.{bridge}"
            steps.append(kept.remove_step(changes) if lines is None else kept.write_step(changes, lines))
        for name, copy in expected["containers"].items():
            if actual["containers"][name] != copy:
                there = [bridge for bridge in self._bridges_of(name) if bridge in expected["bridges"]]
                steps.append(_Hosts(name).step(there, self._lists(name, expected["bridges"])))
        return steps

    def facts(self, actual: State) -> Mapping[str, Any]:
        return {}

    def _concerned(self) -> list[str]:
        """The containers that have a network, or have one until this task is done."""
        return sorted({*self._survey.ours, *self._survey.declared})

    def _bridges(self) -> set[str]:
        return {bridge for name in self._survey.declared for bridge in self._bridges_of(name)}

    def _bridges_of(self, name: str) -> list[str]:
        """Those that a container is behind, once each, in the order of its links; a VLAN is one by itself."""
        network = self._survey.declared.get(name)
        bridges = [each.segment for each in network.attachments if each.segment] if network else []
        return list(dict.fromkeys(bridges))


def _named_in(line: str) -> str:
    return line.rpartition(" ")[2]


class _Hosts:
    """A container's hosts(5), in which the container itself may have written anything."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = host.directory(name) / "etc/hosts"

    def digest(self) -> str | None:
        """Of the list in it, or None where the container was never started. Raises OSError."""
        above, mark, below = self._read()
        if f"\n{STARTED}\n".encode() not in b"\n" + above:
            return None
        return digest((mark + below).decode("utf-8", "replace").splitlines())

    def step(self, bridges: Sequence[str], lines: Sequence[str]) -> Step:
        """The step that makes ``lines``, which these bridges have, the lists in it."""
        quoted = shlex.quote(str(self._path))
        new = f"; {command(['cat', *(_list(bridge).path for bridge in bridges)])}" if bridges else ""
        words = f"names=$(sed '/^{HEAD}$/,$d' {quoted}{new}) && printf '%s\\n' \"$names\" > {quoted}"
        return Step(f"containers.{self._name}", (words,), lambda: self._write(lines))

    def _read(self) -> tuple[bytes, bytes, bytes]:
        """What is above the list, its first line, and what is below."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b"", b"", b""
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read(_LIMIT).partition(f"{HEAD}\n".encode())

    def _write(self, lines: Sequence[str]) -> None:
        """In place: another file by this name would not be the one that the container has mounted."""
        above = self._read()[0]
        text = above + "".join(f"{line}\n" for line in lines).encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(text)
            opened.truncate()

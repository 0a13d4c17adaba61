# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files of ours, and the scripts that rebuild all of this at boot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import file_steps, host
from ..converge import Step
from ..kernel import file
from ..shell import command


class TextFile:
    """A file that is wholly ours; in a state it is its digest()."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def digest(self) -> str | None:
        """Of what it has, or None where there is no such file. Raises OSError."""
        text = file.read_text(self.path)
        return None if text is None else digest(text.splitlines())

    def write_step(self, changes: str, lines: Sequence[str]) -> Step:
        """The step that makes these lines its content."""
        return file_steps.write(changes, self.path, "\n".join(lines) + "\n")

    def remove_step(self, changes: str) -> Step:
        """The step that removes it, and of our own folders those that it leaves empty."""
        line = command(["rm", "-f", self.path])
        if self._is_in_state:
            # One command with the other: it has to be done after each file, which may be the last.
            folders = (folder for folder in self.path.parents if host.STATE in (folder, *folder.parents))
            line += " && " + command(["rmdir", "--ignore-fail-on-non-empty", *folders])
        return Step(changes, (line,), self._remove)

    def _remove(self) -> None:
        file.remove(self.path)
        if self._is_in_state:
            file.remove_empty(self.path.parent, up_to=host.STATE.parent)

    @property
    def _is_in_state(self) -> bool:
        return host.STATE in self.path.parents


def digest(lines: Sequence[str]) -> str:
    """What stands for a text in a state: its lines are in the commands already."""
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def script(commands: Iterable[str]) -> list[str]:
    """The lines of a shell script of these commands, each of which may be of several lines."""
    head = ["#!/bin/sh", "# Made by bare.containers.netns_veth, run by bare-network.service.", "set -e"]
    return [*head, *"\n".join(commands).splitlines()]

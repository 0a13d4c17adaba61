# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps about a whole file, which is there as it should be or not at all."""

from __future__ import annotations

from pathlib import Path

from .converge import Needs, Step
from .kernel import file
from .shell import command, write_file


def write(changes: str, path: Path, text: str | bytes, mode: int = 0o644, needs: Needs = Needs.LIVE) -> Step:
    """The step that makes ``text`` the content of the file, in a folder that is made if need be."""
    return Step(changes, write_file(path, text, mode), lambda: file.write_atomically(path, text, mode), needs)


def remove(changes: str, path: Path) -> Step:
    """The step after which there is no such file."""
    return Step(changes, (command(["rm", "-f", path]),), lambda: file.remove(path))

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages in docs/ say is there is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GAUNTLET = ROOT / "tests/kernel/gauntlet"


def test_every_attack_is_in_the_table_and_every_test_of_the_table_is_there():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs/gauntlet.md").read_text())
    there = {
        (path.name, name)
        for path in GAUNTLET.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert set(named) <= there
    # Beside the attacks are archives that are no more than broken.
    others = {name for file, name in there - set(named) if file != "test_archives.py"}
    assert others == set()

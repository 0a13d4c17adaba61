# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures: `python tests/bench` for all of them, or with names of some: start, site, rootfs, network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHES = ("start", "site", "rootfs", "network")

for name in sys.argv[1:] or BENCHES:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, Path(__file__).parent / f"{name}.py"], check=True)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle as a shell recipe: what the launcher does for it, in the words of util-linux and iproute2."""

from __future__ import annotations

from typing import Any


def recipe(name: str, config: dict[str, Any]) -> list[str]:
    return []

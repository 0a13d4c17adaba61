# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A resource brought to what it should be, as the engine does it, without the engine."""

from __future__ import annotations

from typing import Any


def settle(resource: Any) -> bool:
    """Whether something had to be done; afterwards it is as expected, and nothing has to be."""
    actual = resource.read()
    steps = resource.plan(actual, resource.expect(actual))
    for step in steps:
        step.apply()
    after = resource.read()
    assert after == resource.expect(actual)
    assert resource.plan(after, resource.expect(after)) == []
    return bool(steps)

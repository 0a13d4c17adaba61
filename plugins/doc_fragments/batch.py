# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """The options of every module that say which containers it is about: one, or many in one task."""

    DOCUMENTATION = r"""
options:
  name:
    description:
      - The container's name, of up to 64 letters, digits, C(_), C(.) and C(-), beginning with a letter or digit.
      - Required unless O(batch) is given.
    type: str
  batch:
    description:
      - Sets of this module's own options, each with a O(name), converged together in one task.
      - All of them are checked before anything is changed. When one fails later, the others are still converged; the task
        then fails and RV(ignore:containers) says what became of each.
      - Mutually exclusive with O(name).
    type: list
    elements: dict
"""

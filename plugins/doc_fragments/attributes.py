# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module of the collection says about itself: the names and meanings of the attributes.

A module extends C(bare.containers.attributes) and states only its own C(support) for each; it
extends C(bare.containers.attributes.action_group) when it is listed in C(meta/runtime.yml).
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the host.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the host has not been changed from elsewhere in between.
  platform:
    description: Target operating system that the module runs on.
    support: full
    platforms: linux
    details:
      - The managed host needs a Linux kernel with cgroup v2 mounted, and Python 3.9 or later.
      - The module must run as root, so use C(become) where the connection's user is another.
"""

    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/bare.containers.containers) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - bare.containers.containers
"""

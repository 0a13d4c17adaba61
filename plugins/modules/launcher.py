#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: launcher
version_added: 0.1.0
short_description: The program that starts containers
description:
  - Converges the launcher in C(/usr/local/lib/bare-containers), a small program in Python's standard library that makes a running
    container of a bundle, and leaves.
  - It is part of this collection. M(bare.containers.container_process) and M(bare.containers.nsenter_exec) use only the one of their
    own version.
  - A host has one launcher for all its containers.
author: ["bare.containers contributors (@bare-containers)"]
options:
  state:
    description:
      - V(present) has it installed in the version of this collection.
      - V(absent) has it removed. Running containers go on; units that start containers then fail.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - Linux 5.12 or newer
seealso:
  - module: bare.containers.container_process
  - module: bare.containers.nsenter_exec
"""

EXAMPLES = r"""
- name: Install the launcher
  bare.containers.launcher:
    state: present

- name: Remove it
  bare.containers.launcher:
    state: absent
"""

RETURN = r"""
commands:
  description: The shell commands that do the same, in order.
  type: list
  elements: str
  returned: always
program:
  description: The program.
  type: str
  returned: always
  sample: /usr/local/lib/bare-containers/launch
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import host
from ..module_utils.container.installation import OPTIONS, Installation
from ..module_utils.converge import converge
from ..module_utils.module import describe, failing, require_root


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS.argument_spec(), supports_check_mode=True)
    with failing(module):
        require_root()
    installation = Installation(module.params["state"])
    # No container can have this name.
    outcomes = converge([installation], check=module.check_mode, lock=lambda name: host.lock(f".{name}"))
    result = describe(outcomes, batch=False, diff=module._diff)
    finish = module.fail_json if "msg" in result else module.exit_json
    finish(**result)


if __name__ == "__main__":
    main()

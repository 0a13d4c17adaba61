#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nsenter_exec
version_added: 0.1.0
short_description: Run a command in a container
description:
  - Runs a command in a container that runs, in all its namespaces, in its cgroup, with its capabilities and its environment. Nothing of
    the host's environment is passed on.
  - With expectations it is a check of what is there.
author: ["bare.containers contributors (@bare-containers)"]
options:
  command:
    description:
      - The program and its arguments. No shell is involved. A program without a C(/) is looked for in the C(PATH) of the container.
      - Required unless O(batch) is given.
    type: list
    elements: str
  user:
    description:
      - The user, as in O(bare.containers.container_process#module:user). The default is the user that the container's process started as.
      - Where that one is root, any other user has no capabilities.
    type: str
  env:
    description: Environment variables, besides those declared for the container's process.
    type: dict
  chdir:
    description: The directory inside to run it in. The default is the one that the container's process started in.
    type: str
  stdin:
    description: What it reads on its standard input.
    type: str
  timeout:
    description: How many seconds it may take. It is then killed with all the processes that it started.
    type: int
  creates:
    description: A path inside the container. When it exists, the command is not run.
    type: str
  removes:
    description: A path inside the container. When it does not exist, the command is not run.
    type: str
  rc:
    description:
      - The exit status that is expected. Any other fails the task.
      - That of a command that a signal ended is 128 and the signal's number.
    type: int
    default: 0
  stdout:
    description: A text that its standard output has to contain.
    type: str
  read_only:
    description:
      - Whether the command only looks, so that running it is no change.
      - The default is V(true) with O(stdout), else V(false).
    type: bool
  within:
    description:
      - For how many seconds a command that fails, or is not as expected, is tried again, with half a second in between.
      - It covers a container that is yet to be started too.
    type: int
    default: 0
  batch:
    description:
      - Sets of this module's own options, each with a O(name) and a O(command), run in one task one after the other. One that fails does
        not stop the others; the task then fails.
      - Several may have the same name. O(creates) and O(removes) are looked at before the first is run.
      - Mutually exclusive with O(name).
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
  - bare.containers.batch
attributes:
  check_mode:
    support: full
    details: Nothing is run; what would be, is told as far as O(creates) and O(removes) say.
  diff_mode:
    support: none
    details: What a command changes is not known.
  idempotent:
    support: partial
    details: With O(creates), O(removes) or O(read_only).
requirements:
  - Linux 5.12 or newer
  - the launcher of the same version, which M(bare.containers.launcher) installs
seealso:
  - module: bare.containers.container_process
  - module: bare.containers.launcher
  - module: ansible.builtin.command
"""

EXAMPLES = r"""
- name: Make a directory inside, once
  bare.containers.nsenter_exec:
    name: web
    command: [mkdir, -p, /srv/uploads]
    creates: /srv/uploads

- name: See that the server answers, once it is up
  bare.containers.nsenter_exec:
    name: web
    command: [wget, -qO-, "http://127.0.0.1:8080/"]
    stdout: hello
    within: 30

- name: Look at several containers in one task
  bare.containers.nsenter_exec:
    batch:
      - name: web
        command: [cat, /etc/hosts]
        read_only: true
      - name: worker
        command: [test, -w, /var/cache]
        read_only: true
        timeout: 5
"""

RETURN = r"""
commands:
  description: The shell commands that do about the same, with C(nsenter); that takes on neither the cgroup nor the privileges.
  type: list
  elements: str
  returned: always
rc:
  description: The exit status.
  type: int
  returned: with O(name), none when it could not be run or was killed by O(timeout)
stdout:
  description: Its standard output.
  type: str
  returned: with O(name)
stdout_lines:
  description: The same by lines.
  type: list
  elements: str
  returned: with O(name)
stderr:
  description: Its standard error.
  type: str
  returned: with O(name)
stderr_lines:
  description: The same by lines.
  type: list
  elements: str
  returned: with O(name)
command:
  description: The program and its arguments.
  type: list
  elements: str
  returned: with O(name)
runs:
  description:
    - What became of each entry of O(batch), in its order.
    - Each has the keys above, C(name), C(changed), C(failed), and C(msg) with the reason where it failed or was not run.
  type: list
  elements: dict
  returned: with O(batch)
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.container.execution import OPTIONS, check, describe, run
from ..module_utils.module import failing, read_entries, require_root


def main() -> None:
    module = AnsibleModule(
        argument_spec={**OPTIONS.argument_spec(), "batch": {"type": "list", "elements": "dict"}},
        mutually_exclusive=[("name", "batch")],
        required_one_of=[("name", "batch")],
        supports_check_mode=True,
    )
    with failing(module):
        require_root()
        entries = read_entries(module, OPTIONS)
        check(entries)
        results = run(entries, predict=module.check_mode)
    result = describe(results, batch=module.params["batch"] is not None)
    finish = module.fail_json if result["failed"] else module.exit_json
    finish(**result)


if __name__ == "__main__":
    main()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: part
author: ["bare.containers contributors (@bare-containers)"]
version_added: 0.1.0
short_description: One part of every declared container, as a batch for the module that converges it
description:
  - Takes the list of declared containers, and gives each one's part with the container's name added, verbatim otherwise.
  - A container without that part, or with C(state=absent), gives an entry with C(state=absent). A container without a
    C(cgroup) has one all the same, without limits.
  - Of the part C(checks), which is a list, each check is an entry of its own; an absent container has none.
options:
  _input:
    description: The declared containers, as in the variable C(containers_declared) of the role C(containers).
    type: list
    elements: dict
    required: true
  part:
    description: The part of a container.
    type: str
    required: true
    choices: [rootfs, cgroup, network, process, checks]
  gone:
    description: Names of containers that are declared no longer; each gives an entry with C(state=absent).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Converge the network of all declared containers in one task
  bare.containers.netns_veth:
    batch: "{{ containers_declared | bare.containers.part('network') }}"
  vars:
    containers_declared:
      - {name: web, network: {address: 10.200.0.2/24}}
      - {name: worker, state: absent}
"""

RETURN = r"""
_value:
  description: One entry for each container, those that are absent first, so that what they free can be taken.
  type: list
  elements: dict
"""

from collections.abc import Sequence

from ansible.errors import AnsibleFilterError

# A container always has a cgroup: without limits where none are declared.
UNDECLARED = {"rootfs": None, "cgroup": {}, "network": None, "process": None}


def part(declared: list[dict], part: str, gone: Sequence[str] = ()) -> list[dict]:
    """The batch for one part's module: see DOCUMENTATION. Raises AnsibleFilterError for what is no
    declaration."""
    for container in declared:
        if "name" not in container:
            raise AnsibleFilterError(
                f"containers_declared: {container!r} has no name, each container takes one."
            )
    if part == "checks":
        return [
            {"name": container["name"], **check} for container in declared for check in _checks(container)
        ]
    if part not in UNDECLARED:
        accepted = ", ".join([*UNDECLARED, "checks"])
        raise AnsibleFilterError(f"part: {part!r} is not a part of a container, it takes one of {accepted}.")
    entries = [{"name": name, "state": "absent"} for name in gone]
    entries += [_entry(container, part) for container in declared]
    return sorted(entries, key=lambda entry: entry.get("state") != "absent")


def _entry(container: dict, part: str) -> dict:
    options = container.get(part, UNDECLARED[part])
    if container.get("state") == "absent" or options is None:
        return {"name": container["name"], "state": "absent"}
    return {"name": container["name"], **options}


def _checks(container: dict) -> list[dict]:
    return [] if container.get("state") == "absent" else container.get("checks", [])


class FilterModule:
    """The filters of bare.containers."""

    def filters(self) -> dict:
        return {"part": part}

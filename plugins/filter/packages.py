# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: packages
author: ["bare.containers contributors (@bare-containers)"]
version_added: 0.1.0
short_description: The packages that declared containers take on their host
description:
  - Takes the list of declared containers, and gives the packages of those options that they have, sorted and each once.
  - An option that is V(false), empty or not declared takes nothing, and neither does a container with C(state=absent).
options:
  _input:
    description: The declared containers, as in the variable C(containers_declared) of the role C(containers).
    type: list
    elements: dict
    required: true
  table:
    description: The packages, each with the option that takes it.
    type: list
    elements: dict
    required: true
    suboptions:
      option:
        description:
          - The option, after the part and the options that it is within, with dots between them, such as V(rootfs.image).
          - Of an option that is a list, that of each entry is meant, as in V(network.interfaces.address).
        type: str
        required: true
      value:
        description: A shell pattern. The package is for values that it matches as a whole; by default for all.
        type: str
        default: "*"
      package:
        description: The package.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Install what the sources of root file systems take
  ansible.builtin.package:
    name: "{{ containers_declared | bare.containers.packages(table) }}"
  vars:
    containers_declared:
      - {name: shop, rootfs: {image: "docker://registry.example/shop:1"}}
      - {name: worker, rootfs: {path: /srv/worker.tar.zst}}
    table:
      - {option: rootfs.image, package: skopeo}
      - {option: rootfs.path, value: "*.zst", package: zstd}
"""

RETURN = r"""
_value:
  description: The packages.
  type: list
  elements: str
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any


def packages(declared: list[dict], table: list[dict]) -> list[str]:
    """The packages that the options of these containers take: see DOCUMENTATION."""
    present = [container for container in declared if container.get("state") != "absent"]
    return sorted({row["package"] for row in table if _takes(present, row)})


def _takes(present: list[dict], row: dict) -> bool:
    values = _values(present, row["option"].split("."))
    return any(value and fnmatchcase(str(value), row.get("value", "*")) for value in values)


def _values(declared: Any, path: Sequence[str]) -> Iterator[Any]:
    """What there is at a path of options, for each entry of the lists on the way."""
    if isinstance(declared, list):
        for each in declared:
            yield from _values(each, path)
    elif not path:
        yield declared
    elif isinstance(declared, dict) and path[0] in declared:
        yield from _values(declared[path[0]], path[1:])


class FilterModule:
    """The filters of bare.containers."""

    def filters(self) -> dict:
        return {"packages": packages}

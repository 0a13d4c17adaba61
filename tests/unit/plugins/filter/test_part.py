# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bare.containers.plugins.filter.part import part

DECLARED = [
    {
        "name": "web",
        "network": {"address": "10.200.0.2/24"},
        "checks": [{"command": ["true"]}, {"command": ["id"]}],
    },
    {"name": "worker", "cgroup": {"pids_max": 3}},
    {
        "name": "old",
        "state": "absent",
        "network": {"address": "10.200.0.2/24"},
        "checks": [{"command": ["true"]}],
    },
]


def test_a_part_is_verbatim_with_the_name_and_absent_entries_come_first() -> None:
    assert part(DECLARED, "network", ["older"]) == [
        {"name": "older", "state": "absent"},
        {"name": "worker", "state": "absent"},
        {"name": "old", "state": "absent"},
        {"name": "web", "address": "10.200.0.2/24"},
    ]


def test_every_present_container_has_a_cgroup() -> None:
    assert part(DECLARED, "cgroup") == [
        {"name": "old", "state": "absent"},
        {"name": "web"},
        {"name": "worker", "pids_max": 3},
    ]


def test_each_check_of_a_present_container_is_an_entry() -> None:
    assert part(DECLARED, "checks") == [
        {"name": "web", "command": ["true"]},
        {"name": "web", "command": ["id"]},
    ]


@pytest.mark.parametrize(
    ("declared", "wanted", "sentence"),
    [
        ([{"network": {}}], "network", "has no name"),
        (DECLARED, "netwrok", "it takes one of rootfs, cgroup, network"),
    ],
)
def test_what_is_no_declaration_is_refused_by_name(declared: list, wanted: str, sentence: str) -> None:
    with pytest.raises(AnsibleFilterError, match=sentence):
        part(declared, wanted)

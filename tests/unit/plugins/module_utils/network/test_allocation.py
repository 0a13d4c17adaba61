# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network.allocation import Allocation, taken
from ansible_collections.bare.containers.plugins.module_utils.network.declared import (
    Network,
    refuse_conflicts,
)
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS
from hypothesis import given
from hypothesis import strategies as st

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def entry(name: str, **options: Any) -> dict[str, Any]:
    return OPTIONS.normalise({**DEFAULTS, "name": name, "bridge": "b", **options})


def resolve(entries: list[dict[str, Any]], kept: dict[str, Network]) -> dict[str, Network]:
    allocation = Allocation(taken(entries, kept.values()))
    return {
        each["name"]: Network.resolve(each["name"], allocation.fill(each, kept.get(each["name"])))
        for each in entries
    }


@given(
    st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=6),
    st.sampled_from(["10.0.0.0/28", "fd00::/124", "10.0.0.0/24"]),
)
def test_whoever_comes_and_goes_none_has_that_of_another_and_each_keeps_its_own(tasks, subnet):
    kept: dict[str, Network] = {}
    for names in tasks:
        entries = [entry(f"c{number}", subnet=[subnet]) for number in names]
        found = resolve(entries, kept)
        assert all(found[name] == kept[name] for name in found if name in kept)
        refuse_conflicts(list(found.values()))
        for network in found.values():
            (interface,) = network.interfaces
            assert interface.network == ipaddress.ip_network(subnet)
            assert interface.ip not in (
                interface.network.network_address,
                interface.network.network_address + 1,
            )
            assert interface.version == 6 or interface.ip != interface.network.broadcast_address
        kept = found


def test_a_gateway_of_another_choice_is_not_given_away():
    web = resolve([entry("web", subnet=["10.0.0.0/30"], gateway=["10.0.0.2"])], {})["web"]
    assert web.attachments[0].address == ("10.0.0.1/30",)


def test_one_that_is_declared_in_the_subnet_is_enough():
    web = resolve([entry("web", subnet=["10.0.0.0/24", "fd00::/64"], address=["10.0.0.9/24"])], {})["web"]
    assert web.attachments[0].address == ("10.0.0.9/24", "fd00::2/64")


def test_another_subnet_is_another_address():
    kept = resolve([entry("web", subnet=["10.0.0.0/24"])], {})
    assert resolve([entry("web", subnet=["10.0.1.0/24"])], kept)["web"].attachments[0].address == (
        "10.0.1.2/24",
    )
    assert resolve([entry("web", subnet=["10.0.0.0/25"])], kept)["web"].attachments[0].address == (
        "10.0.0.3/25",
    )


def test_a_subnet_comes_to_its_end():
    with pytest.raises(Failure, match=r"subnet: 10.0.0.0/30 has no address left for two; .* nothing was"):
        resolve([entry(name, subnet=["10.0.0.0/30"]) for name in ("one", "two")], {})


def test_every_link_gets_its_own_and_keeps_it_whatever_becomes_of_the_others():
    def links(*subnets: str) -> dict[str, Any]:
        further = [
            {
                "interface": f"if{subnet[5]}",
                "subnet": [subnet],
                "gateway": [],
                "address": [],
                "mtu": 1500,
                "routes": [],
                "default_route": False,
                "isolate": True,
                "internal": False,
                "kind": "veth",
                "dns": "static",
            }
            for subnet in subnets
        ]
        return entry("web", subnet=["10.0.0.0/24"], interfaces=further)

    others = resolve([entry("db", subnet=["10.0.2.0/24"], bridge="c")], {})
    kept = resolve([links("10.0.1.0/24", "10.0.2.0/24")], others)
    assert [str(each) for each in kept["web"].interfaces] == ["10.0.0.2/24", "10.0.1.2/24", "10.0.2.3/24"]
    fewer = resolve([links("10.0.2.0/24")], {**others, **kept})
    assert [str(each) for each in fewer["web"].interfaces] == ["10.0.0.2/24", "10.0.2.3/24"]

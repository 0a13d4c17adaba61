# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network import filter as own_filter
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def network(**options: Any) -> Network:
    return Network.resolve("web", OPTIONS.normalise({**DEFAULTS, "name": "web", **options}))


def texts(**options: Any) -> dict[str, list[str]]:
    """What the rules of each chain say, without what is the same in all."""
    found: dict[str, list[str]] = {}
    for rule in own_filter.rules(network(**options)):
        text = rule.text.replace("counter ", "").replace(' comment "web"', "")
        found.setdefault(rule.chain, []).append(text)
    return found


ANSWERS = "ct state established,related,untracked accept"


def test_who_says_nothing_has_no_rules():
    assert texts() == {}


def test_where_one_is_allowed_the_others_are_not():
    assert texts(allow=[{"from": "10.0.0.0/24", "port": 80}]) == {
        "input": [
            'iifname "lo" accept',
            ANSWERS,
            "ip saddr 10.0.0.0/24 tcp dport 80 accept",
            "drop",
        ]
    }


def test_where_one_is_denied_the_others_are_allowed():
    assert texts(deny=[{"to": "fd00::5"}]) == {
        "output": ['oifname "lo" accept', "ct direction original ip6 daddr fd00::5 drop", ANSWERS]
    }


def test_deny_comes_first():
    rules = texts(allow=[{"from": "any", "protocol": "udp"}], deny=[{"from": "10.0.0.9"}])["input"]
    assert rules[1:] == [
        "ct direction original ip saddr 10.0.0.9 drop",
        ANSWERS,
        "meta l4proto udp accept",
        "drop",
    ]


@pytest.mark.parametrize(
    ("peer", "matches"),
    [
        ("any", ["meta l4proto icmp accept", "meta l4proto icmpv6 accept"]),
        ("10.0.0.5", ["ip saddr 10.0.0.5 meta l4proto icmp accept"]),
        ("fd00::/64", ["ip6 saddr fd00::/64 meta l4proto icmpv6 accept"]),
    ],
)
def test_both_versions_have_an_icmp(peer, matches):
    assert texts(allow=[{"from": peer, "protocol": "icmp"}])["input"][2:-1] == matches


def test_all_spellings_are_one():
    one = network(allow=[{"from": "10.0.0.5/32", "port": 80}, {"to": "any"}])
    other = network(
        allow=[
            {"to": "ANY", "port": None},
            {"port": "80-80", "protocol": "TCP", "from": "10.0.0.5"},
            {"from": "10.0.0.5", "port": "80"},
        ]
    )
    assert one == other
    assert Network.read_kept("web", one.declaration()) == one


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"port": 80},
        {"from": "any", "to": "any"},
        {"from": "any", "ports": 80},
        {"from": "10.0.0.1/24"},
        {"from": "web"},
        {"from": "any", "protocol": "http"},
        {"from": "any", "protocol": "icmp", "port": 80},
        {"from": "any", "port": 0},
        {"from": "any", "port": "90-80"},
        {"from": "any", "port": "http"},
    ],
)
def test_what_says_nothing_that_can_be_is_refused(entry):
    with pytest.raises(Failure, match=r"deny: .* is not accepted, it takes .*; nothing was changed"):
        network(deny=[entry])

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.network import nft, others

LINKS = {"bare0": {"10.200.0.0/24", "fd00:200::/64"}, "bare-web": {"10.201.0.0/24"}}


@pytest.fixture
def table(monkeypatch):
    """Sets the one table of others: ``ip filter`` with a chain at the hook, and the rules of it."""

    def make(
        *rules: Any, family: str = "ip", policy: str = "accept", hook: str = "forward", more: Any = ()
    ) -> None:
        chain = {"family": family, "table": "filter", "name": "FORWARD", "hook": hook, "policy": policy}
        objects = [{"chain": chain}, *({"chain": {"name": name}} for name in more)]
        objects += [{"rule": {"chain": "FORWARD", "expr": rule}} for rule in rules]
        texts = {"chains": [objects[0]], "table": objects}
        monkeypatch.setattr(nft, "run", lambda *words: json.dumps({"nftables": texts[words[2]]}))

    return make


def link(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}}


COUNTER = {"counter": {"packets": 0, "bytes": 0}}
ACCEPT, DROP, REJECT = {"accept": None}, {"drop": None}, {"reject": {"type": "icmp"}}


def test_a_policy_that_drops_is_told_for_all_links(table):
    table(policy="drop")
    (told,) = others.warnings(LINKS, {})
    assert told.startswith("The chain FORWARD of the table ip filter drops what the host forwards")
    assert "does not mention bare0 and 1 more:" in told


@pytest.mark.parametrize("last", [[DROP], [COUNTER, REJECT]])
def test_a_last_rule_that_drops_is_told(table, last):
    table([link("eth0"), ACCEPT], last)
    assert len(others.warnings(LINKS, {})) == 1


def test_who_is_mentioned_is_not_told_of(table):
    subnet = {"match": {"right": {"prefix": {"addr": "10.201.0.0", "len": 24}}}}
    table([link("bare0"), ACCEPT], [subnet, ACCEPT], policy="drop")
    assert others.warnings(LINKS, {}) == []


def test_what_drops_nothing_of_ours_is_not_told(table):
    table([link("eth0"), DROP])
    assert others.warnings(LINKS, {}) == []
    table(policy="drop", hook="input")
    assert others.warnings(LINKS, {}) == []
    table(policy="drop", family="bridge")
    assert others.warnings(LINKS, {}) == []


@pytest.mark.parametrize(
    ("chain", "family", "remedy"),
    [
        (
            "DOCKER-USER",
            "ip",
            "iptables -I DOCKER-USER -i bare0 -j ACCEPT && iptables -I DOCKER-USER -o bare0",
        ),
        ("DOCKER-USER", "ip6", "ip6tables -I DOCKER-USER -i bare0 -j ACCEPT"),
        ("ufw-user-forward", "ip", "ufw route allow in on bare0 && ufw route allow out on bare0"),
        ("ufw6-user-forward", "ip6", "ufw route allow in on bare0 && ufw route allow out on bare0"),
        ("other", "ip", "nft insert rule ip filter FORWARD iifname bare0 accept"),
    ],
)
def test_each_kind_has_a_command_of_its_own(table, chain, family, remedy):
    table(policy="drop", family=family, more=[chain])
    (told,) = others.warnings(LINKS, {})
    assert f"as with '{remedy}" in told


def test_a_chain_that_drops_what_comes_in_is_told_of_name_servers(table):
    table(policy="drop", hook="input")
    (told,) = others.warnings({}, LINKS)
    assert told.startswith("The chain FORWARD of the table ip filter drops what the host is sent")
    assert "nft insert rule ip filter FORWARD iifname bare0 udp dport 53 accept" in told
    table(policy="drop", hook="input", more=["ufw-user-input"])
    assert "'ufw allow in on bare0 to any port 53'" in others.warnings({}, LINKS)[0]
    table(policy="drop")
    assert others.warnings({}, LINKS) == []


def test_one_that_lets_questions_pass_is_not_told_of(table):
    field = {"payload": {"protocol": "udp", "field": "dport"}}
    for port in (53, {"set": [22, 53]}, {"set": [53, 80]}):
        rule = [{"match": {"op": "==", "left": field, "right": port}}, ACCEPT]
        table(rule, policy="drop", hook="input")
        assert others.warnings({}, LINKS) == []
    counted = [{"counter": {"packets": 53, "bytes": 53}}, link("eth0"), ACCEPT]
    table(counted, policy="drop", hook="input")
    assert len(others.warnings({}, LINKS)) == 1
    table([link("bare0"), ACCEPT], [link("bare-web"), ACCEPT], policy="drop", hook="input")
    assert others.warnings({}, LINKS) == []

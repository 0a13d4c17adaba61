# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.network import firewall, netlink, nft
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.network.survey import NO_RECORD, Survey

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def host() -> Survey:
    """What is read of a host that has the bridge ``lan0``, which is not ours."""
    survey = Survey()
    lan = {"name": "lan0", "kind": "bridge", "mac": "02:00:00:00:00:50"}
    unsaid = {field.name: None for field in dataclasses.fields(netlink.Link)}
    survey.links = {"lan0": netlink.Link(**{**unsaid, **lan})}
    survey.record = NO_RECORD
    return survey


def network(name: str, **options: Any) -> Network:
    return Network.resolve(name, OPTIONS.normalise({**DEFAULTS, "name": name, **options}))


def rules(**options: Any) -> list[nft.Rule]:
    return firewall.rules([network("web", **options)], host())


def texts(chain: str, **options: Any) -> list[str]:
    return [rule.text for rule in rules(**options) if rule.chain == chain]


def test_who_asks_for_nothing_has_no_rules():
    assert rules(bridge="bare0", address=["10.0.0.2/24"], isolate=False) == []
    assert rules(bridge="bare0") == []


def test_who_is_isolated_gets_answers_and_what_comes_by_a_published_port():
    assert texts("forward", bridge="bare0", address=["10.0.0.2/24", "fd00::2/64"]) == [
        'ct state established,related counter accept comment "*"',
        'ct status dnat counter accept comment "*"',
        'oifname "bare0" iifname != "bare0" counter drop comment "bare0"',
    ]


def test_a_vlan_is_apart_from_the_others_of_its_bridge():
    networks = [
        network(f"c{vlan}", bridge="bare0", vlan=vlan, address=[f"10.0.{vlan}.2/24"], nat=True)
        for vlan in (10, 20)
    ]
    found = firewall.rules([*networks, network("plain", bridge="bare0", address=["10.0.0.2/24"])], Survey())
    dropping = [rule.text for rule in found if rule.chain == "forward" and "drop" in rule.text]
    assert dropping == [
        f'oifname "{link}" iifname != "{link}" counter drop comment "{link}"'
        for link in ("bare0", "bare0.10", "bare0.20")
    ]
    assert [rule.text for rule in found if rule.chain == "postrouting"] == [
        f'ip saddr 10.0.{vlan}.2 oifname != "bare0.{vlan}" counter masquerade comment "c{vlan}"'
        for vlan in (10, 20)
    ]


def test_the_guard_of_localhost_is_on_the_vlan_s_link():
    options = {"bridge": "bare0", "vlan": 10, "address": ["10.0.0.2/24"], "publish": ["80:80"]}
    assert [rule.comment for rule in rules(**options) if rule.chain == "loopback"] == ["bare0.10"] * 2


def test_an_internal_network_has_no_way_out():
    assert texts("forward", bridge="bare0", address=["10.0.0.2/24"], internal=True) == [
        'iifname "bare0" oifname != "bare0" counter drop comment "bare0"',
        'oifname "bare0" iifname != "bare0" counter drop comment "bare0"',
    ]


def test_what_is_internal_is_shut_before_anything_passes():
    """Connections that were open when it became so end too."""
    networks = [
        network("web", bridge="bare0", address=["10.0.0.2/24"]),
        network("db", bridge="bare1", address=["10.0.1.2/24"], internal=True),
    ]
    comments = [rule.comment for rule in firewall.rules(networks, host()) if rule.chain == "forward"]
    assert comments == ["bare1", "bare1", "*", "*", "bare0"]


def test_the_bridge_of_another_is_not_shut():
    assert texts("forward", bridge="lan0", address=["10.0.0.2/24"], nat=True) == []


def test_containers_of_one_bridge_need_no_more_rules_than_one():
    networks = [network(f"c{last}", bridge="bare0", address=[f"10.0.0.{last}/24"]) for last in range(2, 99)]
    assert firewall.rules(networks, host()) == firewall.rules(networks[:1], host())


def test_nat_is_for_what_leaves_by_other_links():
    assert texts("postrouting", bridge="bare0", address=["10.0.0.2/24"], nat=True) == [
        'ip saddr 10.0.0.2 oifname != "bare0" counter masquerade comment "web"'
    ]
    assert texts("postrouting", address=["fd00::2/64"], nat=True) == [
        'ip6 saddr fd00::2 oifname != "bare-web" counter masquerade comment "web"'
    ]


def test_a_port_is_published_to_others_and_to_the_host_itself():
    options = {"bridge": "bare0", "address": ["10.0.0.2/24"], "publish": ["8080:80"]}
    rule = 'fib daddr type local tcp dport 8080 counter dnat ip to 10.0.0.2:80 comment "web"'
    assert texts("prerouting", **options) == texts("output", **options) == [rule]


def test_localhost_is_nobody_else_s():
    options = {"bridge": "bare0", "address": ["10.0.0.2/24"], "publish": ["127.0.0.1:53:53/udp"]}
    assert texts("prerouting", **options) == []
    assert texts("output", **options) == [
        'ip daddr 127.0.0.1 udp dport 53 counter dnat ip to 10.0.0.2:53 comment "web"'
    ]


def test_the_bridge_of_another_is_not_opened_to_localhost():
    options = {"bridge": "lan0", "address": ["10.0.0.2/24"], "publish": ["8080:80"]}
    assert texts("loopback", **options) == []
    (rule,) = texts("output", **options)
    assert rule.startswith("ip daddr != 127.0.0.0/8 fib daddr type local")


@pytest.mark.parametrize(("bridge", "link"), [("bare0", "bare0"), (None, "bare-*")])
def test_containers_are_shut_out_of_localhost(bridge, link):
    options = {"bridge": bridge, "address": ["10.0.0.2/24"], "nat": True}
    assert texts("loopback", **options) == [
        f'iifname "{link}" ip {field} 127.0.0.0/8 counter drop comment "{link}"'
        for field in ("saddr", "daddr")
    ]


def test_a_published_port_leads_to_the_first_address_of_its_family():
    options = {
        "bridge": "bare0",
        "address": ["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64"],
        "publish": ["80:80"],
    }
    assert [re.findall(r"dnat \S+ to (\S+)", rule) for rule in texts("prerouting", **options)] == [
        ["10.0.0.2:80"],
        ["[fd00::2]:80"],
    ]


@pytest.mark.parametrize(
    ("published", "forwarded"),
    [
        ("8000-8099:8000-8099", "tcp dport 8000-8099 counter dnat ip to 10.0.0.2"),
        ("7:9/sctp", "sctp dport 7 counter dnat ip to 10.0.0.2:9"),
        ("7-8:9-10", "tcp dport 7-8 counter dnat ip to 10.0.0.2:tcp dport map { 7 : 9, 8 : 10 }"),
    ],
)
def test_a_range_is_one_rule(published, forwarded):
    options = {"bridge": "bare0", "address": ["10.0.0.2/24"], "publish": [published]}
    rule = f'fib daddr type local {forwarded} comment "web"'
    assert texts("prerouting", **options) == texts("output", **options) == [rule]


def test_the_file_replaces_the_table_whether_there_is_one_or_not():
    lines = nft.render(firewall._CHAINS, rules(bridge="bare0", address=["10.0.0.2/24"], nat=True))
    assert lines[:3] == [
        "table inet bare_containers",
        "delete table inet bare_containers",
        "table inet bare_containers {",
    ]
    assert sum(line.count("{") for line in lines) == sum(line.count("}") for line in lines)


def listing(rules: list[nft.Rule]) -> list[dict[str, Any]]:
    """The objects as nft(8) lists them, numbered and counted."""
    hooks = re.compile(r"type (\w+) hook (\w+) priority (-?\d+); policy (\w+);")
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "bare_containers", "handle": 1}},
    ]
    for name, header in firewall._CHAINS.items():
        kind, hook, priority, policy = hooks.fullmatch(header).groups()
        described = {"type": kind, "hook": hook, "prio": int(priority), "policy": policy}
        objects.append({"chain": {"name": name, "handle": 2, **described}})
    for number, rule in enumerate(rules):
        item = json.loads(
            json.dumps(rule.data).replace('"counter": null', '"counter": {"packets": 7, "bytes": 9}')
        )
        objects.append({"rule": {"chain": rule.chain, "handle": number, **item}})
    return objects


def test_what_is_counted_is_told_by_container():
    known = rules(bridge="bare0", address=["10.0.0.2/24"], nat=True)
    foreign = {
        "chain": "forward",
        "comment": "web",
        "expr": [{"counter": {"packets": 1, "bytes": 2}}, {"drop": None}],
    }
    silent = {"chain": "forward", "handle": 3, "expr": [{"drop": None}]}
    listed = [*listing(known), {"rule": foreign}, {"rule": silent}]
    counted = nft.counters(listed, known)
    assert sorted(counted) == ["*", "bare0", "web"]
    masquerade = 'ip saddr 10.0.0.2 oifname != "bare0" counter masquerade comment "web"'
    assert {"chain": "postrouting", "rule": masquerade, "packets": 7, "bytes": 9} in counted["web"]
    assert (counted["web"][-1]["packets"], counted["web"][-1]["bytes"]) == (1, 2)
    assert json.loads(counted["web"][-1]["rule"])["comment"] == "web"


def test_counters_and_handles_are_no_difference():
    declared = rules(bridge="bare0", address=["10.0.0.2/24"], nat=True, publish=["80:80"])
    assert nft.listed_table(listing(declared), declared) == nft.table(firewall._CHAINS, declared)


def test_a_list_of_one_is_no_difference():
    declared = rules(bridge="bare0", address=["10.0.0.2/24"], publish=["80:80"])
    objects = json.loads(json.dumps(listing(declared)).replace('["daddr"]', '"daddr"'))
    assert objects != listing(declared)
    assert nft.listed_table(objects, declared) == nft.table(firewall._CHAINS, declared)


@pytest.mark.parametrize(
    "change",
    [
        lambda objects: objects.pop(),
        lambda objects: objects.append(objects[-1]),
        lambda objects: objects.insert(7, objects.pop()),
        lambda objects: objects[-1]["rule"].update(comment="db"),
        lambda objects: objects[-1]["rule"].pop("comment"),
        lambda objects: objects[-1]["rule"]["expr"].pop(),
        lambda objects: objects[-1]["rule"]["expr"][0]["match"].update(op="!="),
        lambda objects: objects[2]["chain"].update(policy="drop"),
        lambda objects: objects[2]["chain"].update(prio=0),
        lambda objects: objects[2]["chain"].pop("hook"),
        lambda objects: objects[1]["table"].update(flags="dormant"),
        lambda objects: objects.append({"chain": {"name": "extra"}}),
        lambda objects: objects.append({"set": {"name": "extra", "type": "ipv4_addr"}}),
        lambda objects: objects.clear(),
    ],
)
def test_any_other_change_is_a_difference(change):
    declared = rules(bridge="bare0", address=["10.0.0.2/24"], nat=True, publish=["80:80"])
    objects = listing(declared)
    change(objects)
    assert nft.listed_table(objects, declared) != nft.table(firewall._CHAINS, declared)


def test_no_table_is_none():
    assert nft.listed_table(None, []) is None

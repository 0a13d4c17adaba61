# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host has for VLANs of bridges, on a host that is only told of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network import netlink, shared
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network, bridge_mac
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.network.shared import Host
from ansible_collections.bare.containers.plugins.module_utils.network.survey import Survey

DEFAULTS = {option.name: option.default for option in OPTIONS.options}
MAC = bridge_mac("bare0")


def network(name: str, **options: Any) -> Network:
    return Network.resolve(name, OPTIONS.normalise({**DEFAULTS, "name": name, **options}))


WEB = network("web", bridge="bare0", vlan=10, address=["10.0.10.2/24"])
DB = network("db", bridge="bare0", vlan=20, vlan_trunk=["30"])
PLAIN = network("plain", bridge="bare0", address=["10.0.0.2/24"])


def link(name: str, index: int, **fields: Any) -> netlink.Link:
    usual = {
        "kind": "bridge", "up": True, "mac": MAC, "mtu": 1500, "master": None, "group": 0, "peer": None,
        "peer_namespace": None, "stp": False, "hairpin": False, "mode": None, "vlan": None,
        "vlan_filtering": False, "default_pvid": 1,
    }  # fmt: skip
    return netlink.Link(name=name, index=index, **{**usual, **fields})


def survey(
    *declared: Network, links: Any = (), made: Any = (), unreadable: Any = (), **fields: Any
) -> Survey:
    """A host that has these links, of which ``made`` are bridges of ours."""
    found = Survey()
    found.task = {each.name: each for each in declared}
    found.declared = {each.name: each for each in declared}
    found.links = {each.name: each for each in links}
    found.record = {"bridges": [*made], "settings": {}}
    found.record_is_damaged = False
    found.unreadable = [*unreadable]
    found.addresses, found.vlans = {}, {}
    for name, value in fields.items():
        setattr(found, name, value)
    found.filtering = found._filtering()
    return found


def planned(survey: Survey, *what: str) -> list[str]:
    """The commands of the steps that change the bridges and what is over them."""
    host = Host(survey)
    actual = host.read()
    steps = host.plan(actual, host.expect(actual))
    chosen = [step for step in steps if step.changes.startswith(what or ("bridges", "vlan_links"))]
    lines = [line for step in chosen for line in step.commands]
    return [line for line in lines if "/proc/sys" not in line]


def test_a_bridge_with_vlans_is_made_with_the_host_s_links_in_those_that_have_a_gateway():
    assert planned(survey(WEB, DB, PLAIN)) == [
        f"ip link add bare0 address {MAC} type bridge",
        "ip link set dev bare0 type bridge vlan_filtering 1",
        "bridge vlan add dev bare0 vid 10 self",
        "ip link set dev bare0 up",
        "ip address replace 10.0.0.1/24 dev bare0",
        f"ip link add link bare0 name bare0.10 address {MAC} type vlan id 10",
        "ip link set dev bare0.10 up",
        "ip address replace 10.0.10.1/24 dev bare0.10",
    ]


def test_a_bridge_without_is_as_it_was():
    assert planned(survey(PLAIN)) == [
        f"ip link add bare0 address {MAC} type bridge",
        "ip link set dev bare0 up",
        "ip address replace 10.0.0.1/24 dev bare0",
    ]


def there(**fields: Any) -> dict[str, Any]:
    return {
        "links": (
            link("bare0", 4, vlan_filtering=True),
            link("bare0.10", 5, kind="vlan", vlan=10, peer=4),
            link("bare0.20", 6, kind="vlan", vlan=21, peer=4),
            link("lan", 7, kind="vlan", vlan=30, peer=4),
            link("bare0.40", 8, kind="vlan", vlan=40, peer=3),
        ),
        "made": ["bare0"],
        "addresses": {4: ["10.0.0.1/24"], 5: ["10.0.10.1/24"], 6: []},
        "vlans": {4: ["1 pvid untagged self", "10 self"]},
        **fields,
    }


def test_what_is_as_declared_is_left_alone_but_links_of_other_vlans():
    """Those named after the bridge are ours, and others over it, or named so over another, are not."""
    assert planned(survey(WEB, PLAIN, **there())) == ["ip link delete bare0.20"]


def test_a_link_of_another_vlan_under_the_name_is_made_anew():
    twenty = network("db", bridge="bare0", vlan=20, address=["10.0.20.2/24"])
    assert planned(survey(WEB, PLAIN, twenty, **there())) == [
        "ip link delete bare0.20",
        "bridge vlan add dev bare0 vid 20 self",
        f"ip link add link bare0 name bare0.20 address {MAC} type vlan id 20",
        "ip link set dev bare0.20 up",
        "ip address replace 10.0.20.1/24 dev bare0.20",
    ]


def test_with_the_last_vlan_the_bridge_tells_none_apart():
    assert planned(survey(PLAIN, **there())) == [
        "ip link delete bare0.10",
        "ip link delete bare0.20",
        "ip link set dev bare0 type bridge vlan_filtering 0",
        "bridge vlan delete dev bare0 vid 10 self",
    ]


def test_with_the_last_container_all_of_it_goes():
    assert planned(survey(**there())) == [
        "ip link delete bare0.10",
        "ip link delete bare0.20",
        "ip link delete bare0",
    ]


def test_nothing_goes_that_one_may_be_behind_of_whom_nobody_knows(monkeypatch):
    monkeypatch.setattr(shared, "read_settings", lambda *_: {"ipv4/route_localnet": "0"})
    assert planned(survey(PLAIN, **there(unreadable=["lost"]))) == ["bridge vlan add dev bare0 vid 21 self"]


@pytest.mark.parametrize(("default", "lines"), [(1, ["1 pvid untagged"]), (7, ["7 pvid untagged"]), (0, [])])
def test_a_port_that_names_none_is_in_what_the_bridge_gives_it(default, lines):
    lan = link("lan0", 4, vlan_filtering=True, default_pvid=default, mac="02:00:00:00:00:01")
    found = survey(links=[lan])
    (first,) = network("x", bridge="lan0").attachments
    assert found.vlans_of_new_port("lan0") == found.declared_vlans(first) == lines
    (named,) = network("x", bridge="lan0", vlan=5).attachments
    assert found.declared_vlans(named) == ["5 pvid untagged"]


def test_a_port_of_ours_that_names_none_is_in_vlan_1_whatever_somebody_has_set():
    bridge = link("bare0", 4, vlan_filtering=True, default_pvid=7)
    found = survey(WEB, PLAIN, links=[bridge], made=["bare0"])
    assert found.vlans_of_new_port("bare0") == ["7 pvid untagged"]
    assert found.declared_vlans(PLAIN.attachments[0]) == ["1 pvid untagged"]
    assert survey(PLAIN, links=[bridge], made=["bare0"]).declared_vlans(PLAIN.attachments[0]) is None


@pytest.mark.parametrize(
    ("networks", "links", "made", "sentence"),
    [
        ([WEB], [link("bare0", 4)], [], "bridge: 'bare0' of web, which is in VLANs, .* vlan_filtering 1"),
        ([WEB], [link("bare0.10", 4)], [], "vlan: 10 of bare0, .* another one of that name"),
        (
            [WEB],
            [link("bare0", 4), link("bare0.10", 5, kind="vlan", vlan=10, peer=3)],
            ["bare0"],
            "vlan: 10 of bare0, .* another one of that name",
        ),
        (
            [network("x", bridge="thirteen-char", vlan=10, address=["10.0.0.2/24"])],
            [],
            [],
            "bridge: 'thirteen-char' of x would have the link thirteen-char.10 .* takes 15 characters",
        ),
    ],
)
def test_what_this_host_can_not_have_is_refused(networks, links, made, sentence, monkeypatch):
    monkeypatch.setattr(netlink, "supports_vlans", lambda: (True, True))
    with pytest.raises(Failure, match=f"^{sentence}.*; nothing was changed.$"):
        survey(*networks, links=links, made=made)._refuse_vlans()


def test_a_bridge_that_needs_no_link_for_a_gateway_may_have_a_long_name(monkeypatch):
    monkeypatch.setattr(netlink, "supports_vlans", lambda: (True, False))
    survey(network("x", bridge="fifteen-chars-x", vlan=10))._refuse_vlans()


def test_the_kernel_is_asked_only_for_what_is_not_there_yet(monkeypatch):
    monkeypatch.setattr(netlink, "supports_vlans", lambda: pytest.fail("the kernel was asked"))
    survey(WEB, PLAIN, **there())._refuse_vlans()
    survey(PLAIN)._refuse_vlans()
    monkeypatch.setattr(netlink, "supports_vlans", lambda: (False, False))
    with pytest.raises(Failure, match=r"vlan: web is in VLANs of bare0, .* no bridges that filter VLANs"):
        survey(WEB)._refuse_vlans()
    monkeypatch.setattr(netlink, "supports_vlans", lambda: (True, False))
    with pytest.raises(
        Failure, match=r"vlan: web is in VLANs of bare0, .* no links of VLANs \(modprobe 8021q"
    ):
        survey(WEB)._refuse_vlans()


def test_facts_tell_what_port_of_a_bridge_the_other_end_is():
    from ansible_collections.bare.containers.plugins.module_utils.network import facts

    ends = [
        link("bare0", 4, vlan_filtering=True),
        link("bare-web", 5, kind="veth", master=4, peer=2, peer_namespace=0),
    ]
    found = survey(links=ends, vlans={5: ["10 pvid untagged"]}, numbers={"web": 0})
    inner = SimpleNamespace(index=2, peer=5)
    assert facts._vlans(inner, "web", found) == ["10 pvid untagged"]
    assert facts._vlans(inner, "db", survey(links=ends, numbers={})) is None

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network.declared import (
    Network,
    host_link,
    refuse_conflicts,
    stable_mac,
)
from ansible_collections.bare.containers.plugins.module_utils.network.options import INTERFACE, OPTIONS
from hypothesis import given
from hypothesis import strategies as st

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def network(name: str, **options: Any) -> Network:
    for option in ("address", "gateway"):
        if isinstance(options.get(option), str):
            options[option] = [options[option]]
    return Network.resolve(name, OPTIONS.normalise({**DEFAULTS, "name": name, **options}))


def test_the_gateway_is_the_first_host_of_the_first_subnet_of_each_family():
    web = network("web", address=["fd00::2/64", "10.200.0.2/24", "10.9.0.2/16"])
    assert web.attachments[0].gateway == ("10.200.0.1", "fd00::1")
    assert web.attachments[0].gateway_interfaces == ["10.200.0.1/24", "fd00::1/64"]


def test_the_gateway_of_two_is_the_other_one():
    assert network("web", address="10.0.0.5/31").attachments[0].gateway == ("10.0.0.4",)


def test_a_single_address_has_no_gateway():
    assert network("web", address=["10.0.0.5/32", "fd00::5/128"]).attachments[0].gateway == ()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"address": "10.0.0.1/24"}, "address: 10.0.0.1 is declared for web and is its gateway's"),
        ({"address": "10.0.0.2/24", "gateway": "10.0.1.1"}, "gateway: '10.0.1.1' is outside the subnet"),
        ({"gateway": "10.0.1.1"}, r"gateway: '10.0.1.1' is outside the subnet of web's address \(none\)"),
        ({"nat": True}, "nat: web has no address"),
        ({"address": "10.0.0.2/24", "nat": True, "internal": True}, "internal: web asks for nat too"),
        ({"address": "10.0.0.2/24", "publish": ["1:1"], "internal": True}, "internal: .* for publish too"),
        ({"publish": ["80:80"]}, "publish: web has no address"),
        ({"address": "10.0.0.2/24", "publish": ["[fd00::1]:80:80"]}, "publish: .* of the family"),
        ({"address": "fd00::2/64", "mtu": 1279}, "mtu: 1279 is too small for IPv6"),
        (
            {"address": "10.0.0.2/24", "dns": "dynamic"},
            "dns: 'dynamic' is declared for web, which has no bridge",
        ),
        ({"bridge": "b", "dns": "dynamic"}, "dns: 'dynamic' is declared for web, which has no gateway"),
        ({"bridge": "b", "address": "10.0.0.2/32", "dns": "dynamic"}, "dns: .* no gateway"),
        ({"dns_domain": "a.example"}, "dns_domain: 'a.example' is declared for web, where no name server"),
        ({"vlan": 10}, "vlan: 10 is declared for web, which is behind no bridge"),
        ({"vlan_trunk": ["10", "20-30"]}, r"vlan_trunk: \['10', '20-30'\] is declared for web, .* no bridge"),
        ({"kind": "macvlan", "parent": "eno1", "vlan": 10}, "vlan: 10 .* whose link is of kind macvlan"),
        ({"bridge": "b", "vlan": 25, "vlan_trunk": ["20-30"]}, "vlan_trunk: 25 of web is the VLAN"),
        ({"bridge": "b", "vlan_trunk": ["1-9"]}, "vlan_trunk: 1 of web is the VLAN"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(Failure, match=f"^{sentence}.*; nothing was changed.$"):
        network("web", **options)


def test_what_is_kept_is_plain_complete_and_resolves_to_the_same():
    web = network("web", address=["10.0.0.2/24"], bridge="bare0", publish=["80:80"], nat=True)
    kept = json.loads(json.dumps(web.declaration()))
    assert kept == web.declaration()
    assert Network.resolve("web", kept) == web


@given(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", fullmatch=True))
def test_every_name_has_a_link_and_two_addresses_of_its_own(name):
    web = network(name)
    assert re.fullmatch(r"bare-[a-zA-Z0-9_.-]{1,10}", web.attachments[0].host_link)
    assert web.attachments[0].host_link == host_link(name)
    for mac in (web.attachments[0].mac_address, web.attachments[0].host_mac):
        assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac)
    assert web.attachments[0].mac_address != web.attachments[0].host_mac


def test_addresses_made_of_names_never_change():
    """They are on running containers. The digits are the first ten of sha256sum(1)."""
    assert stable_mac("web") == "02:4b:5e:57:f6:eb"
    assert host_link("a-long-container-name") == "bare-2cf5c1d891"


def test_a_vlan_of_a_bridge_is_a_link_of_its_own_to_be_behind():
    vlan, usual, plain = (
        network("web", bridge="b", address="10.0.0.2/24", **options).attachments[0]
        for options in ({"vlan": 10}, {"vlan": 1}, {})
    )
    assert (vlan.vlan_link, vlan.segment, vlan.uplink, vlan.names_vlans) == ("b.10", "b.10", "b.10", True)
    assert (usual.vlan_link, usual.segment, usual.uplink, usual.names_vlans) == (None, "b", "b", False)
    assert (plain.vlan_link, plain.segment, plain.uplink, plain.names_vlans) == (None, "b", "b", False)
    assert network("web", bridge="b", vlan_trunk=["10"]).attachments[0].names_vlans
    assert network("web").attachments[0].segment is None


def conflict(*networks: Network) -> str:
    with pytest.raises(Failure) as failure:
        refuse_conflicts(networks)
    assert str(failure.value).endswith("; nothing was changed.")
    return str(failure.value)


def test_one_address_on_two_containers():
    web = network("web", bridge="b", address="10.0.0.2/24")
    other = network("db", bridge="b", address="10.0.0.2/24")
    assert "address: 10.0.0.2 is declared for web and for db" in conflict(web, other)


def test_one_subnet_in_two_vlans():
    web = network("web", bridge="b", vlan=10, address="10.0.0.2/24")
    other = network("db", bridge="b", vlan=20, address="10.0.0.3/24")
    assert "behind b.20 overlaps with 10.0.0.0/24 of web behind b.10" in conflict(web, other)


def test_what_is_one_for_all_of_a_bridge_is_each_vlan_s_own():
    refuse_conflicts(
        [
            network("web", bridge="b", vlan=10, address="10.0.0.2/24", internal=True),
            network("db", bridge="b", vlan=20, address="10.0.1.2/24"),
            network("plain", bridge="b", address="10.0.2.2/24", isolate=False),
        ]
    )


def test_a_bridge_that_is_called_as_another_s_vlan():
    web = network("web", bridge="b", vlan=10)
    other = network("db", bridge="b.10")
    assert "bridge: 'b.10' of db is what the VLAN 10 of b is called, which web is in" in conflict(web, other)


def test_one_s_address_is_the_other_s_gateway():
    web = network("web", bridge="b", address="10.0.0.2/24", gateway="10.0.0.9")
    other = network("db", bridge="b", address="10.0.0.9/24")
    assert "address: 10.0.0.9 of db is the gateway of web" in conflict(web, other)


def test_two_gateways_of_one_subnet():
    web = network("web", bridge="b", address="10.0.0.2/24")
    other = network("db", bridge="b", address="10.0.0.3/24", gateway="10.0.0.9")
    assert "gateway: 10.0.0.9/24 of db and 10.0.0.1/24 of web are of the same subnet" in conflict(web, other)


@pytest.mark.parametrize(
    ("one", "two", "clash"),
    [
        ("80:80", "80:81", True),
        ("80:80", "10.1.1.1:80:80", True),
        ("10.1.1.1:80:80", "80:80", True),
        ("10.1.1.1:80:80", "10.1.1.1:80:81", True),
        ("10.1.1.1:80:80", "10.1.1.2:80:80", False),
        ("80:80/tcp", "80:80/udp", False),
        ("80:80", "81:80", False),
        ("80:80/sctp", "80:80/tcp", False),
        ("80-90:80-90", "85:80", True),
        ("80-90:80-90", "90-91:80-81", True),
        ("80-90:80-90", "10.1.1.1:70-99:70-99", True),
        ("80-90:80-90", "91-99:80-88", False),
        ("80-90:80-90/udp", "85:80", False),
        ("10.1.1.1:80-90:80-90", "10.1.1.2:85:80", False),
    ],
)
def test_two_that_want_the_same_port(one, two, clash):
    web = network("web", bridge="b", address="10.0.0.2/24", publish=[one])
    db = network("db", bridge="b", address="10.0.0.3/24", publish=[two])
    if clash:
        assert "takes the same port of the host" in conflict(web, db)
    else:
        refuse_conflicts([web, db])


@pytest.mark.parametrize("option", ["isolate", "internal"])
def test_two_kinds_of_one_bridge(option):
    values = {"isolate": False, "internal": True}
    web = network("web", bridge="b", address="10.0.0.2/24", **{option: values[option]})
    db = network("db", bridge="b", address="10.0.0.3/24")
    assert f"{option}: {str(not values[option]).lower()} of db and" in conflict(web, db)
    refuse_conflicts([web, network("db", bridge="c", address="10.0.1.3/24")])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dns": "static"}, "dns: static of db and dynamic of web are of the same bridge b"),
        ({"dns": "dynamic"}, "dns_domain: none of db and a.example of web are of the same bridge b"),
    ],
)
def test_a_bridge_has_one_name_server(options, sentence):
    web = network("web", bridge="b", address="10.0.0.2/24", dns="dynamic", dns_domain="A.Example.")
    assert sentence in conflict(web, network("db", bridge="b", address="10.0.0.3/24", **options))
    refuse_conflicts([web, network("db", bridge="c", address="10.0.1.3/24", **options)])


def test_a_name_server_is_at_the_gateways():
    web = network("web", bridge="b", address=["10.0.0.2/24", "fd00::2/64"], dns="dynamic")
    assert web.attachments[0].name_servers == ("10.0.0.1", "fd00::1")
    assert network("web", bridge="b", address="10.0.0.2/24").attachments[0].name_servers == ()


def test_two_that_want_the_same_link():
    long = "a-long-container-name"
    assert "name: " in conflict(network(long), network(host_link(long).partition("-")[2]))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 255), st.integers(8, 30)), min_size=2, max_size=8
    )
)
def test_a_subnet_is_behind_one_link(placed):
    networks = []
    for number, (bridge, offset, length) in enumerate(placed):
        block = ipaddress.ip_network(
            (int(ipaddress.ip_address("10.0.0.0")) + (offset << 16), length), strict=False
        )
        # The last host of each, and a gateway below it, so that nothing but the subnets can clash.
        address = f"{block.broadcast_address - 1}/{length}"
        networks.append(
            network(f"c{number}", bridge=bridge, address=address, gateway=str(block.network_address + 1))
        )
    attachments = [each.attachments[0] for each in networks]
    blocks = [(each.bridge, each.subnets[0]) for each in attachments]
    overlapping = any(
        one != other and here.overlaps(there)
        for position, (one, here) in enumerate(blocks)
        for other, there in blocks[position + 1 :]
    )
    said = ""
    try:
        refuse_conflicts(networks)
    except Failure as failure:
        said = str(failure)
    if overlapping:
        assert said
    else:
        # The same subnet twice on one bridge has the same last host.
        assert not said or "is declared for" in said or "is the gateway of" in said


SECOND = {"interface": "eth1", "bridge": "bare1", "address": ["10.2.0.2/24"]}


def interface(**options: Any) -> dict[str, Any]:
    return {**{option.name: option.default for option in INTERFACE.options}, **SECOND, **options}


def test_further_links_have_names_and_addresses_of_their_own():
    web = network("web", address="10.1.0.2/24", interfaces=[interface()])
    first, second = web.attachments
    assert (first.host_link, second.host_link) == ("bare-web", "bare-web-eth1")
    assert len({first.mac_address, first.host_mac, second.mac_address, second.host_mac}) == 4
    assert second.gateway == ("10.2.0.1",)
    assert (first.default_route, second.default_route) == (True, False)
    kept = json.loads(json.dumps(web.declaration()))
    assert Network.read_kept("web", kept) == web
    # What a container's links are called does not hang on the others.
    assert (
        network("web", interfaces=[interface(interface="eth2", address=[]), interface()]).attachments[2]
        == second
    )


def test_ports_lead_to_the_first_address_of_each_family_on_whatever_link():
    web = network("web", address="10.1.0.2/24", interfaces=[interface(address=["10.2.0.2/24", "fd00::2/64"])])
    assert [(link.interface, str(address)) for link, address in web.main_addresses] == [
        ("eth0", "10.1.0.2/24"),
        ("eth1", "fd00::2/64"),
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"interfaces": [interface(interface="eth0")]}, "interfaces: eth0 is declared twice for web"),
        ({"interfaces": [interface(), interface()]}, "interfaces: eth1 is declared twice for web"),
        (
            {"interfaces": [interface(address=["10.1.0.9/16"], gateway=["10.1.0.7"])]},
            "address: the subnet 10.1.0.0/16 of eth1 of web overlaps with 10.1.0.0/24 of web; each link",
        ),
        (
            {"interfaces": [interface(default_route=True)]},
            "routes: a route to 0.0.0.0/0 is declared twice for web, .* or default_route: false",
        ),
        (
            {"interfaces": [interface(gateway=["10.9.0.1"])]},
            "gateway: '10.9.0.1' is outside the subnet of eth1 of web's",
        ),
        (
            {"routes": [{"to": "10.7.0.0/16", "via": "10.9.0.1"}]},
            "routes: .* via 10.9.0.1, which is in no subnet",
        ),
        ({"routes": [{"to": "10.7.0.0/16", "via": "10.1.0.2"}]}, "routes: .* is via its own address"),
        ({"routes": [{"to": "10.1.0.0/24"}]}, "routes: .* is the one of its own address"),
        (
            {"routes": [{"to": "default", "via": "10.1.0.9"}]},
            "routes: a route to 0.0.0.0/0 is declared twice",
        ),
        ({"routes": [{"to": "default"}]}, "routes: .* it takes the default destination with the address"),
        ({"routes": [{"to": "fd00::/8", "via": "10.1.0.1"}]}, "routes: .* of the same family"),
        ({"routes": [{"to": "10.7.0.1/16"}]}, "routes.to: '10.7.0.1/16' is not accepted"),
        ({"routes": [{"to": "10.7.0.0/16", "metric": -1}]}, "routes.metric: -1 is not accepted"),
    ],
)
def test_links_and_routes_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(Failure, match=f"^{sentence}.*; nothing was changed.$"):
        network("web", address="10.1.0.2/24", **options)


def test_a_further_link_and_a_container_can_t_have_one_name_on_the_host():
    said = conflict(network("web", interfaces=[interface()]), network("web-eth1"))
    assert said.startswith("name: 'web-eth1' and 'eth1 of web' would both have bare-web-eth1")


def test_routes_that_say_the_same_are_the_same():
    spellings = (
        [{"to": "10.7.0.0/16", "via": "10.1.0.1"}, {"to": "::/0", "via": "fd00::1", "metric": 1024}],
        [{"to": "10.7.0.0/16", "via": "10.1.0.1", "metric": 0}, {"to": "default", "via": "fd00:0::1"}],
    )
    options = {"address": ["10.1.0.2/24", "fd00::2/64"], "default_route": False}
    one, other = (network("web", routes=routes, **options) for routes in spellings)
    assert one == other


@pytest.mark.parametrize(
    "damage",
    [{"interfaces": 5}, {"interfaces": [5]}, {"interfaces": [{"interface": 5}]}, {"routes": [{"to": 5}]}],
)
def test_what_people_made_of_a_kept_declaration_is_told(damage):
    kept = network("web", address="10.1.0.2/24", interfaces=[interface()]).declaration()
    with pytest.raises(Failure, match="is no declaration of this collection"):
        Network.read_kept("web", {**kept, **damage})


SHARED = {"address": "10.9.0.2/24", "kind": "macvlan", "parent": "wan"}


def test_a_link_that_shares_one_of_the_host_has_a_mode_and_nothing_on_the_host():
    macvlan = network("web", **SHARED).attachments[0]
    assert (macvlan.mode, macvlan.mac_address) == ("bridge", stable_mac("web"))
    ipvlan = network("web", **{**SHARED, "kind": "ipvlan", "mode": "l3s"}).attachments[0]
    assert (ipvlan.mode, ipvlan.mac_address) == ("l3s", None)
    # The same network on both sides of the host is nobody's conflict but that of addresses.
    refuse_conflicts([network("web", **SHARED), network("db", address="10.9.0.3/24", bridge="bare0")])
    both = network("web", **SHARED, interfaces=[interface()], publish=["80:80"])
    assert [address for _link, address in both.main_addresses] == [ipaddress.ip_interface("10.2.0.2/24")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parent": None}, "parent: web has none, and its link of kind macvlan takes a link of the host"),
        ({"mode": "l2"}, "mode: 'l2' of web is none of macvlan, which takes bridge, private, vepa, passthru"),
        (
            {"kind": "ipvlan", "mode": "vepa"},
            "mode: 'vepa' of web is none of ipvlan, which takes l2, l3, l3s",
        ),
        ({"kind": "veth"}, "parent: 'wan' is declared for web, whose link is of kind veth"),
        ({"kind": "veth", "parent": None, "mode": "l2"}, "mode: 'l2' is declared for web, whose link is of"),
        ({"bridge": "bare0"}, "bridge: 'bare0' is declared for web, whose link is of kind macvlan"),
        ({"internal": True}, "internal: True is declared for web, whose link is of kind macvlan"),
        ({"kind": "ipvlan", "mac_address": "02:00:00:00:00:01"}, "mac_address: .* of kind ipvlan"),
        ({"nat": True}, "nat: web has no link of kind veth"),
        ({"publish": ["80:80"]}, "publish: web has no link of kind veth"),
    ],
)
def test_what_a_kind_of_link_does_not_have_is_refused(options, sentence):
    with pytest.raises(Failure, match=f"^{sentence}.*; nothing was changed.$"):
        network("web", **{**SHARED, **options})


@pytest.mark.parametrize("other", [{"kind": "ipvlan"}, {"mode": "passthru"}])
def test_a_parent_is_shared_in_one_way(other):
    shared = network("web", **SHARED)
    refuse_conflicts([shared, network("db", **{**SHARED, "address": "10.9.0.3/24", "mode": "private"})])
    said = conflict(shared, network("db", **{**SHARED, "address": "10.9.0.3/24", **other}))
    assert "parent: 'wan' of db" in said


def test_all_ipvlans_of_a_parent_are_in_one_mode():
    l2, also, l3 = (
        network(name, **{**SHARED, "kind": "ipvlan", "mode": mode, "address": address})
        for name, mode, address in (
            ("a", "l2", "10.9.0.2/24"),
            ("b", "l2", "10.9.0.3/24"),
            ("c", "l3", "10.9.0.4/24"),
        )
    )
    refuse_conflicts([l2, also])
    assert "parent: 'wan' of c (ipvlan, l3) can't be that of a (ipvlan, l2) too" in conflict(l2, also, l3)


def test_bandwidth_is_kept_in_bits_per_second():
    web = network("web", address="10.1.0.2/24", bandwidth={"egress": "1M", "ingress": "10mbit"})
    assert web.attachments[0].bandwidth == {"egress": "1000000", "ingress": "10000000"}
    assert Network.read_kept("web", json.loads(json.dumps(web.declaration()))) == web
    with pytest.raises(Failure, match=r"^bandwidth: ingress is declared for web, .*kind macvlan"):
        network("web", **SHARED, bandwidth={"ingress": "1M"})

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network.options import (
    OPTIONS,
    bridge_name,
    link_name,
    rate,
    split_published,
)
from hypothesis import given
from hypothesis import strategies as st

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def normal(option: str, value: object) -> object:
    return OPTIONS.normalise({**DEFAULTS, "name": "web", option: value})[option]


def test_addresses_are_compressed_and_keep_their_order():
    assert normal("address", ["FD00:0::2/64", "10.200.0.2/24"]) == ["fd00::2/64", "10.200.0.2/24"]


@given(st.ip_addresses(), st.integers(1, 128))
def test_an_accepted_address_is_its_own_normal_form_and_can_be_a_host(address, length):
    length = min(length, address.max_prefixlen)
    try:
        (accepted,) = normal("address", [f"{address}/{length}"])
    except Failure:
        interface = ipaddress.ip_interface(f"{address}/{length}")
        ends = (interface.network.network_address, interface.network.broadcast_address)
        special = (
            address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local
        )
        assert special or address in ends
    else:
        assert ipaddress.ip_interface(accepted) == ipaddress.ip_interface(f"{address}/{length}")
        assert normal("address", [accepted]) == [accepted]


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.2",
        "10.0.0.0/24",
        "10.0.0.255/24",
        "10.0.0.256/24",
        "10.0.0.2/33",
        "fd00::/64",
        "fe80::2/64",
        "224.0.0.1/24",
        "127.0.0.2/8",
        "0.0.0.0/0",
        "web/24",
        "",
    ],
)
def test_what_no_host_can_have_is_refused(value):
    with pytest.raises(Failure, match=r"address: .* is not accepted, it takes .*; nothing was changed"):
        normal("address", [value])


def test_both_addresses_of_a_link_of_two_are_hosts():
    assert normal("address", ["10.0.0.0/31", "10.0.0.3/31"]) == ["10.0.0.0/31", "10.0.0.3/31"]


def test_gateways_are_one_of_each_family():
    assert normal("gateway", ["fd00::1", "10.0.0.1"]) == ["10.0.0.1", "fd00::1"]
    for bad in (["10.0.0.1", "10.0.0.2"], ["10.0.0.1/24"], ["127.0.0.1"], ["web"]):
        with pytest.raises(Failure, match="gateway: "):
            normal("gateway", bad)


def test_all_spellings_of_a_published_port_are_one():
    assert normal("publish", ["8080:80", "8080:80/tcp"]) == ["8080:80/tcp"]
    assert normal("publish", ["[FD00:0::1]:53:53/udp", "127.0.0.1:1:2"]) == [
        "127.0.0.1:1:2/tcp",
        "[fd00::1]:53:53/udp",
    ]
    assert normal("publish", ["5000-5000:80-80/sctp", "08-9:80-81"]) == ["5000:80/sctp", "8-9:80-81/tcp"]


@given(
    st.none() | st.ip_addresses(),
    st.integers(0, 70000),
    st.integers(0, 70000),
    st.integers(1, 200),
    st.sampled_from(["", "/tcp", "/udp", "/sctp"]),
)
def test_an_accepted_port_says_what_was_declared(address, port, inside, count, protocol):
    on = "" if address is None else f"[{address}]:" if address.version == 6 else f"{address}:"
    more = [f"-{first + count - 1}" if count > 1 else "" for first in (port, inside)]
    try:
        (accepted,) = normal("publish", [f"{on}{port}{more[0]}:{inside}{more[1]}{protocol}"])
    except Failure:
        return
    assert split_published(accepted) == (
        None if address is None else str(address),
        port,
        inside,
        count,
        protocol[1:] or "tcp",
    )
    assert normal("publish", [accepted]) == [accepted]


@pytest.mark.parametrize(
    "value",
    [
        "80",
        "0:80",
        "80:0",
        "80:65536",
        "80:80/icmp",
        "80-81:80",
        "80-81:80-82",
        "81-80:81-80",
        "65535-65536:1-2",
        "web:80:80",
        "0.0.0.0:80:80",
        "[::1]:80:80",
        "::1:80:80",
        "",
    ],
)
def test_what_can_not_be_published_is_refused(value):
    with pytest.raises(Failure, match="publish: "):
        normal("publish", [value])


def test_all_spellings_of_a_trunk_are_one():
    assert normal("vlan_trunk", ["30", "20-25", "10", "26-29", "22"]) == ["10", "20-30"]
    assert normal("vlan_trunk", ["1-4094"]) == ["1-4094"]
    for bad in ("0", "4095", "30-20", "a", "", "1-2-3", "-5", "4000-5000"):
        with pytest.raises(Failure, match=r"vlan_trunk: .* ranges of them such as 20-30"):
            normal("vlan_trunk", [bad])


@pytest.mark.parametrize("value", [0, 4095, -1])
def test_what_is_no_vlan_is_refused(value):
    with pytest.raises(Failure, match=r"vlan: .* a number from 1 to 4094"):
        normal("vlan", value)


@pytest.mark.parametrize("value", ["", "a" * 16, "a/b", "a b", "-a", ".", "lo", "all", "default", "ü", "a%d"])
def test_what_can_not_name_a_link_is_refused(value):
    with pytest.raises(ValueError, match="up to 15 letters"):
        link_name(value)


def test_a_bridge_has_no_name_that_a_container_s_link_could_have():
    assert bridge_name("bare0") == "bare0"
    with pytest.raises(ValueError, match="bare-"):
        bridge_name("bare-web")


def test_mac_addresses_are_of_one_host():
    assert normal("mac_address", "02-00-00-00-00-AB") == "02:00:00:00:00:ab"
    for bad in ("01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "web"):
        with pytest.raises(Failure, match="mac_address: "):
            normal("mac_address", bad)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10M", 10_000_000), ("10mbit", 10_000_000), ("1G", 10**9), ("64kbit", 64_000), ("12345", 12_344)],
)
def test_rates_are_bits_per_second_in_powers_of_1000(text, bits):
    assert rate(text) == rate(rate(text)) == str(bits)


@pytest.mark.parametrize("text", ["", "M", "10", "7k", "35G", "1.5M", "10MB", "10Mi", "-1M", "1T"])
def test_other_rates_are_refused(text):
    with pytest.raises(ValueError, match="bits per second"):
        rate(text)


def test_a_domain_is_in_lower_case_and_without_its_last_dot():
    assert normal("dns_domain", "Containers.Example.ORG.") == "containers.example.org"
    assert normal("dns_domain", "lan") == "lan"


@pytest.mark.parametrize(
    "value", ["", ".", "a..b", "-a.b", "a-.b", "a b", "a_b", "a/b", "a" * 64, "é.org", "a." * 100 + "a"]
)
def test_what_is_no_domain_is_refused(value):
    with pytest.raises(Failure, match=r"dns_domain: .* such as containers\.example\.org"):
        normal("dns_domain", value)

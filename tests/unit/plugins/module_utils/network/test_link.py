# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network import link as link_module
from ansible_collections.bare.containers.plugins.module_utils.network import netlink
from ansible_collections.bare.containers.plugins.module_utils.network.link import (
    Place,
    connected_route,
    link_steps,
)
from hypothesis import given
from hypothesis import strategies as st


class Message(dict):
    """What pyroute2 decodes: fields, and attributes."""

    def __init__(self, attributes: dict[str, Any], **fields: Any) -> None:
        usual = {"family": 2, "table": 254, "type": 1, "proto": 3, "flags": 0, "dst_len": 0}
        super().__init__({**usual, **fields})
        self.attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self.attributes.get(name)


class Session:
    def __init__(self, *messages: Message) -> None:
        self.get_routes = lambda **_filter: messages


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message({"RTA_GATEWAY": "10.0.0.1", "RTA_OIF": 2}), "default via 10.0.0.1 dev eth0"),
        (Message({"RTA_DST": "10.0.0.0", "RTA_OIF": 2}, dst_len=24), "10.0.0.0/24 dev eth0"),
        (Message({"RTA_OIF": 2, "RTA_PRIORITY": 7}), "default dev eth0 metric 7"),
        (Message({"RTA_OIF": 9}), "default dev 9"),
        (Message({"RTA_DST": "10.9.0.0"}, dst_len=16, type=6), "blackhole 10.9.0.0/16"),
        (Message({"RTA_DST": "fd09::", "RTA_OIF": 1}, dst_len=48, type=8, family=10), "prohibit fd09::/48"),
        (
            Message({"RTA_GATEWAY": "fd00::1", "RTA_OIF": 2, "RTA_PRIORITY": 1024}, family=10),
            "::/0 via fd00::1 dev eth0",
        ),
        (
            Message({"RTA_DST": "fd00::", "RTA_OIF": 2, "RTA_PRIORITY": 256}, dst_len=64, family=10, proto=2),
            "fd00::/64 dev eth0",
        ),
        (
            Message({"RTA_DST": "fd00::", "RTA_OIF": 2, "RTA_PRIORITY": 256}, dst_len=64, family=10),
            "fd00::/64 dev eth0 metric 256",
        ),
    ],
)
def test_routes_are_shown_in_the_words_that_change_them(message, words, monkeypatch):
    assert netlink.routes(Session(message), {2: "eth0"}) == [words]
    monkeypatch.setattr("socket.if_nametoindex", {"eth0": 2, "9": 9}.__getitem__)
    arguments = link_module._route(words)
    assert arguments["family"] == message["family"]
    assert arguments.get("oif") == (None if message["type"] != 1 else message.attributes.get("RTA_OIF"))
    assert arguments.get("gateway") == message.attributes.get("RTA_GATEWAY")
    assert arguments.get("type") == netlink.ROUTE_TYPES.get(message["type"])


@pytest.mark.parametrize(
    "message",
    [
        Message({"RTA_DST": "10.0.0.2", "RTA_TABLE": 255}, dst_len=32),
        Message({"RTA_DST": "fe80::"}, dst_len=64, family=10),
        Message({"RTA_DST": "ff00::"}, dst_len=8, family=10),
        Message({"RTA_DST": "10.0.0.2"}, dst_len=32, flags=0x200),
    ],
)
def test_what_the_kernel_keeps_for_itself_is_not_shown(message):
    assert netlink.routes(Session(message), {}) == []


def test_the_kernel_s_own_routes():
    assert (
        connected_route("eth0", "10.0.0.2/24") == "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.2"
    )
    assert connected_route("eth0", "fd00::2/64") == "fd00::/64 dev eth0 proto kernel metric 256"
    assert connected_route("eth0", "10.0.0.2/32") is None


def lines(now: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [line for step in link_steps(Place(), "link", "v0", now, wanted) for line in step.commands]


NOW = {"up": False, "mtu": 1500, "master": None, "hairpin": False, "addresses": [], "ipv6/accept_ra": "1"}
WANTED = {
    "up": True,
    "mtu": 1400,
    "master": "bare0",
    "hairpin": True,
    "addresses": ["10.0.0.1/24", "fd00::1/64"],
    "ipv6/accept_ra": "0",
    "ipv4/route_localnet": "1",
}


def test_a_link_comes_up_only_when_it_is_safe():
    assert lines(NOW, WANTED) == [
        "ip link set dev v0 mtu 1400",
        "ip link set dev v0 master bare0",
        "ip link set dev v0 type bridge_slave hairpin on",
        "echo 0 > /proc/sys/net/ipv6/conf/v0/accept_ra",
        "ip link set dev v0 up",
        "ip address replace 10.0.0.1/24 dev v0",
        "ip address replace fd00::1/64 dev v0 nodad",
        "echo 1 > /proc/sys/net/ipv4/conf/v0/route_localnet",
    ]


def test_what_is_as_wanted_is_left_alone():
    assert lines(WANTED, WANTED) == []


def test_a_port_of_another_bridge_is_a_new_port():
    assert lines({**WANTED, "master": "bare9"}, WANTED) == [
        "ip link set dev v0 master bare0",
        "ip link set dev v0 type bridge_slave hairpin on",
    ]
    assert lines(WANTED, {**WANTED, "master": None, "hairpin": False}) == ["ip link set dev v0 nomaster"]


def test_localhost_is_opened_only_after_the_check_and_closed_without():
    def refuse() -> None:
        raise Failure("not guarded")

    (opening,) = link_steps(Place(), "link", "v0", {**WANTED, "ipv4/route_localnet": "0"}, WANTED, refuse)
    with pytest.raises(Failure, match="not guarded"):
        opening.apply()
    (closing,) = link_steps(Place(), "link", "v0", WANTED, {**WANTED, "ipv4/route_localnet": "0"}, refuse)
    with pytest.raises(FileNotFoundError):
        closing.apply()


hosts = st.integers(1, 254).map(lambda host: f"10.0.{host % 2}.{host}/24")


@given(st.lists(hosts, unique=True, max_size=6), st.lists(hosts, unique=True, max_size=6))
def test_addresses_end_as_wanted_though_the_kernel_takes_neighbours_along(now, wanted):
    """Played on a model of the kernel: with the first address of a subnet go all others of it."""
    left = list(now)
    for line in lines({**WANTED, "addresses": now}, {**WANTED, "addresses": wanted}):
        _ip, _address, verb, address, *_dev = line.split()
        subnet = ipaddress.ip_interface(address).network
        neighbours = [other for other in left if ipaddress.ip_interface(other).network == subnet]
        if verb == "replace":
            left += [] if address in left else [address]
        elif neighbours and neighbours[0] == address:
            left = [other for other in left if other not in neighbours]
        elif address in left:
            left.remove(address)
    assert sorted(left) == sorted(wanted)


def test_commands_name_the_namespace():
    place = Place("web", "/run/netns/web")
    assert place.set_link("links.eth0", "eth0", "up", True).commands == ("ip -n web link set dev eth0 up",)
    assert place.set_link("links.eth0", "eth0", "ipv6/accept_ra", "0").commands == (
        "ip netns exec web sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra'",
    )
    assert place.replace_route("routes", "default via 10.0.0.1 dev eth0").commands == (
        "ip -n web route replace default via 10.0.0.1 dev eth0",
    )


@given(st.integers(1_000, 4_250_000_000))
def test_a_limit_is_read_as_it_was_set(rate):
    """The kernel keeps the time of a burst, in ticks of 64 ns."""
    bucket = netlink.token_bucket(rate * 8)
    parameters = {"rate": rate, "buffer": int(bucket["burst"] * 10**9 / rate / 64), "limit": bucket["limit"]}
    message = Message({"TCA_KIND": "tbf"}, parent=0xFFFFFFFF, handle=1 << 16, index=7)
    message.get_nested = lambda *_names: parameters
    session = Session()
    session.get_qdiscs = lambda: [message]
    assert netlink.qdiscs(session) == {7: bucket}

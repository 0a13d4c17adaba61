# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that change links, addresses and routes: each one netlink request, and the ip(8) command for it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..converge import Failure, Step
from ..kernel import file
from ..shell import command, write_value
from . import netlink, vlans

IPV6 = Path("/proc/sys/net/ipv6")
"""Is there where the kernel has IPv6."""

ACCEPT_RA = "ipv6/accept_ra"
ROUTE_LOCALNET = "ipv4/route_localnet"

VLAN_FILTERING = "vlan_filtering"
VLANS = "vlans"

QDISC = "qdisc"
_HANDLE = "1:"

NO_GROUP = 0
GOING = 0x62617265
"""The group (ip-link(8)) of links that are about to be deleted, a number that nobody else should think of."""

_IFA_F_NODAD = 2
_RTPROT_BOOT = 3
_RT_SCOPE_NOWHERE = 255

_WORDS: dict[str, Callable[[Any], list[str]]] = {
    "up": lambda up: ["up" if up else "down"],
    "mac": lambda mac: ["address", mac],
    "mtu": lambda mtu: ["mtu", str(mtu)],
    "master": lambda bridge: ["master", bridge] if bridge else ["nomaster"],
    "group": lambda number: ["group", str(number)],
    "stp": lambda on: ["type", "bridge", "stp_state", str(int(on))],
    VLAN_FILTERING: lambda on: ["type", "bridge", "vlan_filtering", str(int(on))],
    "hairpin": lambda on: ["type", "bridge_slave", "hairpin", "on" if on else "off"],
}
"""What ip-link(8) says after ``set dev LINK`` for each setting of a link."""

_REQUESTS: dict[str, Callable[[Any, int, Any], Any]] = {
    "up": lambda ip, link, up: ip.link("set", index=link, state="up" if up else "down"),
    "mac": lambda ip, link, mac: ip.link("set", index=link, address=mac),
    "mtu": lambda ip, link, mtu: ip.link("set", index=link, mtu=mtu),
    "master": lambda ip, link, bridge: ip.link(
        "set", index=link, master=socket.if_nametoindex(bridge) if bridge else 0
    ),
    "group": lambda ip, link, number: ip.link("set", index=link, group=number),
    "stp": lambda ip, link, on: ip.link("set", index=link, kind="bridge", br_stp_state=int(on)),
    VLAN_FILTERING: lambda ip, link, on: ip.link("set", index=link, kind="bridge", br_vlan_filtering=int(on)),
    "hairpin": lambda ip, link, on: ip.brport("set", index=link, mode=int(on)),
}
"""The netlink request for the same, on a link by its index."""


def setting_path(link: str, setting: str) -> Path:
    """The file of ``ipv4/NAME`` or ``ipv6/NAME`` of a link (the kernel's networking/ip-sysctl.rst)."""
    family, _slash, name = setting.partition("/")
    return Path("/proc/sys/net", family, "conf", link, name)


class Place:
    """A network namespace to change: the host's own, or a container's by its name and path.

    Every method gives one step; ``changes`` is what the state calls that which it changes.
    """

    def __init__(self, name: str | None = None, path: str | None = None) -> None:
        self._path = path
        self._ip = ["ip"] if name is None else ["ip", "-n", name]
        self._tc = ["tc"] if name is None else ["tc", "-n", name]
        self._enter = [] if name is None else ["ip", "netns", "exec", name]

    def request(self, changes: str, words: Sequence[str], request: Callable[[Any], Any]) -> Step:
        """One netlink request, given the session, and what ip(8) takes for the same."""

        def apply() -> None:
            with netlink.session(self._path) as ip:
                request(ip)

        return Step(changes, (command([*self._ip, *words]),), apply)

    def delete_link(self, changes: str, link: str) -> Step:
        """Deletes a link and, of a veth, the other end too; it is fine if it has just gone by itself."""
        request = _unless_gone(link, lambda ip: ip.link("del", index=socket.if_nametoindex(link)))
        return self.request(changes, ["link", "delete", link], request)

    def delete_links(self, changes: str, links: Mapping[str, Mapping[str, Any]]) -> list[Step]:
        """Deletes links by their names, as delete_link() does, with all others of the batch as one group: for
        each deletion the kernel waits until nobody can be using the link any more (net/core/dev.c,
        netdev_run_todo()), for a group once."""

        def into_group(link: str) -> Step:
            words = ["link", "set", "dev", link, *_WORDS["group"](GOING)]
            return self.request(
                f"{changes}.{link}",
                words,
                _unless_gone(link, lambda ip: _REQUESTS["group"](ip, socket.if_nametoindex(link), GOING)),
            )

        def request(ip: Any) -> None:
            try:
                ip.link("del", group=GOING)
            except Exception as error:
                if getattr(error, "code", None) != errno.ENODEV:
                    raise

        delete = self.request(changes, ["link", "delete", *_WORDS["group"](GOING)], request)
        steps = [into_group(link) for link, now in links.items() if now["group"] != GOING]
        return [*steps, replace(delete, shared=changes)] if links else []

    def set_link(self, changes: str, link: str, setting: str, value: Any) -> Step:
        """Sets ``up``, ``mac``, ``mtu``, ``master`` (a name or None), ``group`` (a number), ``stp``,
        ``vlan_filtering``, ``hairpin``, ``qdisc`` (a token_bucket() or None), or a setting_path() to a
        string."""
        changes = f"{changes}.{setting}"
        if setting == QDISC:
            return self._set_qdisc(changes, link, value)
        if setting in _WORDS:
            return self.request(
                changes,
                ["link", "set", "dev", link, *_WORDS[setting](value)],
                lambda ip: _REQUESTS[setting](ip, socket.if_nametoindex(link), value),
            )
        return self.write(changes, setting_path(link, setting), value)

    def _set_qdisc(self, changes: str, link: str, bucket: Mapping[str, int] | None) -> Step:
        """Limits what the link sends, or takes its queueing discipline away, whatever that is (tc(8))."""
        if bucket is None:
            words = ["qdisc", "delete", "dev", link, "root"]
        else:
            words = ["qdisc", "replace", "dev", link, "root", "handle", _HANDLE, "tbf"]
            words += ["rate", f"{bucket['rate']}bit", "burst", f"{bucket['burst']}b"]
            words += ["limit", f"{bucket['limit']}b"]

        def apply() -> None:
            with netlink.session(self._path) as ip:
                try:
                    netlink.set_root_qdisc(ip, socket.if_nametoindex(link), _HANDLE, bucket)
                except Exception as error:
                    if getattr(error, "code", None) != errno.ENOENT or bucket is None:
                        raise
                    raise Failure(
                        f"bandwidth: the kernel of this host has no tbf (modprobe sch_tbf); {link} was not "
                        "limited."
                    ) from None

        return Step(changes, (command([*self._tc, *words]),), apply)

    def set_vlans(self, changes: str, link: str, now: Sequence[str], wanted: Sequence[str]) -> Step:
        """Has a link of a bridge be in the VLANs ``wanted``, from those ``now``: lines of vlans.py.

        It leaves before it joins, so that it is never in two that are to be apart."""
        own = " self" if any(line.endswith(" self") for line in wanted) else ""
        leaving = [f"{each}{own}" for each in vlans.surplus(now, wanted)]
        joining = [line for line in wanted if line not in now]
        changing = [("delete", "del", leaving), ("add", "add", joining)]

        def apply() -> None:
            with netlink.session(self._path) as ip:
                index = socket.if_nametoindex(link)
                for _verb, request, lines in changing:
                    if lines:
                        netlink.set_port_vlans(ip, index, request, lines)

        words = [
            ["bridge", "vlan", verb, "dev", link, "vid", *line.split()]
            for verb, _request, lines in changing
            for line in lines
        ]
        return Step(changes, tuple(map(command, words)), apply)

    def replace_address(self, changes: str, link: str, address: str) -> Step:
        """Gives a link an address, whether it has it or not, usable at once (no duplicate address
        detection)."""
        six = ":" in address
        words = ["address", "replace", address, "dev", link, *(["nodad"] if six else [])]
        flags = {"flags": _IFA_F_NODAD} if six else {}
        return self.request(changes, words, lambda ip: ip.addr("replace", **_address(link, address), **flags))

    def delete_address(self, changes: str, link: str, address: str) -> Step:
        """Takes an address from a link, if it has not just gone with the first one of its subnet."""

        def request(ip: Any) -> None:
            try:
                ip.addr("delete", **_address(link, address))
            except Exception as error:
                if getattr(error, "code", None) != errno.EADDRNOTAVAIL:
                    raise

        return self.request(changes, ["address", "delete", address, "dev", link], request)

    def replace_route(self, changes: str, route: str) -> Step:
        """Sets a route, in the words of ip-route(8), whether there is one to that destination or not."""
        words = ["route", "replace", *route.split()]
        return self.request(
            changes, words, lambda ip: ip.route("replace", **{"proto": _RTPROT_BOOT, **_route(route)})
        )

    def delete_route(self, changes: str, route: str) -> Step:
        words = ["route", "delete", *route.split()]
        whichever = {"proto": 0, "scope": _RT_SCOPE_NOWHERE}
        return self.request(changes, words, lambda ip: ip.route("delete", **whichever, **_route(route)))

    def write(self, changes: str, path: Path, value: str) -> Step:
        """Writes a file of /proc/sys/net, which shows the namespace of who opens it."""

        def apply() -> None:
            with netlink.entered(self._path):
                path.write_text(value, encoding="ascii")

        line = write_value(path, value)
        return Step(changes, (command([*self._enter, "sh", "-c", line]) if self._enter else line,), apply)


def _unless_gone(link: str, request: Callable[[Any], Any]) -> Callable[[Any], None]:
    """The same request, which may fail where there is no such link any more."""

    def tolerant(ip: Any) -> None:
        try:
            request(ip)
        except Exception:
            if any(name == link for _index, name in socket.if_nameindex()):
                raise

    return tolerant


def _address(link: str, address: str) -> dict[str, Any]:
    plain, _slash, length = address.partition("/")
    return {"index": socket.if_nametoindex(link), "address": plain, "prefixlen": int(length)}


_ROUTE_KEYWORDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "via": lambda gateway: {"gateway": gateway},
    "dev": lambda link: {"oif": socket.if_nametoindex(link)},
    "metric": lambda metric: {"priority": int(metric)},
    "proto": lambda protocol: {"proto": protocol},
    "scope": lambda scope: {"scope": scope},
    "src": lambda address: {"prefsrc": address},
}


def _route(route: str) -> dict[str, Any]:
    """pyroute2's arguments for a route in the words of ip-route(8): ``[TYPE] DESTINATION [KEYWORD
    VALUE]…``."""
    words = route.split()
    arguments: dict[str, Any] = {"type": words.pop(0)} if words[0] in netlink.ROUTE_TYPES.values() else {}
    destination = words.pop(0)
    arguments["family"] = socket.AF_INET6 if ":" in destination else socket.AF_INET
    arguments["dst"] = "default" if destination in ("default", netlink.DEFAULT6) else destination
    for keyword, value in zip(words[::2], words[1::2]):
        arguments.update(_ROUTE_KEYWORDS[keyword](value))
    return arguments


def connected_route(link: str, address: str) -> str | None:
    """The route that the kernel sets for an address of a link, in full, or None for a single IPv4 address."""
    interface = ipaddress.ip_interface(address)
    if interface.version == 6:
        return f"{interface.network} dev {link} proto kernel metric 256"
    if interface.network.prefixlen == 32:
        return None
    return f"{interface.network} dev {link} proto kernel scope link src {interface.ip}"


def read_settings(link: str, settings: Sequence[str]) -> dict[str, str]:
    """These settings of a link in the calling thread's namespace, as far as the kernel has them."""
    values = {setting: file.read_text(setting_path(link, setting)) for setting in settings}
    return {setting: value.strip() for setting, value in values.items() if value is not None}


def inner_settings() -> dict[str, str]:
    """What a container's end of a link has: no addresses or routes by router advertisements."""
    return {ACCEPT_RA: "0"} if IPV6.exists() else {}


def outer_settings(*, localnet: bool) -> dict[str, str]:
    """What a link of the host to containers has: no advertisements taken from them (CVE-2020-10749), and
    ``localnet`` says whether 127.0.0.0/8 is reached over it."""
    return {**inner_settings(), ROUTE_LOCALNET: "1" if localnet else "0"}


def new_settings() -> dict[str, str]:
    """What a link of the host that is still to be made is known to have of them."""
    return read_settings("default", [ROUTE_LOCALNET])


_NOT_SET = ("addresses", "peer", "kind", "parent", "mode", "bridge", "vlan")
"""What a link is made with, and its addresses, which are set in steps of their own."""


def link_steps(
    place: Place,
    changes: str,
    link: str,
    now: Mapping[str, Any],
    wanted: Mapping[str, Any],
    before_localnet: Callable[[], None] = lambda: None,
) -> list[Step]:
    """From the link as it is to what is wanted, by the keys of ``wanted``: those of set_link() and
    ``addresses``.

    Router advertisements are refused before it is up. ``before_localnet`` raises where 127.0.0.0/8 is not to
    be
    opened to the link.
    """
    if now.get("master") != wanted.get("master"):
        # What a port is set to goes with the port.
        now = {**now, "hairpin": False}
    steps = {
        key: place.set_link(changes, link, key, value)
        for key, value in wanted.items()
        if key not in (*_NOT_SET, VLANS) and now.get(key) != value
    }
    there = now.get(VLANS)
    if there is not None and there != _wanted_vlans(wanted):
        steps[VLANS] = place.set_vlans(f"{changes}.{VLANS}", link, there, _wanted_vlans(wanted))
    if QDISC in steps and isinstance(now.get(QDISC), str) and wanted[QDISC] is not None:
        # Of another kind, which can't be turned into ours.
        steps = {"other qdisc": place.set_link(changes, link, QDISC, None), **steps}
    if ROUTE_LOCALNET in steps and wanted[ROUTE_LOCALNET] == "1":
        steps[ROUTE_LOCALNET] = after(before_localnet, steps[ROUTE_LOCALNET])
    away, back = _address_steps(place, f"{changes}.addresses", link, now["addresses"], wanted["addresses"])
    up = [steps.pop("up")] if "up" in steps else []
    localnet = [steps.pop(ROUTE_LOCALNET)] if ROUTE_LOCALNET in steps else []
    return [*steps.values(), *away, *up, *back, *localnet]


def _wanted_vlans(wanted: Mapping[str, Any]) -> list[str]:
    """Where they are of no effect, those that every link of a bridge is in."""
    usual = vlans.own() if VLAN_FILTERING in wanted else vlans.port(vlans.DEFAULT)
    return usual if wanted[VLANS] is None else list(wanted[VLANS])


def after(check: Callable[[], None], step: Step) -> Step:
    """The same step, which is not done where ``check`` raises."""

    def apply() -> None:
        check()
        step.apply()

    return replace(step, apply=apply)


def _address_steps(
    place: Place, changes: str, link: str, now: Sequence[str], wanted: Sequence[str]
) -> tuple[list[Step], list[Step]]:
    """The steps that take addresses away and those that give them.

    With the first address of an IPv4 subnet go the others of it (net/ipv4/devinet.c), so these are given
    again.
    """
    away = [address for address in now if address not in wanted]
    shaken = {ipaddress.ip_interface(address).network for address in away}
    back = [
        address
        for address in wanted
        if address not in now or ipaddress.ip_interface(address).network in shaken
    ]
    return (
        [place.delete_address(changes, link, address) for address in away],
        [place.replace_address(changes, link, address) for address in back],
    )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices of a container: nodes of the host's that it gets, and rules for what may be opened at all.

In the terms of the OCI runtime spec (config-linux, "Devices", "Device allowlist"); the options are those of
podman-run(1), --device and --device-cgroup-rule.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..converge import Failure

Rule = dict[str, Any]
"""An entry of ``linux.resources.devices``; without type, major or minor it is for all."""

_ACCESS = "rwm"


def _allow(kind: str, major: int | None, minor: int | None, access: str) -> Rule:
    numbers = {"major": major, "minor": minor}
    given = {name: number for name, number in numbers.items() if number is not None}
    return {"allow": True, "type": kind, **given, "access": access}


DEFAULT_RULES: tuple[Rule, ...] = (
    {"allow": False, "access": "rwm"},
    # Any node may be made: it is of no use, as it can't be opened.
    _allow("c", None, None, "m"),
    _allow("b", None, None, "m"),
    _allow("c", 1, 3, "rwm"),  # /dev/null
    _allow("c", 1, 5, "rwm"),  # /dev/zero
    _allow("c", 1, 7, "rwm"),  # /dev/full
    _allow("c", 1, 8, "rwm"),  # /dev/random
    _allow("c", 1, 9, "rwm"),  # /dev/urandom
    _allow("c", 5, 0, "rwm"),  # /dev/tty
    _allow("c", 5, 2, "rwm"),  # /dev/ptmx
    _allow("c", 136, None, "rwm"),  # /dev/pts/*, of which /dev/console is one
)
"""What every container may use, as with runc; by numbers of Documentation/admin-guide/devices.txt."""

ALL_RULES: tuple[Rule, ...] = ({"allow": True, "access": "rwm"},)
"""Those of a privileged container."""


# The options.


def devices(value: Sequence[str]) -> list[dict[str, str]]:
    """The option ``devices`` in normal form, each ``SOURCE[:DESTINATION][:ACCESS]``. Raises ValueError."""
    found = [_device(text) for text in value]
    if len({device["destination"] for device in found}) < len(found):
        raise ValueError("one device for each path inside the container")
    return found


def _device(text: str) -> dict[str, str]:
    source, *rest = text.split(":")
    access = rest.pop() if rest and _is_access(rest[-1]) else _ACCESS
    destination = rest.pop() if rest else source
    if rest or not (_is_path(source) and _is_path(destination)):
        raise ValueError(
            "SOURCE[:DESTINATION][:ACCESS] with absolute paths without '..' and an access of the letters r, "
            f"w and m, which {text!r} is not"
        )
    return {"source": _normal(source), "destination": _normal(destination), "access": _ordered(access)}


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text and ".." not in text.split("/") and _normal(text) != "/"


def _normal(path: str) -> str:
    return os.path.normpath("/" + path.lstrip("/"))


def _is_access(text: str) -> bool:
    return re.fullmatch(r"[rwm]{1,3}", text) is not None


def _ordered(access: str) -> str:
    return "".join(letter for letter in _ACCESS if letter in access)


_CGROUP_RULE = re.compile(r"([abc]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})")


def cgroup_rules(value: Sequence[str]) -> list[Rule]:
    """The option ``device_cgroup_rules`` as rules, each ``TYPE MAJOR:MINOR ACCESS``. Raises ValueError."""
    return [_cgroup_rule(text) for text in value]


def _cgroup_rule(text: str) -> Rule:
    match = _CGROUP_RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"TYPE MAJOR:MINOR ACCESS such as 'c 42:* rwm', which {text!r} is not")
    kind, major, minor, access = match.groups()
    return _allow(kind, _number(major), _number(minor), _ordered(access))


def _number(text: str) -> int | None:
    return None if text == "*" else int(text)


# In config.json.


def read(declared: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, Any]], list[Rule]]:
    """``linux.devices`` for the option ``devices`` in normal form, and the rules that go with them.

    What they are is read from the nodes of this host. A directory, such as /dev/snd, stands for all devices
    below it. Raises Failure where there is no device.
    """
    entries, rules = [], []
    for device in declared:
        for source, destination in _below(device):
            status = os.stat(source)
            kind = _KINDS[stat.S_IFMT(status.st_mode)]
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            entries.append(
                {
                    "path": destination,
                    "type": kind,
                    "major": major,
                    "minor": minor,
                    "fileMode": stat.S_IMODE(status.st_mode),
                    "uid": status.st_uid,
                    "gid": status.st_gid,
                }
            )
            rules.append(_allow(kind, major, minor, device["access"]))
    return entries, rules


_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


def _below(device: Mapping[str, str]) -> list[tuple[str, str]]:
    """The device's node and where it is to be, or those in and below its directory, sorted."""
    source, destination = device["source"], device["destination"]
    found = [source] if _is_device(source) else []
    for directory, __, names in os.walk(source):
        found += [path for path in (os.path.join(directory, name) for name in names) if _is_device(path)]
    if not found:
        raise Failure(
            f"devices: {source!r} is no device of this host, nor a directory with any; nothing was changed."
        )
    return [(path, destination + path[len(source) :]) for path in sorted(found)]


def _is_device(path: str) -> bool:
    try:
        return stat.S_IFMT(os.stat(path).st_mode) in _KINDS
    except OSError:
        return False


# Under systemd.


_Devices = tuple[str, Optional[int], Optional[int]]
"""Those of a type, a major and a minor number, or of any where that is None."""


def systemd_properties(rules: Sequence[Rule]) -> list[str]:
    """The lines of a unit that have systemd filter by these rules (systemd.resource-control(5)).

    systemd has rules that allow, only, and one of them has to allow all that is asked for at a time. So it is
    worked out here what is allowed in the end. Raises Failure for what can't be said like that.
    """
    allowed: dict[_Devices, set[str]] = {}
    for rule in rules:
        kind = rule.get("type", "a")
        for each in ("c", "b") if kind == "a" else (kind,):
            devices = (each, rule.get("major"), rule.get("minor"))
            if rule["allow"]:
                allowed.setdefault(devices, set()).update(rule["access"])
            else:
                _take_away(allowed, devices, set(rule["access"]))
    lines = ["DevicePolicy=strict"]
    for devices, own in allowed.items():
        if own:
            access = own.union(*(given for wider, given in allowed.items() if _covers(wider, devices)))
            lines.append(f"DeviceAllow={_specifier(devices)} {_ordered(''.join(access))}")
    return lines


def _take_away(allowed: Mapping[_Devices, set[str]], devices: _Devices, access: set[str]) -> None:
    for others, given in allowed.items():
        if _covers(devices, others):
            given -= access
        elif given & access and all(None in pair or pair[0] == pair[1] for pair in zip(devices, others)):
            raise Failure(
                f"device_cgroup_rules: systemd can't except {_named(devices)} from {_named(others)}, it has "
                "rules that allow, only; nothing was changed."
            )


def _covers(wider: _Devices, devices: _Devices) -> bool:
    return all(one is None or one == other for one, other in zip(wider, devices))


def _specifier(devices: _Devices) -> str:
    """How systemd calls the devices; by their numbers, which it takes whether or not there is a node."""
    kind, major, minor = devices
    group = {"c": "char", "b": "block"}[kind]
    if major is None and minor is not None:
        raise Failure(
            f"device_cgroup_rules: systemd can't allow {_named(devices)}, it takes a minor number only with "
            "a major one; nothing was changed."
        )
    if minor is not None:
        return f"/dev/{group}/{major}:{minor}"
    return f"{group}-{'*' if major is None else major}"


def _named(devices: _Devices) -> str:
    kind, major, minor = devices
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor}"

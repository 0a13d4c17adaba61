# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles of system calls, read and brought to the one form that seccomp_filter.py compiles.

A profile is ``linux.seccomp`` of the OCI runtime spec (config-linux, "Seccomp"), or the superset of it that
Docker and podman share (docs.docker.com, "Seccomp security profiles for Docker"; seccomp.json(5) of
containers-common), whose rules hold under conditions. Its normal form is the former, with only what applies.

What a profile does not say is decided so:

- A call of an architecture that the profile does not list ends the process (SIGSYS): the numbers of its calls
  mean others there, so that a filter without it would be no filter. The machine's own is always in it.
- A call that is newer than all that the profile names gives ENOSYS unless calls are allowed by default: it
  can't have been meant, and programs have another way for kernels without it, but not for EPERM.
"""

from __future__ import annotations

import errno
import json
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..converge import Failure
from ..kernel import capability
from ..kernel.seccomp import ACTIONS, FLAGS
from ..kernel.syscall import machine
from . import seccomp_default
from .seccomp_program import MASKED, OPERATORS

Profile = dict[str, Any]
"""``linux.seccomp`` of the OCI runtime spec in normal form: sorted, every value spelled out."""

DEFAULT = "default"


@dataclass(frozen=True)
class Conditions:
    """What the rules of a profile may depend on.

    ``capabilities`` is the container's bounding set, ``kernel`` the version's first two numbers, ``machine``
    the architecture in uname(2)'s words.
    """

    capabilities: frozenset[str]
    kernel: tuple[int, int]
    machine: str


def conditions(capabilities: Iterable[str]) -> Conditions:
    """Those of a container with these capabilities on this host."""
    return Conditions(frozenset(capabilities), _version(os.uname().release), machine())


def read(declared: str, given: Conditions) -> Profile:
    """The profile ``default``, or the one in a file, as it applies. Raises Failure."""
    if declared == DEFAULT:
        return normalise(seccomp_default.PROFILE, given)
    try:
        with open(declared, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise Failure(
            f"seccomp: {declared!r} can't be read ({error.strerror}), it takes 'default', 'unconfined' or "
            "the path of a profile on the host; nothing was changed."
        ) from None
    except UnicodeDecodeError:
        raise Failure(f"seccomp: {declared!r} is not JSON but something else; nothing was changed.") from None
    return parse(text, given, source=declared)


def parse(text: str, given: Conditions, source: str = "the profile") -> Profile:
    """The profile in JSON ``text`` as it applies. Raises Failure, which names ``source``."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"seccomp: {source} is not JSON ({error}); nothing was changed.") from None
    return normalise(document, given, source)


def normalise(document: Any, given: Conditions, source: str = "the profile") -> Profile:
    """The normal form of a profile in either format. Raises Failure for what is wrong or not supported."""
    try:
        return _profile(document, given)
    except ValueError as error:
        raise Failure(f"seccomp: {source}: {error}; nothing was changed.") from None


# What is written in a profile.

_ACTIONS = {"SCMP_ACT_KILL": "SCMP_ACT_KILL_THREAD", **{action: action for action in ACTIONS}}
PERMISSIVE = tuple(ACTIONS[name] for name in ("SCMP_ACT_LOG", "SCMP_ACT_ALLOW"))
"""What a call that is let through gets (SECCOMP_RET_*)."""

_NUMBERED = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_ERRNOS = {name: getattr(errno, name) for name in dir(errno) if name.startswith("E")}
_ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64"),
        *("MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64"),
        *("LOONGARCH64", "M68K", "SH", "SHEB"),
    )
)
"""Of the OCI runtime spec (config-linux, "Seccomp")."""

# The machine's own architecture, then those whose programs its kernel may run too; and its name in Go.
_MACHINES = {
    "x86_64": ("amd64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": ("arm64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
}

_SYSTEM_CALL = re.compile(r"[a-z0-9_]+")
_ARGUMENTS = 6
_MAXIMUM_ERRNO = 4095
_WORD = 1 << 64

_PROFILE_MEMBERS = {
    "defaultAction": str,
    "defaultErrnoRet": int,
    "defaultErrno": str,
    "architectures": list,
    "archMap": list,
    "flags": list,
    "syscalls": list,
    "listenerPath": str,
    "listenerMetadata": str,
}
_ARCHMAP_MEMBERS = {"architecture": str, "subArchitectures": list}
_RULE_MEMBERS = {
    "names": list,
    "name": str,
    "action": str,
    "errnoRet": int,
    "errno": str,
    "args": list,
    "comment": str,
    "includes": dict,
    "excludes": dict,
}
_ARGUMENT_MEMBERS = {"index": int, "value": int, "valueTwo": int, "op": str}
_FILTER_MEMBERS = {"arches": list, "caps": list, "minKernel": str}
_KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}


_Argument = tuple[int, int, int, str]
"""``index``, ``value``, ``valueTwo`` (of MASKED_EQ only) and ``op`` of a condition on an argument."""

_Effect = tuple[str, int]
"""An action and the number that goes with it, 0 where none does."""


@dataclass(frozen=True)
class _Rule:
    """What one call gets where all its ``arguments`` are as said."""

    name: str
    effect: _Effect
    arguments: tuple[_Argument, ...]


def _profile(document: Any, given: Conditions) -> Profile:
    members = _members(document, "it", _PROFILE_MEMBERS)
    for name in ("listenerPath", "listenerMetadata"):
        if members.get(name):
            raise ValueError(f"{name} is for an agent that decides on calls, which is not supported")
    default = _effect(members, "it", "defaultAction", "defaultErrnoRet", "defaultErrno")
    rules: list[_Rule] = []
    architectures = _architectures(members, given)
    for index, rule in enumerate(members.get("syscalls", [])):
        rules += _rules(rule, f"syscalls[{index}]", given)
    return {
        **_described_effect(default, "defaultAction", "defaultErrnoRet"),
        "architectures": architectures,
        "flags": sorted(set(_choices(members.get("flags", []), "flags", FLAGS))),
        "syscalls": _grouped(_without_covered(rules)),
    }


def _members(value: Any, where: str, known: Mapping[str, type]) -> dict[str, Any]:
    """The members of an object that are not null, which counts as not there."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_told(value)} and has to be an object")
    for name, item in value.items():
        if name not in known:
            raise ValueError(f"{where} has {_told(name)}, known are {', '.join(known)}")
        # To Python true is a number.
        if item is not None and (not isinstance(item, known[name]) or isinstance(item, bool)):
            raise ValueError(f"{where}: {name} is {_told(item)} and has to be {_KINDS[known[name]]}")
    return {name: item for name, item in value.items() if item is not None}


_REPRESENTATION = reprlib.Repr()
_REPRESENTATION.maxstring = 60


def _told(value: Any) -> str:
    """A value as it is told in a sentence, which has no room for a large one."""
    return _REPRESENTATION.repr(value)


def _required(members: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in members:
        raise ValueError(f"{where} lacks {name}")
    return members[name]


def _choice(value: Any, where: str, known: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{where} is {_told(value)}, known are {', '.join(sorted(known))}")
    return value


def _choices(values: Sequence[Any], where: str, known: Iterable[str]) -> list[str]:
    return [_choice(value, where, known) for value in values]


def _effect(
    members: Mapping[str, Any], where: str, action_name: str, number_name: str, errno_name: str
) -> _Effect:
    """An action with its number, which is EPERM where none is given (config-linux)."""
    action = _required(members, action_name, where)
    if action == "SCMP_ACT_NOTIFY":
        raise ValueError(f"{where}: {action} is for an agent that decides on calls, which is not supported")
    action = _ACTIONS[_choice(action, f"{where}: {action_name}", _ACTIONS)]
    number = members.get(number_name)
    if errno_name in members:
        named = _ERRNOS.get(members[errno_name])
        if named is None or number not in (None, named):
            name = _told(members[errno_name])
            raise ValueError(f"{where}: {errno_name} is {name} and has to be the name of {number_name}")
        number = named
    if action not in _NUMBERED:
        if number is not None:
            raise ValueError(f"{where}: {number_name} goes with {' and '.join(_NUMBERED)}, not with {action}")
        return action, 0
    if number is not None and not 0 <= number <= _MAXIMUM_ERRNO:
        raise ValueError(f"{where}: {number_name} is {_told(number)}, it goes from 0 to {_MAXIMUM_ERRNO}")
    return action, errno.EPERM if number is None else number


def _described_effect(effect: _Effect, action_name: str, number_name: str) -> dict[str, Any]:
    action, number = effect
    return {action_name: action, number_name: number} if action in _NUMBERED else {action_name: action}


def _architectures(members: Mapping[str, Any], given: Conditions) -> list[str]:
    """Those that the filter is for: this machine's own, and those listed that its kernel may run too."""
    if given.machine not in _MACHINES:
        raise ValueError(f"filters are made on {' and '.join(_MACHINES)}, and this is {given.machine}")
    runs = _MACHINES[given.machine][1]
    if members.get("architectures") and members.get("archMap"):
        raise ValueError("architectures and archMap exclude each other")
    listed = _choices(members.get("architectures", []), "architectures", _ARCHITECTURES)
    for index, entry in enumerate(members.get("archMap", [])):
        where = f"archMap[{index}]"
        mapped = _members(entry, where, _ARCHMAP_MEMBERS)
        main = _choice(_required(mapped, "architecture", where), f"{where}: architecture", _ARCHITECTURES)
        others = _choices(mapped.get("subArchitectures", []), f"{where}: subArchitectures", _ARCHITECTURES)
        if main == runs[0]:
            listed += others
    return [name for name in runs if name == runs[0] or name in listed]


def _rules(value: Any, where: str, given: Conditions) -> list[_Rule]:
    """One for each call and each alternative of its arguments; none where the rule does not apply."""
    members = _members(value, where, _RULE_MEMBERS)
    names = members.get("names", [])
    if "name" in members:
        if names:
            raise ValueError(f"{where}: name and names exclude each other")
        names = [members["name"]]
    for name in names:
        if not isinstance(name, str) or not _SYSTEM_CALL.fullmatch(name):
            raise ValueError(f"{where}: {_told(name)} is not the name of a system call")
    effect = _effect(members, where, "action", "errnoRet", "errno")
    alternatives = _alternatives(members.get("args", []), where)
    if not _applies(members, where, given):
        return []
    return [_Rule(name, effect, arguments) for name in names for arguments in alternatives]


def _alternatives(values: Sequence[Any], where: str) -> list[tuple[_Argument, ...]]:
    """The conditions that hold together; with two on one argument each stands alone, as in runc and crun."""
    arguments = [_argument(value, f"{where}: args[{index}]") for index, value in enumerate(values)]
    if len({argument[0] for argument in arguments}) < len(arguments):
        return [(argument,) for argument in arguments]
    return [tuple(sorted(arguments))]


def _argument(value: Any, where: str) -> _Argument:
    members = _members(value, where, _ARGUMENT_MEMBERS)
    operator = _choice(_required(members, "op", where), f"{where}: op", OPERATORS)
    index, first = (_required(members, name, where) for name in ("index", "value"))
    second = members.get("valueTwo", 0)
    if not 0 <= index < _ARGUMENTS:
        raise ValueError(f"{where}: index is {_told(index)}, a call has the arguments 0 to 5")
    if not (0 <= first < _WORD and 0 <= second < _WORD):
        raise ValueError(f"{where}: value and valueTwo go from 0 to 2^64-1")
    if second and operator != MASKED:
        raise ValueError(f"{where}: valueTwo goes with SCMP_CMP_MASKED_EQ only")
    return index, first, second, operator


def _applies(members: Mapping[str, Any], where: str, given: Conditions) -> bool:
    """Whether all that ``includes`` asks is so, of its architectures one, and nothing of ``excludes``."""
    architecture = _MACHINES[given.machine][0]
    includes, excludes = (_filter(members.get(name, {}), f"{where}: {name}") for name in _FILTERS)
    return (
        (not includes.architectures or architecture in includes.architectures)
        and given.capabilities.issuperset(includes.capabilities)
        and (includes.kernel is None or given.kernel >= includes.kernel)
        and architecture not in excludes.architectures
        and given.capabilities.isdisjoint(excludes.capabilities)
        and (excludes.kernel is None or given.kernel < excludes.kernel)
    )


_FILTERS = ("includes", "excludes")


@dataclass(frozen=True)
class _Filter:
    """What a rule asks of machine, container and kernel."""

    architectures: Sequence[str]
    capabilities: Sequence[str]
    kernel: tuple[int, int] | None


def _filter(value: Any, where: str) -> _Filter:
    members = _members(value, where, _FILTER_MEMBERS)
    capabilities = _choices(members.get("caps", []), f"{where}: caps", capability.NAMES)
    least = members.get("minKernel")
    if least is not None and not _VERSION.fullmatch(least):
        raise ValueError(f"{where}: minKernel is {_told(least)} and has to be a version such as 4.8")
    return _Filter(members.get("arches", []), capabilities, None if least is None else _version(least))


_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")


def _version(text: str) -> tuple[int, int]:
    """The first two numbers of a kernel's version such as 6.1.0-18-amd64."""
    major, minor = re.findall(r"[0-9]+", text)[:2]
    return int(major), int(minor)


# What the rules come to.


def _without_covered(rules: Iterable[_Rule]) -> list[_Rule]:
    """The rules without those that change nothing: behind a call's first unconditional one a second, as
    libseccomp has it, and beside it a conditional one with the same effect.
    """
    kept = []
    for own in _by(rules, lambda rule: rule.name).values():
        always = [rule for rule in own if not rule.arguments][:1]
        kept += always
        kept += [
            rule for rule in own if rule.arguments and rule.effect not in [each.effect for each in always]
        ]
    return kept


def _grouped(rules: Iterable[_Rule]) -> list[dict[str, Any]]:
    """``syscalls`` of the OCI runtime spec: calls that get the same for the same arguments together."""
    grouped = []
    for (effect, arguments), same in _by(rules, lambda rule: (rule.effect, rule.arguments)).items():
        group = {
            "names": sorted({rule.name for rule in same}),
            **_described_effect(effect, "action", "errnoRet"),
        }
        if arguments:
            group["args"] = [_described_argument(argument) for argument in arguments]
        grouped.append(group)
    return sorted(grouped, key=json.dumps)


def _described_argument(argument: _Argument) -> dict[str, Any]:
    index, first, second, operator = argument
    described: dict[str, Any] = {"index": index, "value": first, "op": operator}
    return {**described, "valueTwo": second} if operator == MASKED else described


def _by(rules: Iterable[_Rule], key: Callable[[_Rule], Any]) -> dict[Any, list[_Rule]]:
    groups: dict[Any, list[_Rule]] = {}
    for rule in rules:
        groups.setdefault(key(rule), []).append(rule)
    return groups

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a profile of system calls (seccomp.py) is compiled into: the filter that the launcher loads.

libseccomp makes the program that decides by name; what goes before it is ours (seccomp_program.py).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from ..converge import Failure
from ..kernel.seccomp import ACTIONS, INSTRUCTION_SIZE, MAXIMUM_INSTRUCTIONS
from . import seccomp_program
from .seccomp import PERMISSIVE, Profile
from .seccomp_program import LAST_COMMON

_ACT_BADARCH = 2
_CTL_OPTIMIZE = 8
_BINARY_TREE = 2
_UNKNOWN_NAME = -1
_STRICTEST_FIRST = list(ACTIONS)

_Condition = tuple[int, list[dict[str, Any]]]
"""What a call gets (SECCOMP_RET_*), and the ``args`` that it gets it for."""


class _Decisions:
    """What a profile in normal form comes to, call by call."""

    def __init__(self, profile: Profile) -> None:
        self.default = _code(profile, "defaultAction", "defaultErrnoRet")
        self.always: dict[str, int] = {}
        self.conditions: dict[str, list[_Condition]] = {}
        for rule in sorted(profile["syscalls"], key=lambda rule: _STRICTEST_FIRST.index(rule["action"])):
            code = _code(rule, "action", "errnoRet")
            for name in rule["names"]:
                if "args" in rule:
                    self.conditions.setdefault(name, []).append((code, rule["args"]))
                else:
                    self.always[name] = code

    def names(self) -> list[str]:
        return [*self.always, *(name for name in self.conditions if name not in self.always)]

    def would_allow(self, name: str) -> bool:
        """Whether the call would be refused on conditions, and is allowed where they can't be looked at."""
        refused = any(code not in PERMISSIVE for code, __ in self.conditions.get(name, []))
        return refused and self.always.get(name, self.default) in PERMISSIVE


def compile_filter(profile: Profile) -> bytes:
    """The filter of a profile in normal form on this machine: what kernel.seccomp.load() takes.

    For each call the strictest of its rules with conditions holds that fit, else its rule without, else the
    default. Compiled once for all containers that have the same profile. Raises Failure for what can't be.
    """
    return _compiled(json.dumps(profile, sort_keys=True))


@functools.cache
def _compiled(text: str) -> bytes:
    profile = json.loads(text)
    decisions = _Decisions(profile)
    library = _library()
    architectures = {name: _token(library, name) for name in profile["architectures"]}
    newest = _newest(library, decisions)
    program = _by_arguments(library, architectures, decisions) + _by_name(library, architectures, decisions)
    if decisions.default not in PERMISSIVE:
        program = seccomp_program.refuse_newer(newest) + program
    length = len(program) // INSTRUCTION_SIZE
    if length > MAXIMUM_INSTRUCTIONS:
        raise Failure(
            f"seccomp: the profile makes a filter of {length} instructions and the kernel takes "
            f"{MAXIMUM_INSTRUCTIONS}; nothing was changed."
        )
    return program


@functools.cache
def _library() -> Any:
    """Raises Failure where the host has none."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Failure(
            "seccomp: profiles are compiled by libseccomp.so.2, which is not on this host (in Debian the "
            "package libseccomp2); nothing was changed."
        ) from None
    pointer, word, integer, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("seccomp_init", pointer, (word,)),
        ("seccomp_release", None, (pointer,)),
        ("seccomp_attr_set", integer, (pointer, integer, word)),
        ("seccomp_arch_resolve_name", word, (text,)),
        ("seccomp_arch_add", integer, (pointer, word)),
        ("seccomp_syscall_resolve_name", integer, (text,)),
        ("seccomp_syscall_resolve_name_arch", integer, (word, text)),
        ("seccomp_syscall_resolve_num_arch", text, (word, integer)),
        ("seccomp_rule_add_array", integer, (pointer, word, integer, ctypes.c_uint, pointer)),
        ("seccomp_export_bpf", integer, (pointer, integer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _token(library: Any, architecture: str) -> int:
    """libseccomp's number of an architecture, which is the kernel's (AUDIT_ARCH_*) but for x32."""
    token: int = library.seccomp_arch_resolve_name(architecture[len("SCMP_ARCH_") :].lower().encode())
    if token == 0:
        raise Failure(f"seccomp: this host's libseccomp does not know {architecture}; nothing was changed.")
    return token


def _newest(library: Any, decisions: _Decisions) -> int:
    """The highest number among the calls that the profile names, as far as this host's libseccomp knows them.

    Raises Failure for one that it does not, and that would be left allowed.
    """
    newest = 0
    for name in decisions.names():
        number = library.seccomp_syscall_resolve_name(name.encode())
        refused = decisions.always.get(name, decisions.default) not in PERMISSIVE
        if (
            number == _UNKNOWN_NAME
            and decisions.default in PERMISSIVE
            and (refused or decisions.would_allow(name))
        ):
            raise Failure(
                f"seccomp: {name} would be left allowed, because this host's libseccomp does not know it; "
                "nothing was changed."
            )
        if number <= LAST_COMMON:
            newest = max(newest, number)
    return newest


def _by_arguments(library: Any, architectures: Mapping[str, int], decisions: _Decisions) -> bytes:
    """Decides on the calls with conditions, where these fit. Raises Failure where that can't be looked at."""
    program = b""
    for architecture, token in architectures.items():
        # To the kernel x32 is x86-64, with other numbers.
        audited = architectures["SCMP_ARCH_X86_64"] if architecture == "SCMP_ARCH_X32" else token
        for name, conditions in decisions.conditions.items():
            number = library.seccomp_syscall_resolve_name_arch(token, name.encode())
            if number < 0:
                number = _second_entry(library, token, name)
                if number is None:
                    continue
                if decisions.would_allow(name):
                    raise Failure(
                        f"seccomp: {name} can't be refused by its arguments on {architecture}, where it is "
                        "a part of another call too; nothing was changed."
                    )
            program += seccomp_program.decide_by_arguments(audited, number, conditions)
    return program


def _second_entry(library: Any, token: int, name: str) -> int | None:
    """The number of a call that on this architecture is a part of socketcall(2) or ipc(2), and since Linux
    4.3 or 5.1 one by itself too; None for one that it does not have.
    """
    encoded = name.encode()
    return next(
        (
            number
            for number in range(seccomp_program.FIRST_COMMON)
            if library.seccomp_syscall_resolve_num_arch(token, number) == encoded
        ),
        None,
    )


def _by_name(library: Any, architectures: Mapping[str, int], decisions: _Decisions) -> bytes:
    """libseccomp's own program: on the calls without conditions, and the default."""
    context = library.seccomp_init(decisions.default)
    if not context:
        raise Failure("seccomp: libseccomp can't make a filter on this host; nothing was changed.")
    try:
        kill = ACTIONS["SCMP_ACT_KILL_PROCESS"]
        _require(library.seccomp_attr_set(context, _ACT_BADARCH, kill), "SCMP_ACT_KILL_PROCESS")
        _require(library.seccomp_attr_set(context, _CTL_OPTIMIZE, _BINARY_TREE), "a binary tree")
        for architecture, token in architectures.items():
            added = library.seccomp_arch_add(context, token)
            # The machine's own is in every filter from the start.
            _require(0 if added == -errno.EEXIST else added, architecture)
        for name, code in decisions.always.items():
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != _UNKNOWN_NAME and code != decisions.default:
                _require(library.seccomp_rule_add_array(context, code, number, 0, None), name)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _export(library: Any, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _require(library.seccomp_export_bpf(context, descriptor), "the whole")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def _require(result: int, what: str) -> None:
    if result < 0:
        raise Failure(f"seccomp: libseccomp refuses {what}: {os.strerror(-result)}; nothing was changed.")


def _code(members: Mapping[str, Any], action_name: str, number_name: str) -> int:
    number: int = members.get(number_name, 0)
    return ACTIONS[members[action_name]] | number

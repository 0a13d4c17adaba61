# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes before the program that libseccomp makes of a profile: what it has no way for, or no safe one.

Conditions on arguments are decided here. libseccomp (2.5) makes one tree of those of a call, and where they
compare one argument in several ways the tree may come to compare another one: it lets through what no rule
allows. Of three rules with ``!=`` on three arguments it makes no end. Rule by rule, as here, it is simple.

Programs are classic BPF on struct seccomp_data (seccomp(2)); what they don't decide falls through to the end.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernel.seccomp import ACTIONS

FIRST_COMMON = 424
LAST_COMMON = 3999
"""From 424 (Linux 5.1) up a call has one number on all architectures. From 4000 up are those of MIPS, some
of 32-bit Arm alone, and, with bit 30 set, those of x32."""

# Operation codes (include/uapi/linux/bpf_common.h).
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_GREATER_OR_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_GIVE = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data.
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16

_LOWER = (1 << 32) - 1

# Where to go on: with the next instruction, or where the condition holds, or does not.
_NEXT, _HOLDS, _FAILS = range(3)

# An argument has 64 bits, a comparison 32: first the upper half is compared, then, where that was equal, the
# lower. Each comparison with where to go on if it is true, and if not.
_ABOVE = ((_GREATER, _HOLDS, _NEXT), (_EQUAL, _NEXT, _FAILS))
_NOT_ABOVE = ((_GREATER, _FAILS, _NEXT), (_EQUAL, _NEXT, _HOLDS))
_COMPARISONS = {
    "SCMP_CMP_NE": (((_EQUAL, _NEXT, _HOLDS),), (_EQUAL, _FAILS, _NEXT)),
    "SCMP_CMP_LT": (_NOT_ABOVE, (_GREATER_OR_EQUAL, _FAILS, _NEXT)),
    "SCMP_CMP_LE": (_NOT_ABOVE, (_GREATER, _FAILS, _NEXT)),
    "SCMP_CMP_EQ": (((_EQUAL, _NEXT, _FAILS),), (_EQUAL, _NEXT, _FAILS)),
    "SCMP_CMP_GE": (_ABOVE, (_GREATER_OR_EQUAL, _NEXT, _FAILS)),
    "SCMP_CMP_GT": (_ABOVE, (_GREATER, _NEXT, _FAILS)),
}
MASKED = "SCMP_CMP_MASKED_EQ"
OPERATORS = (*_COMPARISONS, MASKED)
"""Of the OCI runtime spec (config-linux, "Seccomp")."""

_Instruction = tuple[int, int, int, int]
"""struct sock_filter: the operation, how many to skip if true and if not, the operand."""


def refuse_newer(newest: int) -> bytes:
    """ENOSYS for the calls above ``newest``, as far as their numbers are the common ones."""
    return _assembled(
        [
            (_LOAD, 0, 0, _NUMBER),
            (_GREATER, 0, 2, max(newest, FIRST_COMMON - 1)),
            (_GREATER, 1, 0, LAST_COMMON),
            (_GIVE, 0, 0, ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
        ]
    )


def decide_by_arguments(
    architecture: int, number: int, rules: Sequence[tuple[int, Sequence[Mapping[str, Any]]]]
) -> bytes:
    """Decides on one call of an architecture (AUDIT_ARCH_*) where its arguments are as one of the rules says.

    Each rule is what it gives (SECCOMP_RET_*) and the conditions that hold together, as ``args`` of the OCI
    runtime spec; the first that fits holds.
    """
    block = [instruction for given, arguments in rules for instruction in _rule(given, arguments)]
    for offset, value in ((_NUMBER, number), (_ARCHITECTURE, architecture)):
        # By an instruction of its own: the others jump over 255 at the most.
        block = [(_LOAD, 0, 0, offset), (_EQUAL, 1, 0, value), (_JUMP, 0, 0, len(block)), *block]
    return _assembled(block)


def _rule(given: int, arguments: Sequence[Mapping[str, Any]]) -> list[_Instruction]:
    conditions = [_condition(argument) for argument in arguments]
    end = sum(map(len, conditions)) + 1
    rule: list[_Instruction] = []
    for condition in conditions:
        holds = len(rule) + len(condition)
        for code, if_true, if_false, operand in condition:
            next_one = len(rule) + 1
            skips = {_NEXT: 0, _HOLDS: holds - next_one, _FAILS: end - next_one}
            rule.append((code, skips[if_true], skips[if_false], operand))
    return [*rule, (_GIVE, 0, 0, given)]


def _condition(argument: Mapping[str, Any]) -> list[_Instruction]:
    """The instructions of one condition, with where to go on in place of how many to skip."""
    offset = _ARGUMENTS + 8 * argument["index"]
    operator, value, mask = argument["op"], argument["value"], None
    if operator == MASKED:
        operator, value, mask = "SCMP_CMP_EQ", argument["valueTwo"], value
    upper, lower = _COMPARISONS[operator]
    return [
        *_compare(offset + 4, upper, value >> 32, None if mask is None else mask >> 32),
        *_compare(offset, (lower,), value & _LOWER, None if mask is None else mask & _LOWER),
    ]


def _compare(
    offset: int, comparisons: Sequence[tuple[int, int, int]], value: int, mask: int | None
) -> list[_Instruction]:
    masking = [] if mask is None else [(_AND, _NEXT, _NEXT, mask)]
    return [
        (_LOAD, _NEXT, _NEXT, offset),
        *masking,
        *((code, if_true, if_false, value) for code, if_true, if_false in comparisons),
    ]


def _assembled(program: Sequence[_Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)

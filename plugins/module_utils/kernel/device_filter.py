# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which devices the processes of a cgroup may use: an eBPF program that is asked at each open and mknod
(cgroup-v2, "Device controller"; bpf(2)).

It is assembled here, instruction by instruction, of a list of rules (``linux.resources.devices`` of the OCI
runtime spec, config-linux)::

    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}

A rule without type (or with ``a``), major or minor is for all of them. Read, write and mknod are decided each
by itself: by the last rule for the device that has the letter, as with the devices controller of cgroup v1.
What no rule is for is refused.
"""

from __future__ import annotations

import ctypes
import os

from .syscall import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
"""BPF_DEVCG_DEV_* and BPF_DEVCG_ACC_* (include/uapi/linux/bpf.h)."""

_WILDCARD = -1
"""A number that runc and crun take for none, too."""

# Operation codes of instructions (include/uapi/linux/bpf_common.h and bpf.h).
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_COPY = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_SET = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_IF_DIFFERENT = 0x56  # BPF_JMP32 | BPF_JNE | BPF_K
_JUMP_IF_ANY_BIT = 0x46  # BPF_JMP32 | BPF_JSET | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

_ANSWER, _CONTEXT, _TYPE, _UNDECIDED, _MAJOR, _MINOR = range(6)
"""What is in which register. An answer of 0 refuses; the context is what the program is asked about."""

# Commands of bpf(2), and what goes with them (include/uapi/linux/bpf.h).
_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_MAXIMUM_PROGRAMS = 64

INSTRUCTION_SIZE = 8


class _Load(ctypes.Structure):
    """union bpf_attr for BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
    )


class _Attach(ctypes.Structure):
    """union bpf_attr for BPF_PROG_ATTACH and BPF_PROG_DETACH."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


class _Query(ctypes.Structure):
    """union bpf_attr for BPF_PROG_QUERY."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_void_p),
        ("prog_cnt", ctypes.c_uint32),
    )


def assemble(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The program of these rules, an array of struct bpf_insn. Raises ValueError for a rule that is none."""
    program = [
        # struct bpf_cgroup_dev_ctx: a word with the type in its lower half and the access in its upper one,
        # the major and the minor number.
        _instruction(_LOAD_WORD, _UNDECIDED, _CONTEXT, offset=0),
        _instruction(_COPY, _TYPE, _UNDECIDED),
        _instruction(_AND, _TYPE, number=0xFFFF),
        _instruction(_SHIFT_RIGHT, _UNDECIDED, number=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in reversed(rules):
        program += _decide(rule)
    return b"".join([*program, *_answer(0)])


def _decide(rule: Mapping[str, Any]) -> list[bytes]:
    """Decides, for the devices that the rule is for, on the access that no later rule has decided on."""
    access = _access(rule)
    if rule.get("allow"):
        # Allowed as a whole when nothing is left to be decided on.
        block = [
            _instruction(_AND, _UNDECIDED, number=~access),
            _instruction(_JUMP_IF_DIFFERENT, _UNDECIDED, offset=2, number=0),
            *_answer(1),
        ]
    else:
        block = [
            _instruction(_JUMP_IF_ANY_BIT, _UNDECIDED, offset=1, number=access),
            _instruction(_JUMP, offset=2),
            *_answer(0),
        ]
    for register, number in reversed(_conditions(rule)):
        block.insert(0, _instruction(_JUMP_IF_DIFFERENT, register, offset=len(block), number=number))
    return block


def _access(rule: Mapping[str, Any]) -> int:
    letters = rule.get("access") or "rwm"
    if not set(letters) <= set(_ACCESS):
        raise ValueError(f"access {letters!r} is not of the letters r, w and m")
    return sum(_ACCESS[letter] for letter in set(letters))


def _conditions(rule: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Registers, and the number that is in them for a device that the rule is for."""
    conditions = []
    kind = rule.get("type") or "a"
    if kind not in ("a", *_TYPES):
        raise ValueError(f"type {kind!r} is none of a, b and c")
    if kind != "a":
        conditions.append((_TYPE, _TYPES[kind]))
    for register, name in ((_MAJOR, "major"), (_MINOR, "minor")):
        number = rule.get(name)
        if number is None or number == _WILDCARD:
            continue
        if not 0 <= number < 1 << 32:
            raise ValueError(f"{name} {number} is no device number")
        conditions.append((register, number))
    return conditions


def _answer(number: int) -> list[bytes]:
    return [_instruction(_SET, _ANSWER, number=number), _instruction(_EXIT)]


def _instruction(code: int, target: int = 0, source: int = 0, *, offset: int = 0, number: int = 0) -> bytes:
    """struct bpf_insn, as it is on a little-endian machine."""
    word = number & 0xFFFFFFFF
    return bytes((code, source << 4 | target)) + offset.to_bytes(2, "little") + word.to_bytes(4, "little")


def attach(cgroup: int, program: bytes) -> None:
    """Has ``program`` decide for the cgroup, whose directory is open as ``cgroup``, in place of all before.

    The cgroups above go on deciding too: what one refuses is refused. At no time there is no filter: between
    the old and the new one both decide. Needs CAP_SYS_ADMIN. Raises OSError, EINVAL or EACCES for a program
    that the kernel does not take.
    """
    before = attached(cgroup)
    loaded = _load(program)
    try:
        _bpf(_PROG_ATTACH, _Attach(cgroup, loaded, _CGROUP_DEVICE, _F_ALLOW_MULTI))
    finally:
        os.close(loaded)
    for number in before:
        old = _bpf(_PROG_GET_FD_BY_ID, ctypes.c_uint32(number))
        try:
            _bpf(_PROG_DETACH, _Attach(cgroup, old, _CGROUP_DEVICE))
        finally:
            os.close(old)


def attached(cgroup: int) -> list[int]:
    """The ids of the programs that decide for this cgroup by itself. Raises OSError."""
    numbers = (ctypes.c_uint32 * _MAXIMUM_PROGRAMS)()
    query = _Query(cgroup, _CGROUP_DEVICE, prog_ids=ctypes.addressof(numbers), prog_cnt=_MAXIMUM_PROGRAMS)
    _bpf(_PROG_QUERY, query)
    return numbers[: query.prog_cnt]


def _load(program: bytes) -> int:
    """A descriptor of the program, which exec closes."""
    length = len(program) // INSTRUCTION_SIZE
    return _bpf(_PROG_LOAD, _Load(_PROG_TYPE_CGROUP_DEVICE, length, program, b"GPL"))


def _bpf(command: int, attributes: Any) -> int:
    return call("bpf", command, ctypes.byref(attributes), ctypes.sizeof(attributes))

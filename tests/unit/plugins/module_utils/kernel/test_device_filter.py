# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import struct

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import device_filter
from hypothesis import given
from hypothesis import strategies as st

LETTERS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}
"""BPF_DEVCG_ACC_* and BPF_DEVCG_DEV_* (include/uapi/linux/bpf.h)."""


def run(program, kind, major, minor, access):
    """What the program answers, on a machine for the instructions it may have (bpf(2))."""
    context = struct.pack("<III", sum(LETTERS[letter] for letter in access) << 16 | TYPES[kind], major, minor)
    instructions = list(struct.iter_unpack("<BBhi", program))
    registers = [None] * 11
    counter = 0
    while True:
        code, both, offset, number = instructions[counter]
        target, source = both & 0xF, both >> 4
        counter += 1
        if code == 0x61:
            assert source == 1, "only the context is memory"
            registers[target] = struct.unpack_from("<I", context, offset)[0]
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = number & (1 << 64) - 1
        elif code == 0x57:
            registers[target] &= number & (1 << 64) - 1
        elif code == 0x77:
            registers[target] >>= number
        elif code == 0x05:
            counter += offset
        elif code == 0x56:
            counter += offset if registers[target] & 0xFFFFFFFF != number & 0xFFFFFFFF else 0
        elif code == 0x46:
            counter += offset if registers[target] & number & 0xFFFFFFFF else 0
        elif code == 0x95:
            return registers[0]
        else:
            pytest.fail(f"instruction {code:#x} is not known")


def allowed(rules, kind, major, minor, access):
    """By what the rules mean: each letter by the last rule that has it."""

    def decided(letter):
        for rule in reversed(rules):
            device = {"type": kind, "major": major, "minor": minor}
            fits = all(rule.get(name, "a") in ("a", -1, None, value) for name, value in device.items())
            if fits and letter in rule.get("access", "rwm"):
                return rule["allow"]
        return False

    return all(decided(letter) for letter in access)


NUMBERS = st.sampled_from([0, 1, 3, 136, 0xFFF, 0xFFFFF, 0x80000000, 0xFFFFFFFF])
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans()},
        optional={
            "type": st.sampled_from("abc"),
            "major": st.just(-1) | NUMBERS,
            "minor": st.none() | NUMBERS,
            "access": ACCESS,
        },
    ),
    max_size=6,
)


@given(RULES, st.lists(st.tuples(st.sampled_from("bc"), NUMBERS, NUMBERS, ACCESS), max_size=20))
def test_the_program_decides_as_the_rules_say(rules, accesses):
    program = device_filter.assemble(rules)
    for access in accesses:
        assert run(program, *access) == allowed(rules, *access), access


def test_the_last_rule_wins_for_each_kind_of_access():
    program = device_filter.assemble(
        [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "c", "major": 1, "access": "w"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "w"},
        ]
    )
    assert run(program, "c", 1, 3, "rw")
    assert run(program, "c", 1, 5, "r")
    assert not run(program, "c", 1, 5, "rw")
    assert run(program, "b", 1, 5, "rw")


def test_without_rules_there_is_nothing():
    program = device_filter.assemble([])
    assert not any(run(program, kind, 1, 3, letter) for kind in "bc" for letter in "rwm")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"type": "u"}, "type 'u' is none of a, b and c"),
        ({"access": "rx"}, "access 'rx' is not of the letters"),
        ({"major": 1 << 32}, "major 4294967296 is no device number"),
        ({"minor": -2}, "minor -2 is no device number"),
    ],
)
def test_what_is_no_rule_is_told(rule, told):
    with pytest.raises(ValueError, match=told):
        device_filter.assemble([{"allow": True, **rule}])

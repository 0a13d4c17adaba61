# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ctypes
import errno
import json
import os
import struct

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import (
    seccomp,
    seccomp_default,
    seccomp_filter,
)
from ansible_collections.bare.containers.plugins.module_utils.container.spec import DEFAULT_CAPABILITIES
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import capability
from hypothesis import example, given, settings
from hypothesis import strategies as st

MACHINE = os.uname().machine
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
OWN = {"x86_64": X86_64, "aarch64": AARCH64}[MACHINE]
"""AUDIT_ARCH_* (include/uapi/linux/audit.h)."""

ALLOW, KILL = 0x7FFF0000, 0x80000000


def refused(number):
    return 0x00050000 | number


def on(*capabilities, kernel=(6, 1), machine=MACHINE):
    return seccomp.Conditions(frozenset(capabilities), kernel, machine)


def parse(profile, *capabilities, **given):
    return seccomp.parse(json.dumps(profile), on(*capabilities, **given))


def profile(*rules, default="SCMP_ACT_ERRNO", **members):
    return {"defaultAction": default, "syscalls": list(rules), **members}


def rule(*names, action="SCMP_ACT_ALLOW", **members):
    return {"names": list(names), "action": action, **members}


def argument(index, operator, value, second=0):
    return {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}


# A machine for classic BPF, as bpf(4) describes it, with what seccomp(2) lets through.


def run(program, number, arguments=(), architecture=OWN):
    """What the filter decides on struct seccomp_data (seccomp(2)); it must come to an end."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    counter = accumulator = 0
    while True:
        code, if_true, if_false, operand = instructions[counter]
        counter += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            accumulator = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= operand
        elif code == 0x05:  # BPF_JMP | BPF_JA
            counter += operand
        elif code in _JUMPS:
            counter += if_true if _JUMPS[code](accumulator, operand) else if_false
        elif code == 0x06:  # BPF_RET | BPF_K
            return operand
        else:
            pytest.fail(f"instruction {code:#x} is not known")


_JUMPS = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def number_of(name):
    """By libseccomp, which the tables of the kernel are in."""
    return ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name(name.encode())


def decide(compiled, name, *arguments, **options):
    return run(compiled, number_of(name), arguments, **options)


# What a profile means.


def test_rules_are_what_the_filter_decides():
    normal = parse(
        profile(
            rule("read", "write"),
            rule("openat", args=[argument(2, "EQ", 0)]),
            rule("socket", action="SCMP_ACT_ERRNO", errnoRet=97),
            rule("kill", action="SCMP_ACT_KILL_PROCESS"),
            defaultErrnoRet=13,
        )
    )
    compiled = seccomp_filter.compile_filter(normal)
    assert decide(compiled, "read") == ALLOW
    assert decide(compiled, "openat", 0, 0, 0) == ALLOW
    assert decide(compiled, "openat", 0, 0, 1) == refused(13)
    assert decide(compiled, "socket") == refused(97)
    assert decide(compiled, "kill") == KILL
    assert decide(compiled, "mount") == refused(13)


COMPARISONS = {
    "NE": lambda a, value, __: a != value,
    "LT": lambda a, value, __: a < value,
    "LE": lambda a, value, __: a <= value,
    "EQ": lambda a, value, __: a == value,
    "GE": lambda a, value, __: a >= value,
    "GT": lambda a, value, __: a > value,
    "MASKED_EQ": lambda a, mask, value: a & mask == value,
}
"""The operators of the OCI runtime spec (seccomp_rule_add(3))."""

WORDS = st.sampled_from([0, 1, 7, 8, 0xFFFFFFFF, 1 << 32, (1 << 32) + 7, (1 << 63) + 1, (1 << 64) - 1])
ARGUMENTS = st.builds(
    lambda index, operator, value, mask: (
        argument(index, operator, mask, value & mask)
        if operator == "MASKED_EQ"
        else argument(index, operator, value)
    ),
    st.integers(0, 5),
    st.sampled_from(sorted(COMPARISONS)),
    WORDS,
    WORDS,
)
CONJUNCTIONS = st.lists(ARGUMENTS, max_size=3, unique_by=lambda each: each["index"])
CALLS = ("read", "openat", "mmap", "clone", "prctl")


MIXED = {
    "mmap": [[argument(0, "EQ", 1)], [argument(2, "GE", 1)], [argument(2, "LE", 0), argument(3, "EQ", 0)]]
}
"""Where libseccomp 2.5 compares the wrong argument, and lets the call below through."""
ENDLESS = {
    "mmap": [
        [argument(2, "EQ", 1), argument(0, "NE", 0)],
        [argument(0, "EQ", 1), argument(2, "NE", 8)],
        [argument(1, "EQ", (1 << 32) + 7), argument(2, "NE", 8), argument(0, "NE", 0)],
    ]
}
"""Where it does not come to an end."""


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(CALLS), st.lists(CONJUNCTIONS, min_size=1, max_size=4)),
    st.lists(st.tuples(st.sampled_from(CALLS), st.lists(WORDS, min_size=6, max_size=6)), max_size=40),
)
@example(MIXED, [("mmap", [0, 0, 0, 1, 0, 0])])
@example(ENDLESS, [("mmap", [1, 0, 1, 0, 0, 0])])
def test_conditions_mean_what_they_say(declared, calls):
    rules = [rule(name, args=args) for name, alternatives in declared.items() for args in alternatives]
    compiled = seccomp_filter.compile_filter(parse(profile(*rules)))
    for name, values in calls:
        allowed = any(
            all(
                COMPARISONS[each["op"][len("SCMP_CMP_") :]](
                    values[each["index"]], each["value"], each["valueTwo"]
                )
                for each in args
            )
            for args in declared.get(name, [])
        )
        assert decide(compiled, name, *values) == (ALLOW if allowed else refused(errno.EPERM)), (name, values)


TOKENS = {"SCMP_ARCH_X86_64": X86_64, "SCMP_ARCH_X86": I386, "SCMP_ARCH_AARCH64": AARCH64}
NAMES = sorted(
    {name for each in seccomp_default.PROFILE["syscalls"] for name in each["names"]} | {"of_tomorrow"}
)
EFFECTS = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": refused(1), "SCMP_ACT_KILL_PROCESS": KILL}


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(EFFECTS)), max_size=400),
    st.lists(st.sampled_from(["SCMP_ARCH_X86"])),
)
def test_every_call_gets_what_is_said_of_it(declared, architectures):
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    rules = [rule(name, action=action) for name, action in declared.items()]
    normal = parse(profile(*rules, defaultErrnoRet=2, architectures=architectures))
    compiled = seccomp_filter.compile_filter(normal)
    for architecture in normal["architectures"]:
        token = TOKENS[architecture]
        for name in NAMES:
            number = resolve(ctypes.c_uint32(token), name.encode())
            if 0 <= number < 424:
                expected = EFFECTS[declared[name]] if name in declared else refused(2)
                assert run(compiled, number, architecture=token) == expected, (architecture, name)


def test_two_conditions_on_one_argument_are_alternatives():
    normal = parse(profile(rule("prctl", args=[argument(0, "EQ", 3), argument(0, "EQ", 4)])))
    compiled = seccomp_filter.compile_filter(normal)
    assert [decide(compiled, "prctl", value) for value in (3, 4)] == [ALLOW, ALLOW]
    assert decide(compiled, "prctl", 5) == refused(errno.EPERM)


def test_conditions_go_before_what_holds_without_and_the_strictest_first():
    compiled = seccomp_filter.compile_filter(
        parse(
            profile(
                rule("ioctl"),
                rule("ioctl", action="SCMP_ACT_ERRNO", errnoRet=2, args=[argument(1, "EQ", 0x5412)]),
                rule("kill", args=[argument(1, "GT", 5)]),
                rule("kill", action="SCMP_ACT_ERRNO", args=[argument(1, "EQ", 7)]),
                rule("kill", action="SCMP_ACT_KILL_PROCESS", args=[argument(1, "EQ", 9)]),
                rule("setns"),
                rule("setns", action="SCMP_ACT_ERRNO", errnoRet=2),
                defaultErrnoRet=38,
            )
        )
    )
    assert [decide(compiled, "ioctl", 0, request) for request in (0x5412, 0x5411)] == [refused(2), ALLOW]
    decided = [decide(compiled, "kill", 0, signal) for signal in (5, 6, 7, 9)]
    assert decided == [refused(38), ALLOW, refused(errno.EPERM), KILL]
    # Podman's own profile has both, and means the first.
    assert decide(compiled, "setns") == ALLOW


def test_of_the_same_calls_there_is_one_form():
    one = profile(rule("write", "read"), rule("kill"), rule("close", action="SCMP_ACT_ERRNO", errnoRet=1))
    other = profile(
        {"name": "kill", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "of an old file"},
        rule("read", args=[], includes={}, excludes={}),
        rule("read", args=[argument(0, "EQ", 1)]),
        rule("write"),
        rule("close", action="SCMP_ACT_ERRNO", errno="EPERM"),
        rule("close"),
        defaultErrnoRet=1,
        flags=[],
        listenerPath="",
    )
    assert parse(one) == parse(other)
    assert parse(parse(one)) == parse(one)


def test_a_profile_of_both_formats_is_one_of_the_oci_runtime_spec():
    normal = parse(
        profile(
            rule("read", args=[argument(0, "EQ", 1)]),
            rule("kill", action="SCMP_ACT_KILL"),
            archMap=[{"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]}],
            flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_LOG"],
            defaultErrno="ENOSYS",
        ),
        machine="x86_64",
    )
    assert normal == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_KILL_THREAD"},
            {
                "names": ["read"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_TIME"]}}, True),
        ({"includes": {"caps": ["CAP_SYS_TIME", "CAP_SYS_BOOT"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_TIME", "CAP_SYS_BOOT"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_BOOT"]}}, True),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["s390x"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "6.0"}}, False),
        ({"excludes": {"minKernel": "6.2"}}, True),
        ({"includes": {"arches": ["amd64"]}, "excludes": {"caps": ["CAP_SYS_TIME"]}}, False),
    ],
)
def test_rules_apply_by_machine_kernel_and_capabilities(condition, applies):
    normal = parse(profile(rule("reboot", **condition)), "CAP_SYS_TIME", kernel=(6, 1), machine="x86_64")
    assert bool(normal["syscalls"]) is applies


def test_of_architectures_those_are_kept_that_the_machine_may_run():
    def kept(**members):
        return parse(profile(**members), machine="x86_64")["architectures"]

    mapped = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32", "SCMP_ARCH_X86"]}]
    assert kept() == ["SCMP_ARCH_X86_64"]
    assert kept(architectures=["SCMP_ARCH_ARM", "SCMP_ARCH_X86"]) == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert kept(archMap=mapped) == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


@pytest.mark.skipif(MACHINE != "x86_64", reason="these are the other architectures of x86_64 alone")
def test_another_architecture_is_no_way_around():
    x32_mount, i386_mount = 0x40000000 | 165, 21
    strict = seccomp_filter.compile_filter(parse(profile(rule("mount"))))
    assert decide(strict, "mount") == ALLOW
    assert run(strict, x32_mount) == KILL
    assert run(strict, i386_mount, architecture=I386) == KILL
    assert run(strict, 165, architecture=AARCH64) == KILL
    both = profile(rule("mount"), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    wide = seccomp_filter.compile_filter(parse(both))
    assert run(wide, x32_mount) == ALLOW
    assert run(wide, i386_mount, architecture=I386) == ALLOW
    assert run(wide, 165, architecture=I386) == refused(errno.EPERM)


@pytest.mark.skipif(MACHINE != "x86_64", reason="these are the other architectures of x86_64 alone")
def test_conditions_hold_for_all_architectures_listed():
    both = {"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    only_inet = profile(rule("socket", args=[argument(0, "EQ", 2)]), **both)
    compiled = seccomp_filter.compile_filter(parse(only_inet))
    for number, architecture in ((41, X86_64), (41 | 0x40000000, X86_64), (359, I386)):
        assert run(compiled, number, (2,), architecture) == ALLOW
        assert run(compiled, number, (40,), architecture) == refused(errno.EPERM)
    socketcall = 102
    assert run(compiled, socketcall, (1,), I386) == refused(errno.EPERM), "what it is for can't be looked at"
    never_vsock = profile(
        rule("socket", action="SCMP_ACT_ERRNO", args=[argument(0, "EQ", 40)]),
        default="SCMP_ACT_ALLOW",
        **both,
    )
    with pytest.raises(Failure, match="socket can't be refused by its arguments on SCMP_ARCH_X86"):
        seccomp_filter.compile_filter(parse(never_vsock))


def test_calls_newer_than_the_profile_do_not_exist():
    newest = number_of("landlock_create_ruleset")
    compiled = seccomp_filter.compile_filter(parse(profile(rule("landlock_create_ruleset"), rule("read"))))
    assert run(compiled, newest) == ALLOW
    assert run(compiled, newest - 1) == refused(errno.EPERM)
    assert [run(compiled, newest + more) for more in (1, 100)] == [refused(errno.ENOSYS)] * 2
    # A profile that only knows old calls has yet something to say of all that are as old as it may be.
    old = seccomp_filter.compile_filter(parse(profile(rule("read"))))
    assert decide(old, "mount") == refused(errno.EPERM)
    assert run(old, 424) == refused(errno.ENOSYS)
    assert run(old, 0xFFFFFFFF) == refused(errno.EPERM)
    open_ended = seccomp_filter.compile_filter(
        parse(profile(rule("mount", action="SCMP_ACT_KILL_PROCESS"), default="SCMP_ACT_ALLOW"))
    )
    assert run(open_ended, 2000) == ALLOW
    assert decide(open_ended, "mount") == KILL


def test_names_that_are_not_known_are_left_out_where_nothing_is_lost():
    parsed = parse(profile(rule("read", "of_tomorrow")))
    assert decide(seccomp_filter.compile_filter(parsed), "read") == ALLOW
    for args in ([], [argument(0, "EQ", 1)]):
        denial = rule("of_tomorrow", action="SCMP_ACT_ERRNO", args=args)
        with pytest.raises(Failure, match=r"of_tomorrow would be left allowed.*nothing was changed\.$"):
            seccomp_filter.compile_filter(parse(profile(denial, default="SCMP_ACT_ALLOW")))


def test_a_profile_is_compiled_once(monkeypatch):
    parsed = parse(profile(rule("read", "write", "kill", "tkill")))
    compiled = seccomp_filter.compile_filter(parsed)
    monkeypatch.setattr(seccomp_filter, "_library", lambda: pytest.fail("compiled again"))
    assert seccomp_filter.compile_filter(dict(reversed(parsed.items()))) is compiled


def test_without_libseccomp_there_is_a_sentence(monkeypatch):
    def missing(*_arguments):
        raise OSError("no such file")

    seccomp_filter._library.cache_clear()
    monkeypatch.setattr(seccomp_filter.ctypes, "CDLL", missing)
    with pytest.raises(Failure, match="libseccomp2"):
        seccomp_filter.compile_filter(parse(profile(rule("exit_group"))))


def test_a_filter_may_be_too_long_for_the_kernel():
    values = [
        rule("prctl", args=[argument(index, "EQ", value) for index in range(6)]) for value in range(500)
    ]
    with pytest.raises(Failure, match="instructions and the kernel takes 4096"):
        seccomp_filter.compile_filter(parse(profile(*values)))


# What is wrong with one.

BAD = {
    "neither a list": [],
    "nor text": "SCMP_ACT_ALLOW",
    "lacks defaultAction": {},
    "'SCMP_ACT_MAYBE', known are": profile(default="SCMP_ACT_MAYBE"),
    "has 'syscall', known are": profile(syscall=[]),
    "agent that decides": profile(default="SCMP_ACT_NOTIFY"),
    "listenerPath": profile(listenerPath="/run/agent"),
    "listenerMetadata": profile(listenerMetadata="x"),
    "SCMP_ACT_NOTIFY": profile(rule("mount", action="SCMP_ACT_NOTIFY")),
    "'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV', known are": profile(
        flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    ),
    "'SCMP_ARCH_Z80', known are": profile(architectures=["SCMP_ARCH_Z80"]),
    "exclude each other": profile(
        architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86"}]
    ),
    "archMap\\[0\\] lacks architecture": profile(archMap=[{}]),
    "syscalls\\[0\\] is 7 and has to be an object": profile(7),
    "syscalls\\[1\\] lacks action": profile(rule("read"), {"names": ["write"]}),
    "name and names exclude": profile(rule("read", name="write")),
    "'Open!' is not the name": profile(rule("Open!")),
    "'\\\\ud800' is not the name": profile(rule("\ud800")),
    "7 is not the name": profile({"names": [7], "action": "SCMP_ACT_ALLOW"}),
    "names is 'read' and has to be a list": profile({"names": "read", "action": "SCMP_ACT_ALLOW"}),
    "errnoRet goes with": profile(rule("read", errnoRet=1)),
    "errnoRet is 5000": profile(rule("read", action="SCMP_ACT_ERRNO", errnoRet=5000)),
    "errnoRet is True": profile(rule("read", action="SCMP_ACT_ERRNO", errnoRet=True)),
    "errno is 'EWHAT'": profile(rule("read", action="SCMP_ACT_ERRNO", errno="EWHAT")),
    "errno is 'EPERM'": profile(rule("read", action="SCMP_ACT_ERRNO", errno="EPERM", errnoRet=2)),
    "index is 6": profile(rule("read", args=[argument(6, "EQ", 0)])),
    "index is -1": profile(rule("read", args=[argument(-1, "EQ", 0)])),
    "'SCMP_CMP_LIKE', known are": profile(rule("read", args=[argument(0, "LIKE", 0)])),
    "go from 0 to 2\\^64-1": profile(rule("read", args=[argument(0, "EQ", 1 << 64)])),
    "goes with SCMP_CMP_MASKED_EQ": profile(rule("read", args=[argument(0, "EQ", 1, 1)])),
    "args\\[0\\] lacks value": profile(rule("read", args=[{"index": 0, "op": "SCMP_CMP_EQ"}])),
    "'CAP_EVERYTHING', known are": profile(rule("read", includes={"caps": ["CAP_EVERYTHING"]})),
    "minKernel is 'new'": profile(rule("read", includes={"minKernel": "new"})),
}


@pytest.mark.parametrize("told", sorted(BAD))
def test_what_is_wrong_is_told_in_a_sentence(told):
    pattern = "" if told.startswith(("neither", "nor")) else told
    with pytest.raises(Failure, match=rf"^seccomp: the profile: .*{pattern}.*; nothing was changed\.$"):
        parse(BAD[told])


def test_on_a_machine_that_is_not_known_it_is_told():
    with pytest.raises(Failure, match="x86_64 and aarch64, and this is sparc64"):
        parse(profile(), machine="sparc64")


def test_files_are_read(tmp_path):
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(profile(rule("read"))))
    assert seccomp.read(str(file), on()) == parse(profile(rule("read")))
    for content in (b"{", b"\xff", b"[" * 100000, b"1" * 10000):
        file.write_bytes(content)
        with pytest.raises(Failure, match=r"^seccomp: .*profile\.json"):
            seccomp.read(str(file), on())
    with pytest.raises(Failure, match=r"can't be read \(No such file or directory\)"):
        seccomp.read(str(tmp_path / "none"), on())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def mostly(*values):
    """These, or what has no place there."""
    return st.one_of(
        *(value if isinstance(value, st.SearchStrategy) else st.just(value) for value in values), JSON
    )


def some(**members):
    return st.fixed_dictionaries({}, optional=members)


ACTION = mostly("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")
CONDITION = some(
    arches=mostly(st.just(["amd64"])),
    caps=mostly(st.lists(mostly("CAP_CHOWN", "CAP_BPF"), max_size=2)),
    minKernel=mostly("4.8", "6", "99999999999.1"),
)
RULE = some(
    names=mostly(st.lists(mostly("read", "mount", "socketcall", "of_tomorrow"), max_size=3)),
    name=mostly("write"),
    action=ACTION,
    errnoRet=mostly(1, 38, 70000),
    errno=mostly("EPERM", "ENOSYS", "Exx"),
    args=mostly(
        st.lists(
            some(
                index=mostly(0, 5),
                value=mostly(WORDS),
                valueTwo=mostly(0, WORDS),
                op=mostly("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"),
            ),
            max_size=3,
        )
    ),
    includes=mostly(CONDITION),
    excludes=mostly(CONDITION),
    comment=mostly("x"),
)
PROFILE = some(
    defaultAction=ACTION,
    defaultErrnoRet=mostly(1),
    defaultErrno=mostly("EPERM"),
    architectures=mostly(st.lists(mostly("SCMP_ARCH_X86", "SCMP_ARCH_ARM"), max_size=2)),
    archMap=mostly(
        st.lists(some(architecture=mostly("SCMP_ARCH_X86_64"), subArchitectures=mostly(st.just([]))))
    ),
    flags=mostly(st.lists(mostly("SECCOMP_FILTER_FLAG_LOG"), max_size=2)),
    syscalls=mostly(st.lists(mostly(RULE), max_size=3)),
    listenerPath=mostly(""),
)
WELL_FORMED = st.builds(
    lambda default, rules: profile(*rules, default=default),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_KILL"]),
    st.lists(
        st.builds(
            lambda names, action, args: rule(*names, action=action, args=args),
            st.lists(st.sampled_from([*CALLS, "socketcall", "of_tomorrow"]), max_size=3),
            st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_KILL_PROCESS"]),
            CONJUNCTIONS,
        ),
        max_size=4,
    ),
)


@settings(max_examples=250, deadline=None)
@given((JSON | PROFILE | WELL_FORMED).map(json.dumps) | st.text())
@example('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}')
def test_whatever_is_read_gives_a_filter_or_a_sentence(text):
    try:
        normal = seccomp.parse(text, on("CAP_CHOWN"))
        program = seccomp_filter.compile_filter(normal)
    except Failure as failure:
        told = str(failure)
        assert told.startswith("seccomp: ")
        assert told.endswith("; nothing was changed.")
        assert "\n" not in told
        told.encode()
    else:
        assert seccomp.parse(json.dumps(normal), on("CAP_CHOWN")) == normal
        run(program, 0)


# The default.


def default(*capabilities):
    return seccomp_filter.compile_filter(seccomp.read("default", on(*capabilities)))


def test_no_call_of_this_machine_was_forgotten():
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    known = {library.seccomp_syscall_resolve_num_arch(0, number) for number in range(500)} - {None}
    named = {name for each in seccomp_default.PROFILE["syscalls"] for name in each["names"]}
    assert {name.decode() for name in known} - named == set()


UNLOCKED = {
    "CAP_SYS_ADMIN": "mount umount2 pivot_root setns unshare clone3 bpf perf_event_open fsopen move_mount "
    "sethostname syslog quotactl fanotify_init",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_BOOT": "reboot kexec_load kexec_file_load",
    "CAP_SYS_TIME": "settimeofday clock_settime",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_NICE": "mbind set_mempolicy",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
}


@pytest.mark.parametrize("name", sorted(UNLOCKED))
def test_a_capability_unlocks_what_it_is_for(name):
    with_it, without = default(name), default(*set(capability.NAMES) - {name, *_ALSO.get(name, ())})
    for call in UNLOCKED[name].split():
        arguments = (0x10000000,)  # CLONE_NEWUSER, to unshare
        assert decide(with_it, call, *arguments) == ALLOW, call
        expected = errno.ENOSYS if call == "clone3" else errno.EPERM
        assert decide(without, call, *arguments) == refused(expected), call


_ALSO = {
    "CAP_SYS_ADMIN": ("CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON"),
    "CAP_SYSLOG": ("CAP_SYS_ADMIN",),
    "CAP_BPF": ("CAP_SYS_ADMIN",),
    "CAP_PERFMON": ("CAP_SYS_ADMIN",),
}
"""Those that unlock some of the same calls."""


def test_whatever_the_capabilities_some_calls_are_refused():
    compiled = default(*capability.NAMES)
    for name in ("keyctl", "add_key", "request_key", "io_uring_setup", "userfaultfd", "swapon"):
        assert decide(compiled, name) == refused(errno.EPERM), name


SIGCHLD, THREAD = 17, 0x3D0F00
NEW = {
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def test_there_are_no_new_namespaces():
    compiled = default(*DEFAULT_CAPABILITIES)
    for flag in NEW.values():
        for more in (0, SIGCHLD, 0x200, 1 << 40):
            assert decide(compiled, "clone", flag | more) == refused(errno.EPERM)
            assert decide(compiled, "unshare", flag | more) == refused(errno.EPERM)
    assert decide(compiled, "unshare", 0x80) == refused(errno.EPERM)  # CLONE_NEWTIME
    assert decide(compiled, "clone3") == refused(errno.ENOSYS)
    assert decide(compiled, "clone", SIGCHLD) == decide(compiled, "clone", THREAD) == ALLOW
    assert decide(compiled, "unshare", 0x200) == ALLOW  # CLONE_FS


FAMILIES = [1, 2, 10, 15, 16, 17, 29, 38, 40, 44]
GARBAGE = st.integers(0, (1 << 32) - 1).map(lambda upper: upper << 32)


CAPABILITIES = st.sets(st.sampled_from(["CAP_NET_ADMIN", "CAP_AUDIT_WRITE"]))


@given(st.sampled_from(FAMILIES) | st.integers(0, 60), GARBAGE, CAPABILITIES)
def test_sockets_are_of_the_families_that_programs_use(family, garbage, capabilities):
    usual = {1, 2, 10, 16, 17} | ({15, 29, 44} if "CAP_NET_ADMIN" in capabilities else set())
    decision = decide(default(*capabilities), "socket", family | garbage, 2, 0)
    assert decision == (ALLOW if family in usual else refused(errno.EPERM))


def test_auditing_looks_missing_without_its_capabilities():
    netlink, audit, route = 16, 9, 0
    for capabilities, expected in (
        ((), refused(errno.EINVAL)),
        (("CAP_AUDIT_WRITE",), ALLOW),
        (("CAP_AUDIT_CONTROL",), ALLOW),
    ):
        compiled = default(*capabilities)
        assert decide(compiled, "socket", netlink, 3, audit) == expected
        assert decide(compiled, "socket", netlink, 3, route) == ALLOW


@given(st.sampled_from([0, 8, 0x20000, 0x20008, 0xFFFFFFFF]) | st.integers(0, (1 << 64) - 1))
def test_a_personality_takes_no_protection_away(value):
    expected = ALLOW if value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF) else refused(errno.EPERM)
    assert decide(default(), "personality", value) == expected

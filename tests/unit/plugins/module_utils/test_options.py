# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.bare.containers.plugins.module_utils.cgroup import options as cgroup
from ansible_collections.bare.containers.plugins.module_utils.container import execution
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.options import (
    Option,
    Options,
    differences,
    size,
    unique,
)
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = Options(
    (
        Option("name", required=True),
        Option("memory_max", normalise=size),
        Option("cap_add", "list", elements="str", compare="set"),
        Option("command", "list", elements="str", compare="list"),
        Option("state", default="present", choices=("present", "absent")),
        Option("password", no_log=True, aliases=("secret",)),
        Option("force", "bool", default=False, declared=False),
    )
)


def test_the_argument_spec_is_what_ansible_s_own_validation_takes():
    validator = ArgumentSpecValidator(OPTIONS.argument_spec())
    good = validator.validate({"name": "web", "secret": "x", "cap_add": ["a"], "force": "yes"})
    assert good.error_messages == []
    parameters = good.validated_parameters
    assert (parameters["state"], parameters["force"], parameters["password"]) == ("present", True, "x")
    for bad in (
        {},
        {"name": "web", "state": "gone"},
        {"name": "web", "unknown": 1},
        {"name": "web", "force": "perhaps"},
    ):
        assert validator.validate(bad).error_messages


def test_all_spellings_have_one_normal_form():
    spellings = [
        {"memory_max": "256M", "cap_add": ["b", "a"]},
        {"memory_max": 268435456, "cap_add": ["a", "b", "a"]},
        {"memory_max": "0.25 GiB", "cap_add": ["a", "b"], "command": None},
    ]
    normal = [OPTIONS.normalise(spelling) for spelling in spellings]
    assert normal == [{"memory_max": 268435456, "cap_add": ["a", "b"]}] * 3


def test_a_list_keeps_its_order_and_its_items():
    command = ["b", "a b", "a", "a"]
    assert OPTIONS.normalise({"command": command}) == {"command": command}


def test_empty_is_not_undeclared():
    assert OPTIONS.normalise({"command": [], "cap_add": [], "force": False}) == {
        "cap_add": [],
        "command": [],
        "force": False,
    }


def test_a_bad_value_is_told_in_one_sentence():
    with pytest.raises(Failure) as failure:
        OPTIONS.normalise({"memory_max": "12Q"})
    assert str(failure.value) == (
        "memory_max: '12Q' is not accepted, it takes a number of bytes such as 268435456, 256M or 1.5G; "
        "nothing was changed."
    )


def test_what_steers_one_run_is_not_kept():
    normal = OPTIONS.normalise({"name": "web", "force": True, "state": "present"})
    assert OPTIONS.declaration(normal) == {"name": "web", "state": "present"}


def test_a_kept_declaration_is_an_entry_again():
    normal = OPTIONS.normalise({"name": "web", "memory_max": "256M", "force": False, "state": "present"})
    kept = {**OPTIONS.declaration(normal), "memory_max": 268435456, "resolved": "/a/path"}
    del kept["name"]
    assert OPTIONS.entry("web", kept) == normal
    assert OPTIONS.entry("web", {"state": "absent"}) == {"name": "web", "state": "absent", "force": False}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abAB 1", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=5,
)
SETTINGS = st.dictionaries(st.sampled_from("abcdef"), PLAIN)


@given(SETTINGS, SETTINGS)
def test_differences_lead_from_one_to_the_other(before, after):
    found = differences(before, after)
    patched = {name: before.get(name) for name in {*before, *after}}
    for name, (was, becomes) in found.items():
        assert patched[name] == was
        assert was != becomes
        patched[name] = becomes
    assert patched == {name: after.get(name) for name in patched}
    assert differences(before, before) == {}


@given(SETTINGS.filter(lambda settings: any(value is not None for value in settings.values())), st.data())
def test_an_option_taken_out_is_a_difference(declared, data):
    taken = data.draw(st.sampled_from(sorted(name for name, value in declared.items() if value is not None)))
    less = {name: value for name, value in declared.items() if name != taken}
    assert differences(declared, less) == {taken: (declared[taken], None)}


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        (268435456, 268435456),
        ("268435456", 268435456),
        ("100B", 100),
        ("1k", 1024),
        ("256M", 256 * 1024**2),
        ("256 MB", 256 * 1024**2),
        ("256MiB", 256 * 1024**2),
        ("1.5G", 1536 * 1024**2),
        ("0.1K", 102),
        ("2t", 2 * 1024**4),
        ("1P", 1024**5),
        (" 64KiB ", 65536),
    ],
)
def test_size(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize(
    "text",
    [
        "12Q",
        "",
        "M",
        "-1",
        "+1",
        "1.5",
        "1.5B",
        ".5G",
        "1.G",
        "12iB",
        "0x10",
        "1e3",
        "1 2",
        "²",
        "٣",
        "1\u212a",
        "1M\n2",
        True,
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="a number of bytes such as"):
        size(text)


@given(st.integers(0, 2**60), st.sampled_from(["", "K", "M", "G", "T", "P"]))
def test_size_is_exact(number, unit):
    assert size(f"{number}{unit}") == number << 10 * " KMGTP".index(unit or " ")


def test_unique():
    entries = [
        {"name": "a", "address": "10.0.0.2"},
        {"name": "b", "address": "10.0.0.3", "publish": ["80:80", "81:81"]},
        {"name": "c", "address": None},
        {"name": "d"},
    ]
    for option in ("name", "address", "publish"):
        unique(entries, option)
    with pytest.raises(Failure) as failure:
        unique([*entries, {"name": "e", "address": "10.0.0.2"}], "address")
    assert str(failure.value) == (
        "address: '10.0.0.2' is declared twice by a and e, each takes its own; nothing was changed."
    )
    with pytest.raises(Failure, match=r"^publish: '81:81' is declared twice by b and e, "):
        unique([*entries, {"name": "e", "publish": ["82:82", "81:81"]}], "publish")
    with pytest.raises(Failure, match=r"^name: 'a' is declared twice, "):
        unique([*entries, {"name": "a"}], "name")


TABLES = {"cgroup_v2": cgroup.OPTIONS, "nsenter_exec": execution.OPTIONS}

TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "max",
        "-1",
        "1e9",
        "0x10",
        "8:0",
        "8:0 rbps=1M",
        "default 100",
        "/dev/null",
        "/a/../b",
        "1.5",
        "٣",
        "a\nb",
        "\0",
    ]
)
NUMBERS = st.integers(-(2**70), 2**70)
DATA = st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS
ITEMS = st.dictionaries(TEXTS, DATA | st.lists(DATA, max_size=2) | st.dictionaries(TEXTS, DATA, max_size=2))
VALUES = {
    "str": TEXTS,
    "int": NUMBERS,
    "bool": st.booleans(),
    "list": st.lists(TEXTS, max_size=3),
    "dict": ITEMS,
    "raw": DATA.filter(lambda value: value is not None) | st.lists(DATA, max_size=2) | ITEMS,
}
"""What Ansible's check of types leaves of a value, by the type of its option."""


@pytest.mark.parametrize("module", TABLES)
@given(st.data())
def test_whatever_is_declared_has_a_normal_form_or_one_sentence(module, data):
    option = data.draw(st.sampled_from(TABLES[module].options))
    value = data.draw(VALUES[option.type])
    try:
        normal = option.normal(value)
    except Failure as failure:
        told = str(failure)
        assert told.startswith(f"{option.name}: ")
        assert told.endswith("nothing was changed.")
        assert told.isprintable(), told
    else:
        # As it is kept on the host, and compared with when it is read again.
        assert json.loads(json.dumps(normal)) == normal


def test_options_within_an_option_are_read_in_the_same_way():
    inner = Options((Option("to", required=True), Option("size", normalise=size)))
    options = Options(
        (Option("parts", "list", elements="dict", options=inner), Option("one", "dict", options=inner))
    )
    validator = ArgumentSpecValidator(options.argument_spec())
    assert validator.validate({"parts": [{"size": "1K"}]}).error_messages
    given = validator.validate(
        {"parts": [{"to": "a", "size": "1K"}], "one": {"to": "b"}}
    ).validated_parameters
    assert options.normalise(given) == {"parts": [{"to": "a", "size": 1024}], "one": {"to": "b"}}
    with pytest.raises(Failure, match=r"^parts: size: 'x' is not accepted, it takes a number of bytes"):
        options.normalise({"parts": [{"to": "a", "size": "x"}]})

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies between Ansible and the engine: a module as it is run, with a resource of the test's own."""

from __future__ import annotations

import json
import os
import re

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bare.containers.plugins.module_utils import host, module
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure, Outcome, Step
from ansible_collections.bare.containers.plugins.module_utils.module import as_yaml, describe, run_module
from ansible_collections.bare.containers.plugins.module_utils.options import (
    Option,
    Options,
    differences,
    size,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OPTIONS = Options(
    (
        module.NAME,
        Option("memory_max", normalise=size),
        Option("env", "dict"),
        Option("state", default="present", choices=("present", "absent")),
    )
)


class Kept:
    """A resource that is a dict in ``WORLD``."""

    def __init__(self, entry):
        self.name = entry["name"]
        self._declared = {} if entry["state"] == "absent" else {k: v for k, v in entry.items() if k != "name"}

    def read(self):
        return dict(WORLD.get(self.name, {}))

    def expect(self, actual):
        return self._declared

    def plan(self, actual, expected):
        if not differences(actual, expected):
            return []
        return [Step("settings", (f"converge {self.name}",), self._apply)]

    def facts(self, actual):
        return {"path": "/", "size": 3}  # names that Ansible has its own idea of

    def _apply(self):
        if self._declared.get("memory_max") == 0:
            raise OSError(16, "Device or resource busy")
        WORLD[self.name] = self._declared


WORLD: dict[str, dict] = {}


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    WORLD.clear()
    return WORLD


def run(capsys, check=False, validate=lambda entries: None, **arguments):
    """What the module prints for these arguments."""
    asked = {"_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args({**arguments, **asked}), pytest.raises(SystemExit) as ended:
        run_module(OPTIONS, lambda entries: [Kept(entry) for entry in entries], validate=validate)
    output = capsys.readouterr()
    assert output.err == ""
    result = json.loads(output.out)
    assert bool(ended.value.code) == bool(result.get("failed"))
    result.pop("invocation", None)  # as older versions of ansible-core have it
    return result


def test_one_entry(capsys, world):
    result = run(capsys, name="web", memory_max="1K")
    assert world == {"web": {"memory_max": 1024, "state": "present"}}
    assert result == {
        "changed": True,
        "commands": ["converge web"],
        "diff": [
            {
                "before_header": "web (actual)",
                "after_header": "web (declared)",
                "before": "{}\n",
                "after": "memory_max: 1024\nstate: present\n",
            }
        ],
        "path": "/",
        "size": 3,
    }
    assert run(capsys, name="web", memory_max=1024) == {
        "changed": False,
        "commands": [],
        "diff": [],
        "path": "/",
        "size": 3,
    }


def test_check_mode_tells_what_the_real_run_then_does(capsys, world):
    predicted = run(capsys, check=True, name="web", memory_max="1K")
    assert world == {}
    assert predicted == run(capsys, name="web", memory_max="1K")
    assert world != {}


def test_an_option_taken_out_is_a_difference(capsys, world):
    run(capsys, name="web", memory_max="1K", env={"A": "abc"})
    assert run(capsys, name="web", memory_max="1K", env={"A": "ABC"})["changed"]
    assert run(capsys, name="web", memory_max="1K")["changed"]
    assert world == {"web": {"memory_max": 1024, "state": "present"}}


def test_a_batch_tells_what_became_of_each(capsys, world):
    world["b"] = {"state": "present"}
    batch = [{"name": "a", "memory_max": 0}, {"name": "b"}, {"name": "c", "env": {"A": "1"}}]
    result = run(capsys, batch=batch)
    assert result["failed"]
    assert result["msg"] == "a: settings: Device or resource busy."
    assert result["changed"]
    assert result["commands"] == ["converge c"]
    assert [part["after_header"] for part in result["diff"]] == ["c (declared)"]
    assert result["containers"] == {
        "a": {
            "changed": False,
            "commands": [],
            "failed": True,
            "msg": "settings: Device or resource busy.",
            "path": "/",
            "size": 3,
        },
        "b": {"changed": False, "commands": [], "failed": False, "path": "/", "size": 3},
        "c": {"changed": True, "commands": ["converge c"], "failed": False, "path": "/", "size": 3},
    }
    assert world["c"] == {"env": {"A": "1"}, "state": "present"}


def test_an_empty_batch_is_converged(capsys):
    assert run(capsys, batch=[]) == {"changed": False, "commands": [], "containers": {}, "diff": []}


GOOD = {"name": "good"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"one of the following is required: name, batch"),
        ({"name": "a", "batch": []}, r"parameters are mutually exclusive: name\|batch"),
        (
            {"name": "a/b"},
            r"name: 'a/b' is not accepted, it takes up to 64 letters, .*; nothing was changed\.",
        ),
        ({"name": ".."}, r"name: '\.\.' is not accepted, .*; nothing was changed\."),
        ({"name": "a", "memory_max": "12Q"}, r"memory_max: '12Q' is not accepted, .*; nothing was changed\."),
        ({"name": "a", "state": "gone"}, r"value of state must be one of: present, absent, got: gone"),
        (
            {"batch": [GOOD, {"name": "a", "memory_max": "12Q"}]},
            r"batch entry 2 \(a\): memory_max: '12Q' is not accepted, .*; nothing was changed\.",
        ),
        (
            {"batch": [GOOD, {"memory_max": "1K"}]},
            r"batch entry 2 \(without a name\): name is missing, every entry has one; nothing was changed\.",
        ),
        (
            {"batch": [GOOD, {"name": "a", "memory": 1}]},
            r"batch entry 2 \(a\): memory is no option, an entry takes env, memory_max, .*; nothing .*",
        ),
        (
            {"batch": [GOOD, {"name": "a", "state": "gone"}]},
            r"batch entry 2 \(a\): value of state must be one of: present, absent, got: gone; nothing .*",
        ),
        (
            {"batch": [GOOD, GOOD]},
            r"name: 'good' is declared twice, each takes its own; nothing was changed\.",
        ),
        (
            {"batch": [{"name": "a", "env": {"A": "1"}}, {"name": "b", "env": {"A": "1"}}]},
            r"env clash; nothing was changed\.",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_changed(capsys, world, arguments, message):
    def clash(entries):
        if sum("env" in entry for entry in entries) > 1:
            raise Failure("env clash; nothing was changed.")

    result = run(capsys, validate=clash, **arguments)
    assert result["failed"]
    assert re.fullmatch(message, result["msg"]), result["msg"]
    assert world == {}


def test_what_the_system_refuses_before_the_engine_is_a_sentence_too(capsys):
    def fail(entries):
        raise PermissionError(13, "Permission denied", "/etc/shadow")

    assert run(capsys, validate=fail, name="web") == {
        "failed": True,
        "msg": "Permission denied (/etc/shadow).",
    }


def test_not_root(capsys, world, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run(capsys, name="web")
    assert result["msg"] == "This needs root and runs as user 1000: set become: true; nothing was changed."
    assert world == {}


def test_a_diff_is_made_for_who_asks_for_it():
    changed = Outcome("a", before={"size": 1}, after={"size": 2})
    assert describe([changed], batch=False, diff=False)["diff"] == []
    assert len(describe([changed], batch=False, diff=True)["diff"]) == 1


def test_several_errors_are_all_told():
    outcomes = [Outcome("a", error="One."), Outcome("b"), Outcome("c", error="Two.")]
    result = describe(outcomes, batch=True, diff=True)
    assert result["msg"] == "a: One. c: Two."


# Plain data as YAML

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(PLAIN)
def test_as_yaml_is_yaml(value):
    assert yaml.safe_load(as_yaml(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            " ",
            "a b",
            "a: b",
            "- a",
            "#",
            "'",
            '"',
            "\\",
            "\\ud83d",
            "\n",
            "a\tb",
            "\x00",
            "\x7f",
            "\x85",
            "\u2028",
        ],
        *[
            "\ufeff",
            "\udc80",
            "😀",
            "ä",
            "\U0010ffff",
            "true",
            "No",
            "NULL",
            "~",
            "1",
            "1.5",
            "1e3",
            "0x1f",
            "1_000",
        ],
        *[
            "12:30",
            "2026-01-01",
            ".inf",
            "=",
            "<<",
            "?",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "{}",
            "[]",
        ],
        *["y", "N", "on", "Off", "---", "...", "a#b", "a #b", "a:", "/etc/passwd", "x@y", "null"],
    ],
)
def test_text_that_yaml_could_take_for_something_else(text):
    for value in (text, [text], {text: text}, [[text], {text: [text]}]):
        assert yaml.safe_load(as_yaml(value)) == value


def test_as_yaml_reads_well():
    state = {
        "name": "web",
        "path": "/etc/x",
        "publish": ["8080:80"],
        "env": {},
        "mounts": [{"type": "bind", "ro": True}],
    }
    assert as_yaml(state) == (
        "name: web\npath: /etc/x\n"
        'publish:\n  - "8080:80"\nenv: {}\n'
        "mounts:\n  -\n    type: bind\n    ro: true\n"
    )

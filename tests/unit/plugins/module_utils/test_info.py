# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift as it is told, and declarations that people have damaged."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host, info
from ansible_collections.bare.containers.plugins.module_utils.converge import (
    Failure,
    Needs,
    Step,
    converge,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def container(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "RUN", tmp_path / "run")
    return info._Container("web")


class Fake:
    """A resource of two settings, one of which may be impossible."""

    name = "web"
    declared: ClassVar = {"limits": {"memory": 2, "tasks": 5}, "mode": "a"}

    def __init__(self, actual, error=None):
        self._actual = actual
        self._error = error

    def read(self):
        return self._actual

    def expect(self, actual):
        if self._error:
            raise Failure(self._error)
        return self.declared

    def plan(self, actual, expected):
        return [
            Step("memory", ("echo 2 > memory",), self._refuse),
            Step("memory", (), self._refuse, Needs.RESTART),
            Step("mode", ("chmod a",), self._refuse),
        ] * (actual != expected)

    def facts(self, actual):
        return {"place": "here"}

    def _refuse(self):
        raise AssertionError("nothing may be changed")


def take(container, resource):
    (outcome,) = converge([resource], check=True)
    container.outcomes["cgroup"] = outcome
    container.take("cgroup", outcome)


def test_drift_is_what_the_engine_would_change(container):
    take(container, Fake({"limits": {"memory": 1, "tasks": 5}}))
    assert container.drift == [
        {
            "part": "cgroup",
            "name": "web",
            "changes": ["memory", "mode"],
            "needs": "restart",
            "before": {"limits": {"memory": 1}, "mode": None},
            "after": {"limits": {"memory": 2}, "mode": "a"},
            "commands": ["echo 2 > memory", "chmod a"],
        }
    ]
    assert container.errors == []
    assert container.fact("cgroup", "place") == "here"
    assert container.fact("network", "place") is None


def test_without_drift_there_is_none(container):
    take(container, Fake(Fake.declared))
    assert (container.drift, container.errors) == ([], [])


def test_what_can_not_be_is_no_drift_but_an_error(container):
    take(container, Fake({}, "mode: 'a' is not for this host."))
    assert (container.drift, container.errors) == ([], ["cgroup: mode: 'a' is not for this host."])


PLAIN = st.recursive(
    st.booleans() | st.integers() | st.text("ab/:1", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=5,
)
STATES = st.dictionaries(st.sampled_from("abc"), PLAIN)


@given(STATES, STATES)
def test_what_differs_leads_from_one_to_the_other(before, after):
    left, right = info._differing(before, after)
    assert _patched(before, left, right) == after
    assert info._differing(after, after) == ({}, {})


def _patched(state, left, right):
    """``state`` with the differences applied, each of which has to be one; None is what is missing."""
    patched = dict(state)
    for name in right:
        assert left[name] != right[name]
        both = isinstance(left[name], dict) and isinstance(right[name], dict)
        patched[name] = _patched(state[name], left[name], right[name]) if both else right[name]
    return {name: value for name, value in patched.items() if value is not None}


KEPT = {
    "rootfs": {
        "busybox": True,
        "state": "present",
        "layers": ["/var/lib/layer/tree"],
        "file": {"sha256": "0"},
    },
    "cgroup": {
        "manager": "cgroupfs",
        "parent": "bare",
        "path": "/sys/fs/cgroup/bare/web",
        "state": "present",
    },
    "network": {
        "address": ["10.0.0.2/24"],
        "gateway": ["10.0.0.1"],
        "interface": "eth0",
        "mtu": 1500,
        "nat": False,
    },
    "process": {
        "command": ["true"],
        "state": "started",
        "env": {"A": "b"},
        "user": "1:1",
        "volumes": [],
        "ulimit": {},
    },
}
DAMAGES = st.one_of(
    *(
        st.tuples(
            st.just(part),
            st.sampled_from(sorted({*kept, "publish", "controls", "url", "supervisor"})),
            st.none() | PLAIN,
        )
        for part, kept in KEPT.items()
    )
)


@settings(max_examples=50)
@given(DAMAGES)
def test_any_damage_is_a_sentence(tmp_path_factory, damage):
    part, option, value = damage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "STATE", tmp_path_factory.mktemp("state"))
        patch.setattr(host, "RUN", host.STATE / "run")
        directory = host.directory("web")
        directory.mkdir(parents=True)
        for each, kept in KEPT.items():
            declared = {**kept, option: value} if each == part else kept
            (directory / f"{each}.json").write_text(json.dumps(declared))
        (told,) = info.gather(None, size=False).values()
    assert told["state"] == "half-made"
    assert set(told["declared"]) == set(KEPT)
    assert json.dumps(told)
    for sentence in told["errors"]:
        assert sentence.partition(":")[0] in KEPT
        assert sentence.endswith(".")
        assert "\n" not in sentence

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, driven with a resource that is a mapping of settings in a world that is a mapping too."""

from __future__ import annotations

import contextlib
import copy
import threading
from dataclasses import dataclass, field

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import (
    Failure,
    Outcome,
    Step,
    commands,
    converge,
)
from ansible_collections.bare.containers.plugins.module_utils.options import differences
from hypothesis import given
from hypothesis import strategies as st

# What a setting may be: values that joining, lower-casing or truth tests would take for one another.
ALIKE = [
    "abc",
    "ABC",
    "a b",
    ["a b"],
    ["a", "b"],
    ["b", "a"],
    [],
    "",
    "1",
    1,
    [1],
    ["1"],
    {},
    {"a": "1"},
    {"a": 1},
]
SETTINGS = st.dictionaries(st.sampled_from("uvwxyz"), st.sampled_from(ALIKE), max_size=6)


@dataclass
class Fake:
    """A container's settings in ``world``; what ``declared`` leaves out is expected to be gone."""

    name: str
    world: dict
    declared: dict
    broken: set = field(default_factory=set)  # settings whose step raises
    deaf: set = field(default_factory=set)  # settings whose step does nothing
    shared: dict = field(default_factory=dict)  # the name of the shared step that a setting belongs to
    log: list = field(default_factory=list)

    def read(self):
        self.log.append(("read", self.name))
        return copy.deepcopy(self.world.get(self.name, {}))

    def expect(self, actual):
        if self.declared.get("impossible"):
            raise Failure("impossible: the host cannot; nothing was changed.")
        return self.declared

    def plan(self, actual, expected):
        return [self._step(key, value) for key, (_was, value) in differences(actual, expected).items()]

    def facts(self, actual):
        return {"count": len(actual)}

    def _step(self, key, value):
        def apply():
            self.log.append((self.name, key))
            if key in self.broken:
                raise OSError(28, "No space left on device", f"/dev/{key}")
            if key in self.deaf:
                return
            settings = self.world.setdefault(self.name, {})
            if value is None:
                del settings[key]
            else:
                settings[key] = copy.deepcopy(value)

        return Step(key, (f"set {key} of {self.name}",), apply, shared=self.shared.get(key))


@given(SETTINGS)
def test_a_converged_state_has_an_empty_plan(declared):
    log = []
    (outcome,) = converge([Fake("web", {"web": copy.deepcopy(declared)}, declared, log=log)])
    assert (outcome.changed, outcome.commands, outcome.error) == (False, [], None)
    assert outcome.before == outcome.after == declared
    assert log == [("read", "web")]  # read once, nothing applied


@given(SETTINGS, SETTINGS)
def test_after_apply_the_plan_is_empty(actual, declared):
    world = {"web": copy.deepcopy(actual)}
    (first,) = converge([Fake("web", world, declared)])
    (second,) = converge([Fake("web", world, declared)])
    assert world["web"] == declared
    assert first.changed == (actual != declared)
    assert (first.before, first.after) == (actual, declared)
    assert not second.changed
    assert first.error is second.error is None


@given(SETTINGS, SETTINGS, st.integers(0, 5))
def test_from_where_a_step_failed_the_next_run_converges(actual, declared, nth):
    different = sorted(differences(actual, declared))
    broken = set(different[nth : nth + 1])
    world = {"web": copy.deepcopy(actual)}
    (first,) = converge([Fake("web", world, declared, broken=broken)])
    assert bool(first.error) == bool(broken)
    if first.error:
        (key,) = broken
        assert first.error == f"{key}: No space left on device (/dev/{key})."
        assert key not in {step.changes for step in first.steps}  # only what was applied is told
        assert first.after == world["web"]
        assert first.changed == (world["web"] != actual)
    (second,) = converge([Fake("web", world, declared)])
    assert second.error is None
    assert world["web"] == declared


@given(SETTINGS, SETTINGS)
def test_check_mode_predicts_and_applies_nothing(actual, declared):
    world, untouched = ({"web": copy.deepcopy(actual)} for _copy in range(2))
    log = []
    (predicted,) = converge([Fake("web", world, declared, log=log)], check=True)
    assert world == untouched
    assert set(log) == {("read", "web")}
    (real,) = converge([Fake("web", world, declared)])
    assert (predicted.changed, predicted.commands) == (real.changed, real.commands)
    assert (predicted.before, predicted.after) == (real.before, real.after)


@pytest.mark.parametrize("declared", ALIKE)
@pytest.mark.parametrize("actual", ALIKE)
def test_values_that_look_alike_differ(actual, declared):
    world = {"web": {"env": actual}}
    (outcome,) = converge([Fake("web", world, {"env": declared})])
    assert outcome.changed == (ALIKE.index(actual) != ALIKE.index(declared))
    assert world == {"web": {"env": declared}}


@given(SETTINGS.filter(bool), st.data())
def test_an_option_taken_out_of_the_declaration_is_a_difference(declared, data):
    taken = data.draw(st.sampled_from(sorted(declared)))
    world = {"web": copy.deepcopy(declared)}
    less = {key: value for key, value in declared.items() if key != taken}
    (outcome,) = converge([Fake("web", world, less)])
    assert [step.changes for step in outcome.steps] == [taken]
    assert world["web"] == less


def test_what_does_not_hold_is_named():
    world = {}
    (outcome,) = converge([Fake("web", world, {"a": 1, "b": 2, "c": 3}, deaf={"a", "c"})])
    assert outcome.error == "a, c did not hold: set as declared, but reading it again shows another value."
    assert outcome.after == {"b": 2}


@pytest.mark.parametrize("workers", [1, 4])
def test_an_entry_that_fails_does_not_stop_the_others(workers):
    world = {}
    outcomes = converge(
        [
            Fake("a", world, {"x": 1}, broken={"x"}),
            Fake("b", world, {"x": 1}),
            Fake("c", world, {"impossible": True}),
            Fake("d", world, {"x": 1, "y": 2}),
        ],
        workers=workers,
    )
    assert [outcome.name for outcome in outcomes] == ["a", "b", "c", "d"]
    assert [bool(outcome.error) for outcome in outcomes] == [True, False, True, False]
    assert [outcome.changed for outcome in outcomes] == [False, True, False, True]
    assert outcomes[2].error == "impossible: the host cannot; nothing was changed."
    assert world == {"b": {"x": 1}, "d": {"x": 1, "y": 2}}


def test_workers_work_at_the_same_time():
    meeting = threading.Barrier(2, timeout=30)

    class Meeting(Fake):
        def read(self):
            meeting.wait()  # breaks, and raises, unless both are in here at once
            return super().read()

    world = {"a": {}, "b": {}}
    outcomes = converge([Meeting("a", world, {}), Meeting("b", world, {})], workers=2)
    assert [outcome.error for outcome in outcomes] == [None, None]


@pytest.mark.parametrize("filename", ["/sys/fs/cgroup", b"/sys/fs/cgroup", None, 3])
def test_an_error_of_the_system_is_told_whatever_it_names(filename):
    class Unreadable(Fake):
        def read(self):
            raise OSError(5, "Input/output error", filename)

    (outcome,) = converge([Unreadable("web", {}, {})])
    named = " (/sys/fs/cgroup)" if filename in ("/sys/fs/cgroup", b"/sys/fs/cgroup") else ""
    assert outcome.error == f"Input/output error{named}."


# Shared steps

RELOAD = {"reload": "daemon-reload"}


def applied(log):
    return [entry for entry in log if entry[0] != "read"]


def test_a_shared_step_runs_once_when_all_have_come_to_it():
    class Reloading(Fake):
        def _step(self, key, value):
            step = super()._step(key, value)
            if key != "reload":
                return step

            def reload():
                log.append((self.name, key))
                for name in "ab":
                    world[name]["reload"] = "done"

            return Step(key, step.commands, reload, shared="daemon-reload")

    log, world = [], {}
    declared = {"unit": 1, "reload": "done", "start": 1}
    outcomes = converge([Reloading(name, world, declared, log=log) for name in "ab"])
    assert applied(log) == [("a", "unit"), ("b", "unit"), ("a", "reload"), ("a", "start"), ("b", "start")]
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert all(len(outcome.steps) == 3 for outcome in outcomes)  # it is each one's own change all the same
    assert commands(outcomes) == [
        "set unit of a",
        "set unit of b",
        "set reload of a",
        "set start of a",
        "set start of b",
    ]


def test_a_shared_step_waits_for_who_has_another_one_first():
    log = []
    shared = {"firewall": "firewall", "reload": "daemon-reload"}
    deaf = {"firewall", "reload"}
    a = Fake("a", {}, {"reload": 1}, shared=shared, log=log, deaf=deaf)
    b = Fake("b", {}, {"firewall": 1, "unit": 1, "reload": 1}, shared=shared, log=log, deaf=deaf)
    outcomes = converge([a, b])
    assert applied(log) == [("b", "firewall"), ("b", "unit"), ("a", "reload")]
    assert commands(outcomes) == ["set firewall of b", "set unit of b", "set reload of a"]


def test_shared_steps_that_wait_for_each_other_still_end():
    log = []
    shared = {"x": "one", "y": "two"}
    converge(
        [
            Fake("a", {}, {"x": 1, "y": 1}, shared=shared, log=log),
            Fake("b", {}, {"y": 1, "x": 1}, shared=shared, log=log),
        ]
    )
    assert sorted(applied(log)) == [("a", "x"), ("a", "y"), ("b", "x")]


def test_a_failing_shared_step_fails_for_all_who_wait_for_it_and_only_for_them():
    world, log = {}, []
    declared = {"unit": 1, "reload": 1, "start": 1}
    a = Fake("a", world, declared, broken={"reload"}, shared=RELOAD, log=log)
    b = Fake("b", world, declared, shared=RELOAD, log=log)
    c = Fake("c", world, {"unit": 1}, log=log)
    outcomes = converge([a, b, c])
    message = "reload: No space left on device (/dev/reload)."
    assert [outcome.error for outcome in outcomes] == [message, message, None]
    assert world == {"a": {"unit": 1}, "b": {"unit": 1}, "c": {"unit": 1}}
    assert [len(outcome.steps) for outcome in outcomes] == [1, 1, 1]


def test_an_entry_that_failed_before_the_shared_step_does_not_hold_it_up():
    world, log = {}, []
    a = Fake("a", world, {"unit": 1, "reload": 1}, broken={"unit"}, shared=RELOAD, log=log)
    b = Fake("b", world, {"unit": 1, "reload": 1}, shared=RELOAD, log=log)
    outcomes = converge([a, b])
    assert [bool(outcome.error) for outcome in outcomes] == [True, False]
    assert world == {"b": {"unit": 1, "reload": 1}}


def test_commands_keep_an_entry_s_repetitions_and_say_once_what_entries_have_in_common():
    def outcome(name, *lines):
        shared = {"reload": "daemon-reload"}
        return Outcome(
            name, steps=tuple(Step(line, (line,), lambda: None, shared=shared.get(line)) for line in lines)
        )

    a = outcome("a", "mkdir bare", "down", "up", "down", "reload", "down")
    b = outcome("b", "mkdir bare", "start", "reload")
    assert commands([a, b]) == ["mkdir bare", "down", "up", "down", "start", "reload", "down"]


# Locks and reading together


def test_only_what_changes_is_locked_in_the_order_of_names_and_read_again_under_the_lock():
    log = []

    @contextlib.contextmanager
    def lock(name):
        log.append(("lock", name))
        yield
        log.append(("unlock", name))

    world = {"b": {"x": 1}}
    converge(
        [Fake(name, world, {"x": 1}, log=log) for name in "cba"],
        lock=lock,
        refresh=lambda: log.append("refresh"),
    )
    assert log == [
        "refresh",
        *[("read", name) for name in "cba"],
        *[("lock", "a"), ("lock", "c")],
        "refresh",
        *[("read", "c"), ("read", "a")],
        *[("c", "x"), ("a", "x")],
        "refresh",
        *[("read", "c"), ("read", "a")],
        *[("unlock", "c"), ("unlock", "a")],
    ]


def test_check_mode_takes_no_lock():
    def lock(name):
        raise AssertionError("taken")

    (outcome,) = converge([Fake("web", {}, {"x": 1})], check=True, lock=lock)
    assert outcome.changed


def test_a_lock_that_cannot_be_had_is_that_entry_s_failure_and_changes_nothing():
    @contextlib.contextmanager
    def lock(name):
        if name == "a":
            raise Failure("name: 'a' is being changed by process 7; nothing was changed.")
        yield

    world = {}
    held, free = converge([Fake(name, world, {"x": 1}) for name in "ab"], lock=lock)
    assert held.error == "name: 'a' is being changed by process 7; nothing was changed."
    assert (held.changed, free.changed) == (False, True)
    assert world == {"b": {"x": 1}}


def test_what_another_run_did_while_this_one_waited_is_not_done_again():
    world, log = {}, []

    @contextlib.contextmanager
    def lock(name):
        world[name] = {"x": 1}
        yield

    (outcome,) = converge([Fake("web", world, {"x": 1}, log=log)], lock=lock)
    assert (outcome.changed, outcome.error) == (False, None)
    assert applied(log) == []


def test_facts_are_those_of_the_last_reading():
    (outcome,) = converge([Fake("web", {}, {"x": 1, "y": 2})])
    assert outcome.facts == {"count": 2}

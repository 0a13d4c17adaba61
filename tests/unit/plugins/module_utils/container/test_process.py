# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a process, on folders of the test's own and with a supervisor that only remembers."""

from __future__ import annotations

import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host, systemctl
from ansible_collections.bare.containers.plugins.module_utils.container import (
    bundle,
    installation,
    process,
    supervisor,
    surroundings,
    together,
)
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure, Needs, converge
from hypothesis import given
from hypothesis import strategies as st


class Remembered:
    """A supervisor whose containers are this very process, as long as they are started."""

    def __init__(self, run):
        self._run = run
        self.acts = []
        self.reloaded = True
        self.refuses = {}
        self.has_failed = set()

    def refresh(self, names):
        self.acts.append("refresh")

    def stale(self, name):
        return False

    def active(self, name):
        return supervisor.running(name) is not None

    def failed(self, name):
        return name in self.has_failed

    def start(self, names):
        self.acts.append(("start", *names))
        for name in set(names) - set(self.refuses):
            run = self._run / name
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.json").write_text((host.directory(name) / "config.json").read_text())
            with open("/proc/self/stat") as stat:
                started = stat.read().rpartition(")")[2].split()[19]
            (run / "state.json").write_text(f'{{"pid": {os.getpid()}, "start_time": {started}}}')
        return {name: self.refuses[name] for name in names if name in self.refuses}

    def stop(self, stops):
        self.acts.append(("stop", *(stop.name for stop in stops)))
        for stop in stops:
            (self._run / stop.name / "state.json").unlink()
        return {}

    def checked(self, name):
        return None

    def start_commands(self, name, *, checked):
        return (f"start {name}",)

    def stop_commands(self, stop):
        return (f"stop {stop.name}",)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "RUN", tmp_path / "run")
    monkeypatch.setattr(systemctl, "systemd_is_init", lambda: False)
    monkeypatch.setattr(host, "directory", lambda name: tmp_path / "state/containers" / name)
    monkeypatch.setattr(bundle, "LOGS", str(tmp_path / "log"))
    monkeypatch.setattr(installation, "mismatch", lambda: None)
    monkeypatch.setattr(surroundings, "cgroup_mount", lambda: str(tmp_path / "cgroup"))
    monkeypatch.setattr(surroundings, "_resolver", lambda: {"nameserver": ["10.0.0.1"]})
    monkeypatch.setattr(together, "_SETTLE_SECONDS", 0.0)
    (tmp_path / "tree").mkdir()
    remembered = Remembered(tmp_path / "run")
    monkeypatch.setattr(process, "Direct", lambda: remembered)
    return remembered


@pytest.fixture
def declare(tmp_path):
    def entry(name="web", **options):
        defaults = {option.name: option.default for option in OPTIONS.options}
        default = {"command": ["true"], "rootfs": str(tmp_path / "tree")}
        return OPTIONS.normalise({**defaults, "name": name, **default, **options})

    return entry


def run(*entries, check=False):
    processes = process.Processes()
    return converge(processes.build(entries), check=check, refresh=processes.refresh)


def changes(outcome):
    return list(dict.fromkeys(step.changes for step in outcome.steps))


def test_from_nothing_to_running_and_back(watched, declare, tmp_path):
    (first,) = run(declare())
    assert first.error is None
    assert changes(first)[0] == "process declaration"
    assert changes(first)[-1] == "process"
    assert first.facts["pid"] == os.getpid()
    assert not run(declare())[0].changed
    (gone,) = run(declare(state="absent"))
    assert gone.error is None
    assert changes(gone)[-1] == "process declaration"
    assert not (tmp_path / "state").exists()
    assert not run(declare(state="absent"))[0].changed


OPTION_SETS = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(st.sampled_from("AB"), st.sampled_from(["", "x", "X"])),
        "user": st.sampled_from(["0", "1000", "app:7"]),
        "hostname": st.sampled_from(["a", "b"]),
        "rootfs_mode": st.sampled_from(["overlay", "read_only", "tmpfs", "direct"]),
        "privileged": st.booleans(),
        "dns": st.lists(st.sampled_from(["10.0.0.2", "10.0.0.3"]), unique=True),
        "stop_timeout": st.integers(0, 3),
        "healthcheck": st.sampled_from(["true", "none"]),
        "log_driver": st.sampled_from(["file", "none"]),
        "log_opt": st.sampled_from([{}, {"path": "/nowhere/x.log"}]),
        "state": st.sampled_from(["started", "stopped", "restarted", "absent"]),
    },
)


def test_any_declaration_follows_any_other(watched, declare):
    @given(st.lists(OPTION_SETS, min_size=1, max_size=4))
    def follow(declarations):
        for options in declarations:
            (foretold,) = run(declare(**options), check=True)
            (done,) = run(declare(**options))
            assert done.error is None
            assert foretold.commands == done.commands
            assert foretold.changed == done.changed
            assert foretold.after == done.after
            if options.get("state") != "restarted":
                assert not run(declare(**options))[0].changed
            else:
                assert done.changed
        run(declare(state="absent"))

    follow()


def test_an_option_taken_out_is_a_difference(watched, declare):
    run(declare(env={"A": "b"}, stop_timeout=3))
    assert changes(run(declare(stop_timeout=3))[0])[0] == "process"
    assert changes(run(declare())[0]) == ["process declaration"]


def test_what_needs_what(watched, declare, tmp_path):
    run(declare())
    live = run(declare(dns=["10.0.0.9"]), check=True)[0]
    assert max(step.needs for step in live.steps) is Needs.LIVE
    restart = run(declare(env={"A": "b"}), check=True)[0]
    assert max(step.needs for step in restart.steps) is Needs.RESTART
    (tmp_path / "other").mkdir()
    recreate = run(declare(rootfs=str(tmp_path / "other")), check=True)[0]
    assert max(step.needs for step in recreate.steps) is Needs.RECREATE


def test_a_root_that_changes_takes_the_layer_above_it_along(watched, declare, tmp_path):
    run(declare())
    upper = tmp_path / "state/containers/web/upper"
    (upper / "kept").touch()
    run(declare(env={"A": "b"}))
    assert (upper / "kept").exists()
    (tmp_path / "other").mkdir()
    run(declare(rootfs=str(tmp_path / "other")))
    assert upper.exists()
    assert not (upper / "kept").exists()


def test_users_of_other_ids_get_a_layer_of_their_own(watched, declare, tmp_path):
    """What those before them wrote would be nobody's."""
    upper = tmp_path / "state/containers/web/upper"
    run(declare())
    for options in ({"uidmap": ["0:100000:65536"]}, {"uidmap": ["0:200000:65536"]}, {}):
        (upper / "kept").touch()
        made = run(declare(**options))[0]
        assert max(step.needs for step in made.steps) is Needs.RECREATE, options
        assert upper.exists()
        assert not (upper / "kept").exists(), options
        (upper / "kept").touch()
        run(declare(env={"A": "b"}, **options))
        assert (upper / "kept").exists(), options


def test_a_layer_is_kept_above_another_root_when_asked(watched, declare, tmp_path):
    upper = tmp_path / "state/containers/web/upper"
    (tmp_path / "other").mkdir()
    run(declare(upper="keep"))
    (upper / "kept").touch()
    other = {"rootfs": str(tmp_path / "other"), "upper": "keep"}
    made = run(declare(**other))[0]
    assert max(step.needs for step in made.steps) is Needs.RECREATE
    assert (upper / "kept").exists()
    # Not for users of other ids, who would find what is not theirs.
    (refused,) = run(declare(uidmap=["0:100000:65536"], **other))
    assert str(refused.error).startswith("upper: 'keep'")
    assert (upper / "kept").exists()
    assert not run(declare(**other))[0].changed
    # With the word for it taken back, the next other root is another one.
    run(declare(rootfs=str(tmp_path / "other")))
    assert (upper / "kept").exists()
    run(declare())
    assert not (upper / "kept").exists()


def test_a_batch_acts_together(watched, declare):
    names = ["a", "b", "c"]
    run(*(declare(name) for name in names))
    assert [act for act in watched.acts if act != "refresh"] == [("start", *names)]
    watched.acts.clear()
    run(declare("a", state="stopped"), declare("b", env={"A": "b"}), declare("c"), declare("d"))
    stop, start = (act for act in watched.acts if act != "refresh")
    assert stop == ("stop", "a", "b")
    assert sorted(start) == ["b", "d", "start"]


def test_one_that_is_refused_does_not_stop_the_others(watched, declare):
    watched.refuses = {"b": "command: 'x' is not in the root file system."}
    outcomes = run(*(declare(name) for name in "abc"))
    assert [outcome.error for outcome in outcomes] == [None, watched.refuses["b"], None]
    # It is known as ours, and tried again.
    watched.refuses = {}
    assert [outcome.changed for outcome in run(*(declare(name) for name in "abc"))] == [False, True, False]


def test_stopping_and_restarting_take_the_kept_declaration(watched, declare):
    run(declare(env={"A": "b"}))
    named = {"name": "web", "command": None, "rootfs": None}
    assert run(declare(**named, state="stopped"))[0].error is None
    assert run(declare(**named, state="restarted"))[0].error is None
    assert not run(declare(env={"A": "b"}))[0].changed
    (unknown,) = run(declare("other", command=None, state="stopped"))
    assert "command" in unknown.error
    assert not unknown.changed


def test_a_failure_is_forgotten_with_the_container_also_where_nothing_else_is_left(
    watched, declare, monkeypatch
):
    monkeypatch.setattr(
        systemctl, "systemctl", lambda verb, unit: watched.has_failed.remove(unit[5:-8]) or verb
    )
    run(declare())
    for _time in range(2):
        watched.has_failed = {"web", "other"}
        (gone,) = run(declare(state="absent"))
        assert gone.error is None
        assert gone.commands.count("systemctl reset-failed bare-web.service") == 1
        assert watched.has_failed == {"other"}
    assert not run(declare(state="absent"))[0].changed


def test_what_is_missing_is_told_before_anything_is_changed_and_check_mode_goes_on(
    watched, declare, monkeypatch, tmp_path
):
    # What the image says that is still to be fetched may be the command.
    nothing_yet = {"rootfs": None}
    for cause, options in (
        ("rootfs", nothing_yet),
        ("rootfs", {**nothing_yet, "command": None}),
        ("launcher", {}),
    ):
        if cause == "launcher":
            monkeypatch.setattr(installation, "mismatch", lambda: Failure("The launcher is not there."))
        (told,) = run(declare(**options), check=True)
        assert told.error is None
        assert told.changed
        (done,) = run(declare(**options))
        assert cause in done.error
        assert not (tmp_path / "state").exists()


def test_a_policy_takes_a_supervisor(watched, declare):
    with pytest.raises(Failure, match="restart_policy: 'always'"):
        process.check([declare(restart_policy="always")])
    with pytest.raises(Failure, match="supervisor: 'systemd'"):
        process.check([declare(supervisor="systemd")])
    process.check([declare()])


def test_what_the_launcher_added_to_hosts_is_kept_when_the_rest_changes(watched, declare, tmp_path):
    run(declare())
    hosts = tmp_path / "state/containers/web/etc/hosts"
    hosts.write_text(hosts.read_text() + bundle.OWN_NAME + "10.0.0.5 web\n")
    inode = hosts.stat().st_ino
    assert not run(declare())[0].changed
    assert run(declare(etc_hosts={"peer": "10.0.0.6"}))[0].changed
    assert hosts.read_text().endswith(f"10.0.0.6 peer\n{bundle.OWN_NAME}10.0.0.5 web\n")
    # It is mounted in the running container, where another file would not be seen.
    assert hosts.stat().st_ino == inode

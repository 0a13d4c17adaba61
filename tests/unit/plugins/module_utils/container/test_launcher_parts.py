# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import bundle, privileges
from ansible_collections.bare.containers.plugins.module_utils.container.bundle import Refused, Report
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from(["", " ", "\n\t"]))
def test_json_is_read_as_by_json(value, blank):
    assert bundle.parse_json(blank + json.dumps(value, indent=1) + blank) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nothing", "1 2", '{"a": 1} x'])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        bundle.parse_json(text)


@given(st.text())
def test_whatever_is_told_is_one_line(text):
    line = bundle.one_line(text)
    assert len((line + "x").splitlines()) == 1
    assert line == text or not text.isprintable()


def told(act):
    report = Report()
    child = os.fork()
    if child == 0:
        try:
            report.close_reader()
            act(report)
        finally:
            os._exit(0)
    outcome = report.outcome()
    os.waitpid(child, 0)
    return outcome


def test_a_report_tells_exec_from_failure_from_death():
    def fail_late(report):
        report.before_exec()
        report.failed(Refused("no such command"))

    def fail_with_errno(report):
        report.step = "mount of /proc"
        report.failed(OSError(2, "", "/proc"))

    assert told(lambda report: report.before_exec()) is None
    assert told(lambda report: None) == "it was killed while being set up"
    assert told(fail_late) == "no such command"
    assert told(fail_with_errno) == "mount of /proc (/proc): No such file or directory"


def test_a_state_is_of_a_process_that_lives(tmp_path):
    assert bundle.running(str(tmp_path)) is None
    with open("/proc/self/stat") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"pid": os.getpid(), "start_time": started}))
    assert bundle.running(str(tmp_path)) == (os.getpid(), started)
    state.write_text(json.dumps({"pid": os.getpid(), "start_time": started + 1}))
    assert bundle.running(str(tmp_path)) is None


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1234:1235:App:/home/app:/bin/sh
1000:x:0:0:a user called like an id:/:/bin/sh
broken
negative:x:-1:0::/:
huge:x:4294967295:0::/:
homeless:x:7:7::
"""
GROUP = "root:x:0:\napp:x:1235:\naudio:x:29:root,app\nbad:x:x:app\nhuge:x:4294967295:app\n1000:x:0:\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("app", (1234, 1235, [29], "/home/app")),
        ("1234", (1234, 1235, [29], "/home/app")),
        ("app:audio", (1234, 29, [], "/home/app")),
        ("app:7", (1234, 7, [], "/home/app")),
        ("1000", (1000, 0, [], "/")),
        ("1000:1000", (1000, 1000, [], "/")),
        ("0", (0, 0, [29], "/root")),
    ],
)
def test_accounts_are_found_numbers_first(root, declared, expected):
    account = privileges.find_account(root, declared)
    assert (account.uid, account.gid, account.groups, account.home) == expected


@pytest.mark.parametrize(
    "declared", ["nobody", "app:nogroup", "negative", "huge", "broken", "4294967295", "app:4294967295"]
)
def test_who_is_not_there_is_refused(root, declared):
    with pytest.raises(Refused, match="user"):
        privileges.find_account(root, declared)


def test_the_databases_may_be_missing_and_are_never_the_host_s(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    (tmp_path / "etc/group").symlink_to("../../../../../../../etc/group")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError, match=r"symbolic|such file"):
        privileges.find_account(root, "root")
    os.unlink(tmp_path / "etc/passwd")
    os.unlink(tmp_path / "etc/group")
    assert privileges.find_account(root, "5:6").gid == 6
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(Refused, match="regular"):
        privileges.find_account(root, "5")
    os.close(root)


def test_home_is_the_account_s_unless_given():
    account = privileges.Account(1, 1, [], "/home/x")
    assert privileges.environment_of(["A=b=c", "A=d"], account) == {"A": "d", "HOME": "/home/x"}
    assert privileges.environment_of(["HOME=/y"], account) == {"HOME": "/y"}


def test_a_sentence_cut_off_within_a_character_is_told():
    assert told(lambda report: report.failed(Refused("é" * 5000))).startswith("éé")

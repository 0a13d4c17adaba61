# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import execution
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure


def normal(option, value):
    return OPTIONS.normalise({option: value})[option]


@pytest.mark.parametrize(
    ("option", "spellings"),
    [
        ("workdir", ["/a/b", "/a//b/", "/a/./b"]),
        ("cap_add", [["net_admin", "CAP_CHOWN"], ["CAP_CHOWN", "CAP_NET_ADMIN", "chown"]]),
        ("stop_signal", ["SIGTERM", "term", "15"]),
        ("volumes", [["/a:/b"], ["/a/:/b/:rbind"]]),
        ("env", [{"A": "1", "B": "true"}, {"B": True, "A": 1}]),
        ("ulimit", [["nofile=5"], ["nofile=5:5"]]),
        ("dns", [["fd00::1"], ["FD00:0:0::1"]]),
        ("tmpfs", [{"/a": None}, {"/a/": ""}]),
        ("tmpfs", [{"/a": "ro,notmpcopyup"}, {"/a": "tmpcopyup,ro,notmpcopyup"}, {"/a": "ro"}]),
        ("tmpfs", [{"/a": "tmpcopyup,ro"}, {"/a": "ro,notmpcopyup,tmpcopyup"}]),
    ],
)
def test_spellings_of_one_thing_are_one(option, spellings):
    assert len({json.dumps(normal(option, spelling)) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("option", "one", "other"),
    [
        ("command", ["a b"], ["a", "b"]),
        ("command", ["ABC"], ["abc"]),
        ("env", {"A": "b"}, {"A": "B"}),
        ("env", {"A": ""}, {}),
        ("volumes", ["/a:/b:ro"], ["/a:/b"]),
        ("ulimit", ["nofile=5"], ["nofile=5:6"]),
        ("dns", ["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"]),
    ],
)
def test_what_differs_stays_different(option, one, other):
    assert normal(option, one) != normal(option, other)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("command", []),
        ("command", [""]),
        ("command", ["a\0b"]),
        ("env", {"A=B": "c"}),
        ("env", {"": "c"}),
        ("user", ""),
        ("user", "0x0"),
        ("user", "1:2:3"),
        ("user", "-1"),
        ("user", "4294967295"),
        ("user", "app:"),
        ("user", "a\nb"),
        ("workdir", "a"),
        ("workdir", "/a/../b"),
        ("hostname", "-a"),
        ("hostname", "a" * 65),
        ("hostname", "a\nb"),
        ("volumes", ["/a"]),
        ("volumes", ["a:/b"]),
        ("volumes", ["/a:b"]),
        ("volumes", ["/a:/"]),
        ("volumes", ["/a:/proc"]),
        ("volumes", ["/a:/sys/fs"]),
        ("volumes", ["/a:/b/../proc"]),
        ("volumes", ["/a:/b:z"]),
        ("volumes", ["/a:/b", "/c:/b/"]),
        ("tmpfs", {"/a": "size=1m,uid=x"}),
        ("tmpfs", {"/proc/x": ""}),
        ("tmpfs", {"/a": "copyup"}),
        ("cap_add", ["NET"]),
        ("sysctl", {"kernel.core_pattern": "x"}),
        ("sysctl", {"net.../../kernel.core_pattern": "x"}),
        ("sysctl", {"net/x": "1"}),
        ("sysctl", {"net.x": "1\n2"}),
        ("sysctl", {"net.x": ""}),
        ("sysctl", {"net.x\nkernel.y": "1"}),
        ("sysctl", {"+net.x": "1"}),
        ("ulimit", ["nofile"]),
        ("ulimit", ["nofile=6:5"]),
        ("ulimit", ["ofile=1"]),
        ("ulimit", ["nofile=-2"]),
        ("oom_score_adj", -1001),
        ("dns", ["example.com"]),
        ("dns_search", ["a b"]),
        ("etc_hosts", {"a": "b"}),
        ("etc_hosts", {"a b": "10.0.0.1"}),
        ("stop_signal", "99"),
        ("stop_signal", "KILLING"),
        ("stop_timeout", -1),
    ],
)
def test_bad_values_are_named(option, value):
    with pytest.raises(Failure, match=option) as caught:
        normal(option, value)
    assert str(caught.value).endswith("nothing was changed.")
    assert "\n" not in str(caught.value)


def entry(**options):
    defaults = {option.name: option.default for option in execution.OPTIONS.options}
    return execution.OPTIONS.normalise({**defaults, "name": "web", "command": ["true"], **options})


def judged(verdict, written=b"", /, **options):
    run = execution._Run(entry(**options))
    run.judge(verdict, written, b"")
    return run.result


def test_verdicts():
    assert judged("exited 0")["failed"] is False
    assert judged("exited 3")["failed"] is True
    assert judged("exited 3", rc=3)["failed"] is False
    assert judged("killed 9", rc=137)["failed"] is False
    assert judged("timeout", timeout=5)["rc"] is None
    assert "5 seconds" in judged("timeout", timeout=5)["msg"]
    refused = judged("failed name: 'web' is not running")
    assert refused["msg"] == "name: 'web' is not running."
    assert refused["changed"] is False
    assert judged("exited 0", b"a\xffb\n")["stdout"] == "a\ufffdb"


def test_a_check_is_no_change():
    assert judged("exited 0")["changed"] is True
    assert judged("exited 0", b"hello", stdout="ell")["changed"] is False
    assert judged("exited 0", b"hello", stdout="ell", read_only=False)["changed"] is True
    assert judged("exited 0", read_only=True)["changed"] is False


def test_a_later_success_forgets_the_failure():
    run = execution._Run(entry(stdout="up"))
    run.judge("failed name: 'web' is not running", b"", b"")
    run.judge("exited 0", b"up", b"")
    assert not run.result["failed"]
    assert run.result["msg"] == ""
    assert run.result["rc"] == 0

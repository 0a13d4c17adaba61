# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import devices
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from hypothesis import assume, given
from hypothesis import strategies as st


def device(source, destination, access="rwm"):
    return {"source": source, "destination": destination, "access": access}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/fuse", device("/dev/fuse", "/dev/fuse")),
        ("/dev/fuse:r", device("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/fuse:/dev/x", device("/dev/fuse", "/dev/x")),
        ("/dev/fuse:/dev/x:mwr", device("/dev/fuse", "/dev/x", "rwm")),
        ("//dev//snd/:/sound/:rw", device("/dev/snd", "/sound", "rw")),
    ],
)
def test_a_device_has_a_source_a_destination_and_an_access(text, expected):
    assert devices.devices([text]) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fuse",
        "/",
        "/dev/../x",
        "/dev/fuse:x",
        "/dev/fuse:/dev/x:q",
        "/dev/a:/b:/c",
        "/a:/b:r:w",
        "/dev/f\0",
    ],
)
def test_what_is_no_device_is_told(text):
    with pytest.raises(ValueError, match="SOURCE"):
        devices.devices([text])


def test_a_path_inside_has_one_device():
    with pytest.raises(ValueError, match="one device for each path"):
        devices.devices(["/dev/a:/dev/x", "/dev/b:/dev/x/"])


@given(st.text(alphabet="/.:rwmx\0 ") | st.text())
def test_whatever_is_declared_is_a_device_or_a_sentence(text):
    try:
        found = devices.devices([text])[0]
    except ValueError:
        return
    for path in (found["source"], found["destination"]):
        assert os.path.normpath(path) == path.replace("//", "/") != "/"
    again = f"{found['source']}:{found['destination']}:{found['access']}"
    assert devices.devices([again]) == [found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c 42:* rmw", {"allow": True, "type": "c", "major": 42, "access": "rwm"}),
        ("b 8:0 r", {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"}),
        ("a *:* m", {"allow": True, "type": "a", "access": "m"}),
    ],
)
def test_cgroup_rules_are_rules(text, expected):
    assert devices.cgroup_rules([text]) == [expected]


@pytest.mark.parametrize(
    "text", ["", "c 42 r", "d 1:1 r", "c 1:1", "c 1:1 x", "c 1:1 rwmr", "c -1:1 r", "c ١:1 r"]
)
def test_what_is_no_cgroup_rule_is_told(text):
    with pytest.raises(ValueError, match="TYPE MAJOR:MINOR ACCESS"):
        devices.cgroup_rules([text])


def test_devices_are_what_their_nodes_on_the_host_are(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    entries, rules = devices.read([device(str(tmp_path / "link"), "/dev/x", "rw")])
    status = os.stat("/dev/null")
    assert entries == [
        {
            "path": "/dev/x",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
    ]
    assert rules == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]


def test_a_directory_is_all_the_devices_in_it(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "deep/full").symlink_to("/dev/full")
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    entries, rules = devices.read([device(str(tmp_path), "/dev/all")])
    assert [(entry["path"], entry["minor"]) for entry in entries] == [
        ("/dev/all/deep/full", 7),
        ("/dev/all/zero", 5),
    ]
    assert [rule["minor"] for rule in rules] == [7, 5]


@pytest.mark.parametrize("source", ["/dev/no-such", "/etc/passwd", "/etc/apt"])
def test_where_there_is_no_device_it_is_told(source):
    with pytest.raises(Failure, match=rf"^devices: '{source}' is no device .*; nothing was changed\.$"):
        devices.read([device(source, "/dev/x")])


def test_block_devices_are_told_from_character_devices(monkeypatch):
    disk = SimpleNamespace(st_mode=stat.S_IFBLK | 0o660, st_rdev=os.makedev(259, 70000), st_uid=0, st_gid=6)
    monkeypatch.setattr(devices.os, "stat", lambda path: disk)
    entries, __ = devices.read([device("/dev/disk", "/dev/disk")])
    assert entries == [
        {
            "path": "/dev/disk",
            "type": "b",
            "major": 259,
            "minor": 70000,
            "fileMode": 0o660,
            "uid": 0,
            "gid": 6,
        }
    ]


def test_under_systemd_the_default_is_the_same():
    assert devices.systemd_properties(devices.DEFAULT_RULES) == [
        "DevicePolicy=strict",
        "DeviceAllow=char-* m",
        "DeviceAllow=block-* m",
        *(
            f"DeviceAllow=/dev/char/{numbers} rwm"
            for numbers in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2")
        ),
        "DeviceAllow=char-136 rwm",
    ]
    assert devices.systemd_properties(devices.ALL_RULES) == [
        "DevicePolicy=strict",
        "DeviceAllow=char-* rwm",
        "DeviceAllow=block-* rwm",
    ]


def test_what_systemd_can_t_say_is_told():
    allow = {"allow": True, "type": "c", "access": "rwm"}
    refuse = {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}
    with pytest.raises(Failure, match=r"can't except c 1:3 from c 1:\*.*nothing was changed\.$"):
        devices.systemd_properties([{**allow, "major": 1}, refuse])
    with pytest.raises(Failure, match=r"can't allow c \*:3, .*nothing was changed\.$"):
        devices.systemd_properties([{**allow, "minor": 3}])
    assert devices.systemd_properties([{**allow, "major": 1, "minor": 3}, refuse]) == [
        "DevicePolicy=strict",
        "DeviceAllow=/dev/char/1:3 rm",
    ]


def by_systemd(lines, kind, major, minor, access):
    """As systemd.resource-control(5) has it: allowed where one line allows all of it."""
    group = {"c": "char", "b": "block"}[kind]
    names = {f"/dev/{group}/{major}:{minor}", f"{group}-{major}", f"{group}-*"}
    allowing = (line.partition("=")[2].split() for line in lines if line.startswith("DeviceAllow="))
    return any(name in names and set(access) <= set(letters) for name, letters in allowing)


def by_rules(rules, kind, major, minor, access):
    """As config-linux has it: of the rules for the device the last, for each kind of access."""

    def decided(letter):
        fitting = [
            rule["allow"]
            for rule in rules
            if rule.get("type", "a") in ("a", kind)
            and rule.get("major", major) == major
            and rule.get("minor", minor) == minor
            and letter in rule["access"]
        ]
        return bool(fitting and fitting[-1])

    return all(decided(letter) for letter in access)


ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans(), "access": ACCESS},
        optional={"type": st.sampled_from("abc"), "major": st.integers(1, 2), "minor": st.integers(1, 2)},
    ),
    max_size=5,
)


@given(
    RULES,
    st.lists(st.tuples(st.sampled_from("bc"), st.integers(1, 3), st.integers(1, 3), ACCESS), max_size=20),
)
def test_systemd_decides_as_the_rules_say(rules, accesses):
    try:
        lines = devices.systemd_properties(rules)
    except Failure:
        assume(False)
    for access in accesses:
        assert by_systemd(lines, *access) == by_rules(rules, *access), access

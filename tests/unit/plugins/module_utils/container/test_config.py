# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a config.json is honoured, and that all else is refused in one sentence, whatever it is."""

from __future__ import annotations

import re

import configs
import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import config, mount_options, spec
from ansible_collections.bare.containers.plugins.module_utils.container.bundle import Refused
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from configs import JUNK, PLACES, VALID, changed
from hypothesis import given
from hypothesis import strategies as st


def refusal(act):
    """The sentence that something is refused with, or None."""
    try:
        act()
    except (Refused, Failure) as refused:
        return str(refused)
    return None


def test_a_valid_one_is_honoured():
    config.check(VALID)


@given(st.sampled_from(PLACES), JUNK, st.sampled_from(["replace", "remove", "add"]))
def test_whatever_is_wrong_is_refused_in_one_sentence(place, junk, how):
    told = refusal(lambda: config.check(changed(place, junk, how)))
    assert told is None or (told and told.isprintable())


@pytest.mark.parametrize("place", [place for place in PLACES if isinstance(place[-1], str)], ids=str)
def test_nothing_is_left_out_silently(place):
    """A key that is not known is refused with the place it is at, wherever that is."""
    if place[0] in ("annotations",) or place[:2] in (("linux", "sysctl"), ("linux", "seccomp")):
        return
    if place[:3] == ("linux", "timeOffsets", "boottime") and len(place) == 3:
        return
    with pytest.raises(Refused, match="unheard-of"):
        config.check(changed(place, 1, "add"))


def root_mount(*options):
    return {"destination": "/", "type": "overlay", "source": "overlay", "options": list(options)}


CGROUP = ("linux", "cgroupsPath")
LIMIT = ("process", "rlimits", 0)
HOOK = ("hooks", "poststop", 0)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        *(
            (CGROUP, place, "cgroupsPath")
            for place in ("", "/", "bare/web", "/bare/..", "/bare//web", "/a/./b")
        ),
        ((*LIMIT, "type"), "RLIMIT_X", "RLIMIT_X"),
        ((*LIMIT, "type"), "getrlimit", "getrlimit"),
        ((*LIMIT, "hard"), 1 << 63, "rlimits"),
        (("process", "capabilities"), {"bounding": ["CAP_X"]}, "CAP_X"),
        (("process", "args"), ["\ud800"], "args"),
        (("linux", "resources", "devices", 0, "access"), "rx", "access"),
        (("linux", "seccomp", "flags"), ["SECCOMP_FILTER_FLAG_X"], "flags"),
        ((*HOOK, "path"), "true", "absolute"),
        (("mounts", 1, "destination"), "/", "come first"),
        (("mounts", 0), {"destination": "/", "type": "tmpfs"}, "that of / has"),
        (("mounts", 0), root_mount("bind", "ro"), "neither bound"),
        (("mounts", 0), root_mount("remount", "ro"), "neither bound"),
        (("mounts", 0), root_mount("upperdir=upper"), "upperdir=upper"),
        ((*HOOK, "env"), ["=x"], "NAME=VALUE"),
    ],
)
def test_what_the_launcher_could_not_do_is_refused_beforehand(place, value, words):
    with pytest.raises(Refused, match=words):
        config.check(changed(place, value, "replace"))


@given(configs.SHAPED)
def test_what_has_the_right_shape_is_honoured_or_refused(mutation):
    told = refusal(lambda: config.check(changed(*mutation, "replace")))
    assert told is None or (told and told.isprintable())


@given(
    st.lists(
        st.sampled_from(
            [
                "ro",
                "rro",
                "rw",
                "noatime",
                "rprivate",
                "bind",
                "x=y",
                "remount",
                "iversion",
                "tmpcopyup",
                "idmap",
            ]
        )
    )
)
def test_mount_options_are_sorted_or_refused(options):
    entry = {"destination": "/x", "type": "tmpfs", "options": options}
    told = refusal(lambda: mount_options.MountOptions(entry))
    plain = not {"bind", "remount"} & set(options)
    wrong = {
        "x=y": "bind" in options,
        "iversion": not plain,
        "tmpcopyup": not plain,
        "idmap": "bind" not in options or "remount" in options,
    }
    if told is not None:
        assert wrong[re.search("'(.*)'", told)[1]]
        return
    assert not any(wrong[option] for option in options if option in wrong)
    own = mount_options.MountOptions(entry).own
    assert own == [option for option in options if option == "x=y"]


@given(
    st.sampled_from([option for option in OPTIONS.options if option.type in ("str", "list", "dict")]),
    st.data(),
)
def test_options_have_a_normal_form_or_one_sentence(option, data):
    """Values as Ansible's check of types leaves them: what has a normal form keeps it."""
    elements = st.lists(st.text(max_size=12), max_size=3)
    kinds = {
        "str": st.text(max_size=20),
        "list": elements,
        "dict": st.dictionaries(st.text(max_size=8), JUNK),
    }
    value = data.draw(kinds[option.type])
    told = refusal(lambda: option.normal(value))
    if told is None:
        assert option.normal(value) == option.normal(value)
    else:
        assert told.startswith(f"{option.name}: ")
        assert told.endswith("nothing was changed.")


@given(st.dictionaries(st.sampled_from(["process", "linux", "mounts", "hooks", "x"]), JUNK, max_size=2))
def test_what_is_merged_from_oci_is_a_config_or_one_sentence(patch):
    defaults = {option.name: option.default for option in OPTIONS.options}
    declared = OPTIONS.normalise({**defaults, "name": "web", "command": ["true"], "oci": patch})
    told = refusal(lambda: config.check(spec.config(declared, spec.Host(layers=("/x",)))))
    assert told is None or told.startswith("oci: ")

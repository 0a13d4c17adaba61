# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a config.json is honoured, and that all else is refused in one sentence, whatever it is."""

from __future__ import annotations

import copy
import re

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import config, mount_options, spec
from ansible_collections.bare.containers.plugins.module_utils.container.bundle import Refused
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from hypothesis import given
from hypothesis import strategies as st

VALID = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "hostname": "web",
    "process": {
        "cwd": "/",
        "args": ["sleep", "1"],
        "env": ["A=b"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [1]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}],
        "scheduler": {"policy": "SCHED_BATCH", "flags": []},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "rslave"]},
    ],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 3}]},
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "user", "time")],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}],
        "timeOffsets": {"boottime": {"secs": -5}},
        "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 438}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "rootfsPropagation": "slave",
    },
}

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """Where there is something in a config."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = [place for place in places(VALID) if place]


def changed(place, junk, how):
    """The valid config with one place replaced, taken out, or with something beside it."""
    mutated = copy.deepcopy(VALID)
    inside = mutated
    for key in place[:-1]:
        inside = inside[key]
    if how == "replace":
        inside[place[-1]] = junk
    elif how == "remove":
        del inside[place[-1]]
    elif isinstance(inside, dict):
        inside["unheard-of"] = junk
    else:
        inside.append(junk)
    return mutated


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
    assert told is None or (told and "\n" not in told.replace(str(junk), ""))


@pytest.mark.parametrize("place", [place for place in PLACES if isinstance(place[-1], str)], ids=str)
def test_nothing_is_left_out_silently(place):
    """A key that is not known is refused with the place it is at, wherever that is."""
    if place[0] in ("annotations",) or place[:2] in (("linux", "sysctl"), ("linux", "seccomp")):
        return
    if place[:3] == ("linux", "timeOffsets", "boottime") and len(place) == 3:
        return
    with pytest.raises(Refused, match="unheard-of"):
        config.check(changed(place, 1, "add"))


@given(
    st.lists(st.sampled_from(["ro", "rro", "rw", "noatime", "rprivate", "idmap", "bind", "x=y", "remount"]))
)
def test_mount_options_are_sorted_or_refused(options):
    entry = {"destination": "/x", "type": "tmpfs", "options": options}
    told = refusal(lambda: mount_options.MountOptions(entry))
    if told is not None:
        assert re.search("x=y|remount", told)
        return
    own = mount_options.MountOptions(entry).own
    assert own == ([] if "bind" in options else [option for option in options if option == "x=y"])


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

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A config.json (OCI runtime spec) with something of every kind in it, and what may be wrong in one."""

from __future__ import annotations

import copy

from ansible_collections.bare.containers.plugins.module_utils.container import config
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
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=64k"]},
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
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "access": "rwm"},
                {"allow": True, "type": "c", "major": 5, "minor": -1},
            ]
        },
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "rootfsPropagation": "slave",
        "cgroupsPath": "/bare/web",
        "maskedPaths": ["/proc/keys"],
        "readonlyPaths": ["/proc/sys"],
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


def changed(place, junk, how, of=None):
    """A config, else the valid one, with one place replaced, taken out, or with something beside it."""
    mutated = copy.deepcopy(VALID if of is None else of)
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


TEXTS = st.sampled_from(
    [
        *("", "/", "/x", "x", "..", "/../x", "a b", "a\nb", "\u2028", "\ud800", "A=b", "é"),
        *("size=1m", "ro", "remount", "tmpcopyup", "iversion"),
    ]
)


def shaped(shape):
    """Values that look as the launcher's table says, whatever they come to."""
    if isinstance(shape, dict):
        known = {key.rstrip("!"): shaped(inner) for key, inner in shape.items() if key != "*"}
        required = {key[:-1]: known.pop(key[:-1]) for key in shape if key.endswith("!")}
        fixed = st.fixed_dictionaries(required, optional=known)
        return st.dictionaries(TEXTS, shaped(shape["*"]), max_size=2) if "*" in shape else fixed
    if isinstance(shape, list):
        return st.lists(shaped(shape[0]), max_size=2)
    if isinstance(shape, tuple):
        return st.sampled_from(shape)
    if isinstance(shape, range):
        return st.integers(shape.start, shape.stop - 1)
    return {str: TEXTS, bool: st.booleans(), dict: st.just({"defaultAction": "SCMP_ACT_ALLOW"})}[shape]


def shape_at(place):
    """What the launcher's table says of a place."""
    shape = config.HONOURED
    for key in place:
        if isinstance(shape, list):
            shape = shape[0]
        elif isinstance(shape, dict):
            shape = next(inner for name, inner in shape.items() if name.rstrip("!") in (key, "*"))
        else:
            return str
    return shape


SHAPED = st.sampled_from(PLACES).flatmap(lambda place: st.tuples(st.just(place), shaped(shape_at(place))))
"""A place, and a value of the right shape for it."""

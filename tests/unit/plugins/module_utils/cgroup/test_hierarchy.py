# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the hierarchy, its controllers and its cgroups are."""

from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.cgroup import hierarchy, systemd
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import cgroup, mount


@pytest.fixture(autouse=True)
def _forget_the_root():
    hierarchy.root.cache_clear()
    yield
    hierarchy.root.cache_clear()


@pytest.mark.parametrize(
    ("parent", "normal"),
    [("bare", "bare"), ("/bare/a/", "bare/a"), ("/", ""), ("a.b/c-d_e@1", "a.b/c-d_e@1")],
)
def test_parents(parent, normal):
    assert hierarchy.relative(parent) == normal


@pytest.mark.parametrize(
    "parent", ["..", "bare/../..", "bare//a", ".", "a b", "cgroup.procs", "a\nb", "bare/.hidden", "$x"]
)
def test_parents_that_are_refused(parent):
    with pytest.raises(ValueError, match="a cgroup below the root"):
        hierarchy.relative(parent)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "system.slice"),
        ("-.slice", ""),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
    ],
)
def test_slices(name, path):
    assert systemd.slice_path(systemd.slice_name(name)) == path


@pytest.mark.parametrize(
    "name", ["bare", "/", "-a.slice", "a-.slice", "a--b.slice", ".slice", "a/b.slice", "a b.slice"]
)
def test_slices_that_are_refused(name):
    with pytest.raises(ValueError, match="the name of a slice"):
        systemd.slice_name(name)


def test_no_mount(monkeypatch):
    monkeypatch.setattr(mount, "find", lambda kind: None)
    with pytest.raises(
        Failure, match=r"^This host has no cgroup2 file system mounted; .*; nothing was changed\.$"
    ):
        hierarchy.root()


CGROUPS = """\
#subsys_name	hierarchy	num_cgroups	enabled
cpuset	0	1	1
memory	0	1	0
blkio	7	1	1
pids	8	1	1
"""


@pytest.mark.parametrize(
    ("controller", "told"),
    [
        ("io", "blkio is bound to cgroup v1 at /sys/fs/cgroup/blkio, boot with cgroup_no_v1=blkio"),
        (
            "pids",
            "pids is bound to a cgroup v1 hierarchy that is not mounted here, boot with cgroup_no_v1=pids",
        ),
        ("memory", "memory is disabled in this kernel, boot without cgroup_disable=memory"),
        ("cpuset", "this kernel, or the cgroup this machine was given, is without it"),
        ("rdma", "this kernel, or the cgroup this machine was given, is without it"),
    ],
)
def test_a_missing_controller_is_named_with_where_it_is(monkeypatch, tmp_path, controller, told):
    monkeypatch.setattr(mount, "find", lambda kind: str(tmp_path))
    monkeypatch.setattr(cgroup, "read", lambda path, file: "hugetlb")
    monkeypatch.setattr(
        hierarchy, "_v1_mounts", lambda: [("/sys/fs/cgroup/blkio", ["rw", "relatime", "blkio"])]
    )
    monkeypatch.setattr(hierarchy.file, "read_text", lambda path: CGROUPS)
    with pytest.raises(Failure) as failure:
        hierarchy.require([("hugetlb_x", "hugetlb"), ("some_option", controller)])
    assert str(failure.value).startswith(
        f"some_option needs the controller {controller}, and cgroup2 at {tmp_path} does not have it: {told}"
    )
    assert str(failure.value).endswith("; nothing was changed.")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroup2 hierarchy of this host: where it is mounted, which controllers it has, where the others are."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from ..converge import Failure
from ..kernel import cgroup, file, mount
from . import files

# By their names in cgroup v1, where they differ.
_V1_NAMES = {"io": "blkio"}
# Not a name that is also a control file's, which mkdir(2) would refuse.
_COMPONENT = re.compile(r"(?!cgroup\.)[A-Za-z0-9_@:-][A-Za-z0-9_.@:\\-]{0,127}")


@functools.cache
def root() -> Path:
    """Where cgroup2 is mounted: /sys/fs/cgroup, or elsewhere on a hybrid host. Raises Failure."""
    found = mount.find("cgroup2")
    if found is None:
        raise Failure(
            "This host has no cgroup2 file system mounted; mount one, as in 'mount -t cgroup2 none "
            "/sys/fs/cgroup', or boot with systemd.unified_cgroup_hierarchy=1; nothing was changed."
        )
    return Path(found)


def relative(parent: str) -> str:
    """A cgroup below the root in normal form, without slashes around it; the root is empty. Raises
    ValueError."""
    components = parent.strip("/").split("/") if parent.strip("/") else []
    if not all(_COMPONENT.fullmatch(component) for component in components):
        raise ValueError("a cgroup below the root such as bare or tenants/a, or / for the root itself")
    return "/".join(components)


def controllers() -> list[str]:
    """The controllers that the root of cgroup2 has. Raises Failure, OSError."""
    return (cgroup.read(root(), "cgroup.controllers") or "").split()


def require(needs: Iterable[tuple[str, str]]) -> None:
    """Raises Failure for the first (option, controller) that the root of cgroup2 does not have, saying where
    it is."""
    available = controllers()
    for option, controller in needs:
        if controller not in available:
            raise Failure(
                f"{option} needs the controller {controller}, and cgroup2 at {root()} does not have it: "
                f"{_whereabouts(controller)}; nothing was changed."
            )


def require_files(names: Iterable[str], path: Path) -> None:
    """Raises Failure for the first control file that this kernel is without, as far as a cgroup shows it: the
    one at ``path``, or any below the root that has the file's controller."""
    cgroups = [path, *(child for child in sorted(root().iterdir()) if child.is_dir())]
    for name in names:
        controller = files.controller_of(name)
        witness = next((each for each in cgroups if _has(each, controller)), None)
        if witness is not None and cgroup.read(witness, name) is None:
            raise Failure(
                f"{files.label(name)}: this kernel has no control file {name}, as {witness} shows; nothing "
                "was changed."
            )


def _has(path: Path, controller: str | None) -> bool:
    """Whether the cgroup has the files of a controller: its cgroup.controllers are those that its parent
    enabled."""
    controllers = cgroup.read(path, "cgroup.controllers")
    return controllers is not None and (controller is None or controller in controllers.split())


def _whereabouts(controller: str) -> str:
    """Where a controller is that cgroup2 does not have, and how to free it (cgroup-v2, "Mounting";
    cgroups(7))."""
    name = _V1_NAMES.get(controller, controller)
    to_free = (
        f"boot with cgroup_no_v1={name}, or where systemd is used with systemd.unified_cgroup_hierarchy=1, "
        "to free it"
    )
    for point, options in _v1_mounts():
        if name in options:
            return f"{name} is bound to cgroup v1 at {point}, {to_free}"
    for line in (file.read_text(Path("/proc/cgroups")) or "").splitlines():
        fields = line.split()
        if fields[0] == name and fields[3] == "0":
            return f"{name} is disabled in this kernel, boot without cgroup_disable={name}"
        if fields[0] == name and fields[1] != "0":
            return f"{name} is bound to a cgroup v1 hierarchy that is not mounted here, {to_free}"
    return "this kernel, or the cgroup this machine was given, is without it"


def _v1_mounts() -> list[tuple[str, list[str]]]:
    """Mount point and options of each cgroup v1 hierarchy; its controllers are among the options
    (proc(5))."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    mounts = (line.split(" ") for line in lines)
    return [(fields[1], fields[3].split(",")) for fields in mounts if fields[2] == "cgroup"]

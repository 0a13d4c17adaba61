# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this host has to do with a container, as the bundle needs to know it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import capability, file, mount
from . import spec

_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def read(declared: Mapping[str, Any], supervisor: str) -> spec.Host:
    """What is declared and found for one container on this host. Raises Failure, OSError."""
    name = declared["name"]
    return spec.Host(
        layers=layers(declared),
        network=host.Declaration(name, "network").read() is not None,
        cgroup=_cgroup(name) if supervisor == "direct" else None,
        resolver=_resolver(),
        capabilities=_capabilities(),
    )


def layers(declared: Mapping[str, Any]) -> list[str]:
    """The directories of the root file system, lowest first; none where none is declared. Raises Failure."""
    if "rootfs" in declared:
        return [declared["rootfs"]]
    kept = host.Declaration(declared["name"], "rootfs").read() or {}
    return list(kept.get("layers", []))


def missing(declared: Mapping[str, Any]) -> Failure | None:
    """What keeps the root file system from being mounted, or None."""
    found = layers(declared)
    if not found:
        return Failure(
            f"rootfs: {declared['name']} has no root file system; rootfs_fetch gives it one, or rootfs names "
            "a directory; nothing was changed."
        )
    for layer in found:
        if not os.path.isdir(layer):
            return Failure(f"rootfs: {layer!r} is not a directory; nothing was changed.")
    return None


@functools.cache
def cgroup_mount() -> str | None:
    """Where cgroup2 is mounted on this host, or None."""
    return mount.find("cgroup2")


def own_cgroup(name: str) -> Path | None:
    """The cgroup that the launcher makes where none is declared, None where one is."""
    top = cgroup_mount()
    if top is None or host.Declaration(name, "cgroup").read() is not None:
        return None
    return Path(top, "bare", name)


def _cgroup(name: str) -> str:
    """The container's cgroup below the cgroup2 mount. Raises Failure."""
    top = cgroup_mount()
    if top is None:
        raise Failure(
            "This host has no cgroup2 file system mounted; mount one, as in 'mount -t cgroup2 none "
            "/sys/fs/cgroup'; nothing was changed."
        )
    declared = str((host.Declaration(name, "cgroup").read() or {}).get("path", ""))
    return declared[len(top) :] if declared.startswith(f"{top}/") else f"/bare/{name}"


@functools.cache
def _capabilities() -> Sequence[str]:
    return capability.names(capability.bounding())


@functools.cache
def _resolver() -> Mapping[str, Sequence[str]]:
    """The host's resolv.conf(5); where it only names a resolver of the host's own, the one behind that."""
    found: Mapping[str, Sequence[str]] = {}
    for path in _RESOLVERS:
        found = spec.read_resolver(file.read_text(Path(path)) or "")
        if any(not spec.is_loopback(address) for address in found.get("nameserver", ())):
            break
    return found

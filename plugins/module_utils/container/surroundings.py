# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this host has to do with a container, as the bundle needs to know it."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import capability, file, mount
from . import bundle, devices, seccomp, spec
from .state import running

_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def read(declared: Mapping[str, Any], supervisor: str) -> spec.Host:
    """What is declared and found for one container on this host. Raises Failure, OSError."""
    name = declared["name"]
    entries, rules = devices.read(declared.get("devices", []))
    given = spec.Host(
        layers=layers(declared),
        network=host.Declaration(name, "network").read() is not None,
        cgroup=_cgroup(name) if supervisor == "direct" else None,
        resolver=resolver(declared),
        capabilities=_capabilities(),
        ids=identities(name) if declared["userns"] == "auto" else None,
        init=_init_program(declared),
        devices=entries,
        device_rules=rules,
    )
    profile = declared.get("seccomp", "unconfined" if declared["privileged"] else seccomp.DEFAULT)
    if profile == "unconfined":
        return given
    conditions = seccomp.conditions(spec.bounding(declared, given))
    return dataclasses.replace(given, seccomp=_profile(profile, conditions))


def layers(declared: Mapping[str, Any]) -> list[str]:
    """The directories of the root file system, lowest first; none where none is declared. Raises Failure."""
    return list(_rootfs(declared).get("layers", []))


def image_config(declared: Mapping[str, Any]) -> dict[str, Any]:
    """What the image of the root file system says of its containers; nothing where it is no image. Raises
    Failure."""
    return dict(_rootfs(declared).get("config", {}))


def _rootfs(declared: Mapping[str, Any]) -> Mapping[str, Any]:
    """The root file system as rootfs_fetch keeps its declaration, also of one that is only a directory."""
    if "rootfs" in declared:
        return {"layers": [declared["rootfs"]]}
    return host.Declaration(declared["name"], "rootfs").read() or {}


def missing(name: str, found: Sequence[str]) -> Failure | None:
    """What keeps a root file system of these layers from being mounted, or None."""
    if not found:
        return Failure(
            f"rootfs: {name} has no root file system; rootfs_fetch gives it one, or rootfs names "
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


def cgroup(name: str) -> Path | None:
    """The cgroup that a running container was started in, None where it does not run. Raises OSError."""
    top, found = cgroup_mount(), running(name)
    if top is None or found is None:
        return None
    path = Path(top + bundle.cgroup_of(found[0]))
    # An init system inside moves itself to one below.
    names = (name, host.unit(name))
    return next((place for place in (path, *path.parents) if place.name in names), path)


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


_profile = functools.cache(seccomp.read)


def _init_program(declared: Mapping[str, Any]) -> str | None:
    """The program that reaps a container's processes, as Debian and Fedora install them. Both are static."""
    if "init_path" in declared:
        return str(declared["init_path"])
    return next((path for path in _INITS if os.path.exists(path)), None)


_INITS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini-static")


def identities(name: str) -> tuple[int, int]:
    """The first uid and gid of the container's own range of ids on the host.

    It is the one that it has, else the first that no other has, in what subuid(5) and subgid(5) give to the
    user ``containers``. Raises Failure, OSError.
    """
    ranges = [_subordinate(kind) for kind in ("uid", "gid")]
    taken = _taken_ids()
    if name not in taken or any(taken[name][each] not in ranges[each] for each in (0, 1)):
        places = zip(*(range(ids.start, ids.stop - spec.ID_RANGE + 1, spec.ID_RANGE) for ids in ranges))
        others = [first for other, first in taken.items() if other != name]
        free = (place for place in places if all(place[0] != uid and place[1] != gid for uid, gid in others))
        first = next(free, None)
        if first is None:
            raise Failure(
                f"userns: 'auto' takes {spec.ID_RANGE} ids that no other container has, and those of "
                f"{_ID_OWNER!r} in /etc/subuid and /etc/subgid are used up; nothing was changed."
            )
        taken[name] = first
    return taken[name]


_ID_OWNER = "containers"


@functools.cache
def _taken_ids() -> dict[str, tuple[int, int]]:
    """The first uid and gid of every container that has a range, by name; those given in this run come to
    it."""
    taken = {}
    for path in (host.STATE / "containers").glob("*/config.json"):
        try:
            linux = json.loads(file.read_text(path) or "{}")["linux"]
            taken[path.parent.name] = (linux["uidMappings"][0]["hostID"], linux["gidMappings"][0]["hostID"])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    return taken


@functools.cache
def _subordinate(kind: str) -> range:
    path = f"/etc/sub{kind}"
    for line in (file.read_text(Path(path)) or "").splitlines():
        owner, *numbers = line.split(":")
        if owner == _ID_OWNER and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            first, count = map(int, numbers)
            return range(first, first + count)
    raise Failure(
        f"userns: 'auto' takes ids from {path}, which has none for the user {_ID_OWNER!r}; a line such as "
        f"'{_ID_OWNER}:2147483648:1073741824' there gives them; nothing was changed."
    )


@functools.cache
def _capabilities() -> Sequence[str]:
    return capability.names(capability.bounding())


def resolver(declared: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The host's resolv.conf(5), with the name servers of the container's bridges where they have one
    (network/dns.py).

    Those that forward stand for the host's; others, of networks that are internal, before them, if there is a
    way to them at all. Raises Failure.
    """
    found = _resolver()
    links = _links(declared)
    outward = [link for link in links if not link.get("internal")]
    servers = [address for link in outward for address in _name_servers(link)]
    if not servers:
        servers = [address for link in links for address in _name_servers(link)]
        servers += found.get("nameserver", ()) if servers and outward else ()
    return {**found, "nameserver": servers} if servers else found


def _name_servers(link: Mapping[str, Any]) -> Sequence[str]:
    return list(link["gateway"]) if link.get("dns") == "dynamic" else []


def _links(declared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The links of the declared network that the container has, its own or another's. Raises Failure."""
    name = (
        declared["name"] if declared["network"] == "auto" else declared["network"].partition("container:")[2]
    )
    network = host.Declaration(name, "network").read() if name else None
    if network is None:
        return []
    try:
        return [dict(link) for link in (network, *network.get("interfaces", ()))]
    except (AttributeError, TypeError, ValueError):
        path = host.Declaration(name, "network").path
        raise Failure(
            f"network: {path} is damaged, the network has to be declared again; nothing was changed."
        ) from None


@functools.cache
def _resolver() -> Mapping[str, Sequence[str]]:
    """The host's resolv.conf(5); where it only names a resolver of the host's own, the one behind that."""
    found: Mapping[str, Sequence[str]] = {}
    for path in _RESOLVERS:
        found = spec.read_resolver(file.read_text(Path(path)) or "")
        if any(not spec.is_loopback(address) for address in found.get("nameserver", ())):
            break
    return found

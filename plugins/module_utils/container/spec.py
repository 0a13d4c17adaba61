# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A declaration as a bundle: config.json of the OCI runtime spec 1.0.2, and the container's own files in
/etc.

Pure functions: everything they need to know of the host is in the Host they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import capability
from . import config as configuration
from . import devices, log
from .bundle import GROUPS_ANNOTATION, OCI_VERSION, USER_ANNOTATION, Refused

Entry = Mapping[str, Any]
Config = dict[str, Any]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""Podman's default (containers.conf(5), default_capabilities). Docker's has three more: AUDIT_WRITE, NET_RAW,
which ping(8) does without when net.ipv4.ping_group_range lets it, and MKNOD, which is the host's disks
without a device filter."""

_VERSION_WITH_TIME = "1.1.0"
"""The first of the spec that has time namespaces."""

ID_RANGE = 65536
"""How many ids a container with a user namespace has: all that 16 bits can tell apart."""

INIT = "/dev/init"

ETC_FILES = ("hostname", "hosts", "resolv.conf")
"""The files of its own that a container has in /etc."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What Docker and podman hide of the host (docs.docker.com, security; podman-run(1), --security-opt mask)."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_NAMESPACE_OPTIONS = {"pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns"}
_PING = "net.ipv4.ping_group_range"
_LAST_GROUP = 2147483647


@dataclass(frozen=True)
class Host:
    """What the host has to do with a container.

    ``layers`` are the directories of its root file system, lowest first; ``network`` is whether
    it has one of its own declared; ``cgroup`` the path of its cgroup below the cgroup2 mount, None where
    systemd decides. ``resolver`` are the lines of the host's resolv.conf(5) by keyword; ``capabilities`` all
    that a process of this host may have. ``ids`` are the first uid and gid of the range that is the
    container's with a user namespace; ``init`` is the program that reaps processes where that is asked for.
    ``devices`` and ``device_rules`` are the ``linux.devices`` and ``linux.resources.devices`` of those that
    are declared; ``seccomp`` is its ``linux.seccomp``, None for no filter.
    """

    layers: Sequence[str]
    network: bool = False
    cgroup: str | None = None
    resolver: Mapping[str, Sequence[str]] = field(default_factory=dict)
    capabilities: Sequence[str] = capability.NAMES
    ids: tuple[int, int] | None = None
    init: str | None = None
    devices: Sequence[Mapping[str, Any]] = ()
    device_rules: Sequence[Mapping[str, Any]] = ()
    seccomp: Mapping[str, Any] | None = None


def config(declared: Entry, given: Host) -> Config:
    """The container's config.json. Raises Failure."""
    config: Config = {
        "ociVersion": _VERSION_WITH_TIME if "time_offsets" in declared else OCI_VERSION,
        "root": {"path": _root(declared, given), "readonly": declared["rootfs_mode"] == "read_only"},
        "process": _process(declared, given),
        "mounts": _mounts(declared, given),
        "linux": _linux(declared, given),
        "annotations": _annotations(declared),
    }
    if declared["uts"] == "private":
        config["hostname"] = hostname(declared)
    elif "hostname" in declared:
        raise Failure("hostname: with uts: host it is the host's, which is not changed; nothing was changed.")
    merged: Config = _merge(config, declared.get("oci", {}))
    try:
        configuration.check(merged)
    except Refused as refused:
        raise Failure(f"oci: {refused}; nothing was changed.") from None
    return merged


def _merge(value: Any, patch: Any) -> Any:
    """``value`` with a JSON merge patch applied (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    target = dict(value) if isinstance(value, Mapping) else {}
    for key, item in patch.items():
        if item is None:
            target.pop(key, None)
        else:
            target[key] = _merge(target.get(key), item)
    return target


def _linux(declared: Entry, given: Host) -> Config:
    linux: Config = {
        "namespaces": _namespaces(declared, given),
        "sysctl": {},
        "maskedPaths": _hidden_paths(declared, MASKED_PATHS, declared.get("mask", [])),
        "readonlyPaths": _hidden_paths(declared, READONLY_PATHS),
    }
    rules = devices.ALL_RULES if declared["privileged"] else devices.DEFAULT_RULES
    linux["resources"] = {"devices": [*rules, *given.device_rules, *declared.get("device_cgroup_rules", [])]}
    if given.devices:
        linux["devices"] = list(given.devices)
    if given.seccomp is not None:
        linux["seccomp"] = given.seccomp
    if given.cgroup is not None:
        linux["cgroupsPath"] = given.cgroup
    if has_user_namespace(declared):
        linux.update(_id_mappings(declared, given))
    linux["sysctl"] = _sysctls(declared, linux.get("gidMappings"))
    if "time_offsets" in declared:
        linux["timeOffsets"] = {
            clock: {"secs": seconds} for clock, seconds in declared["time_offsets"].items()
        }
    return linux


def _hidden_paths(declared: Entry, default: Sequence[str], own: Sequence[str] = ()) -> list[str]:
    """What is masked or read-only by default, but for what is declared not to be, and beside ``own``."""
    shown = declared.get("unmask", [])
    kept = [] if declared["privileged"] or "ALL" in shown else [path for path in default if path not in shown]
    return [*kept, *(path for path in own if path not in kept)]


def has_user_namespace(declared: Entry) -> bool:
    return bool(declared["userns"] == "auto" or "uidmap" in declared or "gidmap" in declared)


def _id_mappings(declared: Entry, given: Host) -> Config:
    """As declared, one standing for both, else the range that is the container's."""
    keys = ("containerID", "hostID", "size")
    ranges = [declared.get("uidmap", declared.get("gidmap")), declared.get("gidmap", declared.get("uidmap"))]
    if ranges[0] is None:
        ranges = [[[0, first, ID_RANGE]] for first in given.ids or (0, 0)]
    names = ("uidMappings", "gidMappings")
    return {
        name: [dict(zip(keys, each)) for each in declared_ranges or []]
        for name, declared_ranges in zip(names, ranges)
    }


def _annotations(declared: Entry) -> dict[str, str]:
    annotations = {**declared.get("annotations", {}), **log.notes(declared)}
    if "user" in declared:
        annotations[USER_ANNOTATION] = declared["user"]
    names = [group for group in declared.get("group_add", []) if not group.isdecimal()]
    if names:
        annotations[GROUPS_ANNOTATION] = ",".join(names)
    return annotations


def stop_signal(declared: Entry) -> str:
    """An init system inside takes SIGRTMIN+3 for a request to halt (systemd(1), "Signals")."""
    return str(declared.get("stop_signal", "SIGRTMIN+3" if declared.get("systemd") else "SIGTERM"))


def etc_files(declared: Entry, given: Host) -> dict[str, str]:
    """The text of the files of its own that a container has in /etc, by name."""
    return {
        "hostname": hostname(declared) + "\n",
        "hosts": _hosts(declared),
        "resolv.conf": _resolv_conf(declared, given),
    }


def hostname(declared: Entry) -> str:
    return str(declared.get("hostname", declared["name"]))


def has_overlay(declared: Entry) -> bool:
    """Whether the root is an overlay with a layer of the container's own, or the declared directory
    itself."""
    return bool(declared["rootfs_mode"] != "direct")


def read_resolver(text: str) -> dict[str, list[str]]:
    """The words behind each keyword of a resolv.conf(5), of which a repeated ``nameserver`` adds, others
    replace.
    """
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if keyword == "nameserver":
            lines.setdefault(keyword, []).extend(words[:1])
        elif keyword in ("search", "options"):
            lines[keyword] = words
    return lines


def is_loopback(address: str) -> bool:
    """Whether only the host itself reaches the address."""
    return address.startswith("127.") or address == "::1"


def _namespaces(declared: Entry, given: Host) -> list[dict[str, str]]:
    kinds = [kind for kind, option in _NAMESPACE_OPTIONS.items() if declared[option] == "private"]
    kinds += ["mount"]
    kinds += ["user"] if has_user_namespace(declared) else []
    kinds += ["time"] if "time_offsets" in declared else []
    namespaces = [{"type": kind} for kind in kinds]
    network = declared["network"]
    if network == "host":
        return namespaces
    if network == "auto" and given.network:
        network = f"container:{declared['name']}"
    kind, _colon, what = network.partition(":")
    paths = {"ns": what, "container": f"/run/netns/{what}"}
    if kind in paths:
        return [*namespaces, {"type": "network", "path": paths[kind]}]
    return [*namespaces, {"type": "network"}]


def _sysctls(declared: Entry, groups: Sequence[Mapping[str, int]] | None) -> dict[str, str]:
    """Beside what is declared, every group may ping (icmp(7)): all that there are, or all that are mapped."""
    own = declared.get("sysctl", {})
    if declared["network"] != "host":
        first, last = 0, _LAST_GROUP
        if groups:
            first = min(each["containerID"] for each in groups)
            last = min(last, max(each["containerID"] + each["size"] - 1 for each in groups))
        return {_PING: f"{first} {last}", **own}
    for key in own:
        if key.startswith("net."):
            raise Failure(
                f"sysctl: {key!r} would be set on the host, whose network the container has (network: host); "
                "nothing was changed."
            )
    return dict(own)


def _root(declared: Entry, given: Host) -> str:
    if has_overlay(declared):
        return "rootfs"
    if len(given.layers) > 1:
        raise Failure(
            f"rootfs_mode: 'direct' takes a root file system of one layer and this one has "
            f"{len(given.layers)}; 'overlay' takes any number; nothing was changed."
        )
    return "".join(given.layers)


def _process(declared: Entry, given: Host) -> Config:
    user, _colon, group = declared.get("user", "0").partition(":")
    process: Config = {
        "terminal": False,
        "user": {"uid": _number(user), "gid": _number(group)},
        "args": [*_init_command(declared, given), *declared["command"]],
        "env": [f"{name}={value}" for name, value in _environment(declared).items()],
        "cwd": declared["workdir"],
        "capabilities": _capabilities(declared, given),
        "noNewPrivileges": declared.get("no_new_privileges", not declared["privileged"]),
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
            for name, (soft, hard) in declared.get("ulimit", {}).items()
        ],
    }
    if "oom_score_adj" in declared:
        process["oomScoreAdj"] = declared["oom_score_adj"]
    groups = [int(group) for group in declared.get("group_add", []) if group.isdecimal()]
    if groups:
        process["user"]["additionalGids"] = groups
    if "umask" in declared:
        process["user"]["umask"] = int(declared["umask"], 8)
    for option, name in (("apparmor", "apparmorProfile"), ("selinux", "selinuxLabel")):
        if declared.get(option, "unconfined") != "unconfined":
            process[name] = declared[option]
    return process


def _init_command(declared: Entry, given: Host) -> list[str]:
    """The init that the command is a child of, as a file that is mounted there."""
    return [INIT, "--"] if _init(declared, given) else []


def _init(declared: Entry, given: Host) -> str | None:
    if not declared["init"]:
        return None
    if given.init is None:
        raise Failure(
            "init: there is none on this host, it takes catatonit or tini as the packages of these names "
            "install them, or the path of another in init_path; nothing was changed."
        )
    return given.init


def _number(identity: str) -> int:
    """A name's id is only known inside: the launcher looks it up, from the annotation."""
    return int(identity) if identity.isdecimal() else 0


def _environment(declared: Entry) -> dict[str, str]:
    """Beside what is declared; an init system looks at ``container`` (systemd.io/CONTAINER_INTERFACE)."""
    own = {"container": "bare-containers"} if declared["systemd"] else {}
    return {"PATH": PATH, "HOSTNAME": hostname(declared), **own, **declared.get("env", {})}


def bounding(declared: Entry, given: Host) -> list[str]:
    """The capabilities that no process of the container goes beyond. Raises Failure."""
    return _capabilities(declared, given)["bounding"]


def _capabilities(declared: Entry, given: Host) -> dict[str, list[str]]:
    """The five sets: root has what is granted; another user has only what was added by name, and can regain
    the rest.

    That is podman's way (podman-run(1), --cap-add). Nothing is inheritable but for that other user.
    """
    added = set(declared.get("cap_add", []))
    missing = added - {"ALL"} - set(given.capabilities)
    if missing:
        raise Failure(
            f"cap_add: {min(missing)!r} is not in this host's bounding set, so nothing on it can have it; "
            "nothing was changed."
        )
    granted = _granted(declared, given)
    if declared.get("user", "0").partition(":")[0] in ("0", "root"):
        sets = {"bounding": granted, "effective": granted, "permitted": granted}
    else:
        own = granted if "ALL" in added else granted & added
        sets = {**dict.fromkeys(_SETS, own), "bounding": granted}
    return {name: [each for each in capability.NAMES if each in sets.get(name, ())] for name in _SETS}


_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def _granted(declared: Entry, given: Host) -> set[str]:
    add, drop = set(declared.get("cap_add", [])), set(declared.get("cap_drop", []))
    default = given.capabilities if declared["privileged"] or "ALL" in add else DEFAULT_CAPABILITIES
    granted = set() if "ALL" in drop else set(default) - drop
    return (granted | (add - drop)) & set(given.capabilities)


def _mounts(declared: Entry, given: Host) -> list[Config]:
    """In the order in which they are made. What the user mounts at the place of a default mount replaces
    it."""
    directory = host.directory(declared["name"])
    own = [_volume(volume) for volume in declared.get("volumes", [])]
    own += [
        _tmpfs(path, ["nosuid", "nodev", "mode=1777"], options)
        for path, options in declared.get("tmpfs", {}).items()
    ]
    taken = {mount["destination"] for mount in own}
    default = [
        *_kernel_mounts(declared),
        _tmpfs("/tmp", ["nosuid", "nodev", "mode=1777", "size=64m"], []),
        *(_systemd_mounts() if declared["systemd"] else []),
        *(_etc_mount(declared, directory, name) for name in ETC_FILES),
    ]
    init = _init(declared, given)
    if init is not None:
        default.append({"destination": INIT, "type": "bind", "source": init, "options": ["bind", "ro"]})
    root = [_overlay(directory, given)] if has_overlay(declared) else []
    return [*root, *(mount for mount in default if mount["destination"] not in taken), *own]


def _volume(volume: Mapping[str, Any]) -> Config:
    """With what is mounted below the source, what is said of the volume is said of all that (rro, ...)."""
    options = volume["options"]
    if "rbind" in options:
        options = [
            f"r{option}" if option in _ATTRIBUTES or option == "idmap" else option for option in options
        ]
    return {"type": "bind", **volume, "options": options}


_ATTRIBUTES = ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec")


def _systemd_mounts() -> list[Config]:
    """What an init system writes to before it has mounted anything (systemd.io/CONTAINER_INTERFACE)."""
    options = ["nosuid", "nodev", "mode=755"]
    return [_mount(path, "tmpfs", options) for path in ("/run", "/run/lock", "/var/log/journal")]


def _overlay(directory: Path, given: Host) -> Config:
    lower = ":".join(_escape(layer) for layer in reversed(given.layers))
    options = [f"lowerdir={lower}", f"upperdir={directory}/upper", f"workdir={directory}/work"]
    return {"destination": "/", "type": "overlay", "source": "overlay", "options": options}


def _escape(path: str) -> str:
    """A path in an option of overlayfs, where ``:`` and ``,`` separate
    (Documentation/filesystems/overlayfs.rst).
    """
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _kernel_mounts(declared: Entry) -> list[Config]:
    """The kernel's own file systems, as runc mounts them; the cgroup is read-only unless privileged."""
    view = ["nosuid", "noexec", "nodev"]
    readonly = [] if declared["privileged"] else ["ro"]
    delegated = [] if declared["systemd"] else readonly
    shm = declared.get("shm_size", 65536 << 10)
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    return [
        _mount("/proc", "proc", view),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", [*view, "mode=1777", f"size={shm >> 10}k"], "shm"),
        _mount("/dev/mqueue", "mqueue", view),
        _mount("/sys", "sysfs", [*view, *readonly]),
        _mount("/sys/fs/cgroup", "cgroup2", [*view, *delegated], "cgroup"),
    ]


def _mount(destination: str, kind: str, options: list[str], source: str | None = None) -> Config:
    return {"destination": destination, "type": kind, "source": source or kind, "options": options}


def _tmpfs(path: str, default: list[str], options: list[str]) -> Config:
    given = {option.partition("=")[0].lower() for option in options}
    opposite = {"nosuid": "suid", "nodev": "dev"}
    kept = [
        option
        for option in default
        if option.partition("=")[0] not in given and opposite.get(option) not in given
    ]
    return _mount(path, "tmpfs", [*kept, *(option for option in options if option not in opposite.values())])


def _etc_mount(declared: Entry, directory: Path, name: str) -> Config:
    idmap = ["idmap"] if has_user_namespace(declared) else []
    return {
        "destination": f"/etc/{name}",
        "type": "bind",
        "source": f"{directory}/etc/{name}",
        "options": ["bind", "nosuid", "noexec", "nodev", *idmap],
    }


def _hosts(declared: Entry) -> str:
    """hosts(5). The container's own name is added by the launcher, with the addresses it starts with."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, address in declared.get("etc_hosts", {}).items()]
    return "".join(f"{line}\n" for line in lines)


def _resolv_conf(declared: Entry, given: Host) -> str:
    """resolv.conf(5) as declared, else the host's own without what only the host can reach: its loopback."""
    reachable = [
        address
        for address in given.resolver.get("nameserver", ())
        if declared["network"] == "host" or not is_loopback(address)
    ]
    lines = [f"nameserver {address}" for address in declared.get("dns", reachable)]
    for keyword, option in (("search", "dns_search"), ("options", "dns_options")):
        words = declared.get(option, given.resolver.get(keyword, ()))
        if words:
            lines.append(f"{keyword} {' '.join(words)}")
    return "".join(f"{line}\n" for line in lines)

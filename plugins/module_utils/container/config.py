# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of config.json (OCI runtime spec, config.md and config-linux.md) the launcher honours.

It is all that is in the table below. What is not is refused by name, so nothing of a config is silently left
out.
"""

from __future__ import annotations

import resource

from ..kernel import capability, seccomp
from .bundle import Refused
from .mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Shape = object
"""How a value looks: a type, a range of numbers, a tuple of the words accepted, a list of one shape for an
array, or a mapping for an object: its keys (required where they end in ``!``), or ``*`` for any."""

_ID = range(0x100000000)
_HOOK = {"path!": str, "args": [str], "env": [str], "timeout": range(1, 1 << 31)}
_ID_MAP = {"containerID!": _ID, "hostID!": _ID, "size!": range(1, 0x100000000)}
_CAPABILITIES = ("bounding", "effective", "permitted", "inheritable", "ambient")

HONOURED: Shape = {
    "ociVersion!": str,
    "hostname": str,
    "domainname": str,
    "root!": {"path!": str, "readonly": bool},
    "process!": {
        "terminal": bool,
        "consoleSize": {"height!": range(1 << 16), "width!": range(1 << 16)},
        "cwd!": str,
        "env": [str],
        "args!": [str],
        "user": {"uid!": _ID, "gid!": _ID, "umask": range(0o1000), "additionalGids": [_ID]},
        "rlimits": [{"type!": str, "soft!": range(1 << 64), "hard!": range(1 << 64)}],
        "apparmorProfile": str,
        "selinuxLabel": str,
        "capabilities": {name: [str] for name in _CAPABILITIES},
        "noNewPrivileges": bool,
        "oomScoreAdj": range(-1000, 1001),
        "scheduler": {
            "policy!": (
                "SCHED_OTHER",
                "SCHED_FIFO",
                "SCHED_RR",
                "SCHED_BATCH",
                "SCHED_IDLE",
                "SCHED_DEADLINE",
            ),
            "nice": range(-20, 20),
            "priority": range(100),
            "flags": [
                (
                    "SCHED_FLAG_RESET_ON_FORK",
                    "SCHED_FLAG_RECLAIM",
                    "SCHED_FLAG_DL_OVERRUN",
                    "SCHED_FLAG_KEEP_POLICY",
                    "SCHED_FLAG_KEEP_PARAMS",
                    "SCHED_FLAG_UTIL_CLAMP_MIN",
                    "SCHED_FLAG_UTIL_CLAMP_MAX",
                )
            ],
            "runtime": range(1 << 63),
            "deadline": range(1 << 63),
            "period": range(1 << 63),
        },
        "ioPriority": {
            "class!": ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
            "priority": range(8),
        },
    },
    "mounts": [
        {
            "destination!": str,
            "type": str,
            "source": str,
            "options": [str],
            "uidMappings": [_ID_MAP],
            "gidMappings": [_ID_MAP],
        }
    ],
    "hooks": {
        name: [_HOOK]
        for name in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    },
    "annotations": {"*": str},
    "linux!": {
        "namespaces!": [
            {
                "type!": ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"),
                "path": str,
            }
        ],
        "uidMappings": [_ID_MAP],
        "gidMappings": [_ID_MAP],
        "timeOffsets": {"*": {"secs": range(-1 << 63, 1 << 63), "nanosecs": range(1000000000)}},
        "devices": [
            {
                "type!": ("c", "u", "b", "p"),
                "path!": str,
                "major": range(1 << 12),
                "minor": range(1 << 20),
                "fileMode": range(0o10000),
                "uid": _ID,
                "gid": _ID,
            }
        ],
        "cgroupsPath": str,
        "resources": {
            "devices": [
                {
                    "allow!": bool,
                    "type": ("a", "c", "b"),
                    "major": range(-1, 1 << 12),
                    "minor": range(-1, 1 << 20),
                    "access": str,
                }
            ]
        },
        "sysctl": {"*": str},
        "seccomp": dict,  # compiled beforehand, by who wrote the config
        "rootfsPropagation": ("shared", "slave", "private", "unbindable"),
        "maskedPaths": [str],
        "readonlyPaths": [str],
        "mountLabel": str,
        "personality": {"domain!": ("LINUX", "LINUX32")},
    },
}

_ACCEPTED: Any = {
    str: "a text without NUL characters and halves of a surrogate pair",
    bool: "true or false",
    dict: "an object",
}

IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
"""The kernel's settings that belong to an IPC namespace (ipc_namespaces(7)), beside ``fs.mqueue.*``."""

_LAST_LIMIT = (1 << 63) - 1
_UNLIMITED = (1 << 64) - 1
_IN_A_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def check(config: Any) -> None:
    """Raises Refused for what is not as the spec has it, or not to be honoured here."""
    _check_shape(config, HONOURED, "config.json")
    if not config["ociVersion"].startswith("1."):
        raise Refused(f"ociVersion: {config['ociVersion']!r} is not a version 1 of the OCI runtime spec")
    _check_namespaces(config)
    _check_process(config)
    for mount in config.get("mounts", []):
        _check_mount(mount)
    _check_root_mounts(config)
    for key, value in config["linux"].get("sysctl", {}).items():
        _check_sysctl(key, value, [entry["type"] for entry in config["linux"]["namespaces"]])
    for device in config["linux"].get("devices", []):
        _check_device(device)
    flags = config["linux"].get("seccomp", {}).get("flags", [])
    _check_shape(flags, [tuple(seccomp.FLAGS)], "linux.seccomp.flags")
    for rule in config["linux"].get("resources", {}).get("devices", []):
        if not set(rule.get("access", "")) <= set("rwm"):
            raise Refused(f"linux.resources.devices: access {rule['access']!r} is not of the letters rwm")
    for point, hooks in config.get("hooks", {}).items():
        for hook in hooks:
            _check_hook(hook, point)
    if "cgroupsPath" in config["linux"]:
        _check_cgroup(config["linux"]["cgroupsPath"])


def new_namespaces(config: dict[str, Any]) -> list[str]:
    """The namespaces that the container gets new ones of, in the spec's words."""
    return [entry["type"] for entry in config["linux"]["namespaces"] if "path" not in entry]


def joined_namespaces(config: dict[str, Any]) -> dict[str, str]:
    """The namespaces that the container joins, and their files."""
    return {entry["type"]: entry["path"] for entry in config["linux"]["namespaces"] if "path" in entry}


def root_mounts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of ``mounts`` that make the root itself, each above the one before."""
    return [entry for entry in config.get("mounts", []) if entry["destination"] == "/"]


def has_writable_cgroup(config: dict[str, Any]) -> bool:
    """Whether the container may write to its own cgroup."""
    return any(
        entry.get("type") in ("cgroup", "cgroup2") and "ro" not in entry.get("options", [])
        for entry in config.get("mounts", [])
    )


def _check_shape(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        _check_object(value, shape, where)
    elif isinstance(shape, list):
        _expect(isinstance(value, list), where, "an array")
        for number, item in enumerate(value):
            _check_shape(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, tuple):
        _expect(value in shape, where, f"one of {', '.join(shape)}")
    elif isinstance(shape, range):
        whole = isinstance(value, int) and not isinstance(value, bool) and value in shape
        _expect(whole, where, f"a whole number from {shape.start} to {shape.stop - 1}")
    else:
        sound = isinstance(value, shape) and not (shape is str and not _is_text(value))
        _expect(sound, where, _ACCEPTED[shape])


def _is_text(value: str) -> bool:
    """Whether the kernel can be given it: JSON may have halves of a surrogate pair too."""
    if "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)


def _check_object(value: Any, shape: dict[str, Any], where: str) -> None:
    _expect(isinstance(value, dict), where, "an object")
    keys = {key.rstrip("!"): key for key in shape}
    for key, item in value.items():
        here = key if where == "config.json" else f"{where}.{key}"
        if key not in keys and "*" not in keys:
            raise Refused(f"{here}: this is not supported")
        _check_shape(item, shape[keys.get(key, "*")], here)
    for key, original in keys.items():
        if original.endswith("!") and key not in value:
            raise Refused(f"{where}: {key} is missing")


def _expect(holds: bool, where: str, accepted: str) -> None:
    if not holds:
        raise Refused(f"{where}: it takes {accepted}")


def _check_namespaces(config: dict[str, Any]) -> None:
    kinds = [entry["type"] for entry in config["linux"]["namespaces"]]
    new = new_namespaces(config)
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise Refused(f"linux.namespaces: {kind} is there twice")
    if "mount" not in new:
        raise Refused("linux.namespaces: a container takes a mount namespace of its own")
    if ("hostname" in config or "domainname" in config) and "uts" not in new:
        raise Refused("hostname, domainname: the container takes a UTS namespace of its own for them")
    mapped = [name for name in ("uidMappings", "gidMappings") if config["linux"].get(name)]
    if ("user" in new) != (len(mapped) == 2) or (mapped and "user" not in new):
        raise Refused("linux.uidMappings, gidMappings: both go with a user namespace of the container's own")
    for clock in config["linux"].get("timeOffsets", {}):
        if clock not in ("monotonic", "boottime") or "time" not in new:
            raise Refused(
                f"linux.timeOffsets: {clock} is not a clock of a time namespace of the container's own"
            )


def _check_process(config: dict[str, Any]) -> None:
    process = config["process"]
    if not process["args"] or not process["args"][0]:
        raise Refused("process.args: there is no command")
    if not process["cwd"].startswith("/"):
        raise Refused(f"process.cwd: {process['cwd']!r} is no absolute path")
    for entry in process.get("env", []):
        if "=" not in entry[1:]:
            raise Refused(f"process.env: {entry!r} is not NAME=VALUE")
    for limit in process.get("rlimits", []):
        _check_limit(limit)
    for names in process.get("capabilities", {}).values():
        for name in names:
            if name not in capability.NAMES:
                raise Refused(f"process.capabilities: {name!r} is no capability, as CAP_CHOWN")
    flags = process.get("scheduler", {}).get("flags", [])
    if "SCHED_FLAG_RESET_ON_FORK" in flags and "user" in new_namespaces(config):
        raise Refused("process.scheduler.flags: SCHED_FLAG_RESET_ON_FORK does not go with a user namespace")


def _check_limit(limit: dict[str, Any]) -> None:
    if not (limit["type"].startswith("RLIMIT_") and hasattr(resource, limit["type"])):
        raise Refused(f"process.rlimits: {limit['type']!r} is no limit of a resource, as RLIMIT_NOFILE")
    for number in (limit["soft"], limit["hard"]):
        if _LAST_LIMIT < number != _UNLIMITED:
            raise Refused(f"process.rlimits: {number} is not up to {_LAST_LIMIT} nor, for none, {_UNLIMITED}")
    if limit["soft"] > limit["hard"]:
        raise Refused(f"process.rlimits: the soft limit of {limit['type']} is above the hard one")


def _check_mount(mount: dict[str, Any]) -> None:
    destination = mount["destination"]
    if not destination.startswith("/") or ".." in destination.split("/"):
        raise Refused(f"mounts: the destination {destination!r} is no absolute path")
    options = MountOptions(mount)
    if options.bind and "source" not in mount:
        raise Refused(f"mounts: the bind mount of {destination} has no source")


def _check_root_mounts(config: dict[str, Any]) -> None:
    mounts = root_mounts(config)
    if mounts != config.get("mounts", [])[: len(mounts)]:
        raise Refused("mounts: those of / come first")
    for number, mount in enumerate(mounts):
        if not {"type", "source", "options"} <= mount.keys():
            raise Refused("mounts: that of / has a type, a source and options")
        options = MountOptions(mount)
        if options.bind or options.remount or options.copy_up or options.iversion:
            raise Refused("mounts: that of / is a file system, neither bound nor changed nor copied")
        for option in options.own:
            key, _equals, value = option.partition("=")
            name = number and "/" not in value and value not in ("", ".", "..")
            if key in ("upperdir", "workdir") and not (value.startswith("/") or name):
                raise Refused(
                    f"mounts: {option!r} of / is neither an absolute path nor a name in what is mounted "
                    "there before"
                )


def _check_sysctl(key: str, value: str, own: list[str]) -> None:
    """Only settings of the namespaces that the container has of its own; all others are the host's
    (CVE-2022-0811)."""
    parts = key.split(".")
    namespace = {"net": "network", "fs": "ipc", "kernel": "ipc", "user": "user"}.get(parts[0])
    if key == "kernel.domainname":
        namespace = "uts"
    elif namespace == "ipc" and key not in IPC_SYSCTLS and parts[:2] != ["fs", "mqueue"]:
        namespace = None
    strict = len(parts) > 1 and all(part and _IN_A_KEY.issuperset(part) for part in parts)
    if not strict or namespace is None:
        raise Refused(f"linux.sysctl: {key!r} is no setting of a container's own namespaces")
    if namespace not in own:
        raise Refused(f"linux.sysctl: {key!r} takes a {namespace} namespace of the container's own")
    if not value.isprintable():
        raise Refused(f"linux.sysctl: the value of {key!r} has characters that are not printable")


def _check_device(device: dict[str, Any]) -> None:
    place = device["path"].split("/")
    if place[:2] != ["", "dev"] or len(place) < 3 or not all(place[2:]) or {".", ".."} & set(place):
        raise Refused(f"linux.devices: {device['path']!r} is not in /dev")
    if device["type"] != "p" and not {"major", "minor"} <= device.keys():
        raise Refused(f"linux.devices: {device['path']} has no major and minor number")


def _check_hook(hook: dict[str, Any], point: str) -> None:
    if not hook["path"].startswith("/"):
        raise Refused(f"hooks.{point}: {hook['path']!r} is no absolute path")
    for entry in hook.get("env", []):
        if "=" not in entry[1:]:
            raise Refused(f"hooks.{point}: {entry!r} in env is not NAME=VALUE")


def _check_cgroup(place: str) -> None:
    """One below the root of the hierarchy: the root is the host's own, and what limits it limits all."""
    first, *names = place.split("/")
    if first or not names or not all(names) or {".", ".."} & set(names):
        raise Refused(f"linux.cgroupsPath: {place!r} is no path of a cgroup below the root, as /bare/web")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of container_process: podman_container's and the OCI runtime spec's names, each with its normal
form.
"""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Mapping
from typing import Any

from .. import host
from ..kernel import capability
from ..module import NAME
from ..options import Option, Options, size
from . import devices, seccomp
from .config import IPC_SYSCTLS
from .values import LAST_ID, USER, absolute, command, environment, seconds, text, user

STATES = ("started", "stopped", "restarted", "paused", "absent")

_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?")
_SYSCTL = re.compile(r"[a-z0-9_-]+(\.[a-zA-Z0-9_-]+)+")
_SYSCTL_VALUE = re.compile(r"[\x20-\x7e\t]+")
_WORD = re.compile(r"[!-~]+")
_ID_RANGE = re.compile(r"[0-9]{1,10}:[0-9]{1,10}:[1-9][0-9]{0,9}")
_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s?)?")
_HEALTH_KINDS = (["CMD"], ["CMD-SHELL"], ["NONE"])
_LOG_PATH = re.compile(r"(/[\w.,:+@-]+)+", re.ASCII)
_TAG = re.compile(r"[\w.,:+@/-]{1,64}", re.ASCII)
_REAL_TIME_SIGNAL = re.compile(r"SIGRTMIN\+([0-9]{1,2})")

_LIMITS = tuple(
    name[len("RLIMIT_") :].lower()
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
)
_UNLIMITED = 0xFFFFFFFFFFFFFFFF
_PAGE = 4096

_VOLUME_OPTIONS = (
    *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "bind", "rbind", "idmap"),
    *("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"),
)
_TMPFS_OPTIONS = re.compile(
    r"(size|nr_inodes)=[0-9]+[kmg%]?|mode=[0-7]{3,4}|(uid|gid)=[0-9]+|ro|rw|(no)?(suid|dev|exec|tmpcopyup)",
    re.IGNORECASE,
)


def _entrypoint(value: list[Any]) -> list[str]:
    return command(value) if value else []


def _mount_point(value: str) -> str:
    path = absolute(value)
    if path == "/" or path.split("/")[1] in ("proc", "sys"):
        raise ValueError("a path inside the container that is not '/' and not in /proc or /sys")
    return path


def _hostname(value: str) -> str:
    if not _HOSTNAME.fullmatch(value):
        raise ValueError("up to 64 letters, digits, '.' and '-', beginning and ending with a letter or digit")
    return value


def _volumes(value: list[str]) -> list[dict[str, Any]]:
    volumes = [_volume(text) for text in value]
    if len({volume["destination"] for volume in volumes}) < len(volumes):
        raise ValueError("one volume for each path inside the container")
    return volumes


def _volume(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0].startswith("/"):
        raise ValueError(f"SOURCE:DESTINATION[:OPTIONS] with absolute paths, which {text!r} is not")
    options = [option for option in parts[2].split(",") if option] if len(parts) == 3 else []
    for option in options:
        if option not in _VOLUME_OPTIONS:
            raise ValueError(f"volumes with the options {', '.join(_VOLUME_OPTIONS)}, not {option!r}")
    if not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    return {"destination": _mount_point(parts[1]), "options": options, "source": absolute(parts[0])}


def _tmpfs(value: Mapping[str, Any]) -> dict[str, list[str]]:
    mounts = {
        _mount_point(path): [option for option in str(options or "").split(",") if option]
        for path, options in sorted(value.items())
    }
    for options in mounts.values():
        for option in options:
            if not _TMPFS_OPTIONS.fullmatch(option):
                raise ValueError(f"the mount options of tmpfs(5) such as size=64m,mode=1777, not {option!r}")
    return {path: _copied(options) for path, options in mounts.items()}


def _copied(options: list[str]) -> list[str]:
    """With ``tmpcopyup`` where that is the last word."""
    words = [option for option in options if option.lower() in ("tmpcopyup", "notmpcopyup")]
    kept = [option for option in options if option not in words]
    return [*kept, "tmpcopyup"] if words and words[-1].lower() == "tmpcopyup" else kept


def _capabilities(value: list[str]) -> list[str]:
    names = [_capability(name) for name in value]
    for name in names:
        if name != "ALL" and name not in capability.NAMES:
            raise ValueError(f"names of capabilities(7) such as NET_ADMIN, or ALL, not {name!r}")
    return names


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _id_map(value: list[str]) -> list[list[int]]:
    """Ranges of ids, each by the first inside, the first on the host and how many."""
    ranges = [[int(part) for part in text.split(":")] for text in value if _ID_RANGE.fullmatch(text)]
    beyond = any(max(first[:2]) + first[2] > LAST_ID + 1 for first in ranges)
    if len(ranges) < len(value) or beyond:
        raise ValueError("ranges as CONTAINER_ID:HOST_ID:SIZE, such as 0:100000:65536")
    return ranges


def _groups(value: list[str]) -> list[str]:
    for group in value:
        if not USER.fullmatch(group) or (group.isdecimal() and int(group) > LAST_ID):
            raise ValueError("names of groups or numbers up to 4294967294")
    return list(value)


def _umask(value: str) -> str:
    if not re.fullmatch(r"0?[0-7]{1,3}", value):
        raise ValueError("an octal number such as '0022'")
    return f"{int(value, 8):04o}"


def _network(value: str) -> str:
    if value in ("auto", "none", "host"):
        return value
    kind, _colon, what = value.partition(":")
    if kind == "container":
        return f"container:{host.container_name(what)}"
    if kind != "ns":
        raise ValueError("auto, none, host, container:NAME, or ns:PATH with the file of a network namespace")
    return f"ns:{absolute(what)}"


def _time_offsets(value: Mapping[str, Any]) -> dict[str, int]:
    try:
        offsets = {str(clock): int(str(seconds)) for clock, seconds in value.items()}
    except ValueError:
        raise ValueError("whole numbers of seconds") from None
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            raise ValueError(f"the clocks monotonic and boottime, not {clock!r}")
    return dict(sorted(offsets.items()))


def _hidden(value: list[str]) -> list[str]:
    return ["ALL"] if "ALL" in value else sorted({absolute(path) for path in value})


def _annotations(value: Mapping[str, Any]) -> dict[str, str]:
    return dict(sorted((str(key), text(item)) for key, item in value.items()))


def _sysctls(value: Mapping[str, Any]) -> dict[str, str]:
    settings = {str(key): str(item) for key, item in value.items()}
    for key, item in settings.items():
        namespaced = key in IPC_SYSCTLS or key.startswith(("net.", "fs.mqueue."))
        if not _SYSCTL.fullmatch(key) or not namespaced:
            accepted = ", ".join(("net.*", "fs.mqueue.*", *IPC_SYSCTLS))
            raise ValueError(f"settings of the container's own namespaces ({accepted}), which {key!r} is not")
        if not _SYSCTL_VALUE.fullmatch(item):
            raise ValueError(f"values of printable characters, which that of {key!r} is not")
    return dict(sorted(settings.items()))


def _ulimits(value: list[str]) -> dict[str, list[int]]:
    return dict(sorted(_ulimit(text) for text in value))


def _ulimit(text: str) -> tuple[str, list[int]]:
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    numbers = [_limit(soft), _limit(hard if colon else soft)]
    if name not in _LIMITS or not equals or numbers[0] > numbers[1]:
        raise ValueError(
            f"NAME=SOFT[:HARD] with a name of {', '.join(_LIMITS)} and SOFT up to HARD, not {text!r}"
        )
    return name, numbers


def _limit(text: str) -> int:
    if text in ("-1", "unlimited"):
        return _UNLIMITED
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise ValueError(f"limits that are a number or 'unlimited', not {text!r}")
    return int(text)


def _oom_score(value: int) -> int:
    if not -1000 <= value <= 1000:
        raise ValueError("a number from -1000 to 1000")
    return value


def _addresses(value: list[str]) -> list[str]:
    from ipaddress import ip_address

    try:
        return [str(ip_address(address)) for address in value]
    except ValueError:
        raise ValueError("IP addresses such as 10.0.0.53") from None


def _words(value: list[str]) -> list[str]:
    if not all(_WORD.fullmatch(word) for word in value):
        raise ValueError("words without blanks")
    return list(value)


def _profile(value: str) -> str:
    if value in (seccomp.DEFAULT, "unconfined"):
        return value
    if not value.startswith("/"):
        raise ValueError("default, unconfined, or the absolute path of a profile on the host")
    return absolute(value)


def _word(value: str) -> str:
    return _words([value])[0]


def _hosts(value: Mapping[str, Any]) -> dict[str, str]:
    names = _words([str(name) for name in value])
    return dict(sorted(zip(names, _addresses([str(address) for address in value.values()]))))


def _signal(value: str) -> str:
    name = str(value).upper()
    if name.isdecimal():
        numbers = {number.value: number.name for number in signal.Signals}
        name = numbers.get(int(name), "")
    elif not name.startswith("SIG"):
        name = f"SIG{name}"
    if name not in signal.Signals.__members__ and signal_number(name) is None:
        raise ValueError("the name or number of a signal such as SIGTERM or SIGRTMIN+3 (signal(7))")
    return name


def signal_number(name: str) -> int | None:
    """The number of a signal by its name in normal form, SIGTERM or SIGRTMIN+3; None where there is none."""
    real_time = _REAL_TIME_SIGNAL.fullmatch(name)
    if real_time:
        number = signal.SIGRTMIN + int(real_time[1])
        return number if number <= signal.SIGRTMAX else None
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else None


def _rootfs_size(value: str) -> int:
    if (bytes_ := size(value)) < _PAGE:
        raise ValueError("a number of bytes, 4096 or more, such as 64M")
    return bytes_


def duration(value: str) -> int:
    """Seconds from ``90``, ``90s``, ``1m30s`` or ``2h``, as podman has them."""
    match = _DURATION.fullmatch(value.strip())
    if match is None or not any(match.groups()):
        raise ValueError("a number of whole seconds, or a duration such as 90s, 1m30s or 2h")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest


def _timeout(value: str) -> int:
    if (timeout := duration(value)) == 0:
        raise ValueError("a duration of a second or more, such as 30s")
    return timeout


def _interval(value: str) -> int:
    """0 where nobody is to check by the clock."""
    return 0 if value == "disable" else _timeout(value)


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError("a number, 1 or more")
    return value


def _health_command(value: Any) -> list[str]:
    """The words to run, none for no check. A text is for a shell; of a list, the first word may say what the
    others are, as in an image (OCI image spec, "Healthcheck")."""
    if isinstance(value, str):
        value = ["NONE"] if value in ("", "none") else ["CMD-SHELL", value]
    if not isinstance(value, list):
        raise ValueError("a command line for a shell, a list of words, or none")
    kind, words = (value[0], value[1:]) if value[:1] in _HEALTH_KINDS else ("CMD", value)
    if kind == "NONE" and not words:
        return []
    words = command(words)
    return ["/bin/sh", "-c", " ".join(words)] if kind == "CMD-SHELL" else words


def _log_options(value: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(sorted((str(name), item) for name, item in value.items()))
    for name in options:
        if name not in _LOG_OPTIONS:
            raise ValueError(f"the names {', '.join(_LOG_OPTIONS)}, not {name!r}")
    return {name: _LOG_OPTIONS[name](item) for name, item in options.items()}


def _log_path(value: Any) -> str:
    """One that logrotate takes as it is, without a pattern or quotes in it."""
    path = absolute(str(value))
    if not _LOG_PATH.fullmatch(path):
        raise ValueError("as path the absolute path of a file, of letters, digits and '_.,:+@-'")
    return path


def _log_size(value: Any) -> int:
    if (bytes_ := size(value)) == 0:
        raise ValueError("as max_size a number of bytes, 1 or more, such as 10M")
    return bytes_


def _log_tag(value: Any) -> str:
    if not _TAG.fullmatch(str(value)):
        raise ValueError("as tag up to 64 letters, digits and '_.,:+@/-'")
    return str(value)


_LOG_OPTIONS = {"path": _log_path, "max_size": _log_size, "tag": _log_tag}


OPTIONS = Options(
    (
        NAME,
        Option("state", default="started", choices=STATES),
        Option("command", type="list", elements="str", normalise=command),
        Option("entrypoint", type="list", elements="str", normalise=_entrypoint),
        Option("image_config", type="bool", default=True),
        Option("env", type="dict", normalise=environment),
        Option("user", normalise=user),
        Option("workdir", aliases=("working_dir",), normalise=absolute),
        Option("hostname", normalise=_hostname),
        Option("rootfs", type="path", normalise=absolute),
        Option("rootfs_mode", default="overlay", choices=("overlay", "tmpfs", "read_only", "direct")),
        Option("rootfs_size", normalise=_rootfs_size),
        Option("upper", default="reset", choices=("reset", "keep")),
        Option("network", default="auto", normalise=_network),
        Option("pid", default="private", choices=("private", "host")),
        Option("ipc", default="private", choices=("private", "host")),
        Option("uts", default="private", choices=("private", "host")),
        Option("cgroupns", default="private", choices=("private", "host")),
        Option("userns", default="host", choices=("host", "auto")),
        Option("uidmap", type="list", elements="str", normalise=_id_map),
        Option("gidmap", type="list", elements="str", normalise=_id_map),
        Option("time_offsets", type="dict", normalise=_time_offsets),
        Option("volumes", type="list", elements="str", aliases=("volume",), normalise=_volumes),
        Option("tmpfs", type="dict", normalise=_tmpfs),
        Option("shm_size", normalise=size),
        Option("devices", type="list", elements="str", aliases=("device",), normalise=devices.devices),
        Option("device_cgroup_rules", type="list", elements="str", normalise=devices.cgroup_rules),
        Option("cap_add", type="list", elements="str", compare="set", normalise=_capabilities),
        Option("cap_drop", type="list", elements="str", compare="set", normalise=_capabilities),
        Option("privileged", type="bool", default=False),
        Option("no_new_privileges", type="bool"),
        Option("seccomp", normalise=_profile),
        Option("apparmor", normalise=_word),
        Option("selinux", normalise=_word),
        Option("mask", type="list", elements="str", normalise=_hidden),
        Option("unmask", type="list", elements="str", normalise=_hidden),
        Option("init", type="bool", default=False),
        Option("init_path", type="path", normalise=absolute),
        Option("systemd", type="bool", default=False),
        Option("group_add", type="list", elements="str", normalise=_groups),
        Option("umask", normalise=_umask),
        Option("annotations", type="dict", aliases=("annotation",), normalise=_annotations),
        Option("oci", type="dict"),
        Option("sysctl", type="dict", normalise=_sysctls),
        Option("ulimit", type="list", elements="str", aliases=("ulimits",), normalise=_ulimits),
        Option("oom_score_adj", type="int", normalise=_oom_score),
        Option("dns", type="list", elements="str", normalise=_addresses),
        Option("dns_search", type="list", elements="str", normalise=_words),
        Option("dns_options", type="list", elements="str", aliases=("dns_option",), normalise=_words),
        Option("etc_hosts", type="dict", aliases=("add_hosts",), normalise=_hosts),
        Option("stop_signal", normalise=_signal),
        Option("stop_timeout", type="int", default=10, normalise=seconds),
        Option("healthcheck", type="raw", normalise=_health_command),
        Option("healthcheck_interval", normalise=_interval),
        Option("healthcheck_timeout", normalise=_timeout),
        Option("healthcheck_retries", type="int", normalise=_positive),
        Option("healthcheck_start_period", normalise=duration),
        Option("healthcheck_failure_action", choices=("none", "kill", "restart", "stop")),
        Option("log_driver", choices=("journald", "file", "none")),
        Option("log_opt", type="dict", aliases=("log_options",), normalise=_log_options),
        Option("restart_policy", default="no", choices=("no", "on-failure", "always", "unless-stopped")),
        Option("restart_sec", type="int", normalise=_positive),
        Option("restart_max_delay_sec", type="int", normalise=_positive),
        Option("supervisor", default="auto", choices=("auto", "systemd", "direct")),
    )
)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last steps before the command runs, for start and exec alike: who it is, what it may, exec itself."""

from __future__ import annotations

import errno
import os
import resource
import stat

from ..kernel import capability, path, process, scheduling, seccomp
from .bundle import GROUPS_ANNOTATION, USER_ANNOTATION, Refused, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bundle import Filter

_DATABASE_LIMIT = 16 << 20
_UMASK = 0o022
UNLIMITED = 0xFFFFFFFFFFFFFFFF
"""No limit, in the OCI runtime spec's ``rlimits``."""

_LAST_ID = 0xFFFFFFFE
"""The highest uid and gid; the one above it means none (chown(2), setreuid(2))."""


class Account:
    """Who a process is: ids, supplementary groups, home directory."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def find_account(root: int, declared: str) -> Account:
    """The account of ``USER[:GROUP]``, each a number or a name in the container's own passwd(5) and group(5).

    A number is an id, whatever is called by that name there. Without a group it is the user's own, 0 for a
    uid without an entry, and the groups the user is a member of are its supplementary ones. ``root`` is the
    container's root directory. Raises Refused, OSError.
    """
    user, colon, group = declared.partition(":")
    entry = _find(_database(root, "/etc/passwd"), user, fields=6)
    if entry is None and not user.isdecimal():
        raise Refused(f"user: {user!r} is not in the container's /etc/passwd")
    uid = _id("user", user if entry is None or user.isdecimal() else entry[2])
    gid = _id("user", entry[3]) if entry else 0
    groups = []
    if colon:
        gid = _group_id(root, group)
    elif entry:
        groups = [int(line[2]) for line in _database(root, "/etc/group") if _is_member(line, entry[0])]
    return Account(uid, gid, groups, (entry[5] if entry else "") or "/")


def _group_id(root: int, group: str) -> int:
    if group.isdecimal():
        return _id("user", group)
    entry = _find(_database(root, "/etc/group"), group, fields=3)
    if entry is None:
        raise Refused(f"user: the group {group!r} is not in the container's /etc/group")
    return _id("user", entry[2])


def _find(lines: list[list[str]], wanted: str, fields: int) -> list[str] | None:
    column = 2 if wanted.isdecimal() else 0
    for line in lines:
        if len(line) >= fields and line[column] == wanted and line[2].isdecimal():
            return line
    return None


def _is_member(line: list[str], user: str) -> bool:
    return len(line) >= 4 and line[2].isdecimal() and int(line[2]) <= _LAST_ID and user in line[3].split(",")


def _id(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_ID:
        raise Refused(f"{option}: {text!r} is no id, those go from 0 to {_LAST_ID}")
    return int(text)


def _database(root: int, name: str) -> list[list[str]]:
    """The fields of each line of passwd(5) or group(5) in ``root``, never the host's; no file, no lines."""
    try:
        descriptor = path.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"user: {name} of the container is no regular file")
        text = os.pread(descriptor, _DATABASE_LIMIT, 0).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)
    return [line.split(":") for line in text.split("\n")]


def account_of(root: int, config: dict[str, Any], declared: str | None = None) -> Account:
    """Who the process of ``config`` is, or the one ``declared`` instead. Raises Refused, OSError."""
    annotations = config.get("annotations", {})
    wanted = declared or annotations.get(USER_ANNOTATION)
    user = config["process"].get("user", {"uid": 0, "gid": 0})
    if wanted is not None:
        account = find_account(root, wanted)
    else:
        account = find_account(root, f"{user['uid']}:{user['gid']}")
        account.groups = []
    if declared is None:
        names = annotations.get(GROUPS_ANNOTATION)
        account.groups += user.get("additionalGids", [])
        account.groups += [_group_id(root, name) for name in names.split(",")] if names else []
    return account


def environment_of(entries: list[str], account: Account) -> dict[str, str]:
    """``NAME=VALUE`` entries as a mapping, with HOME as login(1) would set it where it is not given."""
    environment = dict(entry.split("=", 1) for entry in entries)
    environment.setdefault("HOME", account.home)
    return environment


def limit_resources(limits: list[dict[str, Any]]) -> None:
    """Sets ``process.rlimits`` (OCI runtime spec). Raises OSError, ValueError."""
    for limit in limits:
        soft, hard = (_number(limit[name]) for name in ("soft", "hard"))
        resource.setrlimit(getattr(resource, limit["type"]), (soft, hard))


def raise_limits(limits: list[dict[str, Any]]) -> None:
    """Raises hard limits to what limit_resources() will set, where that takes the host's privileges."""
    for limit in limits:
        kind = getattr(resource, limit["type"])
        soft, hard = resource.getrlimit(kind)
        wanted = _number(limit["hard"])
        if hard != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > hard):
            resource.setrlimit(kind, (soft, wanted))


def schedule(declared: dict[str, Any], report: Report) -> None:
    """Takes on ``process.scheduler`` and ``process.ioPriority``. Raises OSError."""
    scheduler = declared.get("scheduler")
    if scheduler:
        report.step = f"scheduler {scheduler['policy']}"
        scheduling.set_policy(**scheduler)
    priority = declared.get("ioPriority")
    if priority:
        report.step = f"ioPriority {priority['class']}"
        scheduling.set_io_priority(priority["class"], priority.get("priority", 0))


def label(declared: dict[str, Any], processes: int, report: Report) -> None:
    """Has a security module run the command under its profile or label. ``processes`` is the host's /proc.

    Raises Refused where the module is not there, OSError for a profile that is not loaded.
    """
    for option, enabled, attribute, text in (
        ("apparmorProfile", "/sys/module/apparmor/parameters/enabled", "apparmor/exec", "exec {}"),
        ("selinuxLabel", "/sys/fs/selinux/enforce", "exec", "{}"),
    ):
        value = declared.get(option)
        if not value:
            continue
        report.step = f"process.{option} {value}"
        if not os.path.exists(enabled):
            raise Refused(f"process.{option}: the security module for {value!r} is not enabled on this host")
        place = f"thread-self/attr/{attribute}"
        descriptor = os.open(place, os.O_WRONLY | os.O_CLOEXEC, dir_fd=processes)
        os.write(descriptor, text.format(value).encode())
        os.close(descriptor)


def _number(limit: int) -> int:
    """A limit as setrlimit takes it: none is the highest number in the spec, and RLIM_INFINITY, -1, there."""
    return resource.RLIM_INFINITY if limit == UNLIMITED else limit


def become(account: Account, declared: dict[str, Any], program: Filter | None, report: Report) -> None:
    """Gives up all but this account and what ``declared`` leaves, the ``process`` of an OCI config.

    The order is that of runc and crun: the bounding set while we may, then the ids with the capabilities
    kept, then the capabilities. The seccomp filter ``program`` is the very last, in execute(); only where
    gaining privileges is not forbidden it takes one to load it, and comes before they go. Raises OSError.
    """
    sets = declared.get("capabilities", {})
    masks = {name: capability.mask(sets.get(name, [])) for name in _SETS}
    report.step = "capabilities"
    capability.limit_bounding(masks["bounding"])
    process.keep_capabilities()
    if program is not None and not declared.get("noNewPrivileges"):
        report.step = "seccomp filter"
        seccomp.load(program[0], *program[1])
    report.step = "user"
    os.umask(declared.get("user", {}).get("umask", _UMASK))
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    # The kernel makes a process dumpable or not anew when its ids change.
    process.forbid_tracing()
    report.step = "capabilities"
    capability.set_thread(masks["effective"], masks["permitted"], masks["inheritable"])
    capability.set_ambient(masks["ambient"])
    if declared.get("noNewPrivileges"):
        process.forbid_new_privileges()


def for_account(declared: dict[str, Any], account: Account) -> dict[str, Any]:
    """``declared`` for another user in the same container, who unlike root has no capabilities."""
    sets = declared.get("capabilities", {})
    if account.uid == 0 or declared.get("user", {}).get("uid", 0) != 0:
        return declared
    return {**declared, "capabilities": {"bounding": sets.get("bounding", [])}}


_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def enter_directory(directory: str, report: Report) -> None:
    """Raises OSError, Refused where the directory is not one of the container's (CVE-2024-21626)."""
    report.step = f"workdir {directory}"
    os.chdir(directory)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise Refused(f"workdir: {directory!r} is outside of the container's root") from None


def execute(
    declared: dict[str, Any], environment: dict[str, str], program: Filter | None, report: Report
) -> None:
    """Runs the command in our place; a name without a slash is looked for in the environment's PATH.

    Only comes back by raising: Refused where there is no such command, OSError.
    """
    arguments = declared["args"]
    command = arguments[0]
    report.step = f"command: {command!r}"
    process.reset_signals()
    report.before_exec()
    if program is not None and declared.get("noNewPrivileges"):
        report.step = "seccomp filter"
        seccomp.load(program[0], *program[1])
        report.step = f"command: {command!r}"
    denied = False
    search = environment.get("PATH", "/usr/bin:/bin").split(":")
    for place in [command] if "/" in command else [os.path.join(entry or ".", command) for entry in search]:
        try:
            os.execve(place, arguments, environment)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(place):
                raise Refused(
                    f"command: {place!r} needs an interpreter that is not in the root file system"
                ) from None
        except PermissionError:
            denied = True
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                raise Refused(
                    f"command: {place!r} is neither a program nor a script that names its interpreter"
                ) from None
            raise
    if denied:
        raise Refused(f"command: {command!r} in the root file system may not be executed by this user")
    searched = "" if "/" in command else f" (looked for in {':'.join(search)})"
    raise Refused(f"command: {command!r} is not in the root file system{searched}")

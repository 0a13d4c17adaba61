# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts: the calls on descriptors (open_tree(2), fsopen(2), move_mount(2)) and the classic ones needed."""

from __future__ import annotations

import ctypes
import os

from .syscall import call

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000

# include/uapi/linux/mount.h
_MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MNT_DETACH = 2

ATTRIBUTES = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "relatime": 0x0,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
"""MOUNT_ATTR_* by their names in mount(8): what holds for one mount, not for the file system behind it."""

_OF_FILE_SYSTEM = {"sync": 0x10, "mand": 0x40, "iversion": 1 << 23, "lazytime": 1 << 25}
"""MS_* by their names in mount(8): what a remount sets, or clears, for the file system."""

PROPAGATION = {"unbindable": 0x20000, "private": 0x40000, "slave": 0x80000, "shared": 0x100000}
"""MS_* by their names in mount(8) (mount_namespaces(7))."""

_ATIME = 0x70
_ATIMES = ("relatime", "noatime", "strictatime")
_IDMAP = 0x100000

_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSMOUNT_CLOEXEC = 1
_FSPICK_CLOEXEC = 0x1
_FSPICK_EMPTY_PATH = 0x8
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_STATFS_LONGS = 32

PROC = 0x9FA0
"""The number of /proc's type (include/uapi/linux/magic.h)."""


class _Attributes(ctypes.Structure):
    """struct mount_attr (mount_setattr(2))."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """The classic call, for what the new ones can't: options of more than 255 bytes. Raises OSError."""
    call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        flags,
        os.fsencode(options),
        path=target,
    )


def bind(source: str, target: str) -> None:
    """Mounts ``source`` at ``target`` too; both exist, both are directories or neither is. Raises OSError."""
    mount(source, target, "none", MS_BIND)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmounts what is on top at ``target``. Raises OSError (umount2(2))."""
    call("umount2", os.fsencode(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """Raises OSError (pivot_root(2))."""
    call("pivot_root", os.fsencode(new), os.fsencode(old), path=new)


def clone_tree(directory: int, path: str = "", *, recursive: bool = False) -> int:
    """A detached copy of the mount at ``path``, as a descriptor; of ``directory`` itself where path is empty.

    ``recursive`` takes the mounts below along. Raises OSError (open_tree(2)).
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return call("open_tree", directory, os.fsencode(path), flags, path=path)


def new_filesystem(kind: str, options: list[str], attributes: list[str], source: str | None = None) -> int:
    """A new file system, not mounted anywhere yet, as a descriptor.

    ``options`` are the file system's own (``size=64m``, ``mode=1777``), ``attributes`` those of the mount
    (ATTRIBUTES). Raises OSError (fsopen(2), fsconfig(2), fsmount(2)); a bad option is EINVAL.
    """
    context = call("fsopen", kind.encode(), _FSOPEN_CLOEXEC, path=kind)
    try:
        _configure(context, [f"source={source or kind}", *options])
        call("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, path=kind)
        return call(
            "fsmount", context, _FSMOUNT_CLOEXEC, sum(ATTRIBUTES[name] for name in attributes), path=kind
        )
    finally:
        os.close(context)


def reconfigure(tree: int, options: list[str]) -> None:
    """Changes the named ``options`` of the file system mounted as ``tree``, wherever else it is mounted.

    Raises OSError (fspick(2)), EINVAL for one that it can't change and where ``tree`` is no mount's root.
    """
    context = call("fspick", tree, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        _configure(context, options)
        call("fsconfig", context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def _configure(context: int, options: list[str]) -> None:
    for option in options:
        key, separator, value = option.partition("=")
        how = _FSCONFIG_SET_STRING if separator else _FSCONFIG_SET_FLAG
        text = os.fsencode(value) if separator else None
        call("fsconfig", context, how, os.fsencode(key), text, 0, path=option)


def count_versions(tree: int, options: list[str]) -> None:
    """Has the file system mounted as ``tree`` count the versions of files (``iversion`` in mount(8)).

    fsconfig(2) has no word for it, so this is the classic remount: it takes the other ``options`` that the
    file system has, and the mount's ATTRIBUTES are to be set again. Raises OSError (mount(2)).
    """
    flags = sum(_OF_FILE_SYSTEM.get(option, 0) for option in {*options, "iversion"})
    call("mount", None, os.fsencode(f"/proc/self/fd/{tree}"), None, _MS_REMOUNT | flags, None)


def set_attributes(
    tree: int, add: list[str], remove: list[str] | None = None, *, recursive: bool = False
) -> None:
    """Adds and removes ATTRIBUTES of the mount ``tree``. Raises OSError (mount_setattr(2), since 5.12)."""
    attributes = _Attributes(
        attr_set=sum(ATTRIBUTES[name] for name in add),
        attr_clr=sum(ATTRIBUTES[name] for name in remove or []),
    )
    if any(name in _ATIMES for name in add):
        attributes.attr_clr |= _ATIME
    _set(tree, attributes, recursive)


def set_propagation(tree: int | str, propagation: str, *, recursive: bool = False) -> None:
    """Gives the mount ``tree``, a descriptor or a path, a PROPAGATION. Raises OSError (mount_setattr(2))."""
    _set(tree, _Attributes(propagation=PROPAGATION[propagation]), recursive)


def map_ids(tree: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Shows the owners of all files in the detached ``tree`` as the user namespace maps them.

    An id that it maps from 0 to 100000 is 0 on the disk and 100000 through the mount. Raises OSError, EINVAL
    where the file system can't (mount_setattr(2), ID-mapped mounts).
    """
    _set(tree, _Attributes(attr_set=_IDMAP, userns_fd=user_namespace), recursive)


def _set(tree: int | str, attributes: _Attributes, recursive: bool) -> None:
    directory, path = (AT_FDCWD, tree) if isinstance(tree, str) else (tree, "")
    flags = (0 if path else _AT_EMPTY_PATH) | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    call("mount_setattr", directory, os.fsencode(path), flags, ctypes.byref(attributes), size)


def attach(tree: int, target: int) -> None:
    """Mounts the detached ``tree`` on the file or directory that ``target`` is open on: no path is looked up.

    Raises OSError (move_mount(2)).
    """
    call("move_mount", tree, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def kind(descriptor: int) -> int:
    """The number of the type of file system that an open file is in, such as PROC (statfs(2)). Raises
    OSError."""
    status = (ctypes.c_long * _STATFS_LONGS)()
    call("fstatfs", descriptor, ctypes.byref(status))
    return status[0]


def is_mount_point(path: str) -> bool:
    """Whether something is mounted at ``path`` in our mount namespace. Raises OSError."""
    return any(fields[4] == path for fields in table())


def find(kind: str) -> str | None:
    """Where the first file system of this type is mounted, such as ``cgroup2``, or None. Raises OSError."""
    for fields in table():
        if fields[fields.index("-") + 1] == kind:
            return fields[4]
    return None


def table(pid: int | str = "self") -> list[list[str]]:
    """The fields of each line of /proc/PID/mountinfo (proc(5)): the fifth is the mount point, the type
    follows ``-``. Bytes that are not UTF-8 are surrogates. Raises OSError."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return [[_unescape(field) for field in line.rstrip("\n").split(" ")] for line in lines]


def _unescape(field: str) -> str:
    """Undoes the octal escapes of blank, tab, newline and backslash (proc(5))."""
    if "\\" not in field:
        return field
    for code in ("040", "011", "012", "134"):
        field = field.replace("\\" + code, chr(int(code, 8)))
    return field

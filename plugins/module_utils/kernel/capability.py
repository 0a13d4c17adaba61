# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capabilities: their names, and the sets of a process (capabilities(7))."""

from __future__ import annotations

import ctypes

from .syscall import call

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""In the order of their numbers (include/uapi/linux/capability.h)."""

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct (capset(2))."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct (capset(2)); version 3 takes two, for the low and the high 32 bits."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def mask(names: list[str]) -> int:
    """The bits of these capabilities."""
    return sum(1 << NAMES.index(name) for name in set(names))


def names(bits: int) -> list[str]:
    """The capabilities of these bits (as in /proc/PID/status) by number; unknown ones as CAP_<number>."""
    return [
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    ]


def bounding() -> int:
    """The calling thread's bounding set, as bits."""
    bits = 0
    for number in range(64):
        try:
            bits |= call("prctl", _PR_CAPBSET_READ, number, 0, 0, 0) << number
        except OSError:
            # EINVAL: the kernel has no capability of this number, and none above.
            break
    return bits


def limit_bounding(keep: int) -> None:
    """Drops all but ``keep`` from the bounding set, for good. Needs CAP_SETPCAP. Raises OSError."""
    surplus = bounding() & ~keep
    for number in range(surplus.bit_length()):
        if surplus >> number & 1:
            call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)


def set_thread(effective: int, permitted: int, inheritable: int) -> None:
    """Sets the calling thread's three sets. Raises OSError (capset(2))."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)(
        *(
            _Data(
                effective >> shift & 0xFFFFFFFF,
                permitted >> shift & 0xFFFFFFFF,
                inheritable >> shift & 0xFFFFFFFF,
            )
            for shift in (0, 32)
        )
    )
    call("capset", ctypes.byref(header), data)


def set_ambient(bits: int) -> None:
    """Makes the ambient set ``bits``, each of them permitted and inheritable. Raises OSError (prctl(2))."""
    call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)

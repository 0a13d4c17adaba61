# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python has no function for; every failure is an OSError with the kernel's errno."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Calls that not every libc has a function for. From 424 up a call has one number on all architectures but
# alpha (the kernel's syscall.tbl), so one table does.
_NUMBERS = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}

# Below that each architecture has its own (arch/x86/entry/syscalls/syscall_64.tbl, and for aarch64
# include/uapi/asm-generic/unistd.h), and another for its 32-bit programs.
_OLDER_NUMBERS = {
    "bpf": {"x86_64": 321, "aarch64": 280},
    "ioprio_set": {"x86_64": 251, "aarch64": 30},
    "keyctl": {"x86_64": 250, "aarch64": 219},
    "sched_setattr": {"x86_64": 314, "aarch64": 274},
    "seccomp": {"x86_64": 317, "aarch64": 277},
}

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any, path: str | None = None) -> int:
    """Calls ``name`` and returns its result; integers go as long, bytes and None as pointers.

    ``path`` is what the OSError names as the file concerned. Raises OSError when the result is -1; a kernel
    that does not know the call, or an architecture whose number for it we don't know, gives ENOSYS.
    """
    number = _number(name)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    if number is None:
        result: int = getattr(_libc, name)(*words)
    else:
        result = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def machine() -> str:
    """The machine's architecture, also where uname(2) tells the name of its 32-bit one (personality(2))."""
    told = os.uname().machine
    return _AS_32_BIT.get(told, told)


_AS_32_BIT = {"i686": "x86_64", "armv8l": "aarch64"}
"""What a 64-bit kernel calls itself with PER_LINUX32. To a 32-bit kernel it is nothing: its interpreter is of
32 bits, and none of ours."""


def _number(name: str) -> int | None:
    """The call's number for this interpreter, or None for one that libc has a function for."""
    numbers = _OLDER_NUMBERS.get(name)
    if numbers is None:
        return _NUMBERS.get(name)
    if machine() in numbers and ctypes.sizeof(ctypes.c_void_p) == 8:
        return numbers[machine()]
    reason = f"its number is only known on 64-bit {' and '.join(numbers)}"
    raise OSError(errno.ENOSYS, reason, f"{name}(2) on {machine()}")

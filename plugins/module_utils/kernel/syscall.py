# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python has no function for; every failure is an OSError with the kernel's errno."""

from __future__ import annotations

import ctypes
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
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any, path: str | None = None) -> int:
    """Calls ``name`` and returns its result; integers go as long, bytes and None as pointers.

    ``path`` is what the OSError names as the file concerned. Raises OSError when the result is -1; a kernel
    that does not know the call gives ENOSYS.
    """
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    if name in _NUMBERS:
        result: int = _libc.syscall(ctypes.c_long(_NUMBERS[name]), *words)
    else:
        result = getattr(_libc, name)(*words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result

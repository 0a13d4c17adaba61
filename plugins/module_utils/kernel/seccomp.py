# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System call filters: what the kernel offers, and loading one that was compiled before (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno

from .syscall import call

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
}
"""Those that a filter without a listener takes (include/uapi/linux/seccomp.h), as the OCI runtime spec calls
them."""

ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
"""What a filter may decide (SECCOMP_RET_*), the strictest first, as the OCI runtime spec calls it. The low 16
bits are for data: the error number of ERRNO, the message of TRACE."""

INSTRUCTION_SIZE = 8
MAXIMUM_INSTRUCTIONS = 4096
"""BPF_MAXINSNS (include/uapi/linux/bpf_common.h)."""

_SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2
_FLAG_TSYNC_ESRCH = 1 << 4


class _Program(ctypes.Structure):
    """struct sock_fprog (seccomp(2))."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, *flags: str) -> None:
    """Puts the calling thread, and all that comes of it, under a filter, for good.

    ``program`` is an array of struct sock_filter, in the order of bytes of this machine; ``flags`` are names
    of FLAGS. Filters that are there stay: each call is decided by all of them, and the strictest holds. Needs
    no_new_privs or CAP_SYS_ADMIN (EACCES). Raises OSError, EINVAL for a program that is none.
    """
    length, rest = divmod(len(program), INSTRUCTION_SIZE)
    if rest or not 0 < length <= MAXIMUM_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"a filter has 1 to {MAXIMUM_INSTRUCTIONS} instructions of 8 bytes")
    bits = sum(FLAGS[flag] for flag in set(flags))
    if bits & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        # Else the kernel answers with the thread that can't follow, which would look like success.
        bits |= _FLAG_TSYNC_ESRCH
    call("seccomp", _SET_MODE_FILTER, bits, ctypes.byref(_Program(length, program)))


def offers(action: str) -> bool:
    """Whether this kernel knows the action, a name of ACTIONS. Raises OSError."""
    try:
        call("seccomp", _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(ACTIONS[action])))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True

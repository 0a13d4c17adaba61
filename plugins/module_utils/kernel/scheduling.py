# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process gets of CPU and disk before others: policies and priorities (sched(7), ioprio_set(2))."""

from __future__ import annotations

import ctypes

from .syscall import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
"""Both by their names in include/uapi/linux/sched.h."""

IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT = 13
_IOPRIO_WHO_PROCESS = 1


class _Attributes(ctypes.Structure):
    """struct sched_attr (sched_setattr(2))."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_policy(
    policy: str,
    *,
    nice: int = 0,
    priority: int = 0,
    flags: Sequence[str] = (),
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """Sets the calling thread's policy; times are in nanoseconds. Raises OSError (sched_setattr(2))."""
    attributes = _Attributes(
        policy=POLICIES[policy],
        flags=sum(FLAGS[flag] for flag in set(flags)),
        nice=nice,
        priority=priority,
        runtime=runtime,
        deadline=deadline,
        period=period,
    )
    attributes.size = ctypes.sizeof(attributes)
    call("sched_setattr", 0, ctypes.byref(attributes), 0)


def set_io_priority(io_class: str, priority: int) -> None:
    """Sets the calling thread's class and its level in it, 0 the highest, 7 the lowest. Raises OSError."""
    call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, IO_CLASSES[io_class] << _IO_CLASS_SHIFT | priority)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes: which one is meant, its attributes, its end (proc(5), prctl(2), pidfd_open(2))."""

from __future__ import annotations

import errno
import os
import select

from .syscall import call

_SIGKILL = 9
_LONGEST_WAIT = (1 << 31) - 1
_SIGNALS = 64
_SIG_SETMASK = 2
_SIGNAL_SET_SIZE = 128
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 4
_PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
_KEYCTL_JOIN_SESSION_KEYRING = 1


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot, or None if there is none, or only a zombie.

    Together with the PID it names one process for good: PIDs come round again. Field 22 of /proc/PID/stat
    (proc(5)); counted from behind the command in parentheses, which may contain anything. Raises OSError.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the process with this PID and start_time(), or None if it is gone. Raises OSError."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Compared after opening: from here on the descriptor is this process whatever becomes of the number.
    if start_time(pid) == started:
        return descriptor
    os.close(descriptor)
    return None


def send_signal(pidfd: int, number: int) -> None:
    """Raises OSError; a process that is gone is fine."""
    try:
        call("pidfd_send_signal", pidfd, number, None, 0)
    except ProcessLookupError:
        return


def wait_for_end(pidfd: int, seconds: float) -> bool:
    """Whether the process ends within that time; it need not be a child. Raises OSError."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(min(max(0, int(seconds * 1000)), _LONGEST_WAIT)))


def die_with_parent() -> None:
    """Has the kernel kill us when the parent's thread ends; forgotten by fork and by a set-user-ID exec."""
    call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def is_read(descriptor: int) -> bool:
    """Whether what is written there may be read: of a pipe, that its other end is open (poll(2), POLLERR)."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return not poll.poll(0)


def forbid_tracing() -> None:
    """Shuts others out of our /proc entries and memory until the next exec (PR_SET_DUMPABLE)."""
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_capabilities() -> None:
    """The permitted set outlives a change from root to another user, until the next exec."""
    call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)


def forbid_new_privileges() -> None:
    """No exec gives more than we have, for good: set-user-ID bits and the like count nothing."""
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def close_from(first: int) -> None:
    """Closes every descriptor from ``first`` up. Raises OSError (close_range(2), since 5.9)."""
    call("close_range", first, 0xFFFFFFFF, 0)


def reset_signals() -> None:
    """Every signal as a new program expects it: not ignored, not blocked, with its default action
    (signal(7)).
    """
    for number in range(1, _SIGNALS + 1):
        try:
            call("signal", number, 0)
        except OSError:
            # EINVAL: SIGKILL, SIGSTOP, and those that libc keeps to itself.
            continue
    call("sigprocmask", _SIG_SETMASK, bytes(_SIGNAL_SET_SIZE), None)


def own_files_as(uid: int, gid: int) -> None:
    """Files that we make from here on belong to these ids; no capability goes for that (setfsuid(2),
    SECBIT_NO_SETUID_FIXUP in capabilities(7))."""
    call("prctl", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    call("setfsuid", uid)
    call("setfsgid", gid)


def adopt_orphans() -> None:
    """Makes us the parent of descendants whose own has ended (PR_SET_CHILD_SUBREAPER)."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_personality(domain: str) -> None:
    """LINUX, or LINUX32, which uname(2) tells a 32-bit machine in. Raises OSError (personality(2))."""
    call("personality", _PERSONALITIES[domain])


def leave_session_keyring() -> None:
    """Puts an empty session keyring in the place of the one inherited (keyctl(2)); a kernel without keyrings
    has none. Raises OSError."""
    try:
        call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def set_domainname(name: str) -> None:
    """Sets the NIS domain name of our UTS namespace. Raises OSError (setdomainname(2))."""
    encoded = name.encode()
    call("setdomainname", encoded, len(encoded))


def set_hostname(name: str) -> None:
    """Sets the host name of our UTS namespace. Raises OSError (sethostname(2))."""
    encoded = name.encode()
    call("sethostname", encoded, len(encoded))

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces: making them, entering them, telling them apart (namespaces(7))."""

from __future__ import annotations

import errno
import os

from .syscall import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Map = list[tuple[int, int, int]]
    """Ranges of ids: the first inside, the first outside, how many (user_namespaces(7))."""

FLAGS = {
    "time": 0x00000080,
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
"""The clone flag of each namespace, by its file in /proc/PID/ns (include/uapi/linux/sched.h)."""


def flags(*names: str) -> int:
    """The clone flags of these namespaces together."""
    return sum(FLAGS[name] for name in set(names))


def unshare(*names: str) -> None:
    """Moves the calling thread into new namespaces; with pid, its next child (unshare(2)). Raises OSError."""
    call("unshare", flags(*names))


def enter(descriptor: int, *names: str) -> None:
    """Moves the calling thread into the namespaces of ``descriptor``, an open namespace file or a pidfd.

    A pidfd enters all the ``names`` at once or none (setns(2), since Linux 5.8). Raises OSError.
    """
    call("setns", descriptor, flags(*names))


def open_file(path: str) -> int:
    """Opens a namespace's file, ``/run/netns/NAME`` or ``/proc/PID/ns/NAME``, for enter(). Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def new_user(uids: Map, gids: Map) -> int:
    """A new user namespace with these maps, as a descriptor for enter(), with nobody in it yet.

    Raises OSError, such as ENOSPC for /proc/sys/user/max_user_namespaces, EINVAL for maps that overlap.
    """
    with _Inhabitant(lambda: unshare("user")) as pid:
        for name, ranges in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write("".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges))
        return open_file(f"/proc/{pid}/ns/user")


def user_maps(descriptor: int) -> tuple[Map, Map]:
    """The maps of uids and gids of a user namespace, to the ids of ours. Raises OSError."""
    with _Inhabitant(lambda: enter(descriptor, "user")) as pid:
        uids, gids = (_read_map(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map"))
        return uids, gids


def _read_map(path: str) -> Map:
    with open(path, encoding="ascii") as file:
        lines = [line.split() for line in file.read().splitlines()]
    return [(int(inside), int(outside), int(count)) for inside, outside, count in lines]


class _Inhabitant:
    """Context manager: the PID of a process in another user namespace, which only is.

    The maps of one are written and read from outside, by way of a process that is in it: by its PID as /proc
    has it, which fork(2) does not tell in a PID namespace that /proc does not show.
    """

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move

    def __enter__(self) -> int:
        ready, came = os.pipe()
        self._leave, self._stay = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._stay)
            self._live(came)
        os.close(came)
        os.close(self._leave)
        told = os.read(ready, 32)
        os.close(ready)
        if told[:1] != b"\0":
            self.__exit__()
            code = told[0] if told else errno.EIO
            raise OSError(code, os.strerror(code), "user namespace")
        return int(told[1:])

    def __exit__(self, *_exception: object) -> None:
        os.close(self._stay)
        os.waitpid(self._pid, 0)

    def _live(self, came: int) -> None:
        """The process's whole life. Never returns."""
        try:
            number = os.readlink(b"/proc/self")
            self._move()
            os.write(came, b"\0" + number)
            os.read(self._leave, 1)
        except OSError as error:
            os.write(came, bytes([error.errno or errno.EIO]))
        finally:
            os._exit(0)


class inside:
    """Context manager: the calling thread is in another namespace of this kind, and comes back.

    Not for mnt, pid and user, whose entering is not undone so simply. Raises OSError.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name

    def __enter__(self) -> None:
        self._own = open_file(f"/proc/thread-self/ns/{self._name}")
        other = open_file(self._path)
        try:
            enter(other, self._name)
        finally:
            os.close(other)

    def __exit__(self, *_exception: object) -> None:
        enter(self._own, self._name)
        os.close(self._own)


def identity(path: str) -> tuple[int, int]:
    """Device and inode of a namespace's file, which tell it from all others. Raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino

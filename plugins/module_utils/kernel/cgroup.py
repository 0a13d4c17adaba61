# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups, version 2: control files, processes, events
(Documentation/admin-guide/cgroup-v2.rst, called cgroup-v2 here).

A cgroup is its directory. Files of a controller that is not enabled there do not exist.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from pathlib import Path

_DELEGATE = Path("/sys/kernel/cgroup/delegate")
_POLL_MILLISECONDS = 200


def read(cgroup: Path, file: str) -> str | None:
    """The text of a control file without its last newline, or None where there is no such file.

    ENODEV, for a cgroup that was removed after the file was opened, counts as none too. Raises OSError.
    """
    try:
        descriptor = os.open(cgroup / file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _read_all(descriptor).rstrip("\n")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise OSError(error.errno, error.strerror, str(cgroup / file)) from None
    finally:
        os.close(descriptor)


def write(cgroup: Path, file: str, value: str) -> None:
    """Writes ``value`` to a control file in one write(2), as the kernel wants it. Raises OSError."""
    path = cgroup / file
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # With the newline, as echo does: a write of nothing at all would not reach the kernel.
        os.write(descriptor, f"{value}\n".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


def files(cgroup: Path) -> list[str]:
    """The names of the control files that the cgroup has, sorted; empty where there is none."""
    try:
        return sorted(entry.name for entry in os.scandir(cgroup) if not entry.is_dir())
    except FileNotFoundError:
        return []


def keyed(text: str) -> dict[str, int]:
    """A flat keyed file such as memory.events, cpu.stat or cgroup.events (cgroup-v2, "Format")."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def with_descendants(cgroup: Path) -> list[Path]:
    """The cgroup and all below it, children before their parents; empty where there is none."""
    return [Path(directory) for directory, __, __ in os.walk(cgroup, topdown=False)]


def processes(cgroup: Path) -> list[int]:
    """The PIDs in the cgroup and below it; zombies are in none. Raises OSError."""
    found: set[int] = set()
    for each in with_descendants(cgroup):
        try:
            found.update(int(pid) for pid in (read(each, "cgroup.procs") or "").split())
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            found.update(_threaded_processes(each))
    return sorted(found)


def _threaded_processes(cgroup: Path) -> set[int]:
    """A threaded cgroup tells its threads only; whose they are is the Tgid in /proc/TID/status (proc(5))."""
    found: set[int] = set()
    for tid in (read(cgroup, "cgroup.threads") or "").split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{tid}/status").read_text(encoding="utf-8", errors="surrogateescape")
            found.update(int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:"))
    return found


def delegated_files() -> list[str]:
    """The control files that go to the user a cgroup is delegated to (cgroup-v2, "Model of Delegation")."""
    try:
        return _DELEGATE.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"]


def owners(cgroup: Path) -> list[int]:
    """The uids that own the cgroup's directory and those of its control files that are delegated, sorted.

    One alone has it delegated, or is root. Raises OSError.
    """
    return sorted({path.stat().st_uid for path in _delegated(cgroup)})


def delegate(cgroup: Path, uid: int) -> None:
    """Gives the cgroup to a user: its directory and the control files for that. Raises OSError."""
    for path in _delegated(cgroup):
        os.chown(path, uid, -1)


def _delegated(cgroup: Path) -> list[Path]:
    files_there = (cgroup / file for file in delegated_files())
    return [cgroup, *(path for path in files_there if path.exists())]


def wait_for(cgroup: Path, event: str, value: int, seconds: float) -> bool:
    """Whether ``event`` of cgroup.events (``populated``, ``frozen``) becomes ``value`` within that time.

    The kernel wakes a poll(2) for POLLPRI at each change. A cgroup that is gone is neither populated nor
    frozen. Raises OSError.
    """
    deadline = time.monotonic() + seconds
    try:
        descriptor = os.open(cgroup / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return value == 0
    try:
        changes = select.poll()
        changes.register(descriptor, select.POLLPRI)
        while keyed(_read_all(descriptor)).get(event) != value:
            if time.monotonic() > deadline:
                return False
            changes.poll(_POLL_MILLISECONDS)
        return True
    except OSError as error:
        if error.errno == errno.ENODEV:
            return value == 0
        raise
    finally:
        os.close(descriptor)


def set_frozen(cgroup: Path, frozen: bool, seconds: float) -> bool:
    """Stops or continues all processes in the cgroup and below; whether they are so within that time.

    Raises OSError.
    """
    write(cgroup, "cgroup.freeze", str(int(frozen)))
    return wait_for(cgroup, "frozen", int(frozen), seconds)


def kill(cgroup: Path, seconds: float) -> bool:
    """Sends SIGKILL to every process in the cgroup and below; whether all have ended within that time.

    Raises OSError.
    """
    try:
        write(cgroup, "cgroup.kill", "1")
    except OSError as error:
        # Before 5.14 there is no cgroup.kill, and a threaded cgroup does not take it.
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        _kill_one_by_one(cgroup, seconds)
    return wait_for(cgroup, "populated", 0, seconds)


def _kill_one_by_one(cgroup: Path, seconds: float) -> None:
    """Frozen, they fork no more while they are killed."""
    if not (cgroup / "cgroup.freeze").exists():
        return
    set_frozen(cgroup, True, seconds)
    for pid in processes(cgroup):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    set_frozen(cgroup, False, seconds)


def make(cgroup: Path) -> None:
    """Makes the cgroup in its parent, which exists; one that is there is fine. Raises OSError."""
    cgroup.mkdir(exist_ok=True)


def remove(cgroup: Path) -> None:
    """Removes the cgroup and all below it; none is fine. Raises OSError, EBUSY for one with processes."""
    for each in with_descendants(cgroup):
        with contextlib.suppress(FileNotFoundError):
            each.rmdir()


def _read_all(descriptor: int) -> str:
    """The whole text, from the start; a control file gives it in pieces of a page."""
    pieces: list[bytes] = []
    offset = 0
    while True:
        piece = os.pread(descriptor, 65536, offset)
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)
        offset += len(piece)

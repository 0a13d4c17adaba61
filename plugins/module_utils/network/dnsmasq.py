# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dnsmasq(8), of which there is one process for each bridge whose names it answers."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..converge import Failure
from ..kernel import file, proc, process
from .options import DYNAMIC

_PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Not the PATH of who calls: the command line of a running process is compared with what it would be."""

_PIDS = Path("/run")
_PREFIX, _SUFFIX = "bare-dns@", ".pid"
_SECONDS_TO_END = 5.0


def program() -> str:
    """The path of the program. Raises Failure."""
    found = shutil.which("dnsmasq", path=_PROGRAMS)
    if found is None:
        raise Failure(
            f"dns: {DYNAMIC!r} takes the program dnsmasq, which is not on this host; Debian has it in the "
            "package dnsmasq-base; nothing was changed."
        )
    return found


def words(
    bridge: str, folder: Path, subnets: Sequence[str], domain: str | None, *, forwards: bool
) -> list[str]:
    """The command line of the one that answers the names in ``folder``, in files as hosts(5), to whom asks it
    over the bridge. Raises Failure.

    Names without a dot, those in the domain and the addresses of the subnets are its own: what it does not
    know of them nobody does. All else it asks the resolvers of the host, when it ``forwards``.

    It binds to what the bridge has of addresses, now or later, and to nothing else (--bind-dynamic); by the
    link that a question comes in by it knows those of others, which get no answer (CVE-2012-3411). Of a file
    that has changed the kernel tells it (--hostsdir, inotify(7)).
    """
    return [
        program(),
        "--conf-file=/dev/null",
        f"--pid-file={pid_file(bridge)}",
        f"--user={_user()}",
        f"--interface={bridge}",
        "--except-interface=lo",
        "--bind-dynamic",
        "--no-hosts",
        f"--hostsdir={folder}",
        "--domain-needed",
        "--local=//",
        *(f"--rev-server={subnet}" for subnet in subnets),
        *([f"--domain={domain}", f"--local=/{domain}/", "--expand-hosts"] if domain else []),
        *([] if forwards else ["--no-resolv"]),
    ]


def _user() -> str:
    """The one that the packages of distributions make for it, or else the one of nobody."""
    try:
        return pwd.getpwnam("dnsmasq").pw_name
    except KeyError:
        return "nobody"


def pid_file(bridge: str) -> Path:
    """Where the process writes its PID, as root before it is another user."""
    return _PIDS / f"{_PREFIX}{bridge}{_SUFFIX}"


def bridges() -> list[str]:
    """Those of which there is such a file, sorted."""
    found = _PIDS.glob(f"{_PREFIX}*{_SUFFIX}")
    return sorted(path.name[len(_PREFIX) : -len(_SUFFIX)] for path in found)


def running(bridge: str) -> tuple[int, int, list[str]] | None:
    """PID, start time and command line of a bridge's process, or None.

    The file belongs to the user that the process is, which could write any PID there; but no other process
    has that file in its command line. Raises OSError.
    """
    try:
        pid = int(file.read_text(pid_file(bridge)) or "")
        started = process.start_time(pid)
        line = proc.command(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return (pid, started, line) if started and f"--pid-file={pid_file(bridge)}" in line else None


def start(line: Sequence[str]) -> None:
    """Starts it, and returns when it answers. Raises Failure."""
    # Its standard streams become /dev/null, but not before all is well.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        told = " ".join(done.stderr.split()).rstrip(".")
        raise Failure(f"{line[0]} ended with status {done.returncode}: {told}.")


def stop(bridge: str) -> None:
    """Ends the process, and removes its file; none is fine. Raises Failure, OSError."""
    found = running(bridge)
    pidfd = process.open_process(*found[:2]) if found else None
    if pidfd is not None:
        try:
            process.send_signal(pidfd, signal.SIGTERM)
            if not process.wait_for_end(pidfd, _SECONDS_TO_END):
                process.send_signal(pidfd, signal.SIGKILL)
                process.wait_for_end(pidfd, _SECONDS_TO_END)
        finally:
            os.close(pidfd)
    file.remove(pid_file(bridge))

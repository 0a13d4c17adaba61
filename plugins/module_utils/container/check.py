# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``launch check NAME``: runs a container's health check once, and keeps how it stands.

The bundle's health.json says what to run: {args, timeout, retries, start_period}, times in seconds. What came
of it is in the health.json of the container's folder in /run, {pid, start_time, status, failing_streak, at,
rc, output}, as long as that process runs. ``status`` is ``starting``, ``healthy`` or ``unhealthy``, as with
Docker and podman; ``rc`` is null for a command that did not end by itself, and ``output`` then the reason.
"""

from __future__ import annotations

import os
import sys
import time

from ..kernel import process
from . import bundle, enter
from .bundle import FAILED, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
NOT_HEALTHY = 1
"""The exit status that says so."""

_KEPT = 1000
_SIGNALLED = 128
_KILL = 9
_END_SECONDS = 2


def run(name: str) -> int:
    """Returns 0, NOT_HEALTHY, or FAILED where there is nothing to check, which standard error says.

    Standard output tells of a failure, and of a status that is another than before. Nothing is counted for a
    container that is paused, or ends meanwhile.
    """
    process.die_with_parent()
    try:
        return _check(name)
    except Refused as refused:
        reason = str(refused)
    except OSError as error:
        reason = f"healthcheck: {error.strerror} ({error.filename})"
    sys.stderr.write(f"{name}: {reason}.\n")
    return FAILED


def _check(name: str) -> int:
    run = f"{bundle.RUN}/{name}"
    declared = _declared(f"{bundle.CONTAINERS}/{name}/{bundle.HEALTH}")
    container = bundle.running(run)
    pidfd = process.open_process(*container) if container else None
    if container is None or pidfd is None:
        raise Refused(f"name: {name!r} is not running")
    if enter.is_paused(container[0]):
        return 0
    rc, output = _attempt(name, declared)
    # All processes of a container are killed with its first, which is the last of them to be gone.
    if process.wait_for_end(pidfd, _END_SECONDS if rc == _SIGNALLED + _KILL else 0):
        return 0
    try:
        lock = bundle.lock(run, make=False)
    except FileNotFoundError:
        return 0
    try:
        if bundle.running(run) != container:
            return 0
        before = read(run, container)
        after = judge(before, rc == 0, declared, _age(container[1]))
        bundle.write_file(f"{run}/{bundle.HEALTH}", _text(container, after, rc, output))
    finally:
        os.close(lock)
    if rc != 0 or after["status"] != before["status"]:
        how = "" if rc == 0 else f": {_told(rc, output)}"
        sys.stdout.write(f"{name} is {after['status']}{how}\n")
    return NOT_HEALTHY if after["status"] == UNHEALTHY else 0


def _declared(file: str) -> dict[str, Any]:
    try:
        declared = bundle.parse_json(bundle.read_file(file))
        return {name: declared[name] for name in ("args", "timeout", "retries", "start_period")}
    except FileNotFoundError:
        raise Refused("healthcheck: none is declared") from None
    except (KeyError, TypeError, ValueError):
        raise Refused(
            f"healthcheck: {file} is damaged, the module container_process writes it anew"
        ) from None


def judge(before: dict[str, Any], passed: bool, declared: dict[str, Any], age: float) -> dict[str, Any]:
    """How a container stands after one more check: ``status``, and ``failing_streak``, how many have failed
    in a row. ``age`` is how many seconds its process has run.

    A failure does not count while the container is starting, and its start period lasts; the first check
    that passes ends both.
    """
    if passed:
        return {"status": HEALTHY, "failing_streak": 0}
    if before["status"] == STARTING and age < declared["start_period"]:
        return before
    streak = before["failing_streak"] + 1
    status = UNHEALTHY if streak >= declared["retries"] else before["status"]
    return {"status": status, "failing_streak": streak}


def read(run: str, container: tuple[int, int]) -> dict[str, Any]:
    """What is kept in a container's folder in /run of the process with this PID and start time.

    Raises OSError.
    """
    try:
        kept = bundle.parse_json(bundle.read_file(f"{run}/{bundle.HEALTH}"))
        if (kept["pid"], kept["start_time"]) == container:
            return dict(kept)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        pass
    return {"status": STARTING, "failing_streak": 0}


def _attempt(name: str, declared: dict[str, Any]) -> tuple[int | None, str]:
    """Exit status and the end of the output, or None and why there is none."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    written = os.memfd_create("output")
    line = enter.attempt(
        {
            "name": name,
            "args": declared["args"],
            "env": [],
            "user": None,
            "cwd": None,
            "timeout": declared["timeout"],
            "stdio": [nothing, written, written],
        }
    )
    size = os.fstat(written).st_size
    output = os.pread(written, _KEPT, max(0, size - _KEPT)).decode("utf-8", "replace").strip()
    os.close(nothing)
    os.close(written)
    how, _blank, what = line.partition(" ")
    if how == "timeout":
        return None, f"it took longer than {declared['timeout']} seconds and was killed"
    if how == "failed":
        return None, what
    return int(what) + (_SIGNALLED if how == "killed" else 0), output


def _told(rc: int | None, output: str) -> str:
    if rc is None:
        return output
    last = output.rpartition("\n")[2]
    return f"the check ended with {rc}" + (f", saying {last!r}" if last else "")


def _age(started: int) -> float:
    """Seconds since a start time in the clock ticks of proc(5)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def _text(container: tuple[int, int], state: dict[str, Any], rc: int | None, output: str) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return (
        f'{{"pid": {container[0]}, "start_time": {container[1]}, "status": "{state["status"]}", '
        f'"failing_streak": {state["failing_streak"]}, "at": "{at}", '
        f'"rc": {"null" if rc is None else rc}, "output": {bundle.json_text(output)}}}\n'
    )

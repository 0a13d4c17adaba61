# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who watches a container's process: systemd where it is PID 1, else nobody but the kernel ("direct").

Both act for many containers at a time, with one program.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from .. import host, systemctl
from ..converge import Failure
from ..kernel import cgroup, file, process
from . import bundle, units
from .installation import LAUNCHER, run_launcher
from .state import running

Failures = Mapping[str, str]
"""One sentence for each container that something did not succeed for."""

_KILL_SECONDS = 10.0
_ENDED = ("inactive", "failed")
_HISTORY = ("NRestarts", "Result", "ExecMainCode", "ExecMainStatus", "ExecMainExitTimestampMonotonic")


@dataclass(frozen=True)
class Stop:
    """How a container is asked to end, before it is killed: a signal's number, and seconds.

    ``cgroup`` is where all its processes are, None where that is for systemd to know.
    """

    name: str
    signal: int
    timeout: int
    cgroup: Path | None = None


class Supervisor(Protocol):
    """``kind`` is the option's value."""

    kind: str

    def refresh(self, names: Iterable[str]) -> None:
        """Asks once for all what stale(), active() and failed() tell."""

    def stale(self, name: str) -> bool:
        """Whether the supervisor has yet to read what is written about the container."""

    def active(self, name: str) -> bool:
        """Whether the supervisor takes the container for started, or is about to start it again."""

    def failed(self, name: str) -> bool:
        """Whether the supervisor still knows the container as one that has failed, and is not active."""

    def checked(self, name: str) -> bool | None:
        """Whether a timer has the container's health checked; None while the container is not up."""

    def start(self, names: Sequence[str]) -> Failures:
        """Starts containers that do not run."""

    def stop(self, stops: Sequence[Stop]) -> Failures:
        """Stops containers, all at a time; those that do not run are fine."""

    def freeze(self, stop: Stop, frozen: bool) -> None:
        """Has all processes of a container stand still, or go on. Raises Failure, OSError."""

    def start_commands(self, name: str, *, checked: bool) -> tuple[str, ...]:
        """``checked`` is whether it has a check that is made by the clock."""

    def stop_commands(self, stop: Stop) -> tuple[str, ...]: ...

    def freeze_commands(self, stop: Stop, frozen: bool) -> tuple[str, ...]: ...

    def facts(self, name: str) -> dict[str, Any]:
        """``restarts``, how often it was started again by itself, and ``last_exit``, how it ended the last
        time, while it does not run: ``status`` or ``signal``, ``result`` (systemd.exec(5), SERVICE_RESULT),
        and ``at``. None each where nobody counts."""


class Direct:
    """One launcher for all that is to be started. The processes' parent is then the host's init."""

    kind = "direct"

    def refresh(self, names: Iterable[str]) -> None:
        pass

    def stale(self, name: str) -> bool:
        return False

    def active(self, name: str) -> bool:
        return running(name) is not None

    def failed(self, name: str) -> bool:
        return False

    def checked(self, name: str) -> bool | None:
        return None

    def start(self, names: Sequence[str]) -> Failures:
        return _told(run_launcher("start", *names), names)

    def stop(self, stops: Sequence[Stop]) -> Failures:
        """Asks all, waits for each until its own time is up, kills those that are left with all they have
        started."""
        began = time.monotonic()
        pidfds = {stop: pidfd for stop in stops for pidfd in [_open(stop.name)] if pidfd is not None}
        for stop, pidfd in pidfds.items():
            process.send_signal(pidfd, stop.signal)
        failures = {}
        for stop, pidfd in sorted(pidfds.items(), key=lambda item: item[0].timeout):
            if not process.wait_for_end(pidfd, began + stop.timeout - time.monotonic()):
                process.send_signal(pidfd, _SIGKILL)
            ended = stop.cgroup is None or cgroup.kill(stop.cgroup, _KILL_SECONDS)
            if not ended or not process.wait_for_end(pidfd, _KILL_SECONDS):
                failures[stop.name] = f"Killed, it has not ended within {_KILL_SECONDS:g} seconds."
            os.close(pidfd)
        return {**failures, **_end([stop.name for stop in stops if stop.name not in failures])}

    def freeze(self, stop: Stop, frozen: bool) -> None:
        if stop.cgroup is not None and not cgroup.set_frozen(stop.cgroup, frozen, _KILL_SECONDS):
            raise Failure(f"state: {stop.name} did not {'pause' if frozen else 'go on'} in time.")

    def start_commands(self, name: str, *, checked: bool) -> tuple[str, ...]:
        return (shlex.join([LAUNCHER, "start", name]),)

    def stop_commands(self, stop: Stop) -> tuple[str, ...]:
        run = host.RUN / stop.name
        read = f"pid=$(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' {run}/state.json)"
        ask = f"kill -{stop.signal} $pid"
        # A timeout of 0 is none to timeout(1).
        wait = f"timeout {stop.timeout} tail --pid=$pid -f /dev/null || " if stop.timeout else ""
        kill = f"echo 1 > {stop.cgroup}/cgroup.kill" if stop.cgroup else "kill -KILL $pid"
        wait += f"{kill} && tail --pid=$pid -f /dev/null"
        return (f"{read}; {ask}; {wait}; rm -f {run}/state.json {run}/config.json {run}/{bundle.FILTER}",)

    def freeze_commands(self, stop: Stop, frozen: bool) -> tuple[str, ...]:
        return (f"echo {int(frozen)} > {stop.cgroup}/cgroup.freeze",)

    def facts(self, name: str) -> dict[str, Any]:
        return {"restarts": None, "last_exit": None}


class Systemd:
    """One unit for each container; start, stop and the question what is active are one systemctl for all."""

    kind = "systemd"

    def __init__(self) -> None:
        self._shown: dict[str, dict[str, str]] = {}

    def refresh(self, names: Iterable[str]) -> None:
        asked = [unit for name in names for unit in (host.unit(name), *_check_units(name))]
        self._shown = systemctl.show(asked, "ActiveState", "NeedDaemonReload", *_HISTORY)

    def stale(self, name: str) -> bool:
        shown = (self._shown.get(unit, {}) for unit in units.names(name))
        return any(unit.get("NeedDaemonReload") == "yes" for unit in shown)

    def active(self, name: str) -> bool:
        return self._shown[host.unit(name)]["ActiveState"] not in _ENDED

    def failed(self, name: str) -> bool:
        return self._shown[host.unit(name)]["ActiveState"] == "failed"

    def checked(self, name: str) -> bool | None:
        if self._shown[host.unit(name)]["ActiveState"] != "active":
            return None
        return self._shown.get(units.check_timer(name), {}).get("ActiveState") == "active"

    def start(self, names: Sequence[str]) -> Failures:
        containers = [host.unit(name) for name in names]
        timers = [units.check_timer(name) for name in names if _check_units(name)]
        try:
            systemctl.systemctl("restart", *containers, *timers)
        except Failure:
            shown = systemctl.show(containers, "ActiveState", "StatusText", "Result")
            failed = [name for name in names if shown[host.unit(name)]["ActiveState"] != "active"]
            self._end([host.unit(name) for name in failed])
            return {name: _reason(name, shown[host.unit(name)]) for name in failed}
        return {}

    def stop(self, stops: Sequence[Stop]) -> Failures:
        failure = self._end([host.unit(stop.name) for stop in stops])
        return dict.fromkeys((stop.name for stop in stops), str(failure)) if failure else {}

    def _end(self, ended: Sequence[str]) -> Failure | None:
        """Stops units, and has systemd forget that they failed: one that had to be killed counts as such, and
        would stay known after its file is gone."""
        failure = None
        try:
            systemctl.systemctl("stop", *ended)
        except Failure as told:
            failure = told
        with contextlib.suppress(Failure):  # It complains of those that it has forgotten already.
            systemctl.systemctl("reset-failed", *ended)
        return failure

    def start_commands(self, name: str, *, checked: bool) -> tuple[str, ...]:
        timer = f" {units.check_timer(name)}" if checked else ""
        return (f"systemctl restart {host.unit(name)}{timer}",)

    def stop_commands(self, stop: Stop) -> tuple[str, ...]:
        unit = host.unit(stop.name)
        return (f"systemctl stop {unit}", f"systemctl reset-failed {unit} 2>/dev/null || true")

    def freeze(self, stop: Stop, frozen: bool) -> None:
        systemctl.systemctl("freeze" if frozen else "thaw", host.unit(stop.name))

    def facts(self, name: str) -> dict[str, Any]:
        shown = self._shown[host.unit(name)]
        return {"restarts": int(shown["NRestarts"]), "last_exit": _last_exit(shown)}

    def freeze_commands(self, stop: Stop, frozen: bool) -> tuple[str, ...]:
        return (f"systemctl {'freeze' if frozen else 'thaw'} {host.unit(stop.name)}",)


_SIGKILL = 9


def _end(names: Sequence[str]) -> Failures:
    """What is to be done for containers that have ended: their hooks, if any, and what tells of them goes."""
    hooked = []
    for name in names:
        config = json.loads(file.read_text(host.RUN / name / "config.json") or "{}")
        if bundle.has_hooks(config, "poststop"):
            hooked.append(name)
        else:
            bundle.forget_run(str(host.RUN / name))
    done = run_launcher("poststop", *hooked) if hooked else None
    return _told(done, hooked) if done else {}


def _check_units(name: str) -> tuple[str, ...]:
    """The units of a container's check, of one that has them."""
    return units.names(name)[1:] if os.path.lexists(units.path(units.check_timer(name))) else ()


def _open(name: str) -> int | None:
    found = running(name)
    return process.open_process(*found) if found else None


def _told(done: subprocess.CompletedProcess[str], names: Sequence[str]) -> Failures:
    """What the launcher has said of each container, or of all where it has crashed."""
    if done.returncode == 0:
        return {}
    lines = dict(line.split(": ", 1) for line in done.stderr.splitlines() if ": " in line)
    if any(name in lines for name in names):
        return {name: lines[name] for name in names if name in lines}
    told = " ".join(done.stderr.split())
    return dict.fromkeys(names, f"{LAUNCHER} ended with status {done.returncode}: {told}")


def _last_exit(shown: Mapping[str, str]) -> dict[str, Any] | None:
    """The end of a unit's main process; None while it runs, or where systemd knows of none."""
    ended = int(shown["ExecMainExitTimestampMonotonic"]) / 1e6
    if not ended:
        return None
    at = datetime.fromtimestamp(time.time() - time.monotonic() + ended, timezone.utc)
    number = int(shown["ExecMainStatus"])
    exited = int(shown["ExecMainCode"]) == os.CLD_EXITED
    how = {"status": number} if exited else {"signal": signal.Signals(number).name}
    return {**how, "result": shown["Result"], "at": at.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _reason(name: str, shown: Mapping[str, str]) -> str:
    """The launcher's own sentence, or what systemd knows."""
    return shown["StatusText"] or (
        f"systemd did not start {host.unit(name)} (result: {shown['Result']}); "
        f"'journalctl -u {host.unit(name)}' has its output."
    )

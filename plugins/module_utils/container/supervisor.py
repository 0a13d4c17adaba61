# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who watches a container's process: systemd where it is PID 1, else nobody but the kernel ("direct").

Both act for many containers at a time, with one program.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import host, systemctl
from ..converge import Failure
from ..kernel import file, process
from . import bundle
from .installation import LAUNCHER, run_launcher

Failures = Mapping[str, str]
"""One sentence for each container that something did not succeed for."""

_START_SECONDS = 60
_KILL_SECONDS = 10.0
_RESTART = {"no": "no", "on-failure": "on-failure", "always": "always", "unless-stopped": "always"}
_ENDED = ("inactive", "failed")


@dataclass(frozen=True)
class Stop:
    """How a container is asked to end, before it is killed: a signal's number, and seconds."""

    name: str
    signal: int
    timeout: int


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

    def start(self, names: Sequence[str]) -> Failures:
        """Starts containers that do not run."""

    def stop(self, stops: Sequence[Stop]) -> Failures:
        """Stops containers, all at a time; those that do not run are fine."""

    def start_commands(self, name: str) -> tuple[str, ...]: ...

    def stop_commands(self, stop: Stop) -> tuple[str, ...]: ...


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

    def start(self, names: Sequence[str]) -> Failures:
        done = run_launcher("start", *names)
        told = dict(line.split(": ", 1) for line in done.stderr.splitlines() if ": " in line)
        return {name: told[name] for name in names if name in told} or _crash(done, names)

    def stop(self, stops: Sequence[Stop]) -> Failures:
        """Asks all, waits for each until its own time is up, kills those that are left."""
        began = time.monotonic()
        pidfds = {stop: pidfd for stop in stops for pidfd in [_open(stop.name)] if pidfd is not None}
        for stop, pidfd in pidfds.items():
            process.send_signal(pidfd, stop.signal)
        failures = {}
        for stop, pidfd in sorted(pidfds.items(), key=lambda item: item[0].timeout):
            if not process.wait_for_end(pidfd, began + stop.timeout - time.monotonic()):
                process.send_signal(pidfd, _SIGKILL)
                if not process.wait_for_end(pidfd, _KILL_SECONDS):
                    failures[stop.name] = f"Killed, it has not ended within {_KILL_SECONDS:g} seconds."
            os.close(pidfd)
        for stop in stops:
            if stop.name not in failures:
                for name in ("state.json", "config.json"):
                    file.remove(host.RUN / stop.name / name)
        return failures

    def start_commands(self, name: str) -> tuple[str, ...]:
        return (shlex.join([LAUNCHER, "start", name]),)

    def stop_commands(self, stop: Stop) -> tuple[str, ...]:
        run = host.RUN / stop.name
        read = f"pid=$(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' {run}/state.json)"
        ask = f"kill -{stop.signal} $pid"
        # A timeout of 0 is none to timeout(1).
        wait = f"timeout {stop.timeout} tail --pid=$pid -f /dev/null || " if stop.timeout else ""
        wait += "kill -KILL $pid && tail --pid=$pid -f /dev/null"
        return (f"{read}; {ask}; {wait}; rm -f {run}/state.json {run}/config.json",)


class Systemd:
    """One unit for each container; start, stop and the question what is active are one systemctl for all."""

    kind = "systemd"

    def __init__(self) -> None:
        self._shown: dict[str, dict[str, str]] = {}

    def refresh(self, names: Iterable[str]) -> None:
        units = [host.unit(name) for name in names]
        self._shown = systemctl.show(units, "ActiveState", "NeedDaemonReload")

    def stale(self, name: str) -> bool:
        return self._shown[host.unit(name)]["NeedDaemonReload"] == "yes"

    def active(self, name: str) -> bool:
        return self._shown[host.unit(name)]["ActiveState"] not in _ENDED

    def failed(self, name: str) -> bool:
        return self._shown[host.unit(name)]["ActiveState"] == "failed"

    def start(self, names: Sequence[str]) -> Failures:
        units = [host.unit(name) for name in names]
        try:
            systemctl.systemctl("restart", *units)
        except Failure:
            shown = systemctl.show(units, "ActiveState", "StatusText", "Result")
            failed = [name for name in names if shown[host.unit(name)]["ActiveState"] != "active"]
            self._end([host.unit(name) for name in failed])
            return {name: _reason(name, shown[host.unit(name)]) for name in failed}
        return {}

    def stop(self, stops: Sequence[Stop]) -> Failures:
        failure = self._end([host.unit(stop.name) for stop in stops])
        return dict.fromkeys((stop.name for stop in stops), str(failure)) if failure else {}

    def _end(self, units: Sequence[str]) -> Failure | None:
        """Stops units, and has systemd forget that they failed: one that had to be killed counts as such, and
        would stay known after its file is gone."""
        failure = None
        try:
            systemctl.systemctl("stop", *units)
        except Failure as told:
            failure = told
        with contextlib.suppress(Failure):  # It complains of those that it has forgotten already.
            systemctl.systemctl("reset-failed", *units)
        return failure

    def start_commands(self, name: str) -> tuple[str, ...]:
        return (f"systemctl restart {host.unit(name)}",)

    def stop_commands(self, stop: Stop) -> tuple[str, ...]:
        unit = host.unit(stop.name)
        return (f"systemctl stop {unit}", f"systemctl reset-failed {unit} 2>/dev/null || true")


def unit_text(declared: Mapping[str, Any]) -> str:
    """The container's unit (systemd.service(5)).

    The launcher is the service's first process and hands over to the container's (MAINPID=, sd_notify(3)).
    What it refuses to start is not tried again (RestartPreventExitStatus); what ends is, as the policy says,
    without giving up.
    """
    name = declared["name"]
    return f"""\
# Kept by the module bare.containers.container_process, which undoes what is changed here.
[Unit]
Description=Container {name}
Wants=bare-network.service
After=bare-network.service
RequiresMountsFor={host.STATE}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart={LAUNCHER} start {name}
SyslogIdentifier={name}
Delegate=yes
OOMPolicy=continue
TimeoutStartSec={_START_SECONDS}
KillMode=mixed
KillSignal={declared["stop_signal"]}
TimeoutStopSec={declared["stop_timeout"] or "1ms"}
Restart={_RESTART[declared["restart_policy"]]}
RestartSec=1
RestartPreventExitStatus={bundle.FAILED}

[Install]
WantedBy=multi-user.target
"""


def unit_path(name: str) -> Path:
    return systemctl.UNITS / host.unit(name)


def wants_path(name: str) -> Path:
    """The link by which the container is started at boot."""
    return systemctl.wants_link(host.unit(name))


def log_path(name: str) -> Path:
    """Where the output of a container goes that systemd does not watch."""
    return Path(bundle.LOGS) / f"{name}.log"


def running(name: str) -> tuple[int, int] | None:
    """PID and start time of the container's first process, or None; one being started is waited for.

    Raises OSError, Failure.
    """
    try:
        descriptor = os.open(host.RUN / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        _wait_for_launcher(descriptor, name)
        return bundle.running(str(host.RUN / name))
    except (KeyError, TypeError, ValueError):
        path = host.RUN / name / "state.json"
        raise Failure(f"{path} is damaged; remove it once the container is stopped.") from None
    finally:
        os.close(descriptor)


def _wait_for_launcher(descriptor: int, name: str) -> None:
    """The launcher and the process it starts hold the folder until exec, or their end (bundle.lock())."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failure(f"{name} is still being started after {_START_SECONDS} seconds.") from None
            time.sleep(0.01)


_SIGKILL = 9


def _open(name: str) -> int | None:
    found = running(name)
    return process.open_process(*found) if found else None


def _crash(done: subprocess.CompletedProcess[str], names: Sequence[str]) -> Failures:
    if done.returncode == 0:
        return {}
    told = " ".join(done.stderr.split())
    return dict.fromkeys(names, f"{LAUNCHER} ended with status {done.returncode}: {told}")


def _reason(name: str, shown: Mapping[str, str]) -> str:
    """The launcher's own sentence, or what systemd knows."""
    return shown["StatusText"] or (
        f"systemd did not start {host.unit(name)} (result: {shown['Result']}); "
        f"'journalctl -u {host.unit(name)}' has its output."
    )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in running containers, with the containers' cgroups, namespaces and privileges: ``launch exec``.

Each command has an attendant, a child of the launcher that enters the container's namespaces through its
pidfd and forks the command there (who enters a PID namespace is not in it, only its children are, setns(2)).
The attendant waits for the command, kills what is left of it when its time is up, and says in one line what
became of it: ``exited STATUS``, ``killed SIGNAL``, ``timeout`` or ``failed SENTENCE``.
"""

from __future__ import annotations

import os
import time

from ..kernel import mount, namespace, process
from . import bundle, privileges
from .bundle import FAILED, Refused, Report
from .identity import become_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAMESPACES = ("user", "mnt", "uts", "ipc", "net", "cgroup", "pid", "time")
_VERDICTS = 1
_REPORT = 3
_SENTENCE = 3000
_KILL = 9
_KILLS = 500
_KILL_PAUSE = 0.01


def run(descriptor: int) -> int:
    """Runs in order what the JSON in ``descriptor`` asks for, and returns 0.

    It is a list of requests (attempt()). Standard output has a line for each: its number, a blank, and what
    became of it.
    """
    _end_with_asker(_VERDICTS)
    with open(descriptor, encoding="utf-8") as file:
        requests = bundle.parse_json(file.read())
    for number, request in enumerate(requests):
        os.write(_VERDICTS, f"{number} {attempt(request)}\n".encode())
    return 0


def _end_with_asker(answers: int) -> None:
    """Ends when the one does who reads ``answers``, or where it has done so before we could see to that."""
    process.die_with_parent()
    if not process.is_read(answers):
        os._exit(FAILED)


def attempt(request: dict[str, Any], act: Callable[[], None] | None = None) -> str:
    """Runs one command to its end, and returns the attendant's line.

    ``request`` is {name, args, env, user, cwd, timeout, stdio}. ``stdio`` are three descriptors of ours;
    ``user``, ``cwd`` and ``timeout`` (seconds) may be null. ``act`` is done in the place of the command, by
    a process that is in the container and its user like that; it raises OSError or Refused for a failure.
    """
    reader, writer = os.pipe()
    attendant = os.fork()
    if attendant == 0:
        os.close(reader)
        _attend(request, act, writer)
    os.close(writer)
    line = os.read(reader, _SENTENCE)
    os.close(reader)
    os.waitpid(attendant, 0)
    return line.decode("utf-8", "replace") or "failed its attendant was killed"


def is_paused(pid: int) -> bool:
    """Whether the cgroup that the process is in stands still. Raises OSError, Refused."""
    return "frozen 1" in bundle.read_file(f"{_find_cgroup(pid)}/cgroup.events").splitlines()


def _attend(request: dict[str, Any], act: Callable[[], None] | None, told: int) -> None:
    """The attendant's whole life. Never returns."""
    try:
        _end_with_asker(told)
        line = _Visit(request, act).result()
    except Refused as refused:
        line = f"failed {refused}"
    except OSError as error:
        line = f"failed {error.strerror}"
    except BaseException as error:
        line = f"failed {type(error).__name__}: {error}"
    try:
        os.write(told, bundle.one_line(line).encode("utf-8", "backslashreplace")[:_SENTENCE])
    finally:
        os._exit(0)


class _Visit:
    """One command in one container."""

    def __init__(self, request: dict[str, Any], act: Callable[[], None] | None) -> None:
        self._request = request
        self._act = act
        self._report = Report()
        run = f"{bundle.RUN}/{request['name']}"
        state = bundle.running(run)
        container = process.open_process(*state) if state else None
        if state is None or container is None:
            raise Refused(f"name: {request['name']!r} is not running")
        self._config = bundle.parse_json(bundle.read_file(f"{run}/config.json"))
        self._filter = bundle.read_filter(run, self._config)
        self._cgroup = _open_cgroup(state[0])
        self._host_processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        privileges.schedule(self._config["process"], self._report)
        privileges.raise_limits(self._config["process"].get("rlimits", []))
        bundle.forget_modules()
        others = _differing(state[0])
        namespace.enter(container, *others)
        if "user" in others:
            become_root()

    def result(self) -> str:
        """Runs the command to its end and says how it ended. Raises OSError."""
        child = os.fork()
        if child == 0:
            self._become_command()
        failure = self._report.outcome()
        if failure:
            os.waitpid(child, 0)
            return f"failed {failure}"
        timeout = self._request["timeout"]
        if timeout is not None and not process.wait_for_end(os.pidfd_open(child), timeout):
            _kill_tree(child, self._host_processes)
            os.waitpid(child, 0)
            return "timeout"
        _child, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return f"killed {os.WTERMSIG(status)}"
        return f"exited {os.WEXITSTATUS(status)}"

    def _become_command(self) -> None:
        """Never returns."""
        try:
            self._report.close_reader()
            self._report.step = "session"
            os.setsid()
            for number, descriptor in enumerate(self._request["stdio"]):
                os.dup2(descriptor, number)
            self._report.step = "cgroup"
            os.write(self._cgroup, b"0")
            self._report.step = "user"
            account = privileges.account_of(
                os.open("/", os.O_PATH | os.O_CLOEXEC), self._config, self._request["user"]
            )
            declared = {**self._config["process"], "args": self._request["args"]}
            privileges.label(declared, self._host_processes, self._report)
            self._report.move_to(_REPORT)
            process.close_from(_REPORT + 1)
            process.leave_session_keyring()
            personality = self._config["linux"].get("personality")
            if personality:
                process.set_personality(personality["domain"])
            self._report.step = "ulimit"
            privileges.limit_resources(declared.get("rlimits", []))
            # The filter is for the container's programs; it may refuse what opens a file for ``act``.
            program = None if self._act is not None else self._filter
            privileges.become(account, privileges.for_account(declared, account), program, self._report)
            process.die_with_parent()
            privileges.enter_directory(self._request["cwd"] or declared["cwd"], self._report)
            if self._act is not None:
                self._act()
                self._report.before_exec()
                os._exit(0)
            own = [*declared.get("env", []), *self._request["env"]]
            environment = privileges.environment_of(own, account)
            privileges.execute(declared, environment, self._filter, self._report)
        except BaseException as error:
            self._report.failed(error)
        finally:
            os._exit(FAILED)


def _differing(pid: int) -> list[str]:
    """The namespaces of the process that are not ours: there is no entering of the own user namespace. Raises
    OSError."""
    return [
        name
        for name in _NAMESPACES
        if os.path.exists(f"/proc/{pid}/ns/{name}")
        and namespace.identity(f"/proc/{pid}/ns/{name}") != namespace.identity(f"/proc/self/ns/{name}")
    ]


def _open_cgroup(pid: int) -> int:
    """The ``cgroup.procs`` of the cgroup that the process is in (cgroups(7)). Raises OSError, Refused."""
    if is_paused(pid):
        raise Refused("name: the container is paused, and a command in it would be too")
    return os.open(f"{_find_cgroup(pid)}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)


def _find_cgroup(pid: int) -> str:
    top = mount.find("cgroup2")
    if top is None:
        raise Refused("cgroup: no cgroup2 file system is mounted on this host")
    return top + bundle.cgroup_of(pid)


def _kill_tree(child: int, processes: int) -> None:
    """Kills a command with all its descendants and its whole session; ``processes`` is the host's /proc.

    Again until none is left, as some may just be forked; what the kernel can't end is left. Raises OSError.
    """
    for _attempt in range(_KILLS):
        family = {child}
        table = _process_table(processes)
        for _generation in table:
            more = {pid for pid, parent, session in table if parent in family or session == child}
            if more <= family:
                break
            family |= more
        alive = family & {pid for pid, _parent, _session in table}
        for pid in alive:
            os.kill(pid, _KILL)
        if alive <= {child}:
            return
        time.sleep(_KILL_PAUSE)


def _process_table(processes: int) -> list[tuple[int, int, int]]:
    """PID, parent's PID and session of every living process (proc(5), /proc/PID/stat)."""
    table = []
    for name in os.listdir(processes):
        if not name.isdecimal():
            continue
        try:
            descriptor = os.open(f"{name}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
        except FileNotFoundError:
            continue
        try:
            state, parent, _group, session = os.read(descriptor, 4096).rpartition(b")")[2].split()[:4]
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
        if state not in (b"Z", b"X"):
            table.append((int(name), int(parent), int(session)))
    return table

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's first process, between fork and exec: what the launcher's child does, in order."""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from ..kernel import namespace, path, process
from . import bundle, hooks, privileges, terminal
from . import config as configuration
from .bundle import FAILED, Refused, Report
from .filesystem import Root
from .identity import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMESPACES = {
    "mount": "mnt",
    "network": "net",
    "pid": "pid",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}
"""The kernel's name for each namespace of the OCI runtime spec (config-linux, namespaces)."""

_OF_CHILDREN = ("pid", "time")
"""Those that only children of who makes or enters them are in (pid_namespaces(7), time_namespaces(7))."""

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE_NAME_SIZE = 16
_REPORT = 3
_AHEAD = b"."


class Init:
    """One container's first process, prepared on the host by open_all() and begun by fork().

    Without a user namespace of its own it is one process that does everything. With one, a process before it
    does what takes the host's privileges, gives them up by entering the user namespace, makes from there the
    PID namespace and in it the first process, and ends.
    """

    def __init__(self, name: str, root: str, config: dict[str, Any], report: Report) -> None:
        self.log: int | None = None
        """Where its output goes: a descriptor, or None for where the launcher's goes."""
        self.cgroup: int | None = None
        """Its cgroup's directory: a descriptor, or None for the launcher's own cgroup."""
        self.console: int | None = None
        """A connection that its terminal is handed over to, if it has one."""
        self.filter: bundle.Filter | None = None
        """Its compiled seccomp filter."""
        self._name = name
        self._state = ""
        self._config = config
        self._process = config["process"]
        self._report = report
        self._joined: dict[str, int] = {}
        self._new = [_NAMESPACES[kind] for kind in configuration.new_namespaces(config) if kind != "user"]
        self._place = root

    def open_all(self) -> None:
        """Opens, before the fork, what is the host's. Raises OSError, Refused."""
        self._report.step = "user namespace"
        self.identity = Identity(self._config)
        for kind, place in configuration.joined_namespaces(self._config).items():
            if kind == "user":
                continue
            self._report.step = f"{kind} namespace"
            name = _NAMESPACES[kind]
            self._joined[name] = namespace.open_file(place)
            own = namespace.identity(place) == namespace.identity(f"/proc/self/ns/{name}")
            if own and self._config["linux"].get("sysctl") and kind in ("network", "ipc", "uts"):
                raise Refused(f"linux.sysctl: the {kind} namespace at {place} is the host's own")
        self._root = Root(self._place, self._config, self.identity, self._report)

    def close_all(self) -> None:
        """Closes, in the parent, what only the first process needs."""
        for descriptor in (*self._joined.values(), self.log, self.cgroup, self.console):
            if descriptor is not None:
                os.close(descriptor)
        self.identity.close()

    def fork(self, go: int, wait: int, ready: int) -> int:
        """Forks the first process and returns its PID, 0 where there is none and the report has the reason.

        It reads a byte from the pipe ``wait``, which ``go`` is the other end of, before it goes on from each
        stop, and ends when that closes; where hooks are to be run it writes one to ``ready``. Raises OSError.
        """
        if self.identity.mapped:
            return self._fork_through_user_namespace(go, wait, ready)
        own = {name: namespace.open_file(f"/proc/self/ns/{name}") for name in self._of_children()}
        self._enter_for_children(self._open_time_offsets())
        pid = os.fork()
        if pid == 0:
            os.close(go)
            self._run(wait, ready)
        for name, descriptor in own.items():
            namespace.enter(descriptor, name)
            os.close(descriptor)
        return pid

    def _fork_through_user_namespace(self, go: int, wait: int, ready: int) -> int:
        reader, writer = os.pipe()
        process.adopt_orphans()
        helper = os.fork()
        if helper == 0:
            os.close(go)
            os.close(reader)
            self._prepare_as_host(wait, ready, writer)
        os.close(writer)
        told = os.read(reader, 16)
        os.close(reader)
        os.waitpid(helper, 0)
        return int(told or b"0")

    def _prepare_as_host(self, wait: int, ready: int, told: int) -> None:
        """The life of the process before the first. Never returns."""
        try:
            self._report.close_reader()
            os.umask(0)
            self._join()
            self._report.step = "namespaces"
            namespace.unshare("mnt")
            self._root.mount()
            self._root.build_as_host()
            self._report.step = "user namespace"
            privileges.raise_limits(self._process.get("rlimits", []))
            offsets = self._open_time_offsets()
            self.identity.enter()
            self._enter_for_children(offsets)
            pid = os.fork()
            if pid == 0:
                os.close(told)
                self._run(wait, ready)
            os.write(told, str(pid).encode())
        except BaseException as error:
            self._report.failed(error)
        finally:
            os._exit(0)

    def _of_children(self) -> list[str]:
        return [name for name in _OF_CHILDREN if name in self._new or name in self._joined]

    def _open_time_offsets(self) -> int:
        """The file that sets the clocks of a new time namespace, while /proc is the host's own."""
        return os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC) if "time" in self._new else -1

    def _enter_for_children(self, offsets: int) -> None:
        """Our next child is in these namespaces."""
        self._report.step = "namespaces"
        for name in self._of_children():
            if name in self._joined:
                namespace.enter(self._joined[name], name)
            else:
                namespace.unshare(name)
        clocks = self._config["linux"].get("timeOffsets", {})
        if clocks:
            self._report.step = "time offsets"
            for clock, offset in clocks.items():
                os.write(offsets, f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n".encode())

    def _run(self, wait: int, ready: int) -> None:
        """Becomes the command. Never returns."""
        try:
            self._begin()
            root = self._build()
            account = self._find_account(root)
            self._report.step = "hooks"
            if bundle.has_hooks(self._config, "prestart", "createRuntime"):
                os.write(ready, _AHEAD)
                if not os.read(wait, 1):
                    return
            if bundle.has_hooks(self._config, "createContainer", "startContainer"):
                number = int(os.readlink("/proc/self"))
                self._state = bundle.state_text(self._name, self._config, "created", number)
            hooks.run(self._config, "createContainer", self._state)
            self._label()
            bundle.forget_modules()
            self._root.pivot()
            if os.read(wait, 1):
                self._become_command(account)
        except BaseException as error:
            self._report.failed(error)
        finally:
            os._exit(FAILED)

    def _begin(self) -> None:
        """Takes a session of its own, and what of the host's privileges there are to be used."""
        if not self.identity.mapped:
            self._report.close_reader()
        self._report.step = "session"
        os.setsid()
        process.leave_session_keyring()
        os.umask(0)
        if self.log is not None:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(self.log, 1)
            os.dup2(self.log, 2)
        if not self.identity.mapped:
            self._join()
        self._report.step = "namespaces"
        new = [name for name in self._new if name not in _OF_CHILDREN]
        namespace.unshare(*new)
        if "net" in new:
            self._report.step = "loopback interface"
            _bring_up_loopback()
        if "hostname" in self._config:
            self._report.step = "hostname"
            process.set_hostname(self._config["hostname"])
        if "domainname" in self._config:
            self._report.step = "domainname"
            process.set_domainname(self._config["domainname"])
        for key, value in self._config["linux"].get("sysctl", {}).items():
            self._report.step = f"sysctl: {key}"
            _write("/proc/sys/" + key.replace(".", "/"), value)

    def _join(self) -> None:
        """Enters the cgroup and the namespaces that are there already, and takes on what a user namespace has
        no privilege for."""
        report = self._report
        if "oomScoreAdj" in self._process:
            report.step = "oom_score_adj"
            _write("/proc/self/oom_score_adj", str(self._process["oomScoreAdj"]))
        if self.cgroup is not None:
            report.step = "cgroup"
            _write("cgroup.procs", "0", directory=self.cgroup)
        for name, descriptor in self._joined.items():
            if name not in _OF_CHILDREN:
                report.step = f"namespace {name}"
                namespace.enter(descriptor, name)
        privileges.schedule(self._process, report)

    def _build(self) -> int:
        """The new root, complete, as a descriptor."""
        if self.identity.mapped:
            self._root.enter_copy()
        else:
            self._root.mount()
        self._root.build()
        if self._process.get("terminal"):
            self._report.step = "terminal"
            master, slave = terminal.open_pair(self._root.descriptor)
            terminal.mount_console(self._root.descriptor, slave)
            terminal.hand_over(self.console or 0, master)
            terminal.take(slave, self._process.get("consoleSize"))
        return self._root.descriptor

    def _find_account(self, root: int) -> privileges.Account:
        self._report.step = "user"
        account = privileges.account_of(root, self._config)
        self._report.step = "workdir"
        os.close(path.make_directories(root, self._process["cwd"]))
        return account

    def _label(self) -> None:
        """What a security module is to run the command as, while /proc is the host's own."""
        privileges.label(self._process, os.open("/proc", os.O_PATH | os.O_CLOEXEC), self._report)

    def _become_command(self, account: privileges.Account) -> None:
        """Only comes back by raising. The one descriptor left is the report's, which exec closes."""
        self._report.move_to(_REPORT)
        process.close_from(_REPORT + 1)
        self._report.step = "hooks"
        hooks.run(self._config, "startContainer", self._state)
        personality = self._config["linux"].get("personality")
        if personality:
            self._report.step = "personality"
            process.set_personality(personality["domain"])
        self._report.step = "ulimit"
        privileges.limit_resources(self._process.get("rlimits", []))
        privileges.become(account, self._process, self.filter, self._report)
        privileges.enter_directory(self._process["cwd"], self._report)
        environment = privileges.environment_of(self._process.get("env", []), account)
        privileges.execute(self._process, environment, self.filter, self._report)


def _write(name: str, value: str, directory: int | None = None) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    os.write(descriptor, value.encode())
    os.close(descriptor)


def _bring_up_loopback() -> None:
    """Sets IFF_UP on lo in our network namespace (netdevice(7), struct ifreq)."""
    request = b"lo".ljust(_INTERFACE_NAME_SIZE, b"\0") + _IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
    channel = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    fcntl.ioctl(channel.fileno(), _SIOCSIFFLAGS, request)
    channel.close()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher: ``launch start NAME...`` makes containers of bundles, ``launch exec`` runs commands in them.

A container is started by one fork. The child, from then on PID 1 of a new PID namespace, joins its cgroup,
makes or joins the other namespaces, builds its root, pivots into it, and waits; when the parent has recorded
which process it is, it drops its privileges and becomes the command. Killed at any point, the launcher leaves
no process that is not recorded: a child that waits for a dead parent ends.

Started by systemd (NOTIFY_SOCKET is set) it tells systemd that the container's process is now the service's,
and leaves; else the container's output goes to a log file and its parent is, from then on, the host's init.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from ..kernel import mount, namespace, process
from . import bundle, enter
from .bundle import FAILED, Refused, Report
from .init import Init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOGETHER = 8
"""How many containers are being started at a time: while one builds its root the next is forked."""

_BARRIER_SECONDS = 30
_MESSAGE_SIZE = 8192


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0, or FAILED when something could not be done, which standard error says."""
    protect_interpreter()
    process.forbid_tracing()
    if arguments[:1] == ["start"] and len(arguments) > 1:
        notify_socket = os.environ.get("NOTIFY_SOCKET")
        return start_service(arguments[1], notify_socket) if notify_socket else start(arguments[1:])
    if arguments[:1] == ["exec"] and len(arguments) == 2:
        return enter.run(int(arguments[1]))
    sys.stderr.write("usage: launch start NAME... | launch exec DESCRIPTOR\n")
    return FAILED


def protect_interpreter() -> None:
    """Runs this program again from a read-only copy of the mount that its interpreter lies on.

    Until exec a container's first process has the host's interpreter as /proc/PID/exe, and a container may
    make that its command; through the copy it can't be opened for writing (CVE-2019-5736). Raises OSError.
    """
    if os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        return
    clone = mount.clone_tree(mount.AT_FDCWD, os.readlink("/proc/self/exe"))
    mount.set_attributes(clone, ["ro", "nosuid", "nodev"])
    os.execve(clone, [sys.executable, "-I", "-S", *sys.argv], os.environ)


def start(names: list[str]) -> int:
    """Starts the containers, a few at a time, in the order given; one that fails does not stop the others."""
    # When the one who asked is gone, so is the wish: it may have been replaced by another by now.
    process.die_with_parent()
    waiting, status = list(names), 0
    underway: list[_Start] = []
    while waiting or underway:
        if waiting and len(underway) < _TOGETHER:
            container = _Start(waiting.pop(0))
            container.begin(log=True)
            underway.append(container)
            continue
        container = underway.pop(0)
        failure = container.finish()
        if failure:
            status = FAILED
            sys.stderr.write(f"{container.name}: {failure}.\n")
    return status


def start_service(name: str, notify_socket: str) -> int:
    """Starts the container as the main process of the systemd service that we are run by.

    A child of ours does it and ends, so that the container's process is systemd's child before it is told of
    it: one that is not when MAINPID= arrives is not waited for when the service is stopped, but killed at
    once.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            container = _Start(name)
            container.begin(log=False)
            failure = container.finish()
            outcome = f"STATUS={failure}." if failure else f"MAINPID={container.pid}\nREADY=1"
            os.write(writer, outcome.encode())
        finally:
            os._exit(0)
    os.close(writer)
    message = os.read(reader, _MESSAGE_SIZE).decode() or "STATUS=The launcher was killed."
    os.waitpid(child, 0)
    _notify(notify_socket, message)
    if message.startswith("MAINPID="):
        return 0
    sys.stderr.write(f"{name}: {message.partition('=')[2]}\n")
    return FAILED


class _Start:
    """A container on its way from bundle to running process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self._run = f"{bundle.RUN}/{name}"
        self._bundle = f"{bundle.CONTAINERS}/{name}"
        self._report = Report()
        self._held: list[int] = []
        self._made_cgroup: str | None = None

    def begin(self, *, log: bool) -> None:
        """Forks the container's first process and records it; what becomes of it is for finish() to see."""
        try:
            self._report.step = "lock"
            self._held.append(bundle.lock(self._run))
            self._refuse_second_start()
            self._report.step = "config.json"
            text = bundle.read_file(f"{self._bundle}/config.json")
            self._fork(text, self._prepare(bundle.parse_json(text), log))
        except (OSError, ValueError, Refused) as error:
            self._report.failed(error)

    def finish(self) -> str | None:
        """Waits until the command runs; else undoes what was begun and returns the sentence that says why."""
        failure = self._report.outcome()
        if failure:
            self._undo()
        for descriptor in self._held:
            os.close(descriptor)
        return failure

    def _refuse_second_start(self) -> None:
        self._report.step = "state"
        running = bundle.running(self._run)
        if running is not None:
            raise Refused(f"name: {self.name!r} is running already, as process {running[0]}")

    def _prepare(self, config: dict[str, Any], log: bool) -> Init:
        """Opens on the host all that the first process needs of it."""
        init = Init(os.path.join(self._bundle, config["root"]["path"]), config, self._report)
        if log:
            self._report.step = "log"
            init.log = _open_log(self.name)
        if "cgroupsPath" in config["linux"]:
            self._report.step = "cgroup"
            init.cgroup = self._open_cgroup(config["linux"]["cgroupsPath"])
        self._report.step = "etc/hosts"
        self._add_own_name(config)
        init.open_all()
        return init

    def _add_own_name(self, config: dict[str, Any]) -> None:
        """Gives hosts(5) the container's name with the addresses that it has now, below what is declared."""
        addresses = ["127.0.1.1"]
        if bundle.joins_network(config):
            network = bundle.parse_json(bundle.read_file(f"{self._bundle}/network.json"))
            addresses = [address.partition("/")[0] for address in network["address"]] or addresses
        own = "".join(f"{address} {config['hostname']}\n" for address in addresses)
        with open(f"{self._bundle}/etc/hosts", "r+", encoding="utf-8", errors="surrogateescape") as file:
            declared = file.read().partition(bundle.OWN_NAME)[0]
            file.seek(0)
            file.write(declared + bundle.OWN_NAME + own)
            file.truncate()

    def _open_cgroup(self, declared: str) -> int:
        top = mount.find("cgroup2")
        if top is None:
            raise Refused("cgroup: no cgroup2 file system is mounted on this host")
        if not os.path.isdir(top + declared):
            os.makedirs(top + declared)
            self._made_cgroup = top + declared
        return os.open(f"{top}{declared}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def _fork(self, text: str, init: Init) -> None:
        self._report.step = "namespaces"
        own = namespace.open_file("/proc/self/ns/pid")
        go_ahead, go = os.pipe()
        namespace.unshare("pid")
        self.pid = os.fork()
        if self.pid == 0:
            os.close(go)
            init.run(go_ahead)
        try:
            namespace.enter(own, "pid")
            self._report.step = "state"
            bundle.write_file(f"{self._run}/config.json", text)
            bundle.write_file(f"{self._run}/state.json", self._state())
            os.write(go, b".")
        finally:
            for descriptor in (own, go_ahead, go):
                os.close(descriptor)
            init.close_all()

    def _state(self) -> str:
        """The state of the OCI runtime spec, and the start time that makes the PID unmistakable."""
        started = process.start_time(self.pid) or 0
        return (
            f'{{"ociVersion": "{bundle.OCI_VERSION}", "id": "{self.name}", "status": "running", '
            f'"pid": {self.pid}, "bundle": "{self._bundle}", "start_time": {started}}}\n'
        )

    def _undo(self) -> None:
        if self.pid:
            os.waitpid(self.pid, 0)
            bundle.remove_file(f"{self._run}/state.json")
            bundle.remove_file(f"{self._run}/config.json")
        if self._made_cgroup:
            os.rmdir(self._made_cgroup)


def _open_log(name: str) -> int:
    os.makedirs(bundle.LOGS, 0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{bundle.LOGS}/{name}.log", flags, 0o640)


def _notify(address: str, message: str) -> None:
    """Sends ``message`` to systemd and waits until it was read, which we may be gone after (sd_notify(3))."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    channel.connect("\0" + address[1:] if address.startswith("@") else address)
    channel.send(message.encode())
    reader, writer = os.pipe()
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, writer.to_bytes(4, sys.byteorder))
    channel.sendmsg([b"BARRIER=1"], [rights])
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLHUP)
    poll.poll(_BARRIER_SECONDS * 1000)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher: ``launch start NAME...`` makes containers of bundles, ``launch exec`` runs commands in
them, ``launch check NAME`` the one that tells whether a container is healthy; ``launch enter NAME COMMAND``,
``put`` and ``fetch`` are how the connection plugin gets in.

A bundle's config.json (OCI runtime spec) is all that a start is told. A container is started by one fork, or
two with a user namespace. The child, from then on PID 1 of a new PID namespace, joins its cgroup, makes or
joins the other namespaces, builds its root, pivots into it, and waits; when the parent has recorded which
process it is, it drops its privileges and becomes the command. Killed at any point, the launcher leaves no
process that is not recorded: a child that waits for a dead parent ends.

Started by systemd (NOTIFY_SOCKET is set) it tells systemd that the container's process is now the service's,
and leaves, with the container's output in the journal; else that goes to a log file and its parent is, from
then on, the host's init.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from ..kernel import device_filter, mount, process
from . import bundle, check, enter, hooks, terminal
from . import config as configuration
from .bundle import FAILED, Refused, Report
from .identity import Identity
from .init import Init
from .mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOGETHER = 8
"""How many containers are being started at a time: while one builds its root the next is forked."""

_USAGE = """\
usage: launch start [--console-socket PATH] NAME...
       launch exec DESCRIPTOR
       launch enter [--user USER] NAME COMMAND [ARGUMENT...]
       launch put [--user USER] NAME PATH OFFSET LENGTH
       launch fetch [--user USER] NAME PATH OFFSET LENGTH
       launch check NAME
       launch poststop NAME...
"""

_BARRIER_SECONDS = 30
_MESSAGE_SIZE = 8192
_SIGKILL = 9
_COMPLAINTS = 2

_DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
"""What of a cgroup a user is given together with its directory (cgroup-v2, "Model of Delegation")."""


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0, or FAILED when something could not be done, which standard error says; of
    ``check`` it is 1 for a container that is not healthy, of ``enter`` the command's."""
    if os.geteuid() != 0:
        sys.stderr.write(f"launch: it takes root on the host, and runs as user {os.geteuid()}.\n")
        return FAILED
    process.forbid_tracing()
    verb, names = arguments[:1], arguments[1:]
    if verb == ["start"] and names[:1] == ["--console-socket"] and len(names) == 3:
        return start(names[2:], console_socket=names[1])
    if verb == ["start"] and names:
        notify_socket = os.environ.get("NOTIFY_SOCKET")
        return start_service(names[0], notify_socket) if notify_socket else start(names)
    if verb == ["exec"] and len(names) == 1:
        return enter.run(int(names[0]))
    if verb in (["enter"], ["put"], ["fetch"]):
        # Not at the top: a container's start has no need of it.
        from . import visit

        status = visit.run(verb[0], names)
        if status is not None:
            return status
    if verb == ["check"] and len(names) == 1:
        return check.run(names[0])
    if verb == ["poststop"] and names:
        return poststop(names)
    sys.stderr.write(_USAGE)
    return FAILED


def start(names: list[str], *, console_socket: str | None = None) -> int:
    """Starts the containers, a few at a time, in the order given; one that fails does not stop the others.

    A container with a terminal hands it over through the Unix socket at ``console_socket``.
    """
    # When the one who asked is gone, so is the wish: it may have been replaced by another by now.
    process.die_with_parent()
    if not process.is_read(_COMPLAINTS):
        return FAILED
    waiting, status = list(names), 0
    underway: list[_Start] = []
    while waiting or underway:
        if waiting and len(underway) < _TOGETHER:
            container = _Start(waiting.pop(0), console_socket)
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


def poststop(names: list[str]) -> int:
    """Runs the hooks for containers that have ended, and forgets that they ran."""
    status = 0
    for name in names:
        run = f"{bundle.RUN}/{name}"
        lock = bundle.lock(run)
        try:
            if bundle.running(run) is None:
                config = bundle.parse_json(bundle.read_file(f"{run}/config.json"))
                bundle.forget_run(run)
                hooks.run(config, "poststop", bundle.state_text(name, config, "stopped", 0))
        except FileNotFoundError:
            continue
        except Refused as refused:
            sys.stderr.write(f"{name}: {refused}.\n")
            status = FAILED
        finally:
            os.close(lock)
    return status


class _Start:
    """A container on its way from bundle to running process."""

    def __init__(self, name: str, console_socket: str | None = None) -> None:
        self.name = name
        self.pid = 0
        self._console_socket = console_socket
        self._run = f"{bundle.RUN}/{name}"
        self._bundle = f"{bundle.CONTAINERS}/{name}"
        self._config: dict[str, Any] = {}
        self._report = Report()
        self._held: list[int] = []
        self._made_cgroups: list[str] = []

    def begin(self, *, log: bool) -> None:
        """Forks the container's first process and records it; what becomes of it is for finish() to see."""
        try:
            self._report.step = "lock"
            self._held.append(bundle.lock(self._run))
            self._refuse_second_start()
            self._report.step = "config.json"
            text = bundle.read_file(f"{self._bundle}/config.json")
            self._config = bundle.parse_json(text)
            configuration.check(self._config)
            self._fork(text, self._prepare(self._config, log))
        except Exception as error:
            self._report.failed(error)

    def finish(self) -> str | None:
        """Waits until the command runs; else undoes what was begun and returns the sentence that says why."""
        failure = self._report.outcome() or self._poststart()
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
        self._report.step = "bundle"
        # A program that the container's root makes set-user-ID is not for the host's users to run.
        os.chmod(self._bundle, 0o700)
        for entry in config.get("mounts", []):
            if MountOptions(entry).bind:
                entry["source"] = os.path.join(self._bundle, entry["source"])
        root = os.path.join(self._bundle, config["root"]["path"])
        init = Init(self.name, root, config, self._report)
        self._report.step = "log"
        init.log = _open_log(self.name, config, own=log)
        self._report.step = "seccomp filter"
        init.filter = bundle.read_filter(self._bundle, config)
        if config["process"].get("terminal"):
            self._report.step = "terminal"
            init.console = self._connect_console()
        init.open_all()
        self._report.step = "cgroup"
        init.cgroup = self._open_cgroup(config["linux"].get("cgroupsPath"), init.identity)
        self._report.step = "etc/hosts"
        self._add_own_name(config)
        return init

    def _connect_console(self) -> int:
        if self._console_socket is None:
            raise Refused("process.terminal: somebody has to hold it, who listens on a --console-socket")
        return terminal.connect(self._console_socket)

    def _add_own_name(self, config: dict[str, Any]) -> None:
        """Gives hosts(5) the container's name with the addresses that it has now, below what is declared,
        and below that the names of those behind the same bridges."""
        addresses, others = ["127.0.1.1"], ""
        if bundle.own_network(self.name, config):
            own_addresses, bridges = self._own_network()
            addresses, others = own_addresses or addresses, "".join(map(self._names, bridges))
        own = "".join(f"{address} {config.get('hostname', self.name)}\n" for address in addresses)
        hosts = f"{self._bundle}/etc/hosts"
        if not os.path.exists(hosts):
            return
        with open(hosts, "r+", encoding="utf-8", errors="surrogateescape") as file:
            declared = file.read(bundle.ETC_LIMIT).partition(bundle.OWN_NAME)[0]
            file.seek(0)
            file.write(declared + bundle.OWN_NAME + own + others)
            file.truncate()

    def _names(self, bridge: str) -> str:
        try:
            return bundle.read_file(f"{bundle.NAMES}/{bridge}/hosts")
        except FileNotFoundError:
            return ""

    def _own_network(self) -> tuple[list[str], list[str]]:
        """Its addresses and its bridges or their VLANs, once each, as declared."""
        place = f"{self._bundle}/network.json"
        try:
            network = bundle.parse_json(bundle.read_file(place))
            links = [network, *network.get("interfaces", [])]
            addresses = [address.partition("/")[0] for link in links for address in link["address"]]
            return addresses, list(dict.fromkeys(_segment(link) for link in links if link.get("bridge")))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Refused(f"network: {place} is damaged, the network has to be declared again") from None

    def _open_cgroup(self, declared: str | None, identity: Identity) -> int:
        """The container's cgroup, else the one that we are in; given to the container's root where that may
        write to it (cgroup-v2, "Delegation")."""
        top = mount.find("cgroup2")
        if top is None:
            raise Refused("cgroup: no cgroup2 file system is mounted on this host")
        place = top + (declared or bundle.cgroup_of("self"))
        missing = place
        while not os.path.isdir(missing):
            self._made_cgroups.append(missing)
            missing = os.path.dirname(missing)
        os.makedirs(place, exist_ok=True)
        cgroup = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        rules = self._config["linux"].get("resources", {}).get("devices")
        if rules and declared is not None:
            self._report.step = "device filter"
            device_filter.attach(cgroup, device_filter.assemble(rules))
        if identity.mapped and configuration.has_writable_cgroup(self._config):
            for name in (".", *_DELEGATED):
                os.chown(name, *identity.root, dir_fd=cgroup)
        return cgroup

    def _fork(self, text: str, init: Init) -> None:
        wait, go = os.pipe()
        ready, there = os.pipe()
        descriptors = [wait, go, ready, there]
        try:
            self.pid = init.fork(go, wait, there)
            os.close(descriptors.pop())
            if not self.pid:
                return
            self._report.step = "state"
            bundle.write_file(f"{self._run}/config.json", text)
            if init.filter is not None:
                bundle.write_file(f"{self._run}/{bundle.FILTER}", init.filter[0])
            bundle.write_file(f"{self._run}/state.json", self._state("running"))
            if bundle.has_hooks(self._config, "prestart", "createRuntime") and os.read(ready, 1):
                self._report.step = "hooks"
                for point in ("prestart", "createRuntime"):
                    hooks.run(self._config, point, self._state("creating"), init.log)
                os.write(go, b".")
            os.write(go, b".")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            init.close_all()

    def _poststart(self) -> str | None:
        try:
            hooks.run(self._config, "poststart", self._state("running"))
        except (OSError, Refused) as error:
            process.send_signal(os.pidfd_open(self.pid), _SIGKILL)
            return str(error)
        return None

    def _state(self, status: str) -> str:
        return bundle.state_text(self.name, self._config, status, self.pid)

    def _undo(self) -> None:
        if self.pid:
            os.waitpid(self.pid, 0)
            bundle.forget_run(self._run)
        for place in self._made_cgroups:
            try:
                os.rmdir(place)
            except OSError:
                # Not made, or another container is in one above ours by now.
                continue


def _segment(link: dict[str, Any]) -> str:
    """Whose names a link's container is to have: those of a bridge, or of a VLAN of it but the usual one."""
    bridge: str = link["bridge"]
    return bridge if link.get("vlan") in (None, 1) else f"{bridge}.{link['vlan']}"


def _open_log(name: str, config: dict[str, Any], *, own: bool) -> int | None:
    """Where the container's output goes; None for where ours does, unless it takes a file of its ``own``."""
    path = config.get("annotations", {}).get(bundle.LOG_ANNOTATION)
    if path == "none":
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    if path is None and not own:
        return None
    path = path or f"{bundle.LOGS}/{name}.log"
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


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

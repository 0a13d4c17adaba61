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
from . import bundle, filesystem, privileges
from .bundle import FAILED, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMESPACES = {"mount": "mnt", "network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
"""The kernel's name for each namespace of the OCI runtime spec (config-linux, namespaces)."""

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE_NAME_SIZE = 16
_REPORT = 3


class Init:
    """One container's first process. ``log`` and ``cgroup`` (its cgroup.procs) are descriptors, or None."""

    def __init__(self, root: str, config: dict[str, Any], report: Report) -> None:
        self.log: int | None = None
        self.cgroup: int | None = None
        self._network: int | None = None
        self._root = root
        self._config = config
        self._process = config["process"]
        self._namespaces = {entry["type"]: entry.get("path") for entry in config["linux"]["namespaces"]}
        self._report = report

    def open_all(self) -> None:
        """Opens, before the fork, what is the host's. Raises OSError."""
        network = self._namespaces.get("network")
        if network:
            self._report.step = "network namespace"
            self._network = namespace.open_file(network)

    def close_all(self) -> None:
        """Closes, in the parent, what only the first process needs."""
        for descriptor in (self._network, self.log, self.cgroup):
            if descriptor is not None:
                os.close(descriptor)

    def run(self, go_ahead: int) -> None:
        """Becomes the command when ``go_ahead``, a pipe, says so; ends when it closes. Never returns."""
        try:
            self._report.close_reader()
            self._take_session()
            self._join()
            root = filesystem.mount_root(self._root, self._config, self._report)
            filesystem.build(root, self._config, self._report)
            account = self._find_account(root)
            bundle.forget_modules()
            self._report.step = "pivot_root"
            filesystem.pivot(root)
            if os.read(go_ahead, 1):
                self._become_command(account)
        except BaseException as error:
            self._report.failed(error)
        finally:
            os._exit(FAILED)

    def _take_session(self) -> None:
        self._report.step = "session"
        os.setsid()
        os.umask(0)
        if self.log is not None:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(self.log, 1)
            os.dup2(self.log, 2)

    def _join(self) -> None:
        """Enters cgroup and namespaces; what is written to /proc is, while that is the host's own."""
        report = self._report
        if "oomScoreAdj" in self._process:
            report.step = "oom_score_adj"
            _write("/proc/self/oom_score_adj", str(self._process["oomScoreAdj"]))
        if self.cgroup is not None:
            report.step = "cgroup"
            os.write(self.cgroup, b"0")
        report.step = "namespaces"
        if self._network is not None:
            namespace.enter(self._network, "net")
        new = [
            _NAMESPACES[kind] for kind, joined in self._namespaces.items() if joined is None and kind != "pid"
        ]
        namespace.unshare(*new)
        if "net" in new:
            report.step = "loopback interface"
            _bring_up_loopback()
        report.step = "hostname"
        process.set_hostname(self._config["hostname"])
        for key, value in self._config["linux"].get("sysctl", {}).items():
            report.step = f"sysctl: {key}"
            _write("/proc/sys/" + key.replace(".", "/"), value)

    def _find_account(self, root: int) -> privileges.Account:
        self._report.step = "user"
        account = privileges.account_of(root, self._config)
        self._report.step = "workdir"
        os.close(path.make_directories(root, self._process["cwd"]))
        return account

    def _become_command(self, account: privileges.Account) -> None:
        """Only comes back by raising. The one descriptor left is the report's, which exec closes."""
        self._report.move_to(_REPORT)
        process.close_from(_REPORT + 1)
        os.umask(0o022)
        self._report.step = "ulimit"
        privileges.limit_resources(self._process.get("rlimits", []))
        privileges.become(account, self._process, self._report)
        privileges.enter_directory(self._process["cwd"], self._report)
        environment = privileges.environment_of(self._process["env"], account)
        privileges.execute(self._process["args"], environment, self._report)


def _write(name: str, value: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, value.encode())
    os.close(descriptor)


def _bring_up_loopback() -> None:
    """Sets IFF_UP on lo in our network namespace (netdevice(7), struct ifreq)."""
    request = b"lo".ljust(_INTERFACE_NAME_SIZE, b"\0") + _IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
    channel = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    fcntl.ioctl(channel.fileno(), _SIOCSIFFLAGS, request)
    channel.close()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: nsenter
author: ["bare.containers contributors (@bare-containers)"]
version_added: 0.1.0
short_description: Manage the inside of a container on a host
description:
  - Runs tasks inside of a container as if it were a host, by way of the machine that it runs on, the container's host.
  - That one is reached by P(ansible.builtin.ssh#connection), with all options and variables of that plugin, such as C(ansible_host),
    or it is the controller itself.
  - Commands run in all namespaces of the container and in its cgroup, with its capabilities, its seccomp filter and its
    environment. Nothing has to run or to be installed in the container besides what modules need, which is Python.
options:
  container:
    description: The container's name.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_nsenter_container
  remote_user:
    description:
      - The user inside, as in O(bare.containers.nsenter_exec#module:user). The default is the user that the container's process
        started as.
      - It is not C(ansible_user), which is who logs in on the container's host.
    type: str
    vars:
      - name: ansible_nsenter_user
  host_connection:
    description: The connection plugin by which the container's host is reached.
    type: str
    choices: [ssh, local]
    default: ssh
    env:
      - name: ANSIBLE_NSENTER_HOST_CONNECTION
    vars:
      - name: ansible_nsenter_host_connection
  host_become_command:
    description:
      - What makes a command root's on the container's host, where the one who logs in there is not. It may not ask for a password.
      - C(become) is about the users inside.
    type: str
    default: ""
    env:
      - name: ANSIBLE_NSENTER_HOST_BECOME_COMMAND
    vars:
      - name: ansible_nsenter_host_become_command
requirements:
  - on the container's host, the launcher of the same version, which M(bare.containers.launcher) installs
notes:
  - A file is sent or fetched in pieces of 8 MiB. It is opened by a process that is in the container and the user there, so no path
    leads out of it, and has to be a regular one that is not in C(/proc).
  - Pipelining, retries, timeouts and terminals are as the options of P(ansible.builtin.ssh#connection) say.
seealso:
  - plugin: ansible.builtin.ssh
    plugin_type: connection
  - module: bare.containers.nsenter_exec
  - module: bare.containers.launcher
"""

EXAMPLES = r"""
# An inventory: a host and two containers on it. Whatever else is said of vm1, such as a port or a key, is to be said of them too.
hosts:
  hosts:
    vm1:
containers:
  hosts:
    web:
    jobs:
      ansible_nsenter_container: worker
      ansible_nsenter_user: app
  vars:
    ansible_connection: bare.containers.nsenter
    ansible_host: vm1
    ansible_user: admin
    ansible_nsenter_host_become_command: sudo -n
"""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.become import BecomeBase
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

from ..module_utils.host import LAUNCHER, container_name

display = Display()

PIECE = 8 << 20
"""How many bytes of a file are in memory, here and on the way, at a time."""

_FAILED = 125
_SAID = "launch: "
_MISSING = ("not found", "No such file or directory")


class Connection(ConnectionBase):
    """The inside of a container, by another connection to its host."""

    transport = "bare.containers.nsenter"
    has_pipelining = True

    def __init__(self, play_context: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(play_context, *args, **kwargs)
        kwargs["shell"] = self._shell
        self._hosts = {
            name: connection_loader.get(f"ansible.builtin.{name}", play_context, *args, **kwargs)
            for name in ("ssh", "local")
        }

    @property
    def _host(self) -> ConnectionBase:
        """The connection to the container's host."""
        return self._hosts[self.get_option("host_connection")]

    # What is told of us is told of the way to the host too.

    def _resolve_option_variables(self, variables: Mapping[str, Any], templar: Any) -> dict[str, Any]:
        resolved = super()._resolve_option_variables(variables, templar)
        for host in self._hosts.values():
            resolved = {**host._resolve_option_variables(variables, templar), **resolved}
        return resolved

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        for host in self._hosts.values():
            host.set_options(task_keys=task_keys, var_options=var_options)

    def set_become_plugin(self, plugin: BecomeBase) -> None:
        super().set_become_plugin(plugin)
        for host in self._hosts.values():
            host.set_become_plugin(plugin)

    @property
    def has_tty(self) -> bool:
        return self._host.has_tty

    def is_pipelining_enabled(self, wrap_async: bool = False) -> bool:
        return self._host.is_pipelining_enabled(wrap_async)

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def reset(self) -> None:
        self._host.reset()

    def close(self) -> None:
        self._host.close()
        self._connected = False

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and standard error of a shell command inside. A failure to get there
        raises AnsibleConnectionFailure."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        shell = self._play_context.executable or "/bin/sh"
        done = self._launch("enter", shell, "-c", cmd, in_data=in_data, sudoable=sudoable)
        complaint = complaint_of(*done)
        if complaint:
            raise AnsibleConnectionFailure(self._told(complaint))
        return done

    def put_file(self, in_path: str, out_path: str) -> None:
        """Sends a file, in pieces."""
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound(f"file or module does not exist: {in_path}")
        offset = 0
        with open(in_path, "rb") as source:
            while True:
                piece = source.read(PIECE)
                if piece or not offset:
                    self._copy("put", out_path, offset, len(piece), piece)
                if len(piece) < PIECE:
                    return
                offset += PIECE

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Fetches a file, in pieces."""
        super().fetch_file(in_path, out_path)
        offset, piece = 0, self._copy("fetch", in_path, 0, PIECE)
        with open(out_path, "wb") as target:
            target.write(piece)
            while len(piece) == PIECE:
                offset += PIECE
                piece = self._copy("fetch", in_path, offset, PIECE)
                target.write(piece)

    def _copy(self, verb: str, path: str, offset: int, length: int, data: bytes | None = None) -> bytes:
        """What the launcher writes for one piece of a file. Raises AnsibleError."""
        # Not sudoable: that is for a terminal, which would change what is sent.
        status, output, errors = self._launch(
            verb, path, str(offset), str(length), in_data=data, sudoable=False
        )
        if status != 0:
            # A file's content may look like a complaint.
            complaint = complaint_of(status, b"", errors)
            raise AnsibleError(self._told(complaint or f"{verb}: {to_text(errors).strip()}"))
        return output

    def _launch(
        self, verb: str, *words: str, in_data: bytes | None, sudoable: bool
    ) -> tuple[int, bytes, bytes]:
        become = shlex.split(self.get_option("host_become_command"))
        line = command_line(become, verb, self._container, self.get_option("remote_user"), words)
        display.vvv(f"NSENTER {self._container}: {line}", host=self._play_context.remote_addr)
        return self._host.exec_command(line, in_data=in_data, sudoable=sudoable)

    @property
    def _container(self) -> str:
        name = self.get_option("container")
        try:
            return container_name(name)
        except ValueError as error:
            raise AnsibleError(f"container: {name!r} is no name for one, it takes {error}.") from None

    def _told(self, complaint: str) -> str:
        """The sentence that a user reads."""
        sentence = complaint.removeprefix(f"{self._container}: ").rstrip(".")
        if sentence.startswith("name: "):
            sentence = sentence.replace("name: ", "container: ", 1)
        return f"{self._play_context.remote_addr}: {sentence}."


def command_line(
    become: list[str], verb: str, container: str, user: str | None, words: tuple[str, ...]
) -> str:
    """The launcher's command line, for a shell on the host."""
    as_user = ["--user", user] if user else []
    return shlex.join([*become, str(LAUNCHER), verb, *as_user, container, *(to_text(word) for word in words)])


def complaint_of(status: int, output: bytes, errors: bytes) -> str | None:
    """What kept the launcher from doing it, or None where what was to be done has been, well or not.

    Both are looked at, as on a terminal there is one for the two.
    """
    lines = [line.strip() for line in to_text(errors + b"\n" + output).splitlines()]
    if status == _FAILED:
        if any(line.startswith("usage: launch") for line in lines):
            return f"the launcher {LAUNCHER} is not of this collection's version"
        return next((line[len(_SAID) :] for line in lines if line.startswith(_SAID)), None)
    if status and any(str(LAUNCHER) in line and line.endswith(_MISSING) for line in lines):
        return f"the launcher {LAUNCHER} is not installed; the role bare.containers.host does that"
    return None

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to get into running test hosts: OpenSSH options, and files for OpenSSH, Ansible and testinfra."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from cache import Keys

Yaml = Mapping[str, Union["Yaml", str, int, bool]]


@dataclass(frozen=True)
class Login:
    """Where a test host's sshd is reached, and where the shared connection to it has its socket."""

    name: str
    port: int
    control_path: Path
    keys: Keys

    def options(self) -> dict[str, str]:
        """ssh_config(5). One login is shared by everyone: under emulation it costs seconds, a command on it 0.1 s."""
        return {
            "ControlMaster": "auto",
            "ControlPersist": "600",
            "ControlPath": str(self.control_path),
            "HostKeyAlias": Keys.HOST_ALIAS,
            "UserKnownHostsFile": str(self.keys.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "8",
            "LogLevel": "ERROR",
        }

    def ssh_config(self) -> str:
        settings = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": "root",
            "IdentityFile": str(self.keys.identity),
            **self.options(),
        }
        return f"Host {self.name}\n" + "".join(f"    {name} {value}\n" for name, value in settings.items())

    def hostvars(self, forwards: Mapping[int, int]) -> Yaml:
        """Host variables that Ansible's ssh connection and testinfra's ansible:// and ssh:// both understand."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.keys.identity),
            # Ansible puts its default ssh_args, with a ControlPersist of 60 s, before these.
            "ansible_ssh_args": "",
            "ansible_ssh_common_args": " ".join(f"-o {name}={value}" for name, value in self.options().items()),
            "ansible_ssh_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "testhost_forwards": {str(guest): here for guest, here in forwards.items()},
        }


def inventory(hosts: Iterable[tuple[Login, Mapping[int, int]]]) -> str:
    """An Ansible inventory in YAML with every host in the group `container_hosts`."""
    hostvars = {login.name: login.hostvars(forwards) for login, forwards in hosts}
    return to_yaml({"container_hosts": {"hosts": hostvars}})


def to_yaml(mapping: Yaml, indent: str = "") -> str:
    """Block mappings with JSON scalars, which are YAML; keys that are not plain words are quoted."""
    lines = []
    for key, value in mapping.items():
        shown = key if re.fullmatch(r"[A-Za-z_][\w-]*", key) else json.dumps(key)
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{shown}:\n{to_yaml(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{shown}: {json.dumps(value)}\n")
    return "".join(lines)

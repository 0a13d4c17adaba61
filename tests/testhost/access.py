# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to get into running test hosts: OpenSSH options, and files for OpenSSH, Ansible and testinfra."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from cache import Keys
from progress import HostError

Yaml = Mapping[str, Union["Yaml", str, int, bool]]


@dataclass(frozen=True)
class Login:
    """Where a test host's sshd is reached, and where the shared connection to it has its socket."""

    name: str
    port: int
    control_path: Path
    keys: Keys

    def options(self) -> dict[str, str]:
        """ssh_config(5). All share one login, which costs a second under emulation; a command then 0.1 s."""
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

    def command(self, *words: str, control: Sequence[str] = ()) -> list[str]:
        """An ssh(1) that runs `words`, or a shell; the caller's own configuration has no say."""
        options = [word for name, value in self.options().items() for word in ("-o", f"{name}={value}")]
        return [
            "ssh", "-F", "none", "-l", "root", "-p", str(self.port), "-i", str(self.keys.identity), *options,
            *control, "127.0.0.1", *words,
        ]  # fmt: skip

    def run(self, script: str, timeout: float = 120) -> str:
        """The output of a line of shell on the host. Raises HostError when it fails or takes too long."""
        try:
            done = subprocess.run(
                self.command(script),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"`{script}` on {self.name} took more than {timeout:.0f} s") from None
        if done.returncode:
            raise HostError(f"`{script}` on {self.name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def hang_up(self) -> None:
        """End the shared connection, which else outlives the machine at its other end."""
        if self.control_path.exists():
            subprocess.run(self.command(control=("-O", "exit")), capture_output=True, timeout=30, check=False)

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
        """Host variables for Ansible's ssh connection, and for testinfra's ansible:// backend."""
        common_args = " ".join(f"-o {name}={value}" for name, value in self.options().items())
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.keys.identity),
            # Ansible puts its default ssh_args, with a ControlPersist of 60 s, before these.
            "ansible_ssh_args": "",
            "ansible_ssh_common_args": common_args,
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

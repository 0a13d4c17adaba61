# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the QEMU Machine Protocol (docs/interop/qmp-spec.rst in QEMU's source)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from progress import HostError


class Qmp:
    """One connection to QEMU's monitor socket; `connect` makes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("r", encoding="utf-8")

    def read(self) -> dict[str, Any]:
        """The next message: a greeting, an answer or an event."""
        try:
            line = self._stream.readline()
        except TimeoutError:
            raise HostError(f"QEMU has said nothing for {self._connection.gettimeout():.0f} s") from None
        if not line:
            raise HostError("QEMU closed its monitor connection")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: str) -> Any:
        """The command's `return` value. Raises HostError with QEMU's own description when it refuses."""
        request = {"execute": command, "arguments": arguments}
        self._connection.sendall(json.dumps(request).encode())
        while True:
            answer = self.read()
            if "error" in answer:
                raise HostError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def monitor(self, line: str) -> str:
        """Run a command of the human monitor, for what has no command in the protocol; its output."""
        output: str = self.execute("human-monitor-command", **{"command-line": line})
        if output.startswith("Error"):
            raise HostError(f"QEMU refused `{line}`: {output.strip()}")
        return output

    def wait_event(self, name: str) -> None:
        """Return when QEMU tells of the event."""
        while self.read().get("event") != name:
            pass


@contextmanager
def connect(path: Path, timeout: float = 60) -> Iterator[Qmp]:
    """Connect to the monitor socket at `path`. QEMU serves one client at a time: hold it briefly.

    Raises OSError when there is nobody, HostError when QEMU is silent for `timeout` seconds.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        client = Qmp(connection)
        client.read()  # the greeting
        client.execute("qmp_capabilities")
        yield client

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks: programs that are run at points of a container's life (OCI runtime spec, config.md, "POSIX-platform
Hooks")."""

from __future__ import annotations

import os

from ..kernel import process
from .bundle import FAILED, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(config: dict[str, Any], point: str, state: str, output: int | None = None) -> None:
    """Runs the hooks of one point in order, each with the container's ``state`` (JSON) on standard input.

    What they say goes to the descriptor ``output``, else where our own output goes. Raises Refused for the
    first that fails, OSError.
    """
    for hook in config.get("hooks", {}).get(point, []):
        child = os.fork()
        if child == 0:
            _become(hook, state, output)
        pidfd = os.pidfd_open(child)
        in_time = "timeout" not in hook or process.wait_for_end(pidfd, hook["timeout"])
        if not in_time:
            process.send_signal(pidfd, _KILL)
        os.close(pidfd)
        _child, status = os.waitpid(child, 0)
        if not in_time:
            raise Refused(f"hooks.{point}: {hook['path']} took longer than {hook['timeout']} seconds")
        if status:
            raise Refused(f"hooks.{point}: {hook['path']} ended with {_told(status)}")


_KILL = 9


def _told(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"


def _become(hook: dict[str, Any], state: str, output: int | None) -> None:
    """Never returns. Nothing but the standard descriptors is passed on."""
    try:
        stdin = os.memfd_create("state")
        os.write(stdin, state.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        for number in (1, 2) if output is not None else ():
            os.dup2(output or 0, number)
        process.close_from(3)
        process.reset_signals()
        environment = dict(entry.split("=", 1) for entry in hook.get("env", []))
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    finally:
        os._exit(FAILED)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work done by a process of its own, which may change its namespaces, its root and its modules for good: what
remains of it is its result."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any, BinaryIO

from . import process


class Ended(Exception):
    """The process has ended without a result; in words that follow what it is."""


def result(act: Callable[[], Any], wait: Callable[[BinaryIO], bytes] = lambda stream: stream.read()) -> Any:
    """What ``act`` returns in a child process, plain data. ``wait`` reads the stream that it comes by, to the
    end.

    The process ends with us, and when ``wait`` raises. Raises Ended also when ``act`` raises, OSError.
    """
    reader, writer = os.pipe()
    us = os.getpid()
    pid = os.fork()
    if pid == 0:
        _act(act, writer, us)
    os.close(writer)
    with open(reader, "rb") as stream:
        try:
            message = wait(stream)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not message:
        raise Ended(f"ended with status {status}")
    return json.loads(message)


def _act(act: Callable[[], Any], writer: int, parent: int) -> None:
    """Acts and ends, with status 0 when the result was written."""
    try:
        process.die_with_parent()
        if os.getppid() == parent:
            text = json.dumps(act(), ensure_ascii=False)
            os.write(writer, text.encode("utf-8", "replace"))
            os._exit(0)
    finally:
        os._exit(1)

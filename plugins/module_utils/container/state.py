# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers run, by what the launcher has left in /run of each (bundle.py)."""

from __future__ import annotations

import fcntl
import os
import time

from .. import host
from ..converge import Failure
from . import bundle

START_SECONDS = 60
"""How long a container may take to start."""


def running(name: str) -> tuple[int, int] | None:
    """PID and start time of the container's first process, or None; one being started is waited for.

    Raises OSError, Failure.
    """
    try:
        descriptor = os.open(host.RUN / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        _wait_for_launcher(descriptor, name)
        return bundle.running(str(host.RUN / name))
    except (KeyError, TypeError, ValueError):
        path = host.RUN / name / "state.json"
        raise Failure(f"{path} is damaged; remove it once the container is stopped.") from None
    finally:
        os.close(descriptor)


def _wait_for_launcher(descriptor: int, name: str) -> None:
    """The launcher and the process it starts hold the folder until exec, or their end (bundle.lock())."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failure(f"{name} is still being started after {START_SECONDS} seconds.") from None
            time.sleep(0.01)

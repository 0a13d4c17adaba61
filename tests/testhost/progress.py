# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the person at the terminal sees: lines on stderr, waits that say for what, one kind of error."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class HostError(Exception):
    """What keeps a test host from being as asked for: one sentence, with evidence below it."""


def say(text: str) -> None:
    print(f"testhost: {text}", file=sys.stderr, flush=True)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a console log, without what a terminal would act on."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\uffff]", "", text)
    return "\n".join([line.strip() for line in plain.splitlines() if line.strip()][-lines:])


def wait_for(
    what: str, probe: Callable[[], T | None], timeout: float, console: Path | None = None, every: float = 0.1
) -> T:
    """Call `probe` until it answers something true, and return that.

    Tells every five seconds that it still waits. Raises HostError, with the end of `console`, once `timeout`
    seconds have passed. A probe ends the wait early by raising HostError itself.
    """
    start = time.monotonic()
    told = start
    while not (answer := probe()):
        now = time.monotonic()
        if now - start > timeout:
            evidence = f"; its console ended with:\n{tail(console)}" if console else ""
            raise HostError(f"waited {timeout:.0f} s in vain for {what}{evidence}")
        if now - told >= 5:
            told = now
            last = tail(console, 1) if console else ""
            say(f"  {now - start:3.0f} s, waiting for {what}" + (f": {last}" if last else ""))
        time.sleep(every)
    return answer


def run(command: Sequence[str | Path], log: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program to its end and return its output; on failure raise HostError with what it said."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        check=False,
    )
    if log:
        log.write_text(done.stdout)
    if done.returncode:
        ending = "\n".join(done.stdout.splitlines()[-20:])
        raise HostError(f"{command[0]} ended with {done.returncode}:\n{ending}")
    return done.stdout

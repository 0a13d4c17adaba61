# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the person at the terminal sees: lines on stderr, waits that say for what, one kind of error."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class HostError(Exception):
    """What keeps a test host from being as asked for: one sentence, with evidence below it."""


def say(text: str) -> None:
    print(f"testhost: {text}", file=sys.stderr, flush=True)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, without what a terminal would act on."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\uffff]", "", text)
    return "\n".join([line.strip() for line in plain.splitlines() if line.strip()][-lines:])


def wait_for(
    what: str, probe: Callable[[], T | None], timeout: float, log: Path | None = None, every: float = 0.1
) -> T:
    """Call `probe` until it answers something true, and return that.

    Tells every five seconds that it still waits. Raises HostError, with the end of `log`, once `timeout`
    seconds have passed. A probe ends the wait early by raising HostError itself.
    """
    start = time.monotonic()
    told = start
    while not (answer := probe()):
        now = time.monotonic()
        if now - start > timeout:
            evidence = f"; the log ended with:\n{tail(log)}" if log else ""
            raise HostError(f"waited {timeout:.0f} s in vain for {what}{evidence}")
        if now - told >= 5:
            told = now
            last = tail(log, 1) if log else ""
            say(f"  {now - start:3.0f} s, waiting for {what}" + (f": {last}" if last else ""))
        time.sleep(every)
    return answer


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None, timeout: float = 900) -> str:
    """Run a program to its end and return its output; on failure raise HostError with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=env, timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(f"`{shlex.join(words)}` took more than {timeout:.0f} s") from None
    if done.returncode:
        raise HostError(f"`{shlex.join(words)}` ended with {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def follow(
    what: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str], timeout: float = 1800
) -> None:
    """Run a program that takes its time, telling how far its log has come. Raises HostError when it fails."""
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
        )
    try:
        wait_for(what, lambda: child.poll() is not None, timeout, log)
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        raise HostError(f"{command[0]} ended with {child.returncode}; its log ended with:\n{tail(log)}")

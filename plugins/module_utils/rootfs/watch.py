# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that takes long: it says where it is and what it has done, and it does not take for ever.

It says so in the host's journal, which can be looked at meanwhile (``journalctl --follow
--identifier=bare-rootfs``), as a module's result reaches Ansible as a whole, when the module has ended.
"""

from __future__ import annotations

import select
import syslog
import time
from collections.abc import Callable
from typing import BinaryIO

from ..converge import Failure

INTERVAL = 10.0
_IDENTIFIER = "bare-rootfs"


class OutOfTime(Failure):
    """The work has taken all the time that it may take."""


class Watch:
    """One piece of work: ``what`` it is, as a sentence about it begins, and how many ``seconds`` it may
    take. All that it has ``said``, in sentences."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self.said: list[str] = []
        self._seconds = seconds
        self._begun = self._step_begun = time.monotonic()
        self._next = self._begun + INTERVAL

    def remaining(self) -> float:
        """The seconds until there is something to say, or no time left."""
        return max(0.0, min(self._next, self._begun + self._seconds) - time.monotonic())

    def tick(self, where: Callable[[], str]) -> None:
        """To be called again and again; asks ``where`` the work is when it is time to say so. Raises
        OutOfTime."""
        now = time.monotonic()
        if now >= self._begun + self._seconds:
            raise OutOfTime(
                f"{self.what} took longer than the {self._seconds:g} seconds that max_time allows; "
                "nothing was changed."
            )
        if now >= self._next:
            self._next = now + INTERVAL
            self._say(where())

    def wait(self, stream: BinaryIO, where: Callable[[], str]) -> bytes:
        """All that comes by a stream whose other end writes nothing before it has it all; meanwhile it
        ticks. Raises OutOfTime, OSError."""
        while not select.select([stream], [], [], self.remaining())[0]:
            self.tick(where)
        return stream.read()

    def done(self, step: str) -> None:
        """Says that a step has come to its end, and how long it took."""
        now = time.monotonic()
        self._say(f"{step} in {now - self._step_begun:.1f} s")
        self._step_begun = now

    def amount(self, done: int, total: int | None = None) -> str:
        """How much of a step is done, of how many bytes, and how fast."""
        of = f" of {readable(total)}" if total else ""
        seconds = max(0.001, time.monotonic() - self._step_begun)
        return f"{readable(done)}{of}, {readable(done / seconds)}/s"

    def _say(self, text: str) -> None:
        self.said.append(f"{self.what}: {text}")
        syslog.openlog(_IDENTIFIER)
        syslog.syslog(syslog.LOG_INFO, self.said[-1])


def readable(number: float) -> str:
    """A number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"

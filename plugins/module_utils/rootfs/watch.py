# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that takes long: it says in the host's journal where it is, and it does not take for ever.

A module's result reaches Ansible as a whole, when the module has ended; the journal is what can be looked at
meanwhile: ``journalctl --follow --identifier=bare-rootfs``.
"""

from __future__ import annotations

import syslog
import time
from collections.abc import Callable

from ..converge import Failure

INTERVAL = 10.0
_IDENTIFIER = "bare-rootfs"


class OutOfTime(Failure):
    """The work has taken all the time that it may take."""


class Watch:
    """One piece of work: ``what`` it is, as a sentence about it begins, and how many ``seconds`` it may
    take."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self._seconds = seconds
        self._begun = time.monotonic()
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
            syslog.openlog(_IDENTIFIER)
            syslog.syslog(syslog.LOG_INFO, f"{self.what}: {where()}")

    def amount(self, done: int, total: int | None) -> str:
        """How much is done, of how many bytes, and how fast."""
        of = f" of {_readable(total)}" if total else ""
        return f"{_readable(done)}{of}, {_readable(done / (time.monotonic() - self._begun))}/s"


def _readable(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done for several containers at a time, by steps of each of them (converge.Step, ``shared``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..converge import Failure, Needs, Step
from ..kernel import process
from .state import running
from .supervisor import Failures

_SETTLE_SECONDS = 0.1


def settling(start: Callable[[Sequence[str]], Failures]) -> Callable[[Sequence[str]], Failures]:
    """``start``, and a moment for a command to end in that does so at once, on a mistake in its arguments."""

    def act(names: Sequence[str]) -> Failures:
        failures = start(names)
        deadline = time.monotonic() + _SETTLE_SECONDS
        for found in map(running, names):
            pidfd = process.open_process(*found) if found else None
            if pidfd is not None:
                process.wait_for_end(pidfd, deadline - time.monotonic())
                os.close(pidfd)
        return failures

    return act


class Together:
    """One act for all the containers that have come to it: each joins, one acts, each hears what became of
    it."""

    def __init__(self, name: str, act: Callable[[list[Any]], Failures]) -> None:
        self._name = name
        self._act = act
        self._joined: list[Any] = []
        self._failures: dict[str, str] = {}

    def steps(
        self, name: str, item: Any, commands: tuple[str, ...], then: Callable[[], None]
    ) -> tuple[Step, ...]:
        """The steps of one container; ``then`` is what is still to be seen when its part has succeeded."""

        def confirm() -> None:
            if name in self._failures:
                raise Failure(self._failures.pop(name))
            then()

        return (
            Step("process", (), lambda: self._joined.append(item), Needs.RESTART),
            Step("process", (), self._run, Needs.RESTART, shared=self._name),
            Step("process", commands, confirm, Needs.RESTART),
        )

    def _run(self) -> None:
        joined, self._joined = self._joined, []
        self._failures.update(self._act(joined))

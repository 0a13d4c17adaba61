# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: read, plan, apply, read again.

A *resource* is one thing on the host that a declaration describes: a cgroup, a network namespace, a process.
It knows how to read itself from the kernel, what it should be, and which steps lead there. Everything else is
decided here, once: check mode, the diff, the list of commands, batches, locks, and the proof that what was
applied has held.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

State = Mapping[str, Any]
"""What a resource is: plain data (str, int, bool, None, list, dict), the same shape for actual and
expected."""


class Failure(Exception):
    """One sentence for the user: the option, the value got, what is accepted, and what was left unchanged."""


def sentence(error: OSError) -> str:
    """What the system complains of and where, as a sentence."""
    named = isinstance(error.filename, (str, bytes))  # else it is None, or a descriptor
    where = f" ({os.fsdecode(error.filename)})" if named else ""
    return f"{error.strerror or error}{where}."


class Needs(enum.IntEnum):
    """The least that the kernel allows for a change to take effect."""

    LIVE = 0
    RESTART = 1
    RECREATE = 2


@dataclass(frozen=True)
class Step:
    """One change, atomic: ``apply`` has done all of it or, when it raises, nothing of it.

    ``changes`` names the setting as the state does; ``commands`` are the shell commands a person would type
    for it, in order. ``apply`` raises Failure or OSError.

    Steps of a batch that carry the same ``shared`` name are one act (a daemon-reload, one firewall
    transaction): it is done once, by the first of them, when every entry that has it planned has come that
    far.
    """

    changes: str
    commands: tuple[str, ...]
    apply: Callable[[], None]
    needs: Needs = Needs.LIVE
    shared: str | None = None


class Resource(Protocol):
    """What the engine asks of a resource. ``name`` is unique in a batch and names the lock."""

    @property
    def name(self) -> str: ...

    def read(self) -> State:
        """The actual state, from the kernel and the disk; never from memory of an earlier run."""

    def expect(self, actual: State) -> State:
        """The state that the declaration asks for. Raises Failure where the host can't give it."""

    def plan(self, actual: State, expected: State) -> Sequence[Step]:
        """The steps from actual to expected, in order; empty when, and only when, nothing has to change."""

    def facts(self, actual: State) -> Mapping[str, Any]:
        """What is returned to the user beside the engine's own keys (a PID, a path, values read back).

        ``warnings`` among it are sentences that Ansible shows as such.
        """


@dataclass
class Outcome:
    """What became of one resource. ``error`` is None or one sentence."""

    name: str
    before: State = field(default_factory=dict)
    after: State = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def commands(self) -> list[str]:
        return [command for step in self.steps for command in step.commands]


def commands(outcomes: Sequence[Outcome]) -> list[str]:
    """The commands of a batch in the order in which they take effect: those of a shared step once, after what
    all who wait for it do before it. What another entry has said already (a folder made) is not repeated."""
    lines: list[str] = []
    speaker: dict[str, int] = {}
    queues = [list(outcome.steps) for outcome in outcomes]
    while True:
        for number, queue in enumerate(queues):
            while queue and queue[0].shared is None:
                own = queue.pop(0).commands
                lines += [command for command in own if speaker.setdefault(command, number) == number]
        waiting = [queue for queue in queues if queue]
        if not waiting:
            return lines
        name = _next_shared(waiting)
        together = [queue.pop(0) for queue in waiting if queue[0].shared == name]
        lines += together[0].commands


Lock = Callable[[str], AbstractContextManager[None]]


def converge(
    resources: Sequence[Resource],
    *,
    check: bool = False,
    workers: int = 1,
    refresh: Callable[[], None] = lambda: None,
    lock: Lock = lambda name: contextlib.nullcontext(),
    shared_lock: str | None = None,
) -> list[Outcome]:
    """Brings every resource to its declared state and proves it; returns one outcome for each, in the order
    given.

    ``refresh`` is called before every reading of the batch, for what the resources read together (one netlink
    dump for all). ``lock`` is held by name while a resource is changed; a converged resource is only read,
    and takes none. ``shared_lock`` is the name of one around all others, where what one resource is to be
    depends on what others are. ``workers`` is how many resources may be read or changed at a time. One that
    fails does not stop the others.
    """
    with _pool(workers) as each:
        runs = [_Run(resource) for resource in resources]
        refresh()
        each(_Run.plan, runs)
        pending = [run for run in runs if run.outcome.changed and not run.outcome.error]
        if check:
            for run in pending:
                run.predict()
        elif pending:
            with contextlib.ExitStack() as locks:
                if shared_lock is not None:
                    locks.enter_context(lock(shared_lock))
                _take_locks(pending, lock, locks)
                refresh()
                each(_Run.plan, pending)
                _apply(pending, each)
                refresh()
                each(_Run.verify, pending)
        return [run.outcome for run in runs]


class _Run:
    """One resource on its way through the engine."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.outcome = Outcome(resource.name)
        self.queue: list[Step] = []

    def plan(self) -> None:
        if self.outcome.error:
            return
        with self._reporting():
            actual = self.resource.read()
            steps = tuple(self.resource.plan(actual, self.resource.expect(actual)))
            self.queue = list(steps)
            self.outcome.before = self.outcome.after = actual
            self.outcome.steps = steps
            self.outcome.facts = self.resource.facts(actual)

    def predict(self) -> None:
        with self._reporting():
            self.outcome.after = self.resource.expect(self.outcome.before)

    def run_until_shared(self) -> None:
        while self.queue and self.queue[0].shared is None and not self.outcome.error:
            self.run_step()

    def run_step(self) -> None:
        step = self.queue[0]
        with self._reporting(f"{step.changes}: "):
            step.apply()
            self.queue.pop(0)

    def verify(self) -> None:
        failed = self.outcome.error
        applied = len(self.outcome.steps) - len(self.queue)
        self.outcome.steps = self.outcome.steps[:applied]
        with self._reporting():
            actual = self.resource.read()
            self.outcome.after = actual
            self.outcome.facts = self.resource.facts(actual)
            if failed:
                return
            left = self.resource.plan(actual, self.resource.expect(actual))
            if left:
                names = ", ".join(sorted({step.changes for step in left}))
                raise Failure(
                    f"{names} did not hold: set as declared, but reading it again shows another value."
                )

    @contextlib.contextmanager
    def _reporting(self, prefix: str = "") -> Iterator[None]:
        """Turns what a step or a reading raises into the outcome's one sentence; the first one stands."""
        try:
            yield
        except Failure as failure:
            self.outcome.error = self.outcome.error or str(failure)
        except OSError as error:
            self.outcome.error = self.outcome.error or prefix + sentence(error)


_Each = Callable[[Callable[[_Run], None], Sequence[_Run]], None]


def _apply(runs: Sequence[_Run], each: _Each) -> None:
    """Runs every queue to its end: each entry's own steps freely, a shared step once for all who wait for
    it."""
    while True:
        each(_Run.run_until_shared, runs)
        waiting = [run for run in runs if run.queue and not run.outcome.error]
        if not waiting:
            return
        name = _next_shared([run.queue for run in waiting])
        first, *others = [run for run in waiting if run.queue[0].shared == name]
        first.run_step()
        for run in others:
            if first.outcome.error:
                run.outcome.error = first.outcome.error
            else:
                run.queue.pop(0)


def _next_shared(queues: Sequence[Sequence[Step]]) -> str | None:
    """Which of the shared steps at the heads of ``queues`` is next: one that nobody has yet to come to."""
    later = {step.shared for queue in queues for step in queue[1:]}
    heads = [queue[0].shared for queue in queues]
    return next((name for name in heads if name not in later), heads[0])


def _take_locks(runs: Sequence[_Run], lock: Lock, held: contextlib.ExitStack) -> None:
    """In the order of names, so that two batches can't wait for each other."""
    for run in sorted(runs, key=lambda run: run.outcome.name):
        with run._reporting():
            held.enter_context(lock(run.outcome.name))


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[_Each]:
    """Gives a function that does one thing for every run, ``workers`` at a time, and waits for all."""
    if workers == 1:
        yield _one_by_one
        return
    with ThreadPoolExecutor(workers) as pool:

        def together(act: Callable[[_Run], None], runs: Sequence[_Run]) -> None:
            for _done in pool.map(act, runs):
                pass

        yield together


def _one_by_one(act: Callable[[_Run], None], runs: Sequence[_Run]) -> None:
    for run in runs:
        act(run)

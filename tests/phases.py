"""Run targets of the Makefile: `python tests/phases.py lint,unit,kernel testhost,molecule`.

Each argument is a lane; the targets in a lane run one after the other, the lanes at the same time. The log
of a target is printed when it is over and stays in build/logs; the end is a summary with durations and with
every test that was skipped or has failed. The exit code is 1 if any target failed; none keeps the others
from running.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

LOGS = Path("build/logs")

NOTABLE = re.compile(r"(?:SKIPPED \[\d+\] |(?:FAILED|ERROR) \S+::|WARNING: Skipping ).*$", re.MULTILINE)
"""A test that was skipped or has failed as pytest's summary tells it; one skipped as ansible-test does."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

printing = threading.Lock()


@dataclass(frozen=True)
class Phase:
    name: str
    passed: bool
    seconds: float
    notable: tuple[str, ...]


def run_lane(names: list[str]) -> list[Phase]:
    return [run(name) for name in names]


def run(name: str) -> Phase:
    """Run one target and print its log."""
    log = LOGS / f"{name}.log"
    say(f"--- {name} has started")
    start = time.monotonic()
    # Wide, so that nobody breaks the lines of a summary.
    wide = {**os.environ, "COLUMNS": "200"}
    with log.open("wb") as output:
        make = ["make", "--no-print-directory", "--keep-going", name]
        null, out = subprocess.DEVNULL, subprocess.STDOUT
        done = subprocess.run(make, stdin=null, stdout=output, stderr=out, env=wide, check=False)
    seconds = time.monotonic() - start
    text = log.read_text(encoding="utf-8", errors="replace")
    notable = tuple(dict.fromkeys(NOTABLE.findall(COLOUR.sub("", text))))
    phase = Phase(name, done.returncode == 0, seconds, notable)
    say(f"--- {name}: what it said ({log})\n{text}--- {name} has {verdict(phase)}")
    return phase


def verdict(phase: Phase) -> str:
    minutes, seconds = divmod(round(phase.seconds), 60)
    return f"{'passed' if phase.passed else 'FAILED'} in {minutes}:{seconds:02} min"


def say(text: str) -> None:
    with printing:
        print(text, flush=True)


def main() -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    lanes = [argument.split(",") for argument in sys.argv[1:]]
    start = time.monotonic()
    with ThreadPoolExecutor(len(lanes)) as pool:
        try:
            phases = list(chain.from_iterable(pool.map(run_lane, lanes)))
        except KeyboardInterrupt:
            os._exit(130)  # the terminal has told the phases as well; none is to start after them
    total = Phase("all", all(phase.passed for phase in phases), time.monotonic() - start, ())
    for phase in phases:
        for line in phase.notable:
            say(f"{phase.name}: {line}")
    for phase in [*phases, total]:
        say(f"{phase.name:<12}{verdict(phase)}")
    return 0 if total.passed else 1


if __name__ == "__main__":
    sys.exit(main())

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs whose output is read while they run: decompressors, and what makes root file systems."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

from ..converge import Failure
from ..kernel import process

_SECONDS_TO_END = 10.0
_LONGEST_MESSAGES = 1 << 20


@contextlib.contextmanager
def output(
    words: Sequence[str],
    failed: Callable[[int, list[str]], Exception],
    *,
    messages: BinaryIO | None = None,
    prepare: Callable[[], None] = lambda: None,
    **options: Any,
) -> Iterator[BinaryIO]:
    """What a program writes to its standard output; it does not outlive the context, nor us.

    ``failed`` makes an exception of its status (negative for a signal) and the lines of its standard error,
    for when it has ended without success. That is raised also in place of what the reader of a stream that
    ended too early has raised. One that still has something to say when nobody wants more of it is killed,
    and is no failure. ``messages`` is where its standard error goes, ``prepare`` runs in its process before
    it; the rest is for subprocess.Popen. Raises Failure, OSError.
    """

    def begin() -> None:
        process.die_with_parent()
        prepare()

    with contextlib.ExitStack() as stack:
        said = messages or stack.enter_context(tempfile.TemporaryFile())
        try:
            running = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                words, stdout=subprocess.PIPE, stderr=said, preexec_fn=begin, **options
            )
        except subprocess.SubprocessError as error:
            raise Failure(f"{words[0]} could not be started ({error}); nothing was changed.") from None
        with cast("BinaryIO", running.stdout) as stream:
            try:
                yield stream
            finally:
                status = _end(running, stream.fileno())
                if status:
                    raise failed(status, lines(said)) from None


def _end(running: subprocess.Popen[bytes], stream: int) -> int:
    """The status that it has ended with, 0 where it had to be stopped in the middle of its work."""
    poll = select.poll()
    poll.register(stream, 0)
    at_work = not poll.poll(0)  # else POLLHUP: nobody can write there any more
    try:
        return running.wait(0 if at_work else _SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        return 0 if at_work else running.returncode


def lines(said: BinaryIO) -> list[str]:
    """The last lines in a file of messages, none of them empty. Raises OSError."""
    length = os.fstat(said.fileno()).st_size
    text = os.pread(said.fileno(), _LONGEST_MESSAGES, max(0, length - _LONGEST_MESSAGES)).decode(
        "utf-8", "replace"
    )
    return [line.strip() for line in text.splitlines() if line.strip()]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``launch enter``, ``launch put`` and ``launch fetch``: one command, or a piece of one file, with our own
standard input, output and error. It is what the connection plugin runs on the host.

A file is opened by a process that has entered the container and is the user there: it has no other root, and
no more rights than a command of that user's. Standard error has ``launch: NAME: SENTENCE.`` for what could
not be done.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal would import enum
import errno
import os
import stat
import sys

from ..kernel import mount, path, process
from . import enter
from .bundle import FAILED, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Copy = Callable[[str, int, int], None]

_BLOCK = 1 << 16
_SIGNALLED = 128


def run(verb: str, words: list[str]) -> int | None:
    """Returns the command's exit status, 128 and its number for a signal, 0 for a file, or FAILED; None for
    ``words`` that the verb does not take: ``[--user USER] NAME`` and the command, or ``PATH OFFSET LENGTH``.
    """
    user = None
    if words[:1] == ["--user"] and len(words) > 1:
        user, words = words[1], words[2:]
    if len(words) < 2 or (verb != "enter" and not _is_piece(*words[1:])):
        return None
    name, arguments = words[0], words[1:]
    # Who types ^C is to see no traceback; the command is in a session of its own and ends with us.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    process.die_with_parent()
    line = _attempt(name, user, arguments, {"enter": None, "put": put, "fetch": fetch}[verb])
    how, _blank, what = line.partition(" ")
    if how == "failed":
        sys.stderr.write(f"launch: {name}: {what}.\n")
        return FAILED
    return int(what) + (_SIGNALLED if how == "killed" else 0)


def _is_piece(*words: str) -> bool:
    return len(words) == 3 and words[1].isdecimal() and words[2].isdecimal()


def _attempt(name: str, user: str | None, arguments: list[str], copy: Copy | None) -> str:
    """What becomes of it, as enter.attempt() has it."""
    if not name or name[0] == "." or "/" in name:
        return f"failed name: {name!r} is no container's name"
    request = {"name": name, "args": arguments, "user": user, "stdio": [0, 1, 2]}
    request.update(env=[], cwd=None, timeout=None)
    if copy is None:
        return enter.attempt(request)
    file, offset, length = arguments[0], int(arguments[1]), int(arguments[2])
    return enter.attempt(request, lambda: copy(file, offset, length))


def put(name: str, offset: int, length: int) -> None:
    """Writes ``length`` bytes of standard input to the file ``name`` from ``offset`` on, where the file then
    ends; at offset 0 it is made if missing. Raises Refused."""
    try:
        descriptor = _open(name, os.O_WRONLY | (0 if offset else os.O_CREAT))
        if os.fstat(descriptor).st_size < offset:
            raise Refused(f"put: {name!r} was changed by another while it was written")
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        _copy(0, descriptor, length)
    except OSError as error:
        raise Refused(f"put: {name!r} can't be written: {_reason(error)}") from None
    if os.lseek(descriptor, 0, os.SEEK_CUR) != offset + length:
        raise Refused(f"put: {name!r} is not whole, what was sent for it ended early")


def fetch(name: str, offset: int, length: int) -> None:
    """Writes what the file ``name`` has from ``offset`` on to standard output, at most ``length`` bytes.

    Raises Refused.
    """
    try:
        descriptor = _open(name, os.O_RDONLY)
        os.lseek(descriptor, offset, os.SEEK_SET)
        _copy(descriptor, 1, length)
    except OSError as error:
        raise Refused(f"fetch: {name!r} can't be read: {_reason(error)}") from None


def _open(name: str, flags: int) -> int:
    """A regular file; whatever else the path leads to is refused, and never waited for.

    A file of /proc may be one of ours, who have come from the host. Raises OSError, Refused.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = os.path.join(os.getcwd(), name)
    mode = 0o666 if flags & os.O_CREAT else 0
    descriptor = path.open_in_root(root, place, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, _NOT_REGULAR)
    if mount.kind(descriptor) == mount.PROC:
        raise OSError(errno.EINVAL, "it is in /proc, which a command can read and write")
    return descriptor


_NOT_REGULAR = "it is no regular file"


def _reason(error: OSError) -> str:
    # ENXIO is what opening a FIFO that nobody reads comes to, or a socket (open(2)).
    return _NOT_REGULAR if error.errno == errno.ENXIO else str(error.strerror)


def _copy(source: int, target: int, length: int) -> None:
    """Copies ``length`` bytes, or as many as there are. Raises OSError."""
    while length:
        block = memoryview(os.read(source, min(length, _BLOCK)))
        if not block:
            return
        length -= len(block)
        while block:
            block = block[os.write(target, block) :]

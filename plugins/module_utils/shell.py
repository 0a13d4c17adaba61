# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shell text: the commands that modules return for people, and that a test replays with ``sh -e``."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path

_END = "END_OF_FILE"


def command(words: Sequence[str | Path]) -> str:
    """One command line, quoted for sh."""
    return shlex.join(str(word) for word in words)


def write_value(path: Path, value: str) -> str:
    """``echo VALUE > PATH``: how a control file is written by hand."""
    return f"echo {shlex.quote(value)} > {shlex.quote(str(path))}"


def write_file(path: Path, text: str | bytes, mode: int = 0o644) -> tuple[str, ...]:
    """The commands that write a whole file, its parents made first."""
    quoted = shlex.quote(str(path))
    chmod = () if mode == 0o644 else (f"chmod {mode:04o} {quoted}",)
    return (f"mkdir -p {shlex.quote(str(path.parent))}", _content(text, quoted), *chmod)


def _content(text: str | bytes, quoted: str) -> str:
    """A here-document for whole lines none of which is the document's end; base64 for what is no text."""
    if isinstance(text, bytes):
        return f"echo {base64.b64encode(text).decode()} | base64 --decode > {quoted}"
    if text.endswith("\n") and _END not in text.split("\n"):
        return f"cat > {quoted} <<'{_END}'\n{text}{_END}"
    return f"printf %s {shlex.quote(text)} > {quoted}"

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of checksums, as sha256sum(1) and its like write them: ``DIGEST  NAME``, with --tag
``SHA256 (NAME) = DIGEST``, or for a single file its digest alone."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

DIGITS = {"sha256": 64, "sha512": 128}
"""The algorithms, and of how many hexadecimal digits their digests are."""


def find(text: str, algorithm: str, name: str) -> str | None:
    """The digest of the file ``name``, in whatever folder it is listed; None where there is none, or several
    that are not the same."""
    digits = f"[0-9a-fA-F]{{{DIGITS[algorithm]}}}"
    line = re.compile(rf"\\?({digits}) [ *](.+)|{algorithm.upper()} \((.+)\) ?= ?({digits})|({digits})")
    lines = [match.groups() for match in map(line.fullmatch, map(str.strip, text.splitlines())) if match]
    named = {
        (digest or tagged).lower()
        for digest, file, tagged_file, tagged, _alone in lines
        if PurePosixPath(file or tagged_file or "").name == name
    }
    found = named or {alone.lower() for *_named, alone in lines if alone and len(lines) == 1}
    return found.pop() if len(found) == 1 else None


def is_digest(text: str) -> bool:
    """Whether this is a digest, and no place where one is to be found."""
    return re.fullmatch("[0-9a-f]+", text) is not None

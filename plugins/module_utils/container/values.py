# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The normal forms of what options of more than one module take."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r"[^=\0]+")
USER = re.compile(r"[0-9]+|[a-zA-Z_][a-zA-Z0-9_.-]*\$?")
LAST_ID = 0xFFFFFFFE


def command(value: list[Any]) -> list[str]:
    words = [str(word) for word in value]
    if not words or not words[0] or any("\0" in word for word in words):
        raise ValueError("a list of words, the first of which is the program")
    return words


def environment(value: Mapping[str, Any]) -> dict[str, str]:
    variables = {str(name): text(item) for name, item in value.items()}
    if not all(_VARIABLE.fullmatch(name) and "\0" not in item for name, item in variables.items()):
        raise ValueError("names without '=' and values, neither with NUL characters")
    return dict(sorted(variables.items()))


def text(value: Any) -> str:
    """YAML's true is written as YAML writes it: Python's ``True`` is nothing that a program looks for."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def user(value: str) -> str:
    user, colon, group = value.partition(":")
    for part in [user, group] if colon else [user]:
        if not USER.fullmatch(part) or (part.isdecimal() and int(part) > LAST_ID):
            raise ValueError(
                "USER or USER:GROUP, each a name or a number up to 4294967294, such as 1000:1000"
            )
    return value


def absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise ValueError("an absolute path without '..'")
    return os.path.normpath("/" + value.lstrip("/"))


def seconds(value: int) -> int:
    if value < 0:
        raise ValueError("a number of seconds, 0 or more")
    return value

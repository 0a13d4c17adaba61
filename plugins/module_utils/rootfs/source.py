# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where root file systems come from: each source says which image it gives, and can make it.

A source is asked for its image on every run, so it must be cheap to tell; what it read to find out is kept
with the declaration and believed as long as the file has not been touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .archive import Limits
from .bootstrap import Bootstrap
from .busybox import Busybox
from .files import Kept
from .image import Image
from .store import Content
from .tarball import Download, Tarball
from .watch import Watch


class Source(Protocol):
    """One place that a root file system comes from; ``what`` it is, as a sentence about it begins."""

    what: str

    def image(self, kept: Kept) -> str | None:
        """The name of the image that this source gives, None where only fetching can tell. Raises Failure,
        OSError."""

    def record(self) -> dict[str, Any]:
        """What image() has read and wants to see again in ``kept`` (plain data)."""

    def fetch(self, temporary: Path, watch: Watch) -> contextlib.AbstractContextManager[Content]:
        """Gets the content, putting aside what it must in ``temporary``; ``watch`` is on all of it, to the
        last layer unpacked. Raises Failure, OSError."""

    def commands(self) -> tuple[str, ...]:
        """The shell commands that make the image, in the store's directory."""


def source(entry: Mapping[str, Any]) -> Source:
    """The one that an entry declares."""
    limits = Limits(entry["max_size"], entry["max_entries"])
    if entry.get("busybox"):
        return Busybox()
    if "image" in entry:
        return Image(entry, limits)
    if "bootstrap" in entry:
        return Bootstrap(entry, limits)
    return Tarball(entry, limits) if "path" in entry else Download(entry, limits)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of rootfs_fetch, and which of them go together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..converge import Failure
from ..module import NAME
from ..options import Option, Options, size
from . import skopeo

SOURCES = ("busybox", "image", "path", "url")
"""The options that say where a root file system comes from; a declaration has one of them."""

_DIGITS = {"sha256": 64, "sha512": 128}


def _checksum(value: str) -> str:
    algorithm, _colon, digest = value.strip().lower().partition(":")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS.get(algorithm, 1)}}}", digest) or algorithm not in _DIGITS:
        raise ValueError("sha256: and 64 hexadecimal digits, or sha512: and 128")
    return f"{algorithm}:{digest}"


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address that begins with https:// or http://")
    return parts.geturl()  # which has the scheme in lower case


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("an absolute path of a file on the managed host")
    return os.path.normpath(value)


def _image(value: str) -> str:
    return skopeo.reference(value).text


def _platform(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?", value):
        raise ValueError(
            "an operating system and an architecture such as linux/arm64, or with a variant linux/arm/v7"
        )
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError("a number from 1 up")
    return value


OPTIONS = Options(
    (
        NAME,
        Option("state", default="present", choices=("present", "absent")),
        Option("busybox", "bool"),
        Option("path", "path", normalise=_path),
        Option("url", normalise=_url),
        Option("checksum", normalise=_checksum),
        Option("image", normalise=_image),
        Option("platform", normalise=_platform),
        Option("pull", default="missing", choices=("missing", "always"), declared=False),
        Option("authfile", "path", normalise=_path, declared=False),
        Option("username", declared=False),
        Option("password", no_log=True, declared=False),
        Option("ca_path", "path", normalise=_path, declared=False),
        Option("force", "bool", default=False, declared=False),
        Option("validate_certs", "bool", default=True, declared=False),
        Option("timeout", "int", default=30, normalise=_positive, declared=False),
        Option("max_size", default="16G", normalise=size, declared=False),
        Option("max_entries", "int", default=1_000_000, normalise=_positive, declared=False),
        Option("verify", "bool", default=False, declared=False),
        Option("gc", "bool", default=False, declared=False),
    )
)


def validate(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises Failure for options that can't stand beside each other, in one entry or in the batch."""
    for entry in entries:
        if entry["state"] == "present":
            _validate_source(entry)
    collecting = [entry["name"] for entry in entries if entry["gc"]]
    present = [entry["name"] for entry in entries if entry["state"] == "present"]
    if collecting and present:
        raise Failure(
            f"gc: true for {collecting[0]} is not accepted beside {present[0]}, which is to be present; it "
            "takes state: absent for every entry of the task; nothing was changed."
        )


def _validate_source(entry: Mapping[str, Any]) -> None:
    name = entry["name"]
    given = [source for source in SOURCES if entry.get(source)]
    if len(given) != 1:
        got = f"all of {', '.join(given)} are given" if given else "no source is given"
        raise Failure(f"{name}: {got}, it takes one of {', '.join(SOURCES)}; nothing was changed.")
    checksum = entry.get("checksum")
    if checksum and given == ["busybox"]:
        raise Failure(
            f"checksum: {checksum!r} of {name} is not accepted with busybox, which is the host's own; "
            "it goes with path or url; nothing was changed."
        )
    if checksum and given == ["image"]:
        raise Failure(
            f"checksum: {checksum!r} of {name} is not accepted with image, whose name may end with "
            "@sha256: and the digest of its manifest; nothing was changed."
        )
    if entry.get("password") and not entry.get("username"):
        raise Failure(f"username: missing for {name}, whose password is given; nothing was changed.")
    if entry.get("username") and entry.get("authfile"):
        raise Failure(
            f"authfile: {entry['authfile']} of {name} is not accepted beside username, it takes one of them; "
            "nothing was changed."
        )
    if not checksum and entry.get("url", "").startswith("http:"):
        raise Failure(
            f"checksum: missing for {name}, whose url is not encrypted; http:// takes a checksum, https:// "
            "can do without; nothing was changed."
        )

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of rootfs_fetch, and which of them go together."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..converge import Failure
from ..module import NAME
from ..options import Option, Options, size
from . import bootstrap, skopeo, sums, web
from .web import masked

SOURCES = ("busybox", "image", "path", "url", "bootstrap")
"""The options that say where a root file system comes from; a declaration has one of them."""

_ARCHIVES = ("path", "url")


def _checksum(value: str) -> str:
    algorithm, _colon, rest = value.strip().partition(":")
    algorithm = algorithm.lower()
    if algorithm in sums.DIGITS:
        if re.fullmatch(f"[0-9a-fA-F]{{{sums.DIGITS[algorithm]}}}", rest):
            return f"{algorithm}:{rest.lower()}"
        with contextlib.suppress(ValueError):
            return f"{algorithm}:{_location(rest)}"
    raise ValueError(
        "sha256: and 64 hexadecimal digits, sha512: and 128, or one of them and where a file of checksums "
        "is: a path on the managed host, or an address"
    )


def _location(value: str) -> str:
    """A file on the managed host, or on a server."""
    if value.startswith("/"):
        return os.path.normpath(value)
    try:
        return _url(value)
    except ValueError as error:
        raise ValueError(f"an absolute path of a file on the managed host, or {error}") from None


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address that begins with https:// or http://")
    return parts.geturl()  # which has the scheme in lower case


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("an absolute path of a file on the managed host")
    return os.path.normpath(value)


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9?~][^\s,]*", value):
        raise ValueError("a name without spaces and commas")
    return value


def _words(values: Sequence[str]) -> list[str]:
    return [_word(value) for value in values]


def _mirrors(values: Sequence[str]) -> list[str]:
    for value in values:
        if not re.fullmatch(r"(deb (\[[^\]\n]*\] *)?)?[a-z][a-z0-9+.-]*:/[^\n]*", value):
            raise ValueError("addresses such as https://deb.debian.org/debian, or lines of sources.list(5)")
    return list(values)


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


_BOOTSTRAP = Options(
    (
        Option("suite", required=True, normalise=_word),
        Option("mirror", "list", elements="str", compare="list", normalise=_mirrors),
        Option("variant", default="minbase", choices=bootstrap.VARIANTS),
        Option("include", "list", elements="str", compare="set", normalise=_words),
        Option("components", "list", elements="str", compare="list", normalise=_words),
        Option("keyring", "path", normalise=_path),
        Option("architecture", normalise=_word),
    )
)

OPTIONS = Options(
    (
        NAME,
        Option("state", default="present", choices=("present", "absent")),
        Option("busybox", "bool"),
        Option("path", "path", normalise=_path),
        Option("url", normalise=_url),
        Option("bootstrap", "dict", options=_BOOTSTRAP),
        Option("checksum", normalise=_checksum),
        Option("signature", normalise=_location),
        Option("keyring", "path", normalise=_path),
        Option("image", normalise=_image),
        Option("platform", normalise=_platform),
        Option("pull", default="missing", choices=("missing", "always"), declared=False),
        Option("authfile", "path", normalise=_path, declared=False),
        Option("username", declared=False),
        Option("password", no_log=True, declared=False),
        Option("force", "bool", default=False, declared=False),
        *web.OPTIONS,
        Option("timeout", "int", default=30, normalise=_positive, declared=False),
        Option("max_size", default="16G", normalise=size, declared=False),
        Option("max_entries", "int", default=1_000_000, normalise=_positive, declared=False),
        Option("max_time", "int", default=3600, normalise=_positive, declared=False),
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
    if entry.get("checksum") and given == ["image"]:
        raise Failure(
            f"checksum: {entry['checksum']!r} of {name} is not accepted with image, whose name may end with "
            "@sha256: and the digest of its manifest; nothing was changed."
        )
    if entry.get("password") and not entry.get("username"):
        raise Failure(f"username: missing for {name}, whose password is given; nothing was changed.")
    if entry.get("username") and entry.get("authfile"):
        raise Failure(
            f"authfile: {entry['authfile']} of {name} is not accepted beside username, it takes one of them; "
            "nothing was changed."
        )
    _validate_proof(entry, given[0])
    if entry.get("bootstrap", {}).get("keyring") and not entry["bootstrap"].get("mirror"):
        raise Failure(
            f"bootstrap.keyring: {entry['bootstrap']['keyring']!r} of {name} is not accepted without "
            "bootstrap.mirror, whose keys it has; nothing was changed."
        )


def _validate_proof(entry: Mapping[str, Any], source: str) -> None:
    """Whether what an archive has to be is said of an archive, and is enough to believe in it."""
    name = entry["name"]
    for option in ("checksum", "signature", "keyring"):
        if entry.get(option) and source not in _ARCHIVES:
            raise Failure(
                f"{option}: {entry[option]!r} of {name} is not accepted with {source}; it goes with "
                f"{' or '.join(_ARCHIVES)}; nothing was changed."
            )
    if bool(entry.get("signature")) != bool(entry.get("keyring")):
        given, missing = sorted(("signature", "keyring"), key=lambda option: not entry.get(option))
        raise Failure(
            f"{given}: {masked(entry[given])!r} of {name} is not accepted without {missing}: who has signed "
            "is to be one of those who may; nothing was changed."
        )
    if entry.get("signature"):
        return
    checksum = entry.get("checksum", "")
    if checksum.partition(":")[2].startswith("http:"):
        raise Failure(
            f"checksum: {masked(checksum)!r} of {name} is not encrypted; http:// takes a signature, https:// "
            "can do without; nothing was changed."
        )
    if not checksum and entry.get("url", "").startswith("http:"):
        raise Failure(
            f"checksum: missing for {name}, whose url is not encrypted; http:// takes a checksum or a "
            "signature, https:// can do without; nothing was changed."
        )

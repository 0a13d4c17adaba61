# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""skopeo(1), which knows registries and the files that container tools keep images in: what an image is
called, and how it is fetched. Mirrors, policy and credentials of the host are its own business
(containers-registries.conf(5), containers-policy.json(5), containers-auth.json(5))."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..converge import Failure
from ..shell import command
from . import program
from .watch import Watch

FILES = {"dir": "manifest.json", "docker-archive": "", "oci": "index.json", "oci-archive": ""}
"""The transports for images in a file or a directory, and the file in there that changes with the image."""

_DAEMONS = ("containers-storage", "docker-daemon")
_REGISTRY = "docker://"
_PLATFORM = ("os", "arch", "variant")


@dataclass(frozen=True)
class Reference:
    """What an image is called (containers-transports(5)): ``TRANSPORT:REST``."""

    text: str

    @property
    def transport(self) -> str:
        return self.text.partition(":")[0]

    @property
    def digest(self) -> str | None:
        """The digest that a registry's image is called by."""
        _name, at, digest = self.text.partition("@")
        return digest if at and self.text.startswith(_REGISTRY) else None

    @property
    def file(self) -> str | None:
        """The file that is another one when the image is, for the transports of FILES."""
        if self.transport not in FILES:
            return None
        path = self.text.split(":")[1]
        return os.path.join(path, FILES[self.transport]) if FILES[self.transport] else path

    @property
    def registry(self) -> str | None:
        """The host, and the port if there is one, of a registry's image; docker.io where it does not say."""
        if not self.text.startswith(_REGISTRY):
            return None
        first, slash, _rest = self.text[len(_REGISTRY) :].partition("/")
        return first if slash and re.search(r"[.:]|^localhost$", first) else "docker.io"

    def by_digest(self, digest: str) -> Reference:
        """The same image of a registry by this digest in place of its tag; any other as it is."""
        if not self.text.startswith(_REGISTRY):
            return self
        name = self.text.partition("@")[0]
        return Reference(f"{re.sub(r':[^:/]*$', '', name)}@{digest}")


def reference(text: str) -> Reference:
    """What ``text`` calls an image; one without a transport is a registry's. Raises ValueError."""
    known = (*FILES, *_DAEMONS)
    transport, colon, rest = text.partition(":")
    if not text or re.search(r"[\s\x00-\x1f\x7f]", text) or text.startswith("-"):
        raise ValueError("an image such as docker://registry.example/name:tag")
    if not (colon and transport in known) and not text.startswith(_REGISTRY):
        if "://" in text:
            raise ValueError(
                f"an image that begins with {_REGISTRY} or one of {', '.join(known)} and a colon"
            )
        text = f"{_REGISTRY}{text}"
    if transport in FILES and not rest.startswith("/"):
        raise ValueError(f"an absolute path after {transport}:")
    found = Reference(text)
    if found.digest is not None and not re.fullmatch("sha256:[0-9a-f]{64}", found.digest):
        raise ValueError("a digest of sha256: and 64 hexadecimal digits after @")
    return found


class Skopeo:
    """The program, with the options of an entry that are about where images come from."""

    def __init__(self, entry: Mapping[str, Any], reference: Reference, largest: int) -> None:
        self._entry = entry
        self._reference = reference
        self._largest = largest

    def resolve(self, temporary: Path, watch: Watch) -> str:
        """The digest of what the reference stands for now: a manifest, or the index of several platforms'. No
        more than that is asked for. Raises Failure, OSError."""
        words = ["inspect", "--raw", *self._access("", temporary), self._reference.text]
        raw = self._run(words, temporary, watch, lambda: "asking for its manifest")
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def copy(self, digest: str | None, layout: Path, temporary: Path, watch: Watch) -> None:
        """Fetches manifest and blobs into an OCI ``layout``, by this digest if the image is a registry's; a
        blob that has a file there already is not asked for, whatever is in that. Raises Failure, OSError.

        The manifest stays as it is, also one of Docker's (--preserve-digests, since skopeo 1.6). Signatures,
        which a layout has no place for, are looked at before, where a policy takes them.
        """
        source = self._reference if digest is None else self._reference.by_digest(digest)
        options = ["--quiet", "--preserve-digests", "--remove-signatures", *self._access("src-", temporary)]
        words = ["copy", *options, source.text, f"oci:{layout}"]
        self._run(words, temporary, watch, lambda: f"fetched {watch.amount(size(layout))}")

    def command(self, directory: str) -> str:
        """The command line that does the same as copy(), without secrets."""
        words = ["copy", "--quiet", *self._access("src-", None), self._reference.text, f"dir:{directory}"]
        return command(["skopeo", *self._platform(), *words])

    def raw_command(self) -> str:
        """The command line that prints what resolve() takes the digest of, without secrets."""
        words = ["inspect", "--raw", *self._access("", None), self._reference.text]
        return command(["skopeo", *self._platform(), *words])

    def _platform(self) -> list[str]:
        parts = self._entry.get("platform", "").split("/")
        return [f"--override-{name}={part}" for name, part in zip(_PLATFORM, parts) if part]

    def _access(self, prefix: str, temporary: Path | None) -> list[str]:
        """How a registry is asked. What skopeo wants a file or a directory for is put in ``temporary``;
        without one it is only named."""
        words = []
        if self._entry.get("authfile"):
            words.append(f"--authfile={self._entry['authfile']}")
        if self._entry.get("username") and temporary is not None:
            words.append(f"--authfile={_credentials(self._entry, self._reference, temporary)}")
        if not self._entry["validate_certs"] and self._reference.registry:
            words.append(f"--{prefix}tls-verify=false")
        if self._entry.get("ca_path") and self._reference.registry:
            words.append(f"--{prefix}cert-dir={_certificates(self._entry['ca_path'], temporary)}")
        return words

    def _run(self, words: Sequence[str], temporary: Path, watch: Watch, where: Callable[[], str]) -> bytes:
        """What it prints. It writes no file larger than the whole image may be."""
        path = shutil.which("skopeo")
        if path is None:
            raise Failure(
                f"image: {self._reference.text} takes the program skopeo; install the package skopeo; "
                "nothing was changed."
            )

        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (self._largest, self._largest))
        with program.output(
            [path, *self._platform(), *words],
            self._failed,
            prepare=limit,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(temporary)},
        ) as printed:
            return watch.wait(printed, where)

    def _failed(self, status: int, said: list[str]) -> Failure:
        reason = _reason(said) or f"skopeo ended with {status}"
        return Failure(f"image: {self._reference.text} could not be fetched: {reason}; nothing was changed.")


def size(directory: Path) -> int:
    """The bytes in the files below, which others may be at work on. Raises OSError."""
    total = 0
    for folder, _folders, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _credentials(entry: Mapping[str, Any], image: Reference, temporary: Path) -> Path:
    """An authentication file for one registry (containers-auth.json(5)): all see a command line."""
    key = "https://index.docker.io/v1/" if image.registry == "docker.io" else image.registry
    secret = base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
    path = temporary / "auth.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": {key: {"auth": secret}}}), encoding="utf-8")
    return path


def _certificates(path: str, temporary: Path | None) -> str:
    """The directory that skopeo takes certificates from, where ``path`` may be a file with one."""
    if temporary is None or os.path.isdir(path):
        return path if os.path.isdir(path) else os.path.dirname(path)
    if not os.path.isfile(path):
        raise Failure(f"ca_path: there is no file {path} on this host; nothing was changed.")
    directory = temporary / "certificates"
    directory.mkdir(exist_ok=True)
    if not (directory / "ca.crt").is_symlink():
        (directory / "ca.crt").symlink_to(path)
    return str(directory)


def _reason(messages: Sequence[str]) -> str:
    """The last message of its log (``time="..." level=fatal msg="..."``), as a part of a sentence."""
    text = messages[-1] if messages else ""
    found = re.search(r'msg=("(?:[^"\\]|\\.)*")', text)
    if found:
        text = re.sub(r'\\(["\\])', r"\1", found[1][1:-1])
    return " ".join(re.sub(r"\\[nt]", " ", text).split()).rstrip(".")

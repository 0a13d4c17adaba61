# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive has to be: a checksum says so, or a file of them, and a signature says who vouches for
it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..converge import Failure
from ..shell import command
from . import signature, store, sums
from .files import Kept, digest, open_file
from .watch import Watch
from .web import Web, masked

_LARGEST = 16 << 20


class Proof:
    """What ``checksum``, ``signature`` and ``keyring`` of an entry say of an archive with this file name."""

    def __init__(self, entry: Mapping[str, Any], file_name: str, web: Web) -> None:
        self._declared = {name: entry.get(name) for name in ("checksum", "signature", "keyring")}
        self._file_name = file_name
        self._web = web
        algorithm, _colon, checksum = (entry.get("checksum") or "sha256:").partition(":")
        self._algorithm = algorithm
        self._digest: str = checksum if sums.is_digest(checksum) else ""
        self._sums: str = "" if self._digest else checksum
        self._signature: str = entry.get("signature") or ""
        self._keyring: str = entry.get("keyring") or ""

    def __bool__(self) -> bool:
        return bool(self._digest or self._sums or self._signature)

    @property
    def image(self) -> str | None:
        """The image, where the declaration alone says which it is."""
        return f"{self._algorithm}-{self._digest}" if self._digest and not self._signature else None

    def was_declared(self, kept: Kept) -> bool:
        """Whether the same was asked for, and so found right, when a declaration was kept."""
        return all(kept.get(name) == value for name, value in self._declared.items())

    def check(self, label: str, archive: BinaryIO, temporary: Path, watch: Watch) -> str:
        """Raises Failure unless the open file is what it has to be, OSError; returns the image that it
        gives."""
        expected, by = self._digest, "declared"
        with (
            tempfile.TemporaryDirectory(dir=temporary) as folder,
            tempfile.TemporaryFile(dir=folder) as listed,
        ):
            if self._sums:
                self._get("checksum", self._sums, listed, watch)
                expected, by = self._find(listed), f"in {masked(self._sums)}"
            if self._signature:
                signed, its = (listed, f"checksum: {masked(self._sums)}") if self._sums else (archive, label)
                self._verify(its, signed, Path(folder), watch)
        archive.seek(0)
        found = digest(self._algorithm, archive)
        if expected and found != expected:
            raise Failure(
                f"{label} has the checksum {self._algorithm}:{found}, {by} is {self._algorithm}:{expected}; "
                "nothing was changed."
            )
        return f"{self._algorithm}-{found}"

    def commands(self, archive: str) -> tuple[str, ...]:
        """The shell commands that do the same, and leave the image's name in ``$image``."""
        folder = store.root()
        sums_file, get_sums = self._local("sums", self._sums)
        signature_file, get_signature = self._local("signature", self._signature)
        lines = [*get_sums, *get_signature]
        if self._signature:
            lines += signature.commands(sums_file or archive, signature_file, self._keyring, folder)
        if self._digest:
            listed = shlex.quote(f"{self._digest}  {archive}")
            lines += [f"echo {listed} | {self._algorithm}sum --check --quiet -"]
            lines += [f"image={self._algorithm}-{self._digest}"]
        else:
            taken = f"$({self._algorithm}sum < {shlex.quote(archive)} | cut -d ' ' -f 1)"
            lines += [f"image={self._algorithm}-{taken}"]
        if self._sums:
            lines += [f'grep -qi "${{image#*-}}" {shlex.quote(sums_file)}']
        if get_sums or self._signature:
            lines += [command(["rm", "-f", *(folder / name for name in ("sums", "signature", "keyring"))])]
        return tuple(lines)

    def _local(self, name: str, location: str) -> tuple[str, list[str]]:
        """Where a file is for the shell, and the commands that get it there."""
        if not location or location.startswith("/"):
            return location, []
        path = str(store.root() / name)
        return path, [command(self._web.curl(location, path))]

    def _find(self, listed: BinaryIO) -> str:
        listed.seek(0)
        text = listed.read().decode("utf-8", "replace")
        found = sums.find(text, self._algorithm, self._file_name)
        if found is None:
            raise Failure(
                f"checksum: {masked(self._sums)} has no {self._algorithm} of {self._file_name}, or several; "
                "nothing was changed."
            )
        return found

    def _verify(self, label: str, signed: BinaryIO, folder: Path, watch: Watch) -> None:
        with (folder / "signature").open("w+b") as given:
            self._get("signature", self._signature, given, watch)
        signature.verify(label, signed, folder / "signature", self._keyring, folder)

    def _get(self, option: str, location: str, target: BinaryIO, watch: Watch) -> None:
        """Copies a small file from this host or a server."""
        if not location.startswith("/"):
            # Signed is what comes encrypted or not: what it then says counts.
            self._web.download(option, location, target, _LARGEST, watch, anyhow=bool(self._signature))
            return
        with open_file(option, location) as opened:
            target.write(opened.read(_LARGEST))
        target.flush()


def is_foreseeable(declaration: Mapping[str, Any]) -> bool:
    """Whether a declaration tells which image it gives before anything is fetched or made."""
    if "bootstrap" in declaration or "image" in declaration or declaration.get("signature"):
        return False
    checksum = declaration.get("checksum")
    return sums.is_digest(checksum.partition(":")[2]) if checksum else "url" not in declaration

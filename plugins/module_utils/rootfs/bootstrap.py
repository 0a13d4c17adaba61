# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root file system of Debian packages, made by mmdebstrap(1) or else debootstrap(8).

They run in namespaces of their own, where the store is hidden and their temporary directory lies in its
place, and what they have made comes from them as a tar stream: it is unpacked as everybody's archive is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..converge import Failure
from ..kernel import mount, namespace
from ..shell import command
from . import program, store
from .archive import Limits, Refused
from .extract import unpack_stream
from .files import Kept
from .store import Content, Layer, Place
from .tarball import extract
from .watch import Watch
from .web import masked

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TEMPORARY = "tmp"

# The first process of a PID namespace is not ended by signals of those within, and gets the orphans of all.
_INIT = ("sh", "-c", '"$@"; exit $?', "sh")

# debootstrap makes a directory only.
_STREAM = """
mirror="$1"
shift
"$@" "$TMPDIR/tree" ${mirror:+"$mirror"} >&2
tar --create --format=pax --xattrs --numeric-owner --one-file-system --directory "$TMPDIR/tree" .
"""

_DEBOOTSTRAP_VARIANTS = {"minbase": ["--variant=minbase"], "buildd": ["--variant=buildd"], "important": []}

VARIANTS = ("essential", "apt", "minbase", "buildd", "important")
"""What is installed beside ``include``, as mmdebstrap(1) names it; debootstrap has the last three."""


class Bootstrap:
    """What these programs make of what is declared."""

    def __init__(self, entry: Mapping[str, Any], limits: Limits) -> None:
        self._declared: Mapping[str, Any] = entry["bootstrap"]
        self.what = f"bootstrap: {self._declared['suite']}"
        self._force = entry["force"]
        self._limits = limits
        self._made: str | None = None

    def image(self, kept: Kept) -> str | None:
        """Packages change, what is declared does not: so it is that which an image has its name from, or else
        when it was asked for anew."""
        if self._force:
            return self._made
        if kept.get("bootstrap") == self._declared and store.has(store.image_of(kept)):
            return store.image_of(kept)
        return self._name()

    def record(self) -> dict[str, Any]:
        return {}

    @contextlib.contextmanager
    def fetch(self, temporary: Path, watch: Watch) -> Iterator[Content]:
        image = self._name(time.time_ns()) if self._force else self._name()
        make = words(self._declared)

        def into(place: Place) -> str:
            try:
                with stream(make, store.root(), temporary) as (made, where):
                    read = unpack_stream(made, place.tree, self._limits, watch, where)
            except Refused as refused:
                raise Failure(f"bootstrap: what was made {refused}; nothing was changed.") from None
            watch.done(f"made and unpacked {read}")
            return store.chain(None, read.digest)

        yield Content(image, [Layer(None, into)])
        self._made = image

    def commands(self) -> tuple[str, ...]:
        archive = str(store.root() / "archive")
        make = masked(command(words(self._declared)))
        name = "sha256-$(date +%s%N | sha256sum | cut -d ' ' -f 1)" if self._force else self._name()
        return (
            'export TMPDIR="$(mktemp -d)"',
            f"{make} > {archive}",
            'rm -r "$TMPDIR"',
            "unset TMPDIR",
            f"image={name}",
            *store.commands("$image", extract(archive)),
            command(["rm", archive]),
        )

    def _name(self, generation: int = 0) -> str:
        made_from = json.dumps([self._declared, generation], sort_keys=True)
        return f"sha256-{hashlib.sha256(made_from.encode()).hexdigest()}"


def words(declared: Mapping[str, Any]) -> list[str]:
    """The command line that writes the tar stream of a root file system to its standard output. Raises
    Failure where the host has no program for it."""
    keyring = declared.get("keyring")
    if keyring and not os.path.isfile(keyring):
        raise Failure(f"bootstrap.keyring: there is no file {keyring} on this host; nothing was changed.")
    for name, make in (("mmdebstrap", _mmdebstrap), ("debootstrap", _debootstrap)):
        if shutil.which(name, path=_PATH):
            return make(declared)
    raise Failure(
        "bootstrap: neither mmdebstrap nor debootstrap is on this host; install the package mmdebstrap, or "
        "debootstrap; nothing was changed."
    )


def _mmdebstrap(declared: Mapping[str, Any]) -> list[str]:
    """With a keyring, whole lines of sources.list(5): apt believes its own keys beside those of --keyring."""
    mirrors = declared.get("mirror", [])
    components = declared.get("components", ["main"])
    keyring = declared.get("keyring")
    rest = f"{declared['suite']} {' '.join(components)}"
    lines = [
        mirror if mirror.startswith("deb ") or not keyring else f"deb [signed-by={keyring}] {mirror} {rest}"
        for mirror in mirrors
    ]
    options = ["--mode=root", "--format=tar", f"--variant={declared['variant']}"]
    return ["mmdebstrap", *options, *_common(declared, "--architectures"), declared["suite"], "-", *lines]


def _debootstrap(declared: Mapping[str, Any]) -> list[str]:
    variant = _DEBOOTSTRAP_VARIANTS.get(declared["variant"])
    if variant is None:
        raise Failure(
            f"bootstrap.variant: {declared['variant']!r} takes mmdebstrap, which is not on this host; "
            f"debootstrap has {', '.join(_DEBOOTSTRAP_VARIANTS)}; nothing was changed."
        )
    mirrors = declared.get("mirror", [])
    if len(mirrors) > 1 or any(mirror.startswith("deb ") for mirror in mirrors):
        raise Failure(
            "bootstrap.mirror: more than one address takes mmdebstrap, which is not on this host; "
            "debootstrap takes a single one; nothing was changed."
        )
    keyring = [f"--keyring={declared['keyring']}", "--force-check-gpg"] if "keyring" in declared else []
    options = [*variant, *keyring, *_common(declared, "--arch")]
    return ["sh", "-ec", _STREAM, "sh", "".join(mirrors), "debootstrap", *options, declared["suite"]]


def _common(declared: Mapping[str, Any], architecture: str) -> list[str]:
    lists = {"--include": declared.get("include"), "--components": declared.get("components")}
    given = {**{flag: ",".join(values) for flag, values in lists.items() if values}}
    if "architecture" in declared:
        given[architecture] = declared["architecture"]
    return [f"{flag}={value}" for flag, value in given.items()]


@contextlib.contextmanager
def stream(
    words: Sequence[str], hidden: Path, temporary: Path
) -> Iterator[tuple[BinaryIO, Callable[[], str]]]:
    """What this command line writes, and a function that tells where it is. Raises Failure, OSError.

    ``temporary`` is a directory for what it puts aside; for the program it takes the place of the directory
    ``hidden``.
    """

    def isolate() -> None:
        os.chdir(temporary)
        namespace.unshare("mnt", "ipc", "uts")
        mount.set_propagation("/", "private", recursive=True)
        mount.mount("proc", "/proc", "proc")
        mount.mount("tmpfs", str(hidden), "tmpfs", 0, "mode=0755")
        os.mkdir(hidden / _TEMPORARY)
        mount.bind(".", str(hidden / _TEMPORARY))
        os.chdir("/")

    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C.UTF-8", "TMPDIR": str(hidden / _TEMPORARY)}
    with contextlib.ExitStack() as stack:
        messages = stack.enter_context(tempfile.TemporaryFile(dir=temporary))
        with _own_processes():
            made = stack.enter_context(
                program.output(
                    [*_INIT, *words],
                    _failed,
                    messages=messages,
                    prepare=isolate,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                )
            )
        yield made, lambda: masked((program.lines(messages) or ["begun"])[-1])


@contextlib.contextmanager
def _own_processes() -> Iterator[None]:
    """What is started meanwhile is the first process of a PID namespace: all others there end with it."""
    own = namespace.open_file("/proc/self/ns/pid")
    try:
        namespace.unshare("pid")
        yield
    finally:
        namespace.enter(own, "pid")
        os.close(own)


def _failed(status: int, said: list[str]) -> Failure:
    """With what was wrong first: what comes after that is mostly about what became of it."""
    errors = [line.partition(" ")[2] for line in said if line.startswith(("E: ", "dpkg: "))]
    reason = next(iter(errors), said[-1] if said else f"it has ended with status {status}")
    return Failure(f"bootstrap: {masked(' '.join(reason.split()).rstrip('.'))}; nothing was changed.")

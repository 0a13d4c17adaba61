# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root file system from nothing but the host's own busybox: one static program under all its names, and a
small /etc."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..converge import Failure
from ..shell import command, write_file
from . import store
from .files import HashedFile, Kept
from .store import Content, Layer, Place
from .watch import Watch

PROGRAM = "/bin/busybox"
"""Where Debian's busybox-static has it."""

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sbin": 0o755,
    "srv": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/lib": 0o755,
    "usr/sbin": 0o755,
    "usr/share": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
    "var/www": 0o755,
}
"""The usual directories (hier(7)) and their modes."""

LINKS = {"var/run": "/run", "etc/mtab": "/proc/self/mounts"}

FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/hostname": "localhost\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/profile": (
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPS1='\\h:\\w\\$ '\n"
    ),
    "etc/shells": "/bin/sh\n/bin/ash\n",
}
"""What programs look for in /etc; hosts, hostname and resolv.conf are also there for a container's own to be
mounted on."""


class Busybox:
    """The host's own static busybox."""

    what = "busybox"

    def __init__(self) -> None:
        self._file = HashedFile("busybox", PROGRAM)

    def image(self, kept: Kept) -> str:
        require_static(PROGRAM)
        return f"sha256-{digest(self._file.sha256(kept))}"

    def record(self) -> dict[str, Any]:
        return self._file.record()

    @contextlib.contextmanager
    def fetch(self, temporary: Path, watch: Watch) -> Iterator[Content]:
        image = self.image({})

        def build(place: Place) -> str:
            fill(place.tree)
            watch.done(f"made of {PROGRAM}")
            return image

        yield Content(image, [Layer(image, build)])

    def commands(self) -> tuple[str, ...]:
        image = self.image({})
        make = (
            f"layer={store.directory(image)}",
            'mkdir -p "$layer/tree"',
            'cd "$layer/tree"',
            *commands(),
            "cd /",
        )
        return store.commands(image, make)


def digest(program: str) -> str:
    """The digest of the tree that a busybox with this sha256 gives: an upgraded one gives another layer."""
    skeleton = repr((sorted(DIRECTORIES.items()), sorted(LINKS.items()), sorted(FILES.items())))
    return hashlib.sha256(f"{program} {skeleton}".encode()).hexdigest()


def require_static(path: str) -> None:
    """Raises Failure unless ``path`` is a program that needs no interpreter, and so no library, of its file
    system.

    By the ELF header and the types of its program headers (elf(5)): a PT_INTERP names the dynamic linker.
    """
    try:
        with open(path, "rb") as program:
            header = program.read(4096)
    except FileNotFoundError:
        raise Failure(
            f"busybox: there is no {path} on this host; install the package busybox-static; "
            "nothing was changed."
        ) from None
    except IsADirectoryError:
        header = b""
    if 3 in _segments(header, path):
        raise Failure(
            f"busybox: {path} is dynamically linked, so it would not run in a root file system without its "
            "libraries; install the package busybox-static; nothing was changed."
        )


def _segments(header: bytes, path: str) -> list[int]:
    """The p_type of every program header. Raises Failure for what is no ELF program."""
    try:
        if header[:4] != b"\x7fELF":
            raise ValueError
        order = {1: "<", 2: ">"}[header[5]]
        where, sizes = {1: ("I", (28, 42)), 2: ("Q", (32, 54))}[header[4]]
        (start,) = struct.unpack_from(f"{order}{where}", header, sizes[0])
        length, count = struct.unpack_from(f"{order}HH", header, sizes[1])
        return [struct.unpack_from(f"{order}I", header, start + length * n)[0] for n in range(count)]
    except (IndexError, KeyError, ValueError, struct.error):
        raise Failure(
            f"busybox: {path} is no program for Linux; install the package busybox-static; "
            "nothing was changed."
        ) from None


def fill(tree: Path) -> None:
    """Fills the empty directory ``tree``. Raises Failure, OSError."""
    for name, mode in DIRECTORIES.items():
        (tree / name).mkdir()
        (tree / name).chmod(mode)
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    for name, text in FILES.items():
        (tree / name).write_text(text, encoding="utf-8")
        (tree / name).chmod(0o644)
    shutil.copyfile(PROGRAM, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for applet in _applets():
        (tree / applet).symlink_to(PROGRAM)


def _applets() -> list[str]:
    """Where busybox is to be found under its other names, ``bin/sh`` and the like. Raises Failure,
    OSError."""
    listed = subprocess.run(  # pylint: disable=ansible-bad-function
        [PROGRAM, "--list-full"], stdout=subprocess.PIPE, check=False, text=True
    )
    applets = [line for line in listed.stdout.splitlines() if "/" in line and line != "bin/busybox"]
    if listed.returncode != 0 or not applets:
        raise Failure(
            f"busybox: {PROGRAM} does not list its applets (--list-full); install the package "
            "busybox-static; nothing was changed."
        )
    return applets


def commands() -> tuple[str, ...]:
    """The shell commands that do what fill() does, in the directory that they are run in."""
    modes = dict.fromkeys(DIRECTORIES.values())
    return (
        *(command(["mkdir", "-m", f"{mode:04o}", *_with_mode(mode)]) for mode in modes),
        *(command(["ln", "-s", target, name]) for name, target in LINKS.items()),
        *(line for name, text in FILES.items() for line in write_file(Path(name), text)[1:]),
        command(["install", "-m", "0755", PROGRAM, "bin/busybox"]),
        f"{PROGRAM} --list-full | grep / | grep -vx bin/busybox | xargs -n 1 ln -s {PROGRAM}",
    )


def _with_mode(mode: int) -> list[str]:
    return [name for name, its in DIRECTORIES.items() if its == mode]

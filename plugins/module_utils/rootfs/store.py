# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: root file systems that are unpacked once, under the digest of what they came from, and shared.

::

    /var/lib/bare-containers/store/layers/sha256-DIGEST/tree/          what containers see
    /var/lib/bare-containers/store/layers/sha256-DIGEST/manifest.json  {"size": bytes in its files}
    /var/lib/bare-containers/store/.sha256-DIGEST/                     one that is being made, or removed

A layer comes to its place by a rename, so it is whole wherever it is seen, and nothing is written to it
again. It is made and removed under a lock of its own; what has a dot and no lock was left by a run that was
killed, and goes with the next that writes. Only root gets in: trees have set-user-ID programs and device
nodes of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import file
from ..kernel.syscall import call
from ..shell import command

LOCK_TIMEOUT = 600.0
_STORE = "store"


@dataclass(frozen=True)
class Content:
    """What a layer is made of: its name, ``ALGORITHM-DIGEST``, and what puts its files into an empty
    directory.

    ``unpack`` raises Failure, OSError.
    """

    layer: str
    unpack: Callable[[Path], None]


def root() -> Path:
    """The store's directory."""
    return host.STATE / "store"


def directory(layer: str) -> Path:
    """Where a layer is."""
    return root() / "layers" / layer


def tree(layer: str) -> Path:
    """Where a layer's files are."""
    return directory(layer) / "tree"


def names(declaration: Mapping[str, Any]) -> list[str]:
    """The layers that a kept declaration refers to, by the paths that are handed on there."""
    return [Path(path).parent.name for path in declaration.get("layers", [])]


def has(layer: str) -> bool:
    """Whether the layer is there."""
    return tree(layer).is_dir()


def layers() -> list[str]:
    """Every layer in the store, sorted. Raises OSError."""
    return _listed(root() / "layers")


def size(layer: str) -> int | None:
    """The bytes in its files, each of several names counted once; None where that is not known. Raises
    OSError."""
    text = file.read_text(directory(layer) / "manifest.json")
    try:
        return None if text is None else int(json.loads(text)["size"])
    except (KeyError, TypeError, ValueError):
        return None


def add(key: str, fetch: Callable[[Path], AbstractContextManager[Content]]) -> str:
    """Makes a layer and returns its name.

    ``fetch`` gets the content, using a directory for what it has to put aside. ``key`` is the layer's name,
    or another that two runs would both have for the same content: only one of them then fetches it, the other
    waits. Raises Failure, OSError.
    """
    with _lock(key):
        if has(key):
            return key
        for left in _left():
            _discard(left)
        staging = _staging(key)
        _discard(staging)
        try:
            with _lock(_STORE):
                root().parent.mkdir(parents=True, exist_ok=True)
                root().mkdir(mode=0o700, exist_ok=True)
                staging.mkdir()
            with fetch(staging) as content:
                with contextlib.nullcontext() if content.layer == key else _lock(content.layer):
                    if not has(content.layer):
                        _make(content, staging)
                return content.layer
        finally:
            _discard(staging)
            _remove_empty(root())


def commands(make: Sequence[str]) -> tuple[str, ...]:
    """The shell commands for a new layer, around those that ``make`` its tree and say where in ``$layer``."""
    files = r"""find "$layer/tree" -type f -printf '%i %s\n' | sort -u"""
    manifest = r"""awk '{size += $2} END {printf "{\"size\": %.0f}\n", size}'"""
    return (
        command(["install", "-d", "-m", "0700", root()]),
        *make,
        f'{files} | {manifest} > "$layer/manifest.json"',
    )


def unused(leaving: set[str]) -> list[str]:
    """The paths in the store that nobody uses when the containers ``leaving`` are gone: layers, what killed
    runs have left, and the store itself where there is nothing else in it. Raises Failure, OSError."""
    used = _used(leaving)
    paths = [*(directory(layer) for layer in layers() if layer not in used), *_left()]
    there = [*(directory(layer) for layer in layers()), *_unfinished()]
    store = [root()] if root().is_dir() and len(paths) == len(there) else []
    return [str(path) for path in [*paths, *store]]


def collect() -> None:
    """Removes what unused() tells of. Raises Failure, OSError."""
    for layer in layers():
        if layer not in _used(set()):
            with _lock(layer):
                if layer not in _used(set()):
                    _remove(layer)
    for left in _left():
        _discard(left)
    _remove_empty(root() / "layers")


def collect_commands(unused: Sequence[str]) -> tuple[str, ...]:
    """The shell commands that remove these paths, and what is then empty above."""
    folders = [host.STATE] if str(root()) in unused else [root() / "layers", root(), host.STATE]
    return (
        command(["rm", "-rf", *unused]),
        command(["rmdir", "--ignore-fail-on-non-empty", *folders]),
    )


def _used(leaving: set[str]) -> set[str]:
    """The layers of all containers but those ``leaving``. Raises Failure, OSError."""
    staying = [name for name in host.declared_names("rootfs") if name not in leaving]
    return {layer for name in staying for layer in names(host.Declaration(name, "rootfs").read() or {})}


@contextlib.contextmanager
def pinned(layer: str) -> Iterator[None]:
    """Holds a layer against its removal while it comes into use. Raises Failure where it is gone."""
    with _lock(layer):
        if not has(layer):
            raise Failure(f"The layer {layer} was removed by another run meanwhile; run this one again.")
        yield


def _make(content: Content, staging: Path) -> None:
    """Unpacks the content in ``staging``, and puts that in the layer's place."""
    for made in (staging, staging / "tree"):
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    content.unpack(staging / "tree")
    manifest = json.dumps({"size": _measure(staging / "tree")}) + "\n"
    file.write_atomically(staging / "manifest.json", manifest)
    _sync(staging)
    place = directory(content.layer)
    with _lock(_STORE):
        place.parent.mkdir(exist_ok=True)
        # Without its tree it is no layer, but it is in the way.
        _discard(place)
        os.rename(staging, place)
    file.sync_directory(place.parent)


def _remove(layer: str) -> None:
    """Takes a layer from its place at once, and then apart."""
    os.rename(directory(layer), _staging(layer))
    _discard(_staging(layer))


def _remove_empty(path: Path) -> None:
    """Removes a directory of the store, and those above, unless there is something in it."""
    with _lock(_STORE):
        file.remove_empty(path, up_to=host.STATE.parent)


def _staging(key: str) -> Path:
    """Where a layer is while it is not whole."""
    return root() / f".{key}"


def _unfinished() -> list[Path]:
    """All that are not whole, of other runs and of those that were killed. Raises OSError."""
    return [root() / name for name in _listed(root()) if name.startswith(".")]


def _left() -> Iterator[Path]:
    """Those that a killed run has left; nobody else can begin to work on it meanwhile. Raises OSError."""
    for path in _unfinished():
        with contextlib.suppress(file.Locked), file.lock(_lock_file(path.name[1:]), timeout=0):
            yield path


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _lock(layer: str) -> Iterator[None]:
    try:
        with file.lock(_lock_file(layer), timeout=LOCK_TIMEOUT):
            yield
    except file.Locked as held:
        holder = "another process" if held.pid is None else f"process {held.pid}"
        raise Failure(f"The layer {layer} is still being made by {holder}; nothing was changed.") from None


def _lock_file(layer: str) -> Path:
    # Containers have their locks here too, under names that don't begin with a dot.
    return host.RUN / "lock" / f".{layer}"


def _measure(top: Path) -> int:
    """The bytes in the files below, without following links. Raises OSError."""
    sizes: dict[int, int] = {}
    directories = [os.fspath(top)]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    sizes[entry.inode()] = entry.stat(follow_symlinks=False).st_size
    return sum(sizes.values())


def _sync(directory: Path) -> None:
    """Makes durable all that was written to the file system of ``directory`` (syncfs(2)). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _discard(top: Path) -> None:
    """Removes what is at ``top``, if anything, with all that is in it; follows no link. Raises OSError.

    Each directory below is moved up before it is emptied, so depth is no matter: neither the longest path nor
    the deepest recursion limits what can be removed.
    """
    if top.is_symlink() or not top.is_dir():
        return top.unlink(missing_ok=True)
    taken = set(os.listdir(top))
    names = (f"{top}/.{number}" for number in itertools.count() if f".{number}" not in taken)
    pending = [os.path.join(top, name) for name in taken]
    while pending:
        path = pending.pop()
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            continue
        for name in os.listdir(path):
            pending.append(next(names))
            os.rename(os.path.join(path, name), pending[-1])
        os.rmdir(path)
    top.rmdir()

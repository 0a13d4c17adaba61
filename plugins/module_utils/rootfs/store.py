# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: images, which are layers and a configuration; each layer is unpacked once and shared.

::

    /var/lib/bare-containers/store/images/sha256-DIGEST.json  {"config": {...}, "layers": [lowest first], ...}
                                   layers/sha256-CHAIN/
                                       tree/                  what containers see, through an overlay
                                       manifest.json          {"size": bytes in its files}
                                       tree.sha256            the digest of all that is in its tree
                                   .NAME/                     one that is being made, or removed

An image has the digest of what it came from: of an archive, or of a registry's manifest. A layer has the
digest of its uncompressed archive and of those below it (OCI image spec, config, "Layer ChainID"; the lowest
layer's is that of its archive alone): an archive does not say all of its layer, as the directories, links and
deletions in it are about what lies below.

Declarations refer to images, and images to layers. An image is written down before its layers are made, so
that what nobody refers to can go at any time, and it is there when all of them are. A layer comes to its
place by a rename, so it is whole wherever it is seen, and nothing is written to it again. Both are made and
removed under a lock of their own; what has a dot and no lock was left by a run that was killed, and goes with
the next that writes. Only root gets in: trees have set-user-ID programs and device nodes of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import file
from ..kernel.syscall import call
from ..shell import command
from . import census

LOCK_TIMEOUT = 600.0
_STORE = "store"

MANIFEST = (
    r"""find "$layer/tree" -type f -printf '%i %s\n' | sort -u """
    r"""| awk '{size += $2} END {printf "{\"size\": %.0f}\n", size}' """
    '> "$layer/manifest.json"'
)
"""The shell command that writes a layer's manifest."""

# Each of them writes nothing when an archive is none of its own.
_DECOMPRESS = ("gzip -dc", "bzip2 -dc", "xz -dc", "zstd -dc", "cat")


@dataclass(frozen=True)
class Place:
    """Where a layer is made: an empty directory for its files, another on the same file system that overlayfs
    may work in, and the trees that it will lie above, lowest first."""

    tree: Path
    work: Path
    lower: Sequence[Path]


@dataclass(frozen=True)
class Layer:
    """A layer of an image: its name, ``sha256-CHAIN``, or None where only unpacking tells; and what unpacks
    it and returns its name.

    ``unpack`` raises Failure, OSError.
    """

    name: str | None
    unpack: Callable[[Place], str]


@dataclass(frozen=True)
class Content:
    """What an image is made of: its name, ``ALGORITHM-DIGEST``; its layers, lowest first, where a single one
    may have no name yet; its configuration (plain data); what else it may be found again by; and where layers
    come as blobs, the digest of each as it was fetched, in hexadecimal digits."""

    image: str
    layers: Sequence[Layer]
    config: Mapping[str, Any] = field(default_factory=dict)
    origin: str | None = None
    blobs: Sequence[str] = ()


def root() -> Path:
    """The store's directory."""
    return host.STATE / "store"


def image_file(image: str) -> Path:
    """Where it is written what an image is made of."""
    return root() / "images" / f"{image}.json"


def directory(layer: str) -> Path:
    """Where a layer is."""
    return root() / "layers" / layer


def tree(layer: str) -> Path:
    """Where a layer's files are."""
    return directory(layer) / "tree"


def chain(below: str | None, digest: str) -> str:
    """The name of a layer: of ``below``, the name of the one that it lies on, and the digest of its own
    uncompressed archive, in hexadecimal digits (OCI image spec, config, "Layer ChainID")."""
    if below is None:
        return f"sha256-{digest}"
    text = f"{below.replace('-', ':', 1)} sha256:{digest}"
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def has(image: str) -> bool:
    """Whether the image is there, whole."""
    found = layers(image)
    return bool(found) and all(map(has_layer, found))


def has_layer(layer: str) -> bool:
    """Whether the layer is there."""
    return tree(layer).is_dir()


def images() -> list[str]:
    """Every image in the store, also those of which a layer is missing, sorted. Raises OSError."""
    return [name[: -len(".json")] for name in _listed(root() / "images") if name.endswith(".json")]


def layers(image: str) -> list[str]:
    """The names of an image's layers, lowest first; none where it is not there. Raises OSError."""
    return _names(image, "layers")


def config(image: str) -> dict[str, Any]:
    """The image's configuration. Raises OSError."""
    found = _read(image_file(image)).get("config")
    return found if isinstance(found, dict) else {}


def by_origin(origin: str) -> str | None:
    """The image that came from there, whole, or None. Raises OSError."""
    return next((image for image in images() if origin in _origins(image) and has(image)), None)


def blobs() -> set[str]:
    """The blobs that images say their layers came as, of those that are there: who has the layer has no need
    of the blob, nearly always, as it may be one layer above one below and another above another. Raises
    OSError."""
    pairs = [pair for image in images() for pair in zip(_names(image, "blobs"), layers(image))]
    return {blob for blob, layer in pairs if has_layer(layer)}


def _names(image: str, of: str) -> list[str]:
    found = _read(image_file(image)).get(of)
    names = found if isinstance(found, list) else []
    return names if all(isinstance(name, str) and "/" not in name for name in names) else []


def _origins(image: str) -> list[Any]:
    found = _read(image_file(image)).get("origins")
    return found if isinstance(found, list) else []


def size(image: str) -> int | None:
    """The bytes in the files of its layers, each of several names counted once; None where that is not known.
    Raises OSError."""
    found = layers(image)
    sizes = [_read(directory(layer) / "manifest.json").get("size") for layer in found]
    known = [size for size in sizes if isinstance(size, int)]
    return sum(known) if found and len(known) == len(found) else None


def all_layers() -> list[str]:
    """Every layer in the store, sorted. Raises OSError."""
    return _listed(root() / "layers")


def damaged(image: str) -> list[str]:
    """The layers of an image that are not what was unpacked: all is read to tell. Raises OSError.

    One that was never counted, as shell commands leave it, is not known to be what it was.
    """
    return [layer for layer in layers(image) if has_layer(layer) and _recorded(layer) != _count(layer).digest]


def add(
    key: str, fetch: Callable[[Path], AbstractContextManager[Content]], anew: Collection[str] = ()
) -> str:
    """Makes an image and returns its name; the layers ``anew`` also where they are there already.

    ``fetch`` gets the content, using a directory for what it has to put aside. ``key`` is the image's name,
    or another that two runs would both have for the same content: only one of them then fetches it, the other
    waits. Raises Failure, OSError.
    """
    with _lock(f"image-{key}"):
        if has(key) and not anew:
            return key
        sweep()
        staging = _staging(f"image-{key}")
        _discard(staging)
        try:
            with _lock(_STORE):
                root().parent.mkdir(parents=True, exist_ok=True)
                root().mkdir(mode=0o700, exist_ok=True)
                staging.mkdir()
            with fetch(staging) as content:
                own = content.image == key
                with contextlib.nullcontext() if own else _lock(f"image-{content.image}"):
                    if anew or not has(content.image):
                        _make(content, staging, anew)
                    elif content.origin and content.origin not in _origins(content.image):
                        _refer(content, layers(content.image))
                return content.image
        finally:
            _discard(staging)
            for folder in ("images", "layers"):
                _remove_empty(root() / folder)


def content_of(archive: str) -> str:
    """The shell commands that write what is in an archive, which is a word of theirs, however compressed."""
    return f"{{ {' || '.join(f'{program} < {archive} 2>&-' for program in _DECOMPRESS)}; }}"


def prepare_commands() -> tuple[str, ...]:
    """The shell commands that make the store, before anything is put aside in it."""
    return (command(["install", "-d", "-m", "0700", root()]),)


def commands(image: str, make: Sequence[str]) -> tuple[str, ...]:
    """The shell commands for a new image of one layer, around those that ``make`` its tree and say where in
    ``$layer``. ``image`` is its name, in which the shell may have something to expand."""
    written = r"""printf '{"config": {}, "layers": ["%s"]}\n' "${layer##*/}" """.rstrip()
    return (
        *make,
        MANIFEST,
        command(["mkdir", "-p", root() / "images"]),
        f"{written} > {shlex.quote(str(root()))}/images/{image}.json",
    )


def unused(leaving: set[str]) -> list[str]:
    """The paths in the store that nobody uses when the containers ``leaving`` are gone: images, layers, what
    killed runs have left, and the store itself where there is nothing else in it. Raises Failure, OSError."""
    used = _used_images(leaving)
    there = images()
    idle = [image for image in there if image not in used]
    kept = _used_layers(leaving, [image for image in there if image in used])
    free = [layer for layer in all_layers() if layer not in kept]
    paths = [*map(image_file, idle), *map(directory, free), *_left()]
    whole = len(paths) == len(there) + len(all_layers()) + len(_unfinished())
    store = [root()] if root().is_dir() and whole else []
    return [str(path) for path in [*paths, *store]]


def collect() -> None:
    """Removes what unused() tells of. Raises Failure, OSError."""
    for image in images():
        if image not in _used_images(set()):
            with _lock(f"image-{image}"):
                if image not in _used_images(set()):
                    file.remove(image_file(image))
    _collect_layers(all_layers())
    sweep()
    for folder in ("images", "layers"):
        _remove_empty(root() / folder)


def sweep() -> None:
    """Removes what runs that were killed have left. Raises OSError."""
    for left in _left():
        _discard(left)


def _collect_layers(layers: Iterable[str]) -> None:
    for layer in layers:
        if layer not in _used_layers(set(), images()):
            with _lock(f"layer-{layer}"):
                if layer not in _used_layers(set(), images()):
                    _remove(layer)


def collect_commands(unused: Sequence[str]) -> tuple[str, ...]:
    """The shell commands that remove these paths, and what is then empty above."""
    within = [root() / "images", root() / "layers", root(), host.STATE]
    folders = [host.STATE] if str(root()) in unused else within
    there = [folder for folder in folders if folder.is_dir()]
    return (
        command(["rm", "-rf", *unused]),
        command(["rmdir", "--ignore-fail-on-non-empty", *there]),
    )


@contextlib.contextmanager
def pinned(image: str) -> Iterator[None]:
    """Holds an image against its removal while it comes into use. Raises Failure where it is gone."""
    with _lock(f"image-{image}"):
        if not has(image):
            raise Failure(f"The image {image} was removed by another run meanwhile; run this one again.")
        yield


def _used_images(leaving: set[str]) -> set[str]:
    """The images of all containers but those ``leaving``. Raises Failure, OSError."""
    return {image_of(declaration) for declaration in _declarations(leaving)} - {""}


def _used_layers(leaving: set[str], images: Sequence[str]) -> set[str]:
    """The layers of these images and, whatever became of theirs, of all containers but those ``leaving``.
    Raises Failure, OSError."""
    mounted = {layer for declaration in _declarations(leaving) for layer in layers_of(declaration)}
    return mounted.union(*map(layers, images))


def _declarations(leaving: set[str]) -> list[dict[str, Any]]:
    staying = [name for name in host.declared_names("rootfs") if name not in leaving]
    return [host.Declaration(name, "rootfs").read() or {} for name in staying]


def image_of(declaration: Mapping[str, Any]) -> str:
    """The image that a kept declaration refers to, or nothing."""
    return str(declaration.get("digest") or "").replace(":", "-", 1)


def layers_of(declaration: Mapping[str, Any]) -> list[str]:
    """The layers that a kept declaration refers to, by the paths that are handed on there."""
    return [Path(path).parent.name for path in declaration.get("layers", [])]


def _make(content: Content, staging: Path, anew: Collection[str]) -> None:
    """Has every layer of an image in its place, lowest first; the image refers to them before that."""
    names = [layer.name for layer in content.layers if layer.name is not None]
    if len(names) < len(content.layers):
        names = [_unpack(content.layers[0], [], staging)]
    made, was_there = [], has(content.image)
    _refer(content, names)
    try:
        for number, layer in enumerate(content.layers):
            with _lock(f"layer-{names[number]}"):
                if names[number] in anew or not has_layer(names[number]):
                    if layer.name is not None:
                        _unpack(layer, names[:number], staging)
                    _put(names[number], staging)
                    made.append(names[number])
    except BaseException:
        if not was_there:
            file.remove(image_file(content.image))
            _collect_layers(reversed(made))
        raise


def _refer(content: Content, names: Sequence[str]) -> None:
    written: dict[str, Any] = {"config": content.config, "layers": names}
    if content.blobs:
        written["blobs"] = content.blobs
    if content.origin:
        written["origins"] = sorted({*_origins(content.image), content.origin})
    with _lock(_STORE):
        file.write_atomically(image_file(content.image), json.dumps(written, sort_keys=True) + "\n")


def _unpack(layer: Layer, below: Sequence[str], staging: Path) -> str:
    """Has a layer in ``staging``, durable, and returns its name."""
    made = staging / "layer"
    place = Place(made / "tree", staging / "work", [tree(name) for name in below])
    for folder in (made, place.tree, place.work):
        _discard(folder)
        folder.mkdir()
        folder.chmod(0o755)
    name = layer.unpack(place)
    found = census.take(place.tree)
    file.write_atomically(made / "manifest.json", json.dumps({"size": found.size}) + "\n")
    file.write_atomically(made / "tree.sha256", f"{found.digest}\n")
    _sync(made)
    return name


def _put(layer: str, staging: Path) -> None:
    """Brings the layer that is in ``staging`` to its place."""
    place = directory(layer)
    with _lock(_STORE):
        place.parent.mkdir(exist_ok=True)
        # Damaged, or without a tree.
        if place.exists():
            os.rename(place, staging / "replaced")
        os.rename(staging / "layer", place)
    file.sync_directory(place.parent)


def _count(layer: str) -> census.Census:
    return census.take(tree(layer))


def _recorded(layer: str) -> str:
    return (file.read_text(directory(layer) / "tree.sha256") or "").strip()


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the store; an empty one where there is none. Raises OSError."""
    try:
        found = json.loads(file.read_text(path) or "{}")
    except (RecursionError, ValueError):
        found = {}
    return found if isinstance(found, dict) else {}


def _remove(layer: str) -> None:
    """Takes a layer from its place at once, and then apart."""
    os.rename(directory(layer), _staging(f"layer-{layer}"))
    _discard(_staging(f"layer-{layer}"))


def _remove_empty(path: Path) -> None:
    """Removes a directory of the store, and those above, unless there is something in it."""
    with _lock(_STORE):
        file.remove_empty(path, up_to=host.STATE.parent)


def _staging(name: str) -> Path:
    """Where an image or a layer is while it is not whole."""
    return root() / f".{name}"


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
def _lock(name: str) -> Iterator[None]:
    try:
        with file.lock(_lock_file(name), timeout=LOCK_TIMEOUT):
            yield
    except file.Locked as held:
        holder = "another process" if held.pid is None else f"process {held.pid}"
        what = name.replace("-", " ", 1)
        raise Failure(f"The {what} is still being made by {holder}; nothing was changed.") from None


def _lock_file(name: str) -> Path:
    # Containers have their locks here too, under names that don't begin with a dot.
    return host.RUN / "lock" / f".{name}"


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

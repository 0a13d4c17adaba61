# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image in an OCI layout (OCI image spec, image-layout): an index that names its manifest, and every blob
under its digest.

Manifest and configuration (OCI image spec, manifest and config; Docker's schema 2 has the same fields) come
from whoever made the image, and nothing in them is believed that has not been looked at: a blob is read only
after its digest was computed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .archive import Refused
from .files import digest

MOST_LAYERS = 128
"""Docker's own limit is 127."""

_LARGEST = 4 << 20  # what registries accept as a manifest
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Image:
    """What an image says of itself: the digest of its manifest, its layers' blobs and the digests that those
    have when decompressed, lowest first, all in hexadecimal digits; and its configuration."""

    digest: str
    blobs: Sequence[str]
    layers: Sequence[str]
    config: Mapping[str, Any]


def read(layout: Path) -> Image:
    """Reads manifest and configuration of the one image in there. Raises Refused, OSError."""
    index = _object(_text(layout / "index.json"), "an index")
    name = _blob(next(iter(_list(index.get("manifests"), "manifests")), None))
    manifest = _object(_text(check(layout, name)), "a manifest")
    if "layers" not in manifest or "config" not in manifest:
        raise Refused("has a manifest without config and layers; of Docker's, only schema 2 is accepted")
    blobs = [_blob(layer) for layer in _list(manifest["layers"], "layers")]
    described = _object(_text(check(layout, _blob(manifest["config"]))), "a configuration")
    rootfs = described.get("rootfs")
    layers = _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, "diff_ids")
    digests = [_digest(layer) for layer in layers]
    if not 1 <= len(blobs) <= MOST_LAYERS:
        raise Refused(f"has {len(blobs)} layers, from 1 to {MOST_LAYERS} are accepted")
    if len(digests) != len(blobs):
        raise Refused(f"has {len(blobs)} layers and a configuration with diff_ids of {len(digests)}")
    return Image(name, blobs, digests, configuration(described.get("config")))


def check(layout: Path, blob: str) -> Path:
    """Where a blob is, once it has the content that it is called by. Raises Refused, OSError."""
    path = _place(layout, blob)
    try:
        with open(path, "rb") as opened:
            found = digest("sha256", opened)
    except FileNotFoundError:
        raise Refused(f"lacks the blob sha256:{blob}") from None
    if found != blob:
        raise Refused(f"has a damaged blob: sha256:{blob} has the digest sha256:{found}")
    return path


def stand_in(layout: Path, blobs: Iterable[str]) -> None:
    """Makes a layout in which these blobs seem to be: who fetches an image into it does without. Raises
    OSError."""
    _place(layout, "").mkdir(parents=True)
    for blob in blobs:
        _place(layout, blob).touch()


def remove(layout: Path, blob: str) -> None:
    """Has a blob not be there any more. Raises OSError."""
    _place(layout, blob).unlink()


def _place(layout: Path, blob: str) -> Path:
    return layout / "blobs/sha256" / blob


def configuration(config: Any) -> dict[str, Any]:
    """What of an image's configuration is about the containers made from it, under the names of the OCI image
    spec (config, "Properties") and, of Docker's, ``Healthcheck``; without what says nothing. Raises
    Refused."""
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise Refused("has a configuration whose config is no object")
    found = {name: config[name] for name in _SHAPES if config.get(name) not in (None, "", [], {})}
    for name, value in found.items():
        shape, fits = _SHAPES[name]
        if not fits(value):
            raise Refused(f"has a configuration whose {name} is not {shape}")
    return {**found, **{name: sorted(found[name]) for name in ("ExposedPorts", "Volumes") if name in found}}


def _is_text(value: Any) -> bool:
    """Whether it can be an argument or part of an environment: those are bytes, and end at a zero byte."""
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_environment(value: Any) -> bool:
    return _is_list(value) and all(not entry.startswith("=") and "=" in entry for entry in value)


def _is_path(value: Any) -> bool:
    return _is_text(value) and value.startswith("/") and ".." not in value.split("/")


def _is_set(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value))


def _is_set_of_paths(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_path, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_text, value.values()))


def _is_healthcheck(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_list(value.get("Test", [])):
        return False
    numbers = [value[name] for name in ("Interval", "Timeout", "StartPeriod", "Retries") if name in value]
    return all(isinstance(number, int) and 0 <= number < 1 << 63 for number in numbers)


_SHAPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Cmd": ("a list of strings", _is_list),
    "Entrypoint": ("a list of strings", _is_list),
    "Env": ("a list of NAME=VALUE", _is_environment),
    "ExposedPorts": ("an object with ports for names", _is_set),
    "Healthcheck": ("an object with Test and numbers", _is_healthcheck),
    "Labels": ("an object of strings", _is_mapping),
    "StopSignal": ("a string", _is_text),
    "User": ("a string", _is_text),
    "Volumes": ("an object with absolute paths for names", _is_set_of_paths),
    "WorkingDir": ("an absolute path", _is_path),
}


CONFIGURATION = tuple(_SHAPES)
"""What of a configuration is kept."""


def _text(path: Path) -> bytes:
    """A small file. Raises Refused, OSError."""
    try:
        with open(path, "rb") as opened:
            text = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        raise Refused(f"lacks {path.name}") from None
    if len(text) > _LARGEST:
        raise Refused(f"has a manifest or configuration of more than {_LARGEST} bytes")
    return text


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (RecursionError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"has {what} that is no JSON object")
    return found


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(f"has no list of {name}")
    return value


def _blob(described: Any) -> str:
    return _digest(described.get("digest") if isinstance(described, dict) else None)


def _digest(value: Any) -> str:
    match = _DIGEST.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Refused(
            f"names something by {str(value)[:100]!r}, accepted is sha256: and 64 hexadecimal digits"
        )
    return match[1]

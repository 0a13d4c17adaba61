# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers mounted as one file system (Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os

from . import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LOWER = "lowerdir="
_PAGE = 4096
"""How long the options of mount(2) may be, with the NUL at their end."""


def lowerdir(layers: Sequence[str]) -> str:
    """The option that names the ``layers``, topmost first: ``:`` and ``,`` separate unless escaped."""
    return _LOWER + ":".join(_escape(layer) for layer in layers)


def split(options: Sequence[str]) -> list[str]:
    """The directories that ``lowerdir`` names among the options, topmost first."""
    found = [""]
    text = next((option[len(_LOWER) :] for option in options if option.startswith(_LOWER)), "")
    characters = iter(text)
    for character in characters:
        if character == "\\":
            found[-1] += next(characters, "")
        elif character == ":":
            found.append("")
        else:
            found[-1] += character
    return [layer for layer in found if layer]


def fits(options: Sequence[str]) -> bool:
    """Whether mount(2) takes that much."""
    return len(os.fsencode(",".join(options))) < _PAGE


def mount_layers(target: str, options: Sequence[str], source: str = "overlay") -> None:
    """Mounts an overlay at ``target``.

    /proc/PID/mountinfo tells the layers by their paths as long as these fit into a page. More than that are
    opened, and named by descriptors, which every kernel takes; ``lowerdir+`` of fsconfig(2) is for those
    since 6.5. Raises OSError (mount(2)).
    """
    if fits(options):
        mount.mount(source, target, "overlay", 0, ",".join(options))
        return
    opened: list[int] = []
    try:
        for layer in split(options):
            opened.append(os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        short = lowerdir([f"/proc/self/fd/{descriptor}" for descriptor in opened])
        others = [option for option in options if not option.startswith(_LOWER)]
        mount.mount(source, target, "overlay", 0, ",".join([short, *others]))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root file system's layers as one directory of a container's own, to be written to directly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..converge import Failure
from ..kernel import child, file, mount, namespace, overlay
from ..kernel.syscall import call
from ..kernel.tree_copy import copy_tree
from ..shell import command
from .recipe import mount_overlay

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def make(layers: Sequence[str], target: Path) -> None:
    """Has ``target`` be a copy of the ``layers``, lowest first, on the disk; what a killed run has left there
    goes. Raises Failure, OSError."""
    file.remove_tree(target)
    target.mkdir(mode=0o700, parents=True)
    try:
        reason = child.result(lambda: _attempt(list(reversed(layers)), os.fspath(target)))
    except child.Ended as ended:
        reason = f"its process {ended}"
    if reason:
        file.remove_tree(target)
        raise Failure(
            f"rootfs_mode: 'direct' takes a copy of the root file system, which could not be made: {reason}; "
            "what the container has for its root was left unchanged."
        )


def commands(layers: Sequence[str], target: Path) -> tuple[str, ...]:
    """The shell commands that do the same."""
    made = (command(["rm", "-rf", target]), command(["mkdir", "-p", target]))
    copied = ["cp", "-a", "--reflink=auto"]
    if len(layers) == 1:
        return (*made, command([*copied, f"{layers[0]}/.", target]))
    layered = mount_overlay([overlay.lowerdir(list(reversed(layers)))], "overlay", "/mnt")
    script = "; ".join([*layered, command([*copied, "/mnt/.", target])])
    return (*made, command(["unshare", "--mount", "sh", "-ec", script]))


def _attempt(layers: Sequence[str], new: str) -> str | None:
    """Copies; returns what is wrong, if anything."""
    try:
        os.umask(0)
        _copy(layers, new)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _copy(layers: Sequence[str], new: str) -> None:
    """In a mount namespace of our own: nobody sees the layers mounted, nor finds them so later."""
    originals = [os.open(layer, _DIRECTORY) for layer in layers]
    target = os.open(new, _DIRECTORY)
    source = originals[0]
    if len(layers) > 1:
        namespace.unshare("mnt")
        mount.set_propagation("/", "private", recursive=True)
        overlay.mount_layers(new, [overlay.lowerdir(layers)])
        source = os.open(new, _DIRECTORY)
    copy_tree(source, target, devices=True, originals=originals)
    call("syncfs", os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target))

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a mount by what they do (OCI runtime spec, config.md, "Linux mount options"; mount(8))."""

from __future__ import annotations

import os

from ..kernel import mount
from .bundle import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLEARS = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "diratime": "nodiratime",
    "symfollow": "nosymfollow",
}
_ATIMES = ("relatime", "noatime", "strictatime")
_RELATIME = ("atime", "norelatime", "nostrictatime")

# The messages of mounts by descriptors go to who makes them, so that it is silent in any case; versions are
# not counted unless asked for.
_WITHOUT_EFFECT = ("bind", "rbind", "defaults", "silent", "loud", "noiversion")

_DEFAULTS_OF_FILE_SYSTEMS = ("async", "nolazytime", "nomand")
"""What only undoes something of a file system; of a bind mount, which has no say in that, it asks nothing."""


class MountOptions:
    """Those of one entry of ``mounts``. Raises Refused for one that is not supported.

    ``kind`` is the file system, of a bind mount none; ``recursive`` is whether it takes along what is mounted
    below its source. ``remount`` is whether the entry changes what is mounted already: that mount, and
    unless it is called a bind mount its file system. ``propagation`` has pairs of a mount.PROPAGATION and
    whether it is for the whole tree; ``idmap`` is None where owners are not mapped, else whether they are in
    the whole tree; ``copy_up`` is whether it begins as a copy of what it covers; ``iversion`` is
    mount.count_versions(); ``own`` are the file system's own options.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        options = entry.get("options", [])
        kind = entry.get("type", "none")
        self.recursive = "rbind" in options
        self.remount = "remount" in options
        named = kind == "bind" or self.recursive or "bind" in options
        self._of_mount_alone = named or (kind == "none" and not self.remount)
        self.bind = self._of_mount_alone and not self.remount
        self.kind = "none" if self.bind else "cgroup2" if kind == "cgroup" else kind
        self.propagation: list[tuple[str, bool]] = []
        self.idmap: bool | None = None
        self.copy_up = False
        self.iversion = False
        self.own: list[str] = []
        self._one = _Attributes()
        self._all = _Attributes()
        for option in options:
            self._sort(option)
        unsupported = self._unsupported(entry["destination"])
        if unsupported:
            raise Refused(f"mount of {entry['destination']}: the option {unsupported} is not supported")

    @property
    def nodev(self) -> bool:
        """Whether no device node in it is one."""
        return self._one.has("nodev") or self._all.has("nodev")

    def spread(self, tree: int) -> None:
        """Gives the mount ``tree`` its propagation. Raises OSError."""
        for propagation, recursive in self.propagation:
            mount.set_propagation(tree, propagation, recursive=recursive)

    def apply_to(self, tree: int) -> None:
        """Gives the mount ``tree`` its attributes. Raises OSError."""
        self._one.apply_to(tree, recursive=False)
        self._all.apply_to(tree, recursive=True)

    def _sort(self, option: str) -> None:
        of_all = option[1:] if option.startswith("r") else ""
        if option in mount.PROPAGATION or of_all in mount.PROPAGATION:
            self.propagation.append((option, False) if option in mount.PROPAGATION else (of_all, True))
        elif option in ("idmap", "ridmap"):
            self.idmap = option == "ridmap"
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option == "iversion":
            self.iversion = True
        elif option in _DEFAULTS_OF_FILE_SYSTEMS and self._of_mount_alone:
            return
        elif not (
            option in (*_WITHOUT_EFFECT, "remount") or self._one.take(option) or self._all.take(of_all)
        ):
            self.own.append(option)

    def _unsupported(self, destination: str) -> str:
        """The option that does not go with the others, and why, or nothing."""
        if self.own and self._of_mount_alone:
            return f"{self.own[0]!r} of a bind mount"
        if self.iversion and (self.bind or self.remount):
            return f"'iversion' of a {'remount' if self.remount else 'bind mount'}"
        if self.copy_up and (self.kind != "tmpfs" or self.remount or os.path.normpath(destination) == "/dev"):
            return "'tmpcopyup' of what is no tmpfs, or is /dev"
        if self.idmap is not None and not self.bind:
            return f"'{'r' if self.idmap else ''}idmap' of what is no bind mount"
        return ""


class _Attributes:
    """The mount.ATTRIBUTES to be added and removed; of two that contradict each other the later one holds."""

    def __init__(self) -> None:
        self._set: dict[str, bool] = {}

    def take(self, option: str) -> bool:
        """Whether ``option`` is one that sets or clears an attribute."""
        name = "relatime" if option in _RELATIME else _CLEARS.get(option, option)
        if name not in mount.ATTRIBUTES:
            return False
        if name in _ATIMES:
            self._set = {other: wanted for other, wanted in self._set.items() if other not in _ATIMES}
        self._set[name] = option not in _CLEARS
        return True

    def has(self, name: str) -> bool:
        return self._set.get(name, False)

    def apply_to(self, tree: int, *, recursive: bool) -> None:
        if self._set:
            add = [name for name, wanted in self._set.items() if wanted]
            remove = [name for name, wanted in self._set.items() if not wanted]
            mount.set_attributes(tree, add, remove, recursive=recursive)

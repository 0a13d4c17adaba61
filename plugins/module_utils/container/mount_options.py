# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a mount by what they do (OCI runtime spec, config.md, "Linux mount options"; mount(8))."""

from __future__ import annotations

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
_WITHOUT_EFFECT = ("bind", "rbind", "defaults", "async", "nolazytime", "nomand", "loud")
_UNSUPPORTED = ("remount", "tmpcopyup")


class MountOptions:
    """Those of one entry of ``mounts``. Raises Refused for one that is not supported.

    ``kind`` is the file system, of a bind mount none; ``recursive`` is whether it takes along what is mounted
    below its source. ``propagation`` has pairs of a mount.PROPAGATION and whether it is for the whole tree;
    ``idmap`` is None where owners are not mapped, else whether they are in the whole tree; ``own`` are the
    file system's own options.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        options = entry.get("options", [])
        kind = entry.get("type", "none")
        self.recursive = "rbind" in options
        self.bind = kind in ("bind", "none") or self.recursive or "bind" in options
        self.kind = "none" if self.bind else "cgroup2" if kind == "cgroup" else kind
        self.propagation: list[tuple[str, bool]] = []
        self.idmap: bool | None = None
        self.own: list[str] = []
        self._one = _Attributes()
        self._all = _Attributes()
        for option in options:
            self._sort(option)
        unsupported = [option for option in self.own if option in _UNSUPPORTED or self.bind]
        if unsupported:
            raise Refused(f"mount of {entry['destination']}: the option {unsupported[0]!r} is not supported")

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
        elif not (option in _WITHOUT_EFFECT or self._one.take(option) or self._all.take(of_all)):
            self.own.append(option)


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

    def apply_to(self, tree: int, *, recursive: bool) -> None:
        if self._set:
            add = [name for name, wanted in self._set.items() if wanted]
            remove = [name for name, wanted in self._set.items() if not wanted]
            mount.set_attributes(tree, add, remove, recursive=recursive)

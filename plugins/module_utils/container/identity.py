# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a container's users are on the host: themselves, or in a user namespace those they are mapped to."""

from __future__ import annotations

import os

from ..kernel import mount, namespace
from . import config as configuration
from .bundle import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAPPINGS = ("uidMappings", "gidMappings")


class Identity:
    """The user namespace of a container, made or joined, and its maps; ``namespace`` is a descriptor, or None
    where the container is in the host's.

    Raises OSError, as namespace.new_user() does.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        linux = config["linux"]
        self._maps: Any = tuple(_ranges(linux.get(name, [])) for name in _MAPPINGS)
        self.namespace: int | None = None
        joined = configuration.joined_namespaces(config).get("user")
        if joined is not None:
            self.namespace = namespace.open_file(joined)
            self._maps = namespace.user_maps(self.namespace)
        elif "user" in configuration.new_namespaces(config):
            self.namespace = namespace.new_user(*self._maps)
        self.mapped = self.namespace is not None

    @property
    def root(self) -> tuple[int, int]:
        """Who the container's root is on the host."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's ids of the container's. Raises Refused for one that is not mapped."""
        if not self.mapped:
            return uid, gid
        return _outside(uid, self._maps[0]), _outside(gid, self._maps[1])

    def outside_options(self, options: list[str]) -> list[str]:
        """A file system's options with the host's ids in ``uid=`` and ``gid=``."""
        if not self.mapped:
            return options
        words = []
        for option in options:
            key, _equals, value = option.partition("=")
            if key in ("uid", "gid") and value.isdecimal():
                option = f"{key}={_outside(int(value), self._maps[key == 'gid'])}"
            words.append(option)
        return words

    def map_ids(self, tree: int, entry: dict[str, Any] | None = None, *, recursive: bool = False) -> None:
        """Maps the owners of files in a mount as its ``entry`` says, else as the container's are.

        Raises Refused where neither has mappings, or the file system can't.
        """
        own = entry is not None and any(name in entry for name in _MAPPINGS)
        if not own and not self.mapped:
            if entry is not None:
                raise Refused(f"mount of {entry['destination']}: there are no mappings for its files' owners")
            return
        descriptor = self.namespace
        if entry is not None and own:
            descriptor = namespace.new_user(*(_ranges(entry.get(name, [])) for name in _MAPPINGS))
        try:
            mount.map_ids(tree, descriptor or -1, recursive=recursive)
        except OSError as error:
            where = os.readlink(f"/proc/self/fd/{tree}")
            raise Refused(
                f"the owners of files in {where} can't be mapped: {error.strerror} (the file system has to "
                "support ID-mapped mounts)"
            ) from None
        finally:
            if own and descriptor is not None:
                os.close(descriptor)

    def enter(self) -> None:
        """Makes us root of the user namespace. Raises OSError."""
        if self.namespace is not None:
            namespace.enter(self.namespace, "user")
            become_root()

    def close(self) -> None:
        if self.namespace is not None:
            os.close(self.namespace)


def become_root() -> None:
    """Takes on the ids of root in the user namespace that we have entered. Raises OSError."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _ranges(mappings: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    return [(each["containerID"], each["hostID"], each["size"]) for each in mappings]


def _outside(identity: int, ranges: list[tuple[int, int, int]]) -> int:
    for inside, outside, count in ranges:
        if inside <= identity < inside + count:
            return outside + identity - inside
    raise Refused(f"the id {identity} is not mapped in the container's user namespace")

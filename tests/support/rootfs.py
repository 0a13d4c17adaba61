# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems on a Machine: fetched by the module, and looked at."""

from __future__ import annotations

import json
import sys
from typing import Any

Machine = Any  # conftest.Machine
STORE = "/var/lib/bare-containers/store"

# Every entry below a directory, with all that tar(5) can say of it. A file has one number for all its names.
_LIST = """
import hashlib, json, os, stat, sys
top, seen, entries = sys.argv[1], {}, {}

def xattrs(path):
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names}

def describe(path):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    entry = {"type": kind, "mode": stat.S_IMODE(s.st_mode), "owner": [s.st_uid, s.st_gid]}
    entry.update({"mtime": s.st_mtime_ns, "xattrs": xattrs(path)})
    if kind == stat.S_IFREG:
        entry["content"] = [s.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
    elif kind == stat.S_IFLNK:
        entry["target"] = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry["device"] = s.st_rdev
    if kind != stat.S_IFDIR:
        entry["same"] = seen.setdefault(s.st_ino, len(seen))
    return entry

entries["."] = describe(top)
for root, directories, files in os.walk(top):
    directories.sort()
    for name in sorted(directories + files):
        path = os.path.join(root, name)
        entries[os.path.relpath(path, top)] = describe(path)
json.dump(entries, sys.stdout)
"""

Entries = dict[str, dict[str, Any]]


def entries(machine: Machine, top: str) -> Entries:
    """Every entry below ``top``, by its path."""
    found: Entries = json.loads(machine.run(sys.executable, "-c", _LIST, top))
    return found


def without(listed: Entries, *keys: str) -> Entries:
    """The same without some of what is said of each."""
    return {path: {key: it[key] for key in it if key not in keys} for path, it in listed.items()}


def ours(machine: Machine) -> list[str]:
    """All that there is of ours on the host, but below a layer's tree."""
    found = machine.shell(
        "cd /var/lib; find bare-containers -path '*/tree/*' -prune -o -print 2>/dev/null || true"
    )
    return sorted(found.split())


def fetch(machine: Machine, *, ok: bool = True, **arguments: Any) -> dict[str, Any]:
    """The module's result; it fails unless ``ok``."""
    steering = ("check", "python", "environment", "online")
    options = {key: arguments.pop(key) for key in steering if key in arguments}
    result = machine.module("rootfs_fetch", arguments, **options)
    assert bool(result.get("failed")) != ok, result
    return result

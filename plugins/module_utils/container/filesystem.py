# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's root file system, built in its own mount namespace.

Every mount is made detached and then attached to a descriptor of its target, which was looked up with the new
root as the root of all paths: no name in the root file system, swapped or not, leads to the host (runc's
advisories CVE-2021-30465, CVE-2019-19921, CVE-2025-31133 are about what happens otherwise).
"""

from __future__ import annotations

import errno
import os
import stat

from ..kernel import mount, path
from .bundle import Refused, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
"""Name, major and minor of every container's character devices (OCI runtime spec, default devices)."""

DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
"""Name and target of the links in /dev (OCI runtime spec, runtime-linux, dev symbolic links)."""

_NULL_DEVICE = os.makedev(1, 3)
_CLEARED_BY = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec"}
_WITHOUT_EFFECT = ("bind", "rbind", "relatime", "rprivate", "private")
_LINKS = 8


def mount_root(root: str, config: dict[str, Any], report: Report) -> int:
    """Mounts the root file system at ``root`` in our mount namespace and returns it (O_PATH).

    It is the mount with the destination ``/`` if the config has one, else the directory itself: pivot_root(2)
    wants a mount point. Raises OSError.
    """
    report.step = "mount of the root file system"
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    first = config["mounts"][0] if config["mounts"] else {}
    if first.get("destination") == "/":
        mount.mount(first["source"], root, first["type"], 0, ",".join(first["options"]))
    else:
        mount.bind(root, root)
    descriptor = os.open(root, _DIRECTORY)
    # No device filter stands between a device node that came with the root file system and the host's disks.
    mount.set_attributes(descriptor, ["nodev"])
    return descriptor


def build(root: int, config: dict[str, Any], report: Report) -> None:
    """Mounts everything else of ``config`` below ``root``. Raises OSError, Refused."""
    report.step = "/dev/null"
    null = _open_null()
    for entry in config["mounts"]:
        if entry["destination"] == "/":
            continue
        report.step = f"mount of {entry['destination']}"
        _mount(root, entry)
        if entry["destination"] == "/dev":
            report.step = "devices in /dev"
            _make_devices(root)
    for masked in config["linux"].get("maskedPaths", []):
        report.step = f"masking of {masked}"
        _mask(root, masked, null)
    for readonly in config["linux"].get("readonlyPaths", []):
        report.step = f"read-only mount of {readonly}"
        _make_readonly(root, readonly)
    if config["root"].get("readonly"):
        report.step = "read-only root"
        mount.set_attributes(root, ["ro"])


def pivot(root: int) -> None:
    """Makes ``root`` the root of our mount namespace; nothing of the old one is left in it. Raises OSError.

    With one directory for both arguments the old root is mounted over the new one, and unmounting it there
    needs no directory for it inside (pivot_root(2), NOTES).
    """
    os.fchdir(root)
    mount.pivot_root(".", ".")
    mount.unmount(".", mount.MNT_DETACH)
    os.chdir("/")


def _open_null() -> int:
    """The host's /dev/null, before the container has a say in what /dev/null is. Raises OSError, Refused."""
    descriptor = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
        raise Refused("/dev/null of the host is not the null device")
    return descriptor


def _mount(root: int, entry: dict[str, Any]) -> None:
    options = entry.get("options", [])
    add = [option for option in options if option in mount.ATTRIBUTES]
    remove = [_CLEARED_BY[option] for option in options if option in _CLEARED_BY]
    if entry["type"] == "bind":
        recursive = "rbind" in options
        tree = mount.clone_tree(mount.AT_FDCWD, entry["source"], recursive=recursive)
        mount.set_attributes(tree, add, remove, recursive=recursive)
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    else:
        own = [
            option
            for option in options
            if option not in mount.ATTRIBUTES and option not in _CLEARED_BY and option not in _WITHOUT_EFFECT
        ]
        tree = mount.new_filesystem(entry["type"], own, add, entry.get("source"))
        is_directory = True
    target = _open_target(root, entry, is_directory)
    mount.attach(tree, target)
    os.close(target)
    os.close(tree)


def _open_target(root: int, entry: dict[str, Any], is_directory: bool) -> int:
    """The mount point, made where missing; /proc and /sys are ordinary directories that nothing covers."""
    destination: str = entry["destination"]
    if not is_directory:
        target = _make_file(root, destination)
    else:
        target = _open_directory(root, destination, entry["type"] in ("proc", "sysfs"))
    place = os.readlink(f"/proc/self/fd/{target}")[len(os.readlink(f"/proc/self/fd/{root}")) :]
    if entry["type"] not in ("proc", "sysfs", "cgroup2") and place.split("/")[1:2] in (["proc"], ["sys"]):
        raise Refused(f"mount of {destination}: it lies in {place}, where nothing may be mounted")
    return target


def _open_directory(root: int, destination: str, ordinary: bool) -> int:
    try:
        return path.make_directories(root, destination, symlinks=not ordinary)
    except OSError as error:
        if ordinary and error.errno == errno.ELOOP:
            raise Refused(f"mount of {destination}: it is a symbolic link in the root file system") from None
        raise


def _make_file(root: int, destination: str) -> int:
    """Opens a file inside ``root`` (O_PATH), made empty where missing, also behind dangling links."""
    for _link in range(_LINKS):
        try:
            return path.open_in_root(root, destination, os.O_PATH)
        except FileNotFoundError:
            parent = path.make_directories(root, os.path.dirname(destination))
        name = os.path.basename(destination)
        try:
            os.close(
                os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent)
            )
        except FileExistsError:
            destination = os.path.join(os.path.dirname(destination), os.readlink(name, dir_fd=parent))
        os.close(parent)
    return path.open_in_root(root, destination, os.O_PATH)


def _make_devices(root: int) -> None:
    """The device nodes and links of /dev, in the descriptor of the file system just mounted there."""
    directory = path.open_in_root(root, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    for name, major, minor in DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
    for name, target in DEVICE_LINKS:
        os.symlink(target, name, dir_fd=directory)
    os.close(directory)


def _mask(root: int, masked: str, null: int) -> None:
    """Hides a file behind the null device, a directory behind an empty read-only one, where there is one."""
    try:
        target = path.open_in_root(root, masked, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        tree = mount.new_filesystem(
            "tmpfs", ["nr_inodes=1", "mode=0555"], ["ro", "nosuid", "nodev", "noexec"]
        )
    else:
        tree = mount.clone_tree(null)
    mount.attach(tree, target)
    os.close(tree)
    os.close(target)


def _make_readonly(root: int, readonly: str) -> None:
    try:
        target = path.open_in_root(root, readonly, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    tree = mount.clone_tree(target, recursive=True)
    mount.attach(tree, target)
    mount.set_attributes(tree, ["ro"], recursive=True)
    os.close(tree)
    os.close(target)

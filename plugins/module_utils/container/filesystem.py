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

from ..kernel import mount, path, process
from . import config as configuration
from .bundle import Refused, Report
from .identity import Identity
from .mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Entry = dict[str, Any]

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
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_LINKS = 8
_LONGEST_OPTIONS = 4096  # a page (mount(2), NOTES)

_OF_NAMESPACES = {"proc": "pid", "sysfs": "network", "mqueue": "ipc", "cgroup2": "cgroup", "devpts": "user"}
"""File systems that show a namespace or belong to one, and the namespace in the spec's words."""

_KERNEL_S_OWN = ("proc", "sysfs", "cgroup2")


class Root:
    """One container's root file system on its way. Every method raises OSError, Refused.

    mount() and build() make it. In a user namespace there is less that may be done, so that build_as_host()
    goes before, and enter_copy() comes between, as the first thing in the container's own mount namespace.
    """

    def __init__(self, place: str, config: dict[str, Any], identity: Identity, report: Report) -> None:
        """``place`` is where it is mounted, ``identity`` who the container's users are on the host."""
        self.descriptor = -1
        self._place = place
        self._config = config
        self._identity = identity
        self._report = report
        self._new_namespaces = configuration.new_namespaces(config)
        self._trees: dict[int, int] = {}

    def mount(self) -> None:
        """Mounts the root itself at its place, in a new mount namespace, with the host's privileges.

        It is the mount with the destination ``/`` if the config has one, else the directory: pivot_root(2)
        wants a mount point. What is to be seen of the host is taken before, with its peer groups.
        """
        for number, entry, options in self._mounts():
            if options.bind:
                self._trees[number] = self._clone(entry, options)
        self._report.step = "mount of the root file system"
        mount.set_propagation("/", "private", recursive=True)
        entry = _root_entry(self._config)
        if entry is not None:
            self._mount_layers(entry)
        else:
            tree = mount.clone_tree(mount.AT_FDCWD, self._place, recursive=True)
            self._identity.map_ids(tree)
            _attach_to(self._place, tree)
        self.descriptor = os.open(self._place, _DIRECTORY)
        # No device filter stands between a device node that came with the root and the host's disks.
        mount.set_attributes(self.descriptor, ["nodev"])

    def build_as_host(self) -> None:
        """Mounts all but the file systems of the container's own namespaces, and makes the root our working
        directory. What is made for that belongs to the container's root."""
        process.own_files_as(*self._identity.root)
        for number, entry, options in self._mounts():
            if not self._of_own_namespace(options):
                self._mount(number, entry, options)
        os.fchdir(self.descriptor)

    def enter_copy(self) -> None:
        """Finds the root again by the working directory: a new mount namespace has copies of all mounts, and
        descriptors opened before do not lead there. The copy is mounted over itself, as it is locked."""
        self._report.step = "mount of the root file system"
        self.descriptor = mount.clone_tree(mount.AT_FDCWD, ".", recursive=True)
        _attach_to(".", self.descriptor, close=False)

    def build(self) -> None:
        """Mounts all, or what build_as_host() has left, and hides what is not for the container."""
        for number, entry, options in self._mounts():
            if not self._identity.mapped or self._of_own_namespace(options):
                self._mount(number, entry, options)
        self._report.step = "/dev/null"
        null = _open_null()
        for masked in self._config["linux"].get("maskedPaths", []):
            self._report.step = f"masking of {masked}"
            _mask(self.descriptor, masked, null)
        for readonly in self._config["linux"].get("readonlyPaths", []):
            self._report.step = f"read-only mount of {readonly}"
            _make_readonly(self.descriptor, readonly)

    def pivot(self) -> None:
        """Makes it the root of our mount namespace; nothing of the old one is left in it.

        With one directory for both arguments the old root is mounted over the new one, and unmounting it
        there needs no directory for it inside (pivot_root(2), NOTES).
        """
        self._report.step = "pivot_root"
        if self._config["root"].get("readonly"):
            mount.set_attributes(self.descriptor, ["ro"])
        os.fchdir(self.descriptor)
        mount.pivot_root(".", ".")
        mount.unmount(".", mount.MNT_DETACH)
        os.chdir("/")
        propagation = self._config["linux"].get("rootfsPropagation")
        if propagation:
            mount.set_propagation("/", propagation)

    def _mounts(self) -> Any:
        """Number, entry and options of every mount but the root's own, in order, as the step at hand."""
        for number, entry in enumerate(self._config.get("mounts", [])):
            if entry["destination"] != "/":
                self._report.step = f"mount of {entry['destination']}"
                yield number, entry, MountOptions(entry)

    def _of_own_namespace(self, options: MountOptions) -> bool:
        return _OF_NAMESPACES.get(options.kind) in self._new_namespaces

    def _mount_layers(self, entry: Entry) -> None:
        """Mounts the overlay. In a user namespace its layers are those of the mapped owners, each mounted
        over itself for that, and what is written belongs to whoever it was on the host."""
        options = MountOptions(entry)
        if self._identity.mapped:
            layers = dict(option.split("=", 1) for option in options.own if "=" in option)
            for layer in _split(layers.get("lowerdir", "")):
                tree = mount.clone_tree(mount.AT_FDCWD, layer)
                self._identity.map_ids(tree)
                _attach_to(layer, tree)
            if "upperdir" in layers:
                os.chown(layers["upperdir"], *self._identity.root, follow_symlinks=False)
        opened: list[int] = []
        text = ",".join(options.own)
        if len(os.fsencode(text)) >= _LONGEST_OPTIONS:
            text = ",".join(_by_descriptors(option, opened) for option in options.own)
        mount.mount(entry["source"], self._place, options.kind, 0, text)
        for descriptor in opened:
            os.close(descriptor)

    def _clone(self, entry: Entry, options: MountOptions) -> int:
        """The source of a bind mount, as a mount of the container's."""
        tree = mount.clone_tree(mount.AT_FDCWD, entry["source"], recursive=options.recursive)
        if not options.propagation:
            mount.set_propagation(tree, "private", recursive=True)
        for propagation, recursive in options.propagation:
            mount.set_propagation(tree, propagation, recursive=recursive)
        if options.idmap is not None:
            self._identity.map_ids(tree, entry, recursive=options.idmap)
        options.apply_to(tree)
        return tree

    def _mount(self, number: int, entry: Entry, options: MountOptions) -> None:
        if options.bind:
            tree = self._trees.pop(number)
            is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        else:
            own = self._identity.outside_options(options.own) if options.kind == "tmpfs" else options.own
            tree = mount.new_filesystem(options.kind, own, [], entry.get("source"))
            options.apply_to(tree)
            is_directory = True
        target = self._open_target(entry["destination"], options.kind, is_directory)
        mount.attach(tree, target)
        os.close(target)
        if options.kind == "tmpfs" and entry["destination"] == "/dev":
            self._report.step = "devices in /dev"
            self._make_devices(tree)
        os.close(tree)

    def _open_target(self, destination: str, kind: str, is_directory: bool) -> int:
        """The mount point, made where missing; /proc and /sys are plain directories that nothing covers, and
        nothing covers the root: who enters the mount namespace later on would be in that (setns(2))."""
        ordinary = kind in ("proc", "sysfs")
        target = self._open_directory(destination, ordinary) if is_directory else self._make_file(destination)
        place = os.readlink(f"/proc/self/fd/{target}")[len(os.readlink(f"/proc/self/fd/{self.descriptor}")) :]
        if place in ("", "/"):
            raise Refused(f"mount of {destination}: it is the root of the root file system")
        if kind not in _KERNEL_S_OWN and place.split("/")[1:2] in (["proc"], ["sys"]):
            raise Refused(f"mount of {destination}: it lies in {place}, where nothing may be mounted")
        return target

    def _open_directory(self, destination: str, ordinary: bool) -> int:
        try:
            return path.make_directories(self.descriptor, destination, symlinks=not ordinary)
        except OSError as error:
            if ordinary and error.errno == errno.ELOOP:
                raise Refused(
                    f"mount of {destination}: it is a symbolic link in the root file system"
                ) from None
            raise

    def _make_file(self, destination: str) -> int:
        """Opens a file inside (O_PATH), made empty where missing, also behind dangling links."""
        for _link in range(_LINKS):
            try:
                return path.open_in_root(self.descriptor, destination, os.O_PATH)
            except FileNotFoundError:
                parent = self._open_directory(os.path.dirname(destination), False)
            name = os.path.basename(destination)
            try:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
            except FileExistsError:
                destination = os.path.join(os.path.dirname(destination), os.readlink(name, dir_fd=parent))
            os.close(parent)
        return path.open_in_root(self.descriptor, destination, os.O_PATH)

    def _make_devices(self, tree: int) -> None:
        """The nodes and links of /dev, in the file system just mounted there."""
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        for name, major, minor in DEVICES:
            self._make_node({"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor}, directory)
        for name, target in DEVICE_LINKS:
            os.symlink(target, name, dir_fd=directory)
        for device in self._config["linux"].get("devices", []):
            self._report.step = f"device {device['path']}"
            self._make_node(device, directory)
        os.close(directory)

    def _make_node(self, device: Entry, directory: int) -> None:
        """A device of the config, in ``directory``, which is /dev; one that is there by default is
        replaced."""
        parent, name = os.path.split(device["path"][len("/dev/") :])
        folder = path.make_directories(directory, parent)
        if os.path.lexists(f"/proc/self/fd/{folder}/{name}"):
            os.unlink(name, dir_fd=folder)
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        os.mknod(name, _KINDS[device["type"]] | device.get("fileMode", 0o666), number, dir_fd=folder)
        owner = self._identity.outside(device.get("uid", 0), device.get("gid", 0))
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        os.close(folder)


def _root_entry(config: dict[str, Any]) -> Entry | None:
    entries = config.get("mounts", [])
    return entries[0] if entries and entries[0]["destination"] == "/" else None


def _by_descriptors(option: str, opened: list[int]) -> str:
    """The layers of ``lowerdir=`` by names that are short, which are good as long as they are ``opened``."""
    name, _equals, layers = option.partition("=")
    if name != "lowerdir":
        return option
    here = [os.open(layer, _DIRECTORY) for layer in _split(layers)]
    opened += here
    return f"{name}={':'.join(f'/proc/self/fd/{descriptor}' for descriptor in here)}"


def _split(layers: str) -> list[str]:
    """The directories in ``lowerdir=``, where a backslash keeps a colon from being a separator."""
    found = [""]
    characters = iter(layers)
    for character in characters:
        if character == "\\":
            found[-1] += next(characters, "")
        elif character == ":":
            found.append("")
        else:
            found[-1] += character
    return [layer for layer in found if layer]


def _attach_to(place: str, tree: int, *, close: bool = True) -> None:
    """Mounts a detached tree at a path of the host's."""
    here = os.open(place, _DIRECTORY)
    mount.attach(tree, here)
    os.close(here)
    if close:
        os.close(tree)


def _open_null() -> int:
    """The host's /dev/null, which no container has a say in. Raises OSError, Refused."""
    descriptor = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
        raise Refused("/dev/null of the host is not the null device")
    return descriptor


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

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle as a recipe for a shell: what the launcher does for it, by hand, in the words of util-linux and
iproute2.

It differs from the launcher in what tools can't do: paths are looked up by name, so the root file system has
to be trusted; output goes where the shell's goes; and the last commands are the root file system's own
umount(8), rmdir(1), env(1) and setpriv(1), as the host's are out of reach behind pivot_root(2).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from ..kernel import mount, overlay
from . import config as configuration
from .filesystem import DEVICE_LINKS, DEVICES
from .mount_options import MountOptions

Config = dict[str, Any]

_OLD_ROOT = ".old_root"
_END = "END_OF_CONTAINER"
_FOR_SET_UP = ("sys_admin", "net_admin", "mknod", "dac_override", "setgid", "setuid", "setpcap")
_MASK = (
    "if test -d $path; then mount -t tmpfs -o ro,nosuid,nodev,noexec,nr_inodes=1,mode=555 tmpfs $path; "
    "elif test -e $path; then mount --bind /dev/null $path; fi"
)
_MAKE_READONLY = (
    "if test -e $path; then mount --rbind $path $path; mount -o remount,bind,ro,nosuid,nodev,noexec $path; fi"
)
_NOT_FOR_THE_MOUNT = ("bind", "rbind", "rw", "suid", "dev", "exec", "idmap", "tmpcopyup", "remount")
_CLEARING = ("rw", "suid", "dev", "exec")
_ATTRIBUTES = (*mount.ATTRIBUTES, "rw", "suid", "dev", "exec", "idmap")
_UNSHARE = {
    "mount": "--mount",
    "uts": "--uts",
    "ipc": "--ipc",
    "cgroup": "--cgroup",
    "pid": "--pid",
    "network": "--net",
    "time": "--time",
}
_LEFT_OUT = {
    "seccomp": "a seccomp filter, which no common tool loads",
    "uidMappings": "the user namespace, whose ranges of ids take newuidmap(1) and mapped mounts",
    "resources": "the filter of devices, an eBPF program of the cgroup",
}


def recipe(bundle: str, config: Config, cgroup: str | None) -> list[str]:
    """The lines of a script for ``sh -e``; ``cgroup`` is the directory of the container's cgroup, None for
    the shell's own.
    """
    return [
        *_outside(config, cgroup),
        *_inside(os.path.join(bundle, config["root"]["path"]), config),
        *_become_command(config),
        _END,
    ]


def _outside(config: Config, cgroup: str | None) -> Iterator[str]:
    """What the shell does to itself, up to the new namespaces, which its child is the first process in."""
    if cgroup is not None:
        yield f"mkdir -p {shlex.quote(cgroup)}"
        yield f"echo $$ > {shlex.quote(cgroup)}/cgroup.procs"
    if "oomScoreAdj" in config["process"]:
        yield f"echo {config['process']['oomScoreAdj']} > /proc/self/oom_score_adj"
    for limit in config["process"].get("rlimits", []):
        values = ":".join(_limit(limit[each]) for each in ("soft", "hard"))
        yield f"prlimit --pid $$ --{limit['type'][len('RLIMIT_') :].lower()}={values}"
    words = ["exec", *_setpriv(config)]
    network = next((entry for entry in config["linux"]["namespaces"] if entry["type"] == "network"), None)
    if network and "path" in network:
        words += ["nsenter", f"--net={network['path']}"]
    new = [entry["type"] for entry in config["linux"]["namespaces"] if "path" not in entry]
    flags = [flag for kind, flag in _UNSHARE.items() if kind in new]
    words += ["unshare", *flags, "--propagation=private", "--fork"]
    yield from (f"# Left out: {what}." for key, what in _LEFT_OUT.items() if key in config["linux"])
    yield f"{shlex.join(words)} sh -e /dev/fd/3 3<<'{_END}'"
    if network and "path" not in network:
        yield "ip link set lo up"


def _limit(value: int) -> str:
    return "unlimited" if value == 0xFFFFFFFFFFFFFFFF else str(value)


def _setpriv(config: Config) -> list[str]:
    """The bounding set goes here, as rootfs's own setpriv(1) may not know it; until the last line root keeps
    what it needs for mounting as inheritable capabilities."""
    bounding = config["process"].get("capabilities", {}).get("bounding", [])
    # Two, as what is not in the bounding set can't be made inheritable any more (capabilities(7)).
    words = ["setpriv", f"--inh-caps={_add(_FOR_SET_UP)}"]
    words += ["setpriv", f"--bounding-set={','.join(['-all', _add(bounding)]).rstrip(',')}"]
    return [*words, "--no-new-privs"] if config["process"].get("noNewPrivileges") else words


def _add(capabilities: Sequence[str]) -> str:
    return ",".join(f"+{name.lower().replace('cap_', '')}" for name in capabilities)


def _drop(capabilities: Sequence[str]) -> str:
    return ",".join(f"-{name}" for name in capabilities)


def _inside(root: str, config: Config) -> Iterator[str]:
    if "hostname" in config:
        yield f"hostname {shlex.quote(config['hostname'])}"
    for key, value in config["linux"].get("sysctl", {}).items():
        yield f"echo {shlex.quote(value)} > /proc/sys/{key.replace('.', '/')}"
    yield "umask 0"
    mounts = configuration.root_mounts(config)
    for entry in mounts:
        yield from _mount_root(entry, root)
    if not mounts:
        yield shlex.join(["mount", "--bind", root, root])
        yield shlex.join(["mount", "-o", "remount,bind,nodev", root])
    yield f"cd {shlex.quote(root)}"
    for entry in config.get("mounts", []):
        if entry["destination"] != "/":
            yield from _mount(entry)
        if entry["destination"] == "/dev":
            yield from (f"mknod -m 666 dev/{name} c {major} {minor}" for name, major, minor in DEVICES)
            yield from (f"ln -s {target} dev/{name}" for name, target in DEVICE_LINKS)
    yield from _each(config["linux"].get("maskedPaths", []), _MASK)
    yield from _each(config["linux"].get("readonlyPaths", []), _MAKE_READONLY)
    yield f"mkdir -p ./{shlex.quote(config['process']['cwd'].lstrip('/'))} {_OLD_ROOT}"
    yield f"pivot_root . {_OLD_ROOT}"
    yield "cd /"


def _mount_root(entry: Config, root: str) -> Iterator[str]:
    options = ["nodev", *entry["options"]]
    for number, option in enumerate(options):
        key, _equals, value = option.partition("=")
        if key in ("upperdir", "workdir") and not value.startswith("/"):
            options[number] = f"{key}={root}/{value}"
            yield shlex.join(["mkdir", f"{root}/{value}"])
    if entry["type"] == "overlay":
        yield from mount_overlay(options, entry["source"], root)
    else:
        yield shlex.join(["mount", "-t", entry["type"], "-o", ",".join(options), entry["source"], root])


def mount_overlay(options: Sequence[str], source: str, target: str) -> Iterator[str]:
    """With short links to the layers where their paths are more than mount(2) takes."""
    short = list(options)
    linked = [] if overlay.fits(options) else overlay.split(options)
    if linked:
        names = overlay.lowerdir([str(number) for number in range(len(linked))])
        short = [names if option.startswith("lowerdir=") else option for option in options]
        yield "links=$(mktemp -d)"
        yield 'cd "$links"'
        yield from (shlex.join(["ln", "-s", layer, str(number)]) for number, layer in enumerate(linked))
    yield shlex.join(["mount", "-t", "overlay", "-o", ",".join(short), source, target])
    if linked:
        yield "cd /"
        yield 'rm -r "$links"'


def _each(paths: Sequence[str], act: str) -> Iterator[str]:
    if paths:
        yield f"for path in {shlex.join(path.lstrip('/') for path in paths)}; do {act}; done"


def _mount(entry: Config) -> Iterator[str]:
    here = entry["destination"].lstrip("/")
    plain = [_of_one_mount(option) for option in entry.get("options", [])]
    options = [option for option in plain if option not in _NOT_FOR_THE_MOUNT]
    kind = str(entry.get("type", "none"))
    meant = MountOptions(entry)
    if meant.remount:
        of_mount = ["bind"] if not meant.own else []
        cleared = [option for option in plain if option in _CLEARING]
        yield shlex.join(["mount", "-o", ",".join(["remount", *of_mount, *options, *cleared]), here])
        return
    if not meant.bind:
        if meant.copy_up:
            yield from _copy_up(kind, options, entry.get("source", kind), here)
            return
        words = ["mount", "-t", kind, *(["-o", ",".join(options)] if options else [])]
        yield shlex.join(["mkdir", "-p", here])
        yield shlex.join([*words, entry.get("source", kind), here])
        return
    source = shlex.quote(entry["source"])
    parent, here = shlex.quote(os.path.dirname(here) or "."), shlex.quote(here)
    yield f"if test -d {source}; then mkdir -p {here}; else mkdir -p {parent}; touch {here}; fi"
    yield f"mount --{'rbind' if 'rbind' in entry.get('options', []) else 'bind'} {source} {here}"
    attributes = [option for option in options if option in mount.ATTRIBUTES]
    if attributes:
        yield f"mount -o remount,bind,{','.join(attributes)} {here}"


def _copy_up(kind: str, options: Sequence[str], source: str, here: str) -> Iterator[str]:
    """From within the directory that is covered, which is then in reach of nobody else."""
    writable = [option for option in options if option != "ro"]
    words = ["mount", "-t", kind, *(["-o", ",".join(writable)] if writable else []), source, "."]
    yield shlex.join(["mkdir", "-p", here])
    yield f'(cd {shlex.quote(here)}; {shlex.join(words)}; cp -a . "$OLDPWD"/{shlex.quote(here)})'
    given = dict(option.split("=", 1) for option in options if "=" in option)
    for program, name in (("chmod", "mode"), ("chown", "uid"), ("chgrp", "gid")):
        if name in given:
            yield shlex.join([program, given[name], here])
    if "ro" in options:
        yield shlex.join(["mount", "-o", "remount,bind,ro", here])


def _of_one_mount(option: str) -> str:
    """The option for a single mount that stands for one of a whole tree."""
    plain = option[1:]
    return plain if option.startswith("r") and plain in _ATTRIBUTES else option


def _become_command(config: Config) -> Iterator[str]:
    """All that is left of the old root goes, and the shell becomes the command."""
    process = config["process"]
    environment = list(process.get("env", []))
    yield from (f"export {shlex.quote(entry)}" for entry in environment if entry.startswith("PATH="))
    yield f"umount -l /{_OLD_ROOT}"
    yield f"rmdir /{_OLD_ROOT}"
    if config["root"].get("readonly"):
        yield "mount -o remount,bind,ro /"
    yield f"cd {shlex.quote(process['cwd'])}"
    yield "umask 022"
    user = process.get("user", {"uid": 0, "gid": 0})
    words = ["exec", "env", "-i", *environment, "HOME=/", "setpriv", f"--inh-caps={_drop(_FOR_SET_UP)}"]
    if user["uid"] or user["gid"]:
        words += [f"--reuid={user['uid']}", f"--regid={user['gid']}", "--clear-groups"]
    yield f"{shlex.join([*words, *process['args']])} 3<&-"

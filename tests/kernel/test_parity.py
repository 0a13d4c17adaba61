# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same bundle run by our launcher and by other runtimes: what is seen from inside, field by field."""

from __future__ import annotations

import json
import os
import re

import pytest

LOOK = r"""
echo == status; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Umask)' /proc/1/status
echo == ids; cat /proc/1/uid_map /proc/1/gid_map
echo == session; cut -d' ' -f6,7 /proc/1/stat
echo == mounts; awk '{
  i = 7; shared = ""; while ($i != "-") { shared = shared " " $i; i++ }
  print $5, $6, $(i + 1), $(i + 3), shared
}' /proc/1/mountinfo
echo == limits; cat /proc/1/limits
echo == oom; cat /proc/1/oom_score_adj
echo == sysctl; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shmmax /proc/sys/kernel/domainname
echo == cgroup; grep ^0:: /proc/1/cgroup
echo == env; tr '\0' '\n' < /proc/1/environ
echo == place; readlink /proc/1/cwd; hostname; tr '\0' ' ' < /proc/1/cmdline | cut -c1-5
echo == dev; stat -c '%n %F %a %u:%g %t:%T' /dev/*
for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done
echo == descriptors; ls /proc/1/fd
echo == copied; if grep -q ' /copied ' /proc/1/mounts; then
  cd /copied; stat -c '%n %F %a %u:%g %h %N' below below/* file hard link; fi
echo == masked; for file in /proc/kcore /proc/keys /proc/timer_list; do
  test ! -e $file || stat -c '%n %t:%T' $file; done
echo == readonly; for file in /proc/sys/kernel/panic /proc/irq/default_smp_affinity; do
  (echo 1 > $file) 2>/dev/null && echo written || echo refused; done
echo == namespaces; for name in mnt pid uts ipc net cgroup user time; do readlink /proc/1/ns/$name; done
echo == end
"""

COPIED = """
mkdir -p {tree}/copied/below; cd {tree}/copied; echo text > file; chmod 4751 file; ln file hard
ln -s /etc/passwd link; echo > below/file; chown 5:6 file below; chmod 2770 below; umask 777
"""

CASES = {
    "defaults": {},
    "another user": {
        "user": "1000:1001",
        "group_add": ["7", "8"],
        "cap_add": ["NET_BIND_SERVICE"],
        "umask": "027",
        "workdir": "/tmp",
    },
    "limits": {
        "ulimit": ["nofile=100:200", "core=0"],
        "oom_score_adj": 300,
        "sysctl": {"kernel.shmmax": 1234567, "net.ipv4.ping_group_range": "5 10"},
        "env": {"GREETING": "hello world"},
    },
    "mounts": {
        "volumes": ["/var/lib/v:/v:ro,nosuid", "/var/lib/v/below:/w:bind,noexec"],
        "tmpfs": {"/cache": "size=1m,mode=700"},
        "shm_size": "2M",
        "mask": ["/etc/masked"],
    },
    "copies": {
        "tmpfs": {"/copied": "tmpcopyup,size=1m", "/copied/below": "tmpcopyup,mode=750,uid=3,gid=2,size=1m"}
    },
    "remounts": {
        "mounts": [
            {
                "destination": "/tmp",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["remount", "nosuid", "nodev", "noexec", "size=1m"],
            },
        ]
    },
    "privileged": {"privileged": True},
    "users": {"uidmap": ["0:100000:65536"]},
}

KNOWN = {
    "mounts": {
        # No device node that comes with a root file system is to be used.
        r"^(/ \S*?),nodev": r"\1",
        # In a user namespace ours is the root file system of the container's users; other runtimes want it
        # to be so on the disk, and bind the host's device nodes.
        r"^(/ \S*?),idmapped": r"\1",
        # crun 1.8 forgets the other options of a mount with idmap, runc 1.1 that one.
        r"^(/etc/\S+ rw)\S* tmpfs": r"\1 tmpfs",
        r"^/dev/(null|zero|full|random|urandom|tty) .*": "",
        # Which the kernel adds by itself, or not, depending on how the same was asked for.
        r",(rel|strict)atime|,inode64": "",
        # runc makes the file system of /sys read-only too, not only its mount.
        r"^(/sys .* sysfs) r[ow]": r"\1",
        # What is hidden is so behind a mount of any kind; that it is, is looked at by itself.
        r"^(/proc/.*?|/sys/.*?|/etc/masked) .*": r"\1",
    },
    "copied": {
        # Others copy a file once for each of its names.
        r" 2 (file|hard)$": r" 1 \1",
    },
    "dev": {
        # A link to /proc/kcore, which is masked.
        r"^/dev/core .*": "",
        # In a user namespace other runtimes bind the host's nodes, which belong to nobody there.
        r" (666|1777) (0|65534):65534 ": r" \1 0:0 ",
    },
}
"""What differs on purpose, or means the same: a pattern, and what stands for it, by section."""


def sections(text):
    """What was printed, by section, as sets of lines: without what is known to differ."""
    found, name = {}, ""
    for line in text.splitlines():
        if line.startswith("== "):
            name = line[3:]
            found[name] = []
            continue
        for pattern, replacement in KNOWN.get(name, {}).items():
            line = re.sub(pattern, replacement, line)
        found[name] += [line] if line else []
    assert "end" in found, text
    return {name: sorted(lines) for name, lines in found.items()}


def new_namespaces(lines):
    """Which of them are not this machine's."""
    own = {line: os.readlink(f"/proc/self/ns/{line.partition(':')[0]}") for line in lines}
    return {line.partition(":")[0] for line in lines if own[line] != line}


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_bundle_gives_the_same_view(containers, eventually, runtime, case):
    containers.machine.shell("mkdir -p /var/lib/v/below; touch /var/lib/v/file; chmod 755 /var/lib")
    containers.write(f"{containers.tree}/etc/masked", "secret")
    containers.machine.shell(COPIED.format(tree=containers.tree))
    options = {
        "command": ["sh", "-c", LOOK],
        "rootfs_mode": "direct",
        "hostname": "inside",
        "state": "stopped",
    }
    options.update(CASES[case])
    more = options.pop("mounts", [])
    containers.converge(**options)
    if more:
        config = json.loads(containers.machine.shell(f"cat {containers.directory()}/config.json"))
        containers.converge(**options, oci={"mounts": [*config["mounts"], *more]})
    launch = ["/usr/local/lib/bare-containers/launch", "start", containers.name("one")]
    containers.machine.run(*launch)
    ours = sections(eventually(lambda: (text := containers.log()).endswith("== end\n") and text))
    theirs = sections(run_by(runtime, containers))
    for found in (ours, theirs):
        found["namespaces"] = new_namespaces(found["namespaces"])
    differing = {name: (set(ours[name]) ^ set(theirs[name])) for name in ours if ours[name] != theirs[name]}
    assert differing == {}


def run_by(runtime, containers):
    """What the bundle prints when another runtime runs it.

    cgroup2 is where it looks for it. The filter of devices is left out, as to load one they raise a limit
    that root of this machine may not.
    """
    directory = containers.directory()
    config = json.loads(containers.machine.shell(f"cat {directory}/config.json"))
    del config["linux"]["resources"]
    containers.write("/run/theirs/config.json", json.dumps(config))
    return containers.machine.shell(
        "unified=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)\n"
        "test $unified = /sys/fs/cgroup || mount --rbind $unified /sys/fs/cgroup\n"
        f"{runtime} --root /run/{runtime} run --bundle /run/theirs {containers.name('one')} 2>&1"
    )

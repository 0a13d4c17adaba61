# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc says, read from fixed texts and from this very process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import proc

NOBODY = 2**22 + 1  # above PID_MAX_LIMIT (include/linux/threads.h)


def test_the_capability_sets():
    status = {
        "CapInh": "0000000000000000",
        "CapPrm": "0000000000000401",
        "CapEff": "0000000000000001",
        "CapBnd": "0000000000002401",
        "CapAmb": "0000000000000400",
    }
    # 0, 10 and 13 in capabilities(7).
    assert proc.capabilities(status) == {
        "bounding": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
        "inheritable": [],
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }


@pytest.mark.parametrize(
    ("status", "mode", "filters"),
    [
        ({"Seccomp": "0", "Seccomp_filters": "0"}, "disabled", 0),
        ({"Seccomp": "1", "Seccomp_filters": "0"}, "strict", 0),
        ({"Seccomp": "2", "Seccomp_filters": "3"}, "filter", 3),
        ({"Seccomp": "2"}, "filter", 0),
    ],
)
def test_seccomp(status, mode, filters):
    assert proc.seccomp(status) == {"mode": mode, "filters": filters}


# After the example of proc_pid_mountinfo(5), with each of the optional fields.
@pytest.mark.parametrize(
    ("optional", "propagation"),
    [
        ([], "private"),
        (["shared:7"], "shared"),
        (["master:1"], "slave"),
        (["shared:2", "master:1"], "shared,slave"),
        (["master:1", "propagate_from:3"], "slave"),
        (["unbindable"], "unbindable"),
    ],
)
def test_a_mount(optional, propagation):
    line = [
        "36",
        "35",
        "98:0",
        "/mnt1",
        "/mnt 2",
        "rw,noatime",
        *optional,
        "-",
        "ext3",
        "/dev/root",
        "rw,errors=continue",
    ]
    assert proc.parse_mount(line) == {
        "destination": "/mnt 2",
        "type": "ext3",
        "source": "/dev/root",
        "root": "/mnt1",
        "options": ["rw", "noatime"],
        "filesystem_options": ["rw", "errors=continue"],
        "propagation": propagation,
    }


def test_limits_are_what_getrlimit_says():
    found = proc.rlimits(os.getpid())
    for name, limit in found.items():
        numbers = resource.getrlimit(
            getattr(resource, f"RLIMIT_{name.upper()}", 10)
        )  # locks has no name there
        soft, hard = ("unlimited" if number == resource.RLIM_INFINITY else number for number in numbers)
        assert limit == {"soft": soft, "hard": hard}, name
    assert {"nofile", "nproc", "memlock", "as", "rtprio"} <= set(found)


def test_a_limit_without_a_unit():
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 524288               files     \n"
        "Max nice priority         0                    unlimited                      "
    )
    assert proc.parse_limits(text) == {
        "nofile": {"soft": 1024, "hard": 524288},
        "nice": {"soft": 0, "hard": "unlimited"},
    }


def test_this_process():
    pid = os.getpid()
    assert int(proc.status(pid)["PPid"]) == os.getppid()
    assert proc.namespaces(pid) == proc.namespaces("self")
    assert proc.namespaces(pid)["uts"] == os.stat("/proc/self/ns/uts").st_ino
    assert proc.oom_score_adj(pid) == int(Path("/proc/self/oom_score_adj").read_text())
    assert [each["destination"] for each in proc.mounts(pid)].count("/proc") >= 1


def test_a_command_can_be_anything():
    """Bytes that are no text are escaped, and one without words has its name, as in ps(1)."""
    waits = "print(flush=True); input()"
    strange = [sys.executable, "-c", waits, "a b", b"\xff\n"]
    with subprocess.Popen(strange, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        assert proc.command(process.pid) == [sys.executable, "-c", waits, "a b", "\\xff\n"]
        process.communicate(b"\n")
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert proc.command(zombie.pid) == ["[true]"]
    assert proc.started_at(zombie.pid) is None
    zombie.wait()


def test_who_is_gone_is_an_error():
    for ask in (proc.status, proc.command, proc.rlimits, proc.mounts, proc.namespaces, proc.cgroup):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            ask(NOBODY)
    assert proc.started_at(NOBODY) is None

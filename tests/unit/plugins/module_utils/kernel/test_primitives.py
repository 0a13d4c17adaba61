# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import (
    capability,
    mount,
    namespace,
    process,
    syscall,
)
from hypothesis import given
from hypothesis import strategies as st


def test_a_failing_call_is_an_error_with_the_kernel_s_number_and_the_path():
    with pytest.raises(FileNotFoundError) as caught:
        syscall.call("umount2", b"/no/such", 0, path="/no/such")
    assert caught.value.filename == "/no/such"


@given(st.sets(st.sampled_from(capability.NAMES)))
def test_capabilities_are_bits(names):
    assert capability.names(capability.mask(list(names))) == [
        name for name in capability.NAMES if name in names
    ]


def test_a_file_of_proc_is_told_from_others(tmp_path):
    (tmp_path / "file").touch()
    for place, expected in (("/proc/version", True), (tmp_path / "file", False), ("/dev/null", False)):
        with open(place) as file:
            assert (mount.kind(file.fileno()) == mount.PROC) is expected


def test_capabilities_that_are_not_known_have_their_number():
    assert capability.names(1 << 62 | 1) == ["CAP_CHOWN", "CAP_62"]


def test_the_bounding_set_is_what_proc_says():
    with open("/proc/thread-self/status") as status:
        line = next(line for line in status if line.startswith("CapBnd"))
    assert capability.bounding() == int(line.split()[1], 16)


def test_namespaces_are_told_apart():
    assert namespace.identity("/proc/self/ns/net") == namespace.identity(f"/proc/{os.getpid()}/ns/net")
    assert namespace.identity("/proc/self/ns/net") != namespace.identity("/proc/self/ns/mnt")
    assert namespace.flags("pid", "net", "pid") == 0x60000000


def test_mounts_are_found():
    assert mount.find("proc") == "/proc"
    assert mount.find("no-such-file-system") is None
    assert mount.is_mount_point("/proc")
    assert not mount.is_mount_point("/proc/self")


@pytest.fixture
def sleeper():
    # Its name is what a reader of /proc/PID/stat may trip over.
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


def test_a_process_is_its_pid_and_its_start(sleeper):
    started = process.start_time(sleeper.pid)
    assert started is not None
    assert process.open_process(sleeper.pid, started + 1) is None
    descriptor = process.open_process(sleeper.pid, started)
    assert not process.wait_for_end(descriptor, 0.01)
    process.send_signal(descriptor, 9)
    assert process.wait_for_end(descriptor, 30)
    assert process.wait_for_end(descriptor, 1 << 40)
    # It is a zombie until its parent has waited for it: it runs no more.
    assert process.start_time(sleeper.pid) is None
    assert process.open_process(sleeper.pid, started) is None
    sleeper.wait()
    process.send_signal(descriptor, 9)
    os.close(descriptor)


def test_a_process_with_any_name_is_read():
    script = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') Z 1 (', 0, 0, 0); print(); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert process.start_time(child.pid) is not None
    child.communicate()
    assert process.start_time(child.pid) is None


def test_signals_are_reset():
    script = (
        "import signal, sys\n"
        "from ansible_collections.bare.containers.plugins.module_utils.kernel import process\n"
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, {1, 2})\n"
        "process.reset_signals(); sys.stdout.write(open('/proc/self/status').read())"
    )
    path = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    status = dict(line.split(":\t", 1) for line in told.stdout.splitlines())
    # 32 and 33 are the C library's own: nobody else may change them; it sets them before it uses them.
    reset = ~(0b11 << 31)
    assert [int(status[name], 16) & reset for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]

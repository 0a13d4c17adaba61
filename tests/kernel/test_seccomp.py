# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of system calls on this kernel: what it lets through and what not, beside what it does without one.

Each call is made by a process of its own, as root with all capabilities, so that nothing but the filter is in
the way.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import seccomp, seccomp_filter
from ansible_collections.bare.containers.plugins.module_utils.container.spec import DEFAULT_CAPABILITIES
from ansible_collections.bare.containers.plugins.module_utils.kernel import seccomp as kernel_seccomp
from ansible_collections.bare.containers.plugins.module_utils.kernel import syscall

MACHINE = os.uname().machine
LIBC = ctypes.CDLL(None, use_errno=True)
LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")


def compiled(profile: object) -> bytes:
    given = seccomp.conditions(DEFAULT_CAPABILITIES)
    normal = seccomp.read("default", given) if profile == "default" else seccomp.normalise(profile, given)
    return seccomp_filter.compile_filter(normal)


def call(name: str, *arguments: object) -> int:
    """Makes a system call by its number, without what libc puts around it."""
    number = LIBSECCOMP.seccomp_syscall_resolve_name(name.encode())
    assert number >= 0, name
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def outcome(act: Callable[[], object], program: bytes | None = None, *flags: str) -> str:
    """What becomes of ``act`` in a child, under the filter: ``done``, the errno's name, or the signal's."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told = "done"
        try:
            if program is not None:
                kernel_seccomp.load(program, *flags)
            act()
        except OSError as error:
            told = errno.errorcode[error.errno or 0]
        except BaseException as error:
            told = repr(error)
        finally:
            os.write(writer, told.encode())
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else told


CLONE_NEWUSER, CLONE_FS, SIGCHLD, CLONE_NEWTIME = 0x10000000, 0x200, 17, 0x80


def make_child(flags: int) -> None:
    pid = call("clone", flags | SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def clone3(flags: int) -> None:
    arguments = (ctypes.c_uint64 * 8)(flags, 0, 0, 0, SIGCHLD)
    pid = call("clone3", arguments, ctypes.c_long(ctypes.sizeof(arguments)))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


ATTEMPTS = {
    "mount": lambda: call("mount", b"none", b"/no/such", b"tmpfs", 0, None),
    "umount2": lambda: call("umount2", b"/no/such", 0),
    "fsopen": lambda: call("fsopen", b"tmpfs", 0),
    "open_tree": lambda: call("open_tree", -100, b"/no/such", 1),
    "move_mount": lambda: call("move_mount", -1, b"", -1, b"", 4),
    "mount_setattr": lambda: call("mount_setattr", -1, b"", 0x1000, None, 0),
    "pivot_root": lambda: call("pivot_root", b"/no/such", b"/no/such"),
    "setns": lambda: call("setns", -1, 0),
    "unshare of a user namespace": lambda: call("unshare", CLONE_NEWUSER),
    "unshare of a time namespace": lambda: call("unshare", CLONE_NEWTIME),
    "clone into a user namespace": lambda: make_child(CLONE_NEWUSER),
    "keyctl": lambda: call("keyctl", 0, -3, 0),
    "add_key": lambda: call("add_key", b"user", b"x", b"x", 1, 0),
    "request_key": lambda: call("request_key", b"user", b"x", None, 0),
    "kexec_load": lambda: call("kexec_load", 0, 1 << 20, None, 0),
    "reboot": lambda: call("reboot", 0, 0, 0, None),
    "bpf": lambda: call("bpf", 9999, None, 0),
    "perf_event_open": lambda: call("perf_event_open", None, 0, -1, -1, 0),
    "init_module": lambda: call("init_module", None, 0, b""),
    "finit_module": lambda: call("finit_module", -1, b"", 0),
    "delete_module": lambda: call("delete_module", b"no-such", os.O_NONBLOCK),
    "open_by_handle_at": lambda: call("open_by_handle_at", -1, None, 0),
    "userfaultfd": lambda: call("userfaultfd", 0),
    "io_uring_setup": lambda: call("io_uring_setup", 1, None),
    "io_uring_enter": lambda: call("io_uring_enter", -1, 0, 0, 0, None),
    "personality without random addresses": lambda: call("personality", 0x0040000),
    "personality by an upper half": lambda: call("personality", 1 << 32),
    "socket of the hypervisor": lambda: call("socket", 40, 1, 0),
    "socket of the hypervisor by an upper half": lambda: call("socket", 40 | 1 << 32, 1, 0),
    "socket of the kernel's ciphers": lambda: call("socket", 38, 5, 0),
    "settimeofday": lambda: call("settimeofday", None, None),
    "clock_settime": lambda: call("clock_settime", 99, None),
    "syslog": lambda: call("syslog", 9999, None, 0),
    "sethostname": lambda: call("sethostname", b"x", -1),
    "acct": lambda: call("acct", b"/no/such"),
    "swapon": lambda: call("swapon", b"/no/such", 0),
    "iopl": lambda: call("iopl", 4),
    "quotactl": lambda: call("quotactl", 0, None, 0, None),
    "fanotify_init": lambda: call("fanotify_init", 0xFFFFFFFF, 0),
    "move_pages": lambda: call("move_pages", 0, 0, None, None, None, 0),
    "process_madvise": lambda: call("process_madvise", -1, None, 0, 0, 0),
    "pidfd_getfd": lambda: call("pidfd_getfd", -1, 0, 0),
    "kcmp": lambda: call("kcmp", os.getpid(), os.getpid(), 0, 0, 0),
}
"""Each of them harmless, and refused by the kernel, where it is, for another reason than permission."""


@pytest.mark.parametrize("attempt", sorted(ATTEMPTS))
def test_the_default_refuses_what_the_kernel_would_look_at(attempt):
    assert outcome(ATTEMPTS[attempt]) != "EPERM", "the kernel refuses it without a filter too"
    assert outcome(ATTEMPTS[attempt], compiled("default")) == "EPERM"


def test_clone3_does_not_exist_and_programs_go_on():
    assert outcome(lambda: clone3(0)) == "done"
    assert outcome(lambda: clone3(0), compiled("default")) == "ENOSYS"
    assert outcome(lambda: make_child(0), compiled("default")) == "done"


def test_calls_that_are_newer_than_the_profile_do_not_exist():
    """cachestat(2), which Linux has since 6.5, is what it would be on an older one."""

    def cachestat() -> None:
        if LIBC.syscall(451, -1, None, None, 0) == -1:
            raise OSError(ctypes.get_errno(), "")

    older = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": RUNNING, "action": "SCMP_ACT_ALLOW"}]}
    assert outcome(cachestat, compiled(older)) == "ENOSYS"
    older["syscalls"].append({"names": ["cachestat"], "action": "SCMP_ACT_ERRNO"})
    assert outcome(cachestat, compiled(older)) == "EPERM"


RUNNING = [
    "read",
    "write",
    "exit_group",
    "futex",
    "mmap",
    "munmap",
    "brk",
    "rt_sigprocmask",
    "openat",
    "close",
]
"""What the interpreter takes to come to its end."""


def machine_code(code: bytes) -> int:
    """What a function of x86-64 instructions returns."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


GETPID_I386 = bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3")
"""push rbx; mov eax, 20; int 0x80; pop rbx; ret"""
GETPID_X32 = 0x40000000 | 39


def getpid(result: int) -> None:
    if result != os.getpid():
        raise OSError(errno.ENOSYS, "")


@pytest.mark.skipif(MACHINE != "x86_64", reason="these are x86_64's other entries into the kernel")
@pytest.mark.parametrize(
    ("entry", "architecture"),
    [
        (lambda: getpid(machine_code(GETPID_I386)), "SCMP_ARCH_X86"),
        (lambda: getpid(LIBC.syscall(ctypes.c_long(GETPID_X32))), "SCMP_ARCH_X32"),
    ],
    ids=["int 0x80", "x32"],
)
def test_another_entry_is_no_way_around(entry, architecture):
    assert outcome(entry, compiled("default")) == "SIGSYS"
    # With the architecture in the filter it is what it is without one; the kernel need not have it.
    wide = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture]}
    assert outcome(entry, compiled(wide)) == outcome(entry) != "SIGSYS"


PYTHON = """
import asyncio, ctypes, multiprocessing.pool, socket, sqlite3, ssl, subprocess
print(multiprocessing.pool.ThreadPool(4).map(str, range(9)))
subprocess.run(["true"], check=True)
asyncio.run(asyncio.sleep(0))
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).sendall(b"x")
assert server.accept()[0].recv(1) == b"x"
sqlite3.connect(":memory:").execute("select 1")
"""

ORDINARY = {
    "files": "cd $(mktemp -d) && echo x > a && cp -a a b && ln -s a c && mv b d && chmod 600 d && rm -r *",
    "processes and pipes": "seq 1000 | sort -rn | (read first; test $first = 1000; cat > /dev/null)",
    "signals": "sleep 100 & kill $! && ! wait $!",
    "python": f"/usr/bin/python3 -c '{PYTHON}'",
    "another user": "setpriv --reuid=1000 --regid=1000 --clear-groups id -u",
    "network links": "ip -json link show lo",
    "another root": "chroot / true",
    "scheduling": "date && nice -n 5 timeout 5 true && taskset -c 0 true && chrt --max",
    "shared memory": "ipcs -a",
    "limits": "ulimit -n 64 && cat /proc/self/maps",
}


@pytest.mark.parametrize("what", sorted(ORDINARY))
def test_ordinary_programs_go_on(what):
    program = compiled("default")
    command = ["bash", "-ec", ORDINARY[what]]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: kernel_seccomp.load(program),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_debugger_sees_its_own_and_not_another_user_s():
    """The filter lets ptrace(2) through: the kernel's own check is what keeps users apart."""
    victim = subprocess.Popen(["sleep", "1000"])
    attach, detach = 16, 17

    def trace(uid: int) -> None:
        os.setresuid(uid, uid, uid)
        call("ptrace", attach, victim.pid, None, None)
        os.waitpid(victim.pid, 0x40000000)
        call("ptrace", detach, victim.pid, None, None)

    try:
        assert outcome(lambda: trace(1000), compiled("default")) == "EPERM"
        assert outcome(lambda: trace(0), compiled("default")) == "done"
    finally:
        victim.kill()
        victim.wait()


def status(field: str) -> str:
    with open("/proc/thread-self/status") as file:
        match = re.search(rf"^{field}:\t(.*)$", file.read(), re.MULTILINE)
    assert match
    return match[1]


def test_a_filter_is_loaded_and_stays():
    allow = compiled({"defaultAction": "SCMP_ACT_ALLOW"})

    def load_twice() -> None:
        assert (status("Seccomp"), status("Seccomp_filters")) == ("2", "1")
        kernel_seccomp.load(compiled({"defaultAction": "SCMP_ACT_ALLOW"}), "SECCOMP_FILTER_FLAG_LOG")
        assert (status("Seccomp"), status("Seccomp_filters")) == ("2", "2")

    assert outcome(load_twice, allow) == "done"
    assert outcome(load_twice, allow, *kernel_seccomp.FLAGS) == "done"


def test_a_filter_is_loaded_where_the_kernel_tells_another_architecture():
    """As to a process of the personality LINUX32, which a container may have."""

    def load() -> None:
        call("personality", 8)
        assert os.uname().machine != MACHINE
        kernel_seccomp.load(compiled({"defaultAction": "SCMP_ACT_ALLOW"}))
        assert status("Seccomp") == "2"

    assert outcome(load) == "done"


def test_a_filter_needs_a_privilege_or_the_promise_to_gain_none():
    allow = compiled({"defaultAction": "SCMP_ACT_ALLOW"})

    def load_as_user(promise: bool) -> None:
        os.setresuid(1000, 1000, 1000)
        if promise:
            syscall.call("prctl", 38, 1, 0, 0, 0)
        kernel_seccomp.load(allow)

    assert outcome(lambda: load_as_user(False)) == "EACCES"
    assert outcome(lambda: load_as_user(True)) == "done"


@pytest.mark.parametrize(
    "program", [b"", b"1234567", bytes(8), b"\xff" * 8, bytes(8) * 4097, bytes(8) * 65537]
)
def test_what_is_no_filter_is_not_loaded(program):
    assert outcome(lambda: None, program) == "EINVAL"


def test_all_threads_follow_where_it_is_asked():
    refuse = compiled(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
        }
    )

    def with_thread(*flags: str) -> None:
        loaded, done, found = threading.Event(), threading.Event(), []

        def follow() -> None:
            loaded.wait()
            found.append(status("Seccomp"))
            done.set()

        thread = threading.Thread(target=follow)
        thread.start()
        kernel_seccomp.load(refuse, *flags)
        loaded.set()
        thread.join()
        raise OSError(int(found[0]) or errno.EIO, "")

    assert outcome(with_thread) == "EIO"
    assert outcome(lambda: with_thread("SECCOMP_FILTER_FLAG_TSYNC")) == errno.errorcode[2]


def test_the_kernel_says_what_it_offers(monkeypatch):
    with open("/proc/sys/kernel/seccomp/actions_avail") as file:
        listed = {f"SCMP_ACT_{word.upper()}" for word in file.read().split()}
    assert {name for name in kernel_seccomp.ACTIONS if kernel_seccomp.offers(name)} == listed - {
        "SCMP_ACT_USER_NOTIF"
    }
    monkeypatch.setitem(kernel_seccomp.ACTIONS, "SCMP_ACT_OF_TOMORROW", 0x12340000)
    assert not kernel_seccomp.offers("SCMP_ACT_OF_TOMORROW")

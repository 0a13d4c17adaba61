# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default profile: which system calls a container may make (syscalls(2)).

It is an allow-list, in the format that Docker and podman share. Allowed are the calls that ordinary programs
make: they work on what is the container's own. Those that reach further are unlocked by the capability that
the kernel asks for them anyway, so that nothing has to be declared twice; without it, their code in the
kernel is out of reach. Those that are refused whatever the capabilities are named too, with the reason, so
that a test can tell that no call was forgotten.

All architectures are in one list: a name that the machine has no call for means nothing there.
"""

from __future__ import annotations

import errno
from typing import Any

from ..kernel.namespace import FLAGS, flags

Rule = dict[str, Any]


def _allow(calls: str, *, capabilities: tuple[str, ...] = (), where: tuple[Rule, ...] = ()) -> list[Rule]:
    """Allows the calls; only with one of the ``capabilities``, and only where the arguments are as said."""
    rule: Rule = {"names": calls.split(), "action": "SCMP_ACT_ALLOW", "args": list(where)}
    return [{**rule, "includes": {"caps": [name]}} for name in capabilities] or [rule]


def _refuse(
    calls: str, error: int = errno.EPERM, *, unless: tuple[str, ...] = (), where: tuple[Rule, ...] = ()
) -> list[Rule]:
    """Refuses the calls; with any of the capabilities ``unless`` not, and only where the arguments are so."""
    rule: Rule = {"names": calls.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": list(where)}
    return [{**rule, "excludes": {"caps": list(unless)}}]


def _is(index: int, value: int) -> Rule:
    """The argument is this ``int``: what is in the upper half of the register is nothing to the kernel, so it
    must be nothing to the filter.
    """
    return {"index": index, "value": 0xFFFFFFFF, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _exactly(index: int, value: int) -> Rule:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _differs(index: int, value: int) -> Rule:
    return {"index": index, "value": value, "op": "SCMP_CMP_NE"}


def _without(index: int, bits: int) -> Rule:
    """None of the bits is set in the argument."""
    return {"index": index, "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}


_FILES = [
    # Opening and making: what may be opened is decided by the root file system, permissions, device filter.
    *_allow(
        "open openat openat2 creat access faccessat faccessat2 mkdir mkdirat mknod mknodat rmdir unlink "
        "unlinkat link linkat symlink symlinkat readlink readlinkat rename renameat renameat2 "
        "name_to_handle_at umask"
    ),
    # Attributes.
    *_allow(
        "stat lstat fstat newfstatat statx statfs fstatfs chmod fchmod fchmodat fchmodat2 chown lchown "
        "fchown fchownat utime utimes futimesat utimensat truncate ftruncate fallocate file_getattr "
        "file_setattr"
    ),
    *_allow(
        "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr "
        "llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat"
    ),
    # Directories, and what is mounted, which is in /proc/self/mountinfo too.
    *_allow("chdir fchdir getcwd getdents getdents64 statmount listmount"),
    *_allow("sync syncfs fsync fdatasync sync_file_range flock cachestat"),
    *_allow("inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark"),
    # Watches whole file systems, and decides who may open what.
    *_allow("fanotify_init", capabilities=("CAP_SYS_ADMIN",)),
    # Opens a file by its number, past all directories: any file of the host's on the file system of a volume.
    *_allow("open_by_handle_at", capabilities=("CAP_DAC_READ_SEARCH",)),
    *_allow("chroot", capabilities=("CAP_SYS_CHROOT",)),
    *_allow("quotactl quotactl_fd", capabilities=("CAP_SYS_ADMIN",)),
    # The host's memory.
    *_refuse("swapon swapoff"),
]

_DESCRIPTORS = [
    *_allow(
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile splice tee "
        "vmsplice copy_file_range readahead fadvise64"
    ),
    # Whatever the request: there are thousands, checked by the device or file system that they are for.
    # TIOCSTI types into the container's own terminal, it has no other.
    *_allow("ioctl fcntl"),
    *_allow("close close_range dup dup2 dup3 pipe pipe2 eventfd eventfd2 memfd_create memfd_secret"),
    # Waiting for them.
    *_allow(
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2"
    ),
    # Asynchronous. io_uring is not: it makes calls that no filter sees, and has often been a way into the
    # kernel; programs do without it.
    *_allow("io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy"),
    *_refuse("io_uring_setup io_uring_enter io_uring_register"),
]

_MEMORY = [
    *_allow(
        "brk mmap munmap mremap mprotect mseal msync madvise mincore mlock mlock2 mlockall munlock "
        "munlockall remap_file_pages membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack "
        "process_mrelease"
    ),
    # The choice of NUMA nodes, whose memory is shared with all of the host.
    *_allow("mbind get_mempolicy set_mempolicy set_mempolicy_home_node", capabilities=("CAP_SYS_NICE",)),
    *_refuse("migrate_pages move_pages"),
    # Lets a program stop the kernel in the middle of a copy, and so win every race there.
    *_refuse("userfaultfd"),
]

_NEW_NAMESPACES = flags(*FLAGS)
"""That of a time namespace is, to clone, in the place of the exit signal, where no signal has it."""
_PERSONALITIES = (
    0x0,  # PER_LINUX
    0x8,  # PER_LINUX32
    0x20000,  # PER_LINUX with UNAME26
    0x20008,  # PER_LINUX32 with UNAME26
    0xFFFFFFFF,  # asks which it is
)
"""Others take protection away, such as random addresses (personality(2))."""

_PROCESSES = [
    *_allow("fork vfork execve execveat exit exit_group wait4 waitid"),
    # No new namespaces: in a user namespace of one's own one has all capabilities, and with them the reach.
    *_allow("clone", where=(_without(0, _NEW_NAMESPACES),)),
    *_allow("unshare", where=(_without(0, _NEW_NAMESPACES),)),
    # Its flags are in memory, where a filter can't look. Where it does not exist, C libraries use clone.
    *_refuse("clone3", errno.ENOSYS, unless=("CAP_SYS_ADMIN",)),
    *_allow("clone clone3 unshare setns", capabilities=("CAP_SYS_ADMIN",)),
    # Itself and others of its container.
    *_allow(
        "getpid getppid gettid setpgid getpgid getpgrp setsid getsid getrusage getrlimit setrlimit prlimit64 "
        "prctl pidfd_open set_tid_address restart_syscall capget capset"
    ),
    *[rule for value in _PERSONALITIES for rule in _allow("personality", where=(_exactly(0, value),))],
    *_allow(
        "sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler "
        "sched_setscheduler sched_getattr sched_setattr sched_get_priority_min sched_get_priority_max "
        "sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getcpu"
    ),
    # Threads.
    *_allow(
        "futex futex_wait futex_waitv futex_wake futex_requeue set_robust_list get_robust_list rseq "
        "arch_prctl modify_ldt set_thread_area get_thread_area"
    ),
    # Confining itself further.
    *_allow("seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
    *_allow("lsm_get_self_attr lsm_list_modules"),
    *_allow("lsm_set_self_attr", capabilities=("CAP_SYS_ADMIN",)),
    # For debuggers, on processes of the same user (ptrace(2), "Ptrace access mode checking"). Since Linux 4.8
    # a call that a tracer has changed goes through the filter again.
    *_allow("ptrace process_vm_readv process_vm_writev"),
    # Put into a program by the kernel, where it is traced from the host (perf-probe(1)).
    *_allow("uretprobe uprobe"),
    *_allow("kcmp pidfd_getfd process_madvise", capabilities=("CAP_SYS_PTRACE",)),
    *_allow("acct", capabilities=("CAP_SYS_PACCT",)),
]

_SIGNALS = [
    *_allow(
        "kill tkill tgkill pidfd_send_signal pause rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend "
        "rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack signalfd signalfd4"
    ),
]

_TIME = [
    *_allow("time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep times"),
    *_allow(
        "alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete"
    ),
    *_allow("timerfd_create timerfd_settime timerfd_gettime"),
    # They read; the kernel asks for SYS_TIME to set.
    *_allow("adjtimex clock_adjtime"),
    *_allow("settimeofday clock_settime", capabilities=("CAP_SYS_TIME",)),
]

_IDS = [
    *_allow("getuid geteuid getgid getegid getresuid getresgid getgroups"),
    *_allow("setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups"),
]

_AF_NETLINK = 16
_NETLINK_AUDIT = 9
_AUDIT = (_is(0, _AF_NETLINK), _is(2, _NETLINK_AUDIT))
_AUDITORS = ("CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_AUDIT_READ")
_FAMILIES = (
    1,  # AF_UNIX
    2,  # AF_INET
    10,  # AF_INET6
    17,  # AF_PACKET, for which the kernel asks NET_RAW
)
_OTHER_FAMILIES = (
    15,  # AF_KEY: IPsec
    29,  # AF_CAN
    44,  # AF_XDP
)

_NETWORK = [
    *_allow(
        "socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt "
        "setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg"
    ),
    # By family. AF_VSOCK leads past the network namespace to the hypervisor; AF_ALG and the rest would load
    # modules into the kernel that few have looked at.
    *[rule for family in _FAMILIES for rule in _allow("socket", where=(_is(0, family),))],
    *[
        rule
        for family in _OTHER_FAMILIES
        for rule in _allow("socket", where=(_is(0, family),), capabilities=("CAP_NET_ADMIN",))
    ],
    *_allow("socket", where=(_is(0, _AF_NETLINK), _differs(2, _NETLINK_AUDIT))),
    # Of EINVAL libaudit makes that the kernel has no auditing, and a login goes on; of EPERM that it may not.
    *_allow("socket", where=_AUDIT, capabilities=_AUDITORS),
    *_refuse("socket", errno.EINVAL, where=_AUDIT, unless=_AUDITORS),
]

_INTERPROCESS = [
    # Of the container's own IPC namespace.
    *_allow("shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl"),
    *_allow("mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr"),
    # Key rings belong to a user id, in whatever container it is used.
    *_refuse("keyctl add_key request_key"),
]

_SYSTEM = [
    *_allow("uname sysinfo getrandom"),
    *_allow("sethostname setdomainname", capabilities=("CAP_SYS_ADMIN",)),
    *_allow(
        "mount umount2 pivot_root fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount "
        "mount_setattr",
        capabilities=("CAP_SYS_ADMIN",),
    ),
    *_allow("syslog", capabilities=("CAP_SYSLOG", "CAP_SYS_ADMIN")),
    *_allow("bpf", capabilities=("CAP_BPF", "CAP_SYS_ADMIN")),
    *_allow("perf_event_open", capabilities=("CAP_PERFMON", "CAP_SYS_ADMIN")),
    *_allow("reboot kexec_load kexec_file_load", capabilities=("CAP_SYS_BOOT",)),
    *_allow("init_module finit_module delete_module", capabilities=("CAP_SYS_MODULE",)),
    *_allow("iopl ioperm", capabilities=("CAP_SYS_RAWIO",)),
    *_allow("vhangup", capabilities=("CAP_SYS_TTY_CONFIG",)),
]

_OBSOLETE = [
    # What nobody calls any more; most have no code behind them.
    *_refuse(
        "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg "
        "lookup_dcookie nfsservctl putpmsg query_module security sysfs tuxcall uselib ustat vserver"
    ),
]

PROFILE: Rule = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": errno.EPERM,
    "syscalls": [
        *_FILES,
        *_DESCRIPTORS,
        *_MEMORY,
        *_PROCESSES,
        *_SIGNALS,
        *_TIME,
        *_IDS,
        *_NETWORK,
        *_INTERPROCESS,
        *_SYSTEM,
        *_OBSOLETE,
    ],
}
"""For container.seccomp.normalise()."""

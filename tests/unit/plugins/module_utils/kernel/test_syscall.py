# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ctypes
import errno
import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import syscall

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def test_numbers_are_those_of_the_kernel_s_tables_in_libseccomp():
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    for machine, architecture in AUDIT_ARCHITECTURES.items():
        older = {name: numbers[machine] for name, numbers in syscall._OLDER_NUMBERS.items()}
        for name, number in {**syscall._NUMBERS, **older}.items():
            assert number == resolve(ctypes.c_uint32(architecture), name.encode()), (name, machine)


def test_a_call_has_no_number_on_an_architecture_that_is_not_known(monkeypatch):
    sparc = os.uname_result(("Linux", "host", "6.1.0", "#1", "sparc64"))
    monkeypatch.setattr(syscall.os, "uname", lambda: sparc)
    with pytest.raises(
        OSError, match=r"only known on 64-bit x86_64 and aarch64: 'bpf\(2\) on sparc64'"
    ) as error:
        syscall.call("bpf", 0, None, 0)
    assert error.value.errno == errno.ENOSYS
    # Which are the same everywhere are made there too.
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscall.call("openat2", -1, b"x", (ctypes.c_uint64 * 3)(), 24)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import struct

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.rootfs import busybox


def program(bits=64, order="<", types=(1, 2, 0x6474E551)):
    """An ELF file with program headers of these types (elf(5))."""
    ident = b"\x7fELF" + bytes([{32: 1, 64: 2}[bits], {"<": 1, ">": 2}[order], 1]) + bytes(9)
    if bits == 64:
        header = struct.pack(f"{order}HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(types), 0, 0, 0)
        segments = b"".join(struct.pack(f"{order}IIQQQQQQ", kind, *[0] * 7) for kind in types)
    else:
        header = struct.pack(f"{order}HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, len(types), 0, 0, 0)
        segments = b"".join(struct.pack(f"{order}8I", kind, *[0] * 7) for kind in types)
    return ident + header + segments


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_static(tmp_path, bits, order):
    (tmp_path / "busybox").write_bytes(program(bits, order))
    busybox.require_static(str(tmp_path / "busybox"))
    (tmp_path / "busybox").write_bytes(program(bits, order, types=(6, 3, 1)))
    with pytest.raises(Failure, match="is dynamically linked"):
        busybox.require_static(str(tmp_path / "busybox"))


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x09\x01" + bytes(60), program()[:70]]
)
def test_what_is_no_program(tmp_path, content):
    (tmp_path / "busybox").write_bytes(content)
    with pytest.raises(Failure, match=r"/busybox is no program for Linux; .*; nothing was changed\.$"):
        busybox.require_static(str(tmp_path / "busybox"))


def test_there_is_none(tmp_path):
    with pytest.raises(Failure, match=r"there is no .* on this host; install the package busybox-static"):
        busybox.require_static(str(tmp_path / "busybox"))
    with pytest.raises(Failure, match="is no program for Linux"):
        busybox.require_static(str(tmp_path))


def test_the_digest_is_of_program_and_skeleton(monkeypatch):
    first = busybox.digest("aa")
    assert busybox.digest("aa") == first
    assert busybox.digest("ab") != first
    monkeypatch.setitem(busybox.FILES, "etc/hosts", "127.0.0.1 localhost\n")
    second = busybox.digest("aa")
    assert second != first
    monkeypatch.setitem(busybox.DIRECTORIES, "root", 0o755)
    assert busybox.digest("aa") not in (first, second)


def test_every_file_has_its_directory():
    for name in (*busybox.FILES, *busybox.LINKS):
        assert name.rpartition("/")[0] in busybox.DIRECTORIES
    made = set()
    for name in busybox.DIRECTORIES:
        assert name.rpartition("/")[0] in {"", *made}
        made.add(name)

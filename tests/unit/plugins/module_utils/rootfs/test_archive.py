# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading archives: what is whole is read as it was written, what is not is never taken for whole."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.rootfs import program
from ansible_collections.bare.containers.plugins.module_utils.rootfs.archive import (
    Archive,
    Limits,
    Refused,
    decompressed,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COMPRESS = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}
LIMITS = Limits(1 << 20, 100)
FILES = {
    "empty": b"",
    "one": b"1",
    "block": b"b" * 512,
    "more": b"m" * 513,
    "n" * 150: b"long name",
    "naïve": b"x",
    "last": b"z" * 1024,
}


@pytest.fixture(params=["programs", "python"], autouse=True)
def by(request, monkeypatch):
    """What decompresses."""
    if request.param == "python":
        monkeypatch.setenv("PATH", "")
    return request.param


def tar(files=None, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in (files or FILES).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(content, tmp_path, limits=LIMITS):
    """Every file of the archive that is ``content``, by name."""
    (tmp_path / "archive").write_bytes(content)
    files = {}
    with (tmp_path / "archive").open("rb") as opened, decompressed(opened.fileno()) as stream:
        archive = Archive(stream, limits)
        for entry in archive.entries():
            target = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            archive.copy(entry, target)
            files[entry.name] = os.pread(target, 1 << 20, 0)
            os.close(target)
    return files


@pytest.mark.parametrize("compress", COMPRESS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_was_written_is_read(tmp_path, compress, form):
    assert read(COMPRESS[compress](tar(form=form)), tmp_path) == FILES


def test_data_that_nobody_asked_for_is_passed_over(tmp_path):
    archive = Archive(io.BytesIO(tar()), LIMITS)
    assert [entry.name for entry in archive.entries()] == list(FILES)


@pytest.mark.parametrize("compress", COMPRESS)
def test_compressed_pieces_one_after_another(tmp_path, compress):
    whole = tar()
    pieces = [COMPRESS[compress](whole[:1000]), COMPRESS[compress](whole[1000:])]
    assert read(b"".join(pieces), tmp_path) == FILES


@pytest.mark.parametrize("compress", COMPRESS)
@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=20)
@given(data=st.data())
def test_cut_off_anywhere_it_is_refused(tmp_path, compress, data):
    whole = COMPRESS[compress](tar())
    # Of a plain archive's zeros at the end, the first block is enough.
    end = len(whole) - 1 if compress != "plain" else len(whole.rstrip(b"\0"))
    length = data.draw(st.integers(0, end))
    with pytest.raises(Exception):  # noqa: B017, PT011 # whatever a parser or a decompressor makes of it
        read(whole[:length], tmp_path)


def test_cut_off_between_two_entries_it_is_refused(tmp_path):
    whole = tar({"a": b"x" * 512, "b": b"y" * 512})
    assert whole[1024:1025] == b"b"
    with pytest.raises(Refused, match="breaks off, or is damaged, before the end"):
        read(whole[:1024], tmp_path)


def test_a_damaged_header_in_its_midst_is_no_end(tmp_path):
    damaged = bytearray(tar({"a": b"x" * 512, "b": b"y" * 512}))
    damaged[1024 + 100] ^= 1
    with pytest.raises(Refused, match="breaks off, or is damaged, before the end"):
        read(bytes(damaged), tmp_path)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=200)
@given(data=st.data())
def test_damage_never_hangs_nor_leads_beyond_the_limits(tmp_path, data):
    content = bytearray(tar())
    for _damage in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    failures = (Refused, tarfile.TarError, ValueError, OSError, EOFError, OverflowError)
    with contextlib.suppress(*failures):
        files = read(bytes(content), tmp_path)
        assert sum(map(len, files.values())) <= len(content)


@pytest.mark.parametrize("compress", COMPRESS)
def test_limits(tmp_path, compress):
    whole = tar()
    content = COMPRESS[compress](whole)
    assert read(content, tmp_path, Limits(len(whole), len(FILES))) == FILES
    with pytest.raises(Refused, match=f"more than the {len(whole) - 1} bytes that max_size allows"):
        read(content, tmp_path, Limits(len(whole) - 1, len(FILES)))
    with pytest.raises(Refused, match=f"more than the {len(FILES) - 1} entries that max_entries allows"):
        read(content, tmp_path, Limits(len(whole), len(FILES) - 1))


def test_a_checksum_behind_the_end_is_read_too(tmp_path, by):
    damaged = bytearray(gzip.compress(tar()))
    damaged[-8] ^= 1  # CRC-32 of the content (RFC 1952)
    with pytest.raises(Refused if by == "programs" else gzip.BadGzipFile):
        read(bytes(damaged), tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", "gzip was ended by signal 9"),
        ("exit 3", "gzip has ended with status 3"),
        ("echo first >&2; echo 'no luck' >&2; exit 1", "no luck"),
        ("head -c 700; kill -9 $$", "gzip was ended by signal 9"),
        ("cat; exec >&-; sleep 1000", "gzip was ended by signal 9"),
    ],
)
def test_a_decompressor_that_fails_is_what_was_wrong(tmp_path, monkeypatch, by, script, reason):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gzip").write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
    (tmp_path / "bin/gzip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(program, "_SECONDS_TO_END", 0.2)
    with pytest.raises(Refused, match=f"is no whole gzip file: {reason}"):
        read(gzip.compress(tar()), tmp_path)


@pytest.mark.parametrize("script", ["", "exec sleep 1000", "exec yes"])
def test_a_decompressor_does_not_outlive_its_reader(tmp_path, monkeypatch, script):
    (tmp_path / "plain").write_bytes(tar({"large": bytes(5000)}))
    begin = f"#!/bin/sh\nPATH=/bin:/usr/bin\necho $$ > {tmp_path}/pid\ncat {tmp_path}/plain\n"
    (tmp_path / "gzip").write_text(begin + script)
    (tmp_path / "gzip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="that max_size allows"):
        read(gzip.compress(tar(), 0), tmp_path, Limits(1000, 1))
    pid = int((tmp_path / "pid").read_text())
    assert not os.path.exists(f"/proc/{pid}")


def test_zstd_takes_its_program(tmp_path, by):
    if by == "programs":
        zstd = shutil.which("zstd")
        packed = subprocess.run([zstd, "-q"], input=tar(), capture_output=True, check=True).stdout
        assert read(packed, tmp_path) == FILES
    else:
        with pytest.raises(Failure, match="install the package zstd"):
            read(b"\x28\xb5\x2f\xfd", tmp_path)

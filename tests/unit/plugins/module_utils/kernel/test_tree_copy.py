# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import tree_copy


@contextmanager
def opened(*places):
    descriptors = [os.open(place, os.O_PATH | os.O_DIRECTORY) for place in places]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def copy(source, target, devices=False):
    target.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with opened(source, target) as (one, other):
        tree_copy.copy_tree(one, other, devices=devices)
        assert len(os.listdir("/proc/self/fd")) == before + 2


@pytest.fixture
def source(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def swap_while(monkeypatch, source, change):
    """Has the first file that is looked at changed right after it was opened by its name."""
    looked = os.fstat

    def fstat(descriptor):
        status = looked(descriptor)
        if not stat.S_ISDIR(status.st_mode):
            monkeypatch.setattr(tree_copy.os, "fstat", looked)
            change()
        return status

    monkeypatch.setattr(tree_copy.os, "fstat", fstat)


def test_a_file_swapped_for_a_link_is_still_that_file(source, tmp_path, monkeypatch):
    (source / "file").write_text("harmless")

    def change():
        (source / "file").unlink()
        (source / "file").symlink_to(tmp_path / "secret")

    swap_while(monkeypatch, source, change)
    copy(source, tmp_path / "copy")
    assert (tmp_path / "copy/file").read_text() == "harmless"
    assert (source / "file").read_text() == "secret"


def test_a_file_swapped_for_a_pipe_is_waited_for_by_nobody(source, tmp_path, monkeypatch):
    (source / "file").write_text("harmless")

    def change():
        (source / "file").unlink()
        os.mkfifo(source / "file")

    swap_while(monkeypatch, source, change)
    copy(source, tmp_path / "copy")
    assert (tmp_path / "copy/file").read_text() == "harmless"


def test_a_file_that_shrinks_ends_where_it_ends(source, tmp_path, monkeypatch):
    (source / "file").write_bytes(b"x" * 5000000)
    swap_while(monkeypatch, source, lambda: os.truncate(source / "file", 3))
    copy(source, tmp_path / "copy")
    assert (tmp_path / "copy/file").read_bytes().startswith(b"xxx\0")


def test_a_file_that_goes_is_not_there(source, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (source / name).write_text(name)
    opened_by = os.open
    monkeypatch.setattr(tree_copy.os, "open", opened_by)

    def open_(path, flags, *rest, **more):
        if path in ("one", "two") and flags == tree_copy._NAME:
            monkeypatch.setattr(tree_copy.os, "open", opened_by)
            (source / path).unlink()
        return opened_by(path, flags, *rest, **more)

    monkeypatch.setattr(tree_copy.os, "open", open_)
    copy(source, tmp_path / "copy")
    assert len(os.listdir(tmp_path / "copy")) == 1


def test_links_lead_where_they_led(source, tmp_path):
    (source / "up").symlink_to("../secret")
    (source / "away").symlink_to(tmp_path)
    (source / "to\nnobody").symlink_to("no-such")
    copy(source, tmp_path / "copy")
    assert {path.name: os.readlink(path) for path in (tmp_path / "copy").iterdir()} == {
        "up": "../secret",
        "away": str(tmp_path),
        "to\nnobody": "no-such",
    }


def test_names_and_holes_are_shared_as_before(source, tmp_path):
    with open(source / "hole", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(100 << 20)
    (source / "deep").mkdir()
    os.link(source / "hole", source / "deep/name")
    copy(source, tmp_path / "copy")
    made = os.stat(tmp_path / "copy/hole")
    assert os.path.samestat(made, os.stat(tmp_path / "copy/deep/name"))
    assert (made.st_size, made.st_nlink) == (100 << 20, 2)
    assert made.st_blocks * 512 < 1 << 20
    with open(tmp_path / "copy/hole", "rb") as file:
        file.seek(64 << 20)
        assert file.read(4) == b"end\0"


def test_times_and_modes_are_kept_of_directories_too(source, tmp_path):
    (source / "deep").mkdir()
    (source / "deep/file").touch()
    for number, name in enumerate(("deep/file", "deep", ".")):
        os.chmod(source / name, 0o1740 + number)
        os.utime(source / name, ns=(number, 10**18 + number))
    copy(source, tmp_path / "copy")
    for number, name in enumerate(("deep/file", "deep", ".")):
        status = os.stat(tmp_path / "copy" / name)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o1740 + number, 10**18 + number)


def test_what_goes_wrong_is_told_with_its_place_and_nothing_stays_open(source, tmp_path, monkeypatch):
    (source / "deep").mkdir()
    (source / "deep/file").write_text("x")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tree_copy.os, "pwrite", full)
    monkeypatch.setattr(tree_copy.fcntl, "ioctl", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left") as caught:
        copy(source, tmp_path / "copy")
    assert caught.value.filename == "./deep/file"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_deep_tree_has_no_path_that_is_too_long(source, tmp_path):
    os.chdir(source)
    for _level in range(100):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    open("end", "w").close()
    os.chdir("/")
    copy(source, tmp_path / "copy")
    os.chdir(tmp_path / "copy")
    for _level in range(100):
        os.chdir("d" * 100)
    assert os.path.exists("end")
    os.chdir("/")

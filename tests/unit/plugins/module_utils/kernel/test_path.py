# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import path


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    descriptor = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def place(descriptor):
    found = os.readlink(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return found


@pytest.mark.parametrize("way", ["../outside/secret", "/../../outside/secret", "link/secret", "up/secret"])
def test_no_way_leads_out(root, tmp_path, way):
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/up").symlink_to("../../outside")
    with pytest.raises(FileNotFoundError) as caught:
        path.open_in_root(root, way, os.O_PATH)
    assert caught.value.filename == way


def test_links_are_followed_inside(root, tmp_path):
    (tmp_path / "root/real").mkdir()
    (tmp_path / "root/real/file").touch()
    (tmp_path / "root/link").symlink_to("/real")
    assert place(path.open_in_root(root, "link/../../link/file", os.O_PATH)) == str(
        tmp_path / "root/real/file"
    )
    with pytest.raises(OSError, match="symbolic") as caught:
        path.open_in_root(root, "link/file", os.O_PATH, symlinks=False)
    assert caught.value.errno == errno.ELOOP


def test_magic_links_are_not_followed():
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError, match="symbolic") as caught:
        path.open_in_root(proc, "self/cwd", os.O_PATH)
    assert caught.value.errno == errno.ELOOP
    os.close(proc)


def test_directories_are_made_where_they_are_looked_up(root, tmp_path):
    made = path.make_directories(root, "/a//./b/c", 0o700)
    assert place(made) == str(tmp_path / "root/a/b/c")
    assert place(path.make_directories(root, "a/b/../b/c")) == str(tmp_path / "root/a/b/c")
    assert place(path.make_directories(root, "/")) == str(tmp_path / "root")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    with pytest.raises(FileNotFoundError):
        path.make_directories(root, "link/x")
    assert [entry.name for entry in (tmp_path / "outside").iterdir()] == ["secret"]
    (tmp_path / "root/file").touch()
    with pytest.raises(NotADirectoryError):
        path.make_directories(root, "file/x")


def test_no_descriptor_is_left_open(root, tmp_path):
    before = os.listdir("/proc/self/fd")
    os.close(path.make_directories(root, "a/b/c/d"))
    (tmp_path / "root/file").touch()
    with pytest.raises(NotADirectoryError):
        path.make_directories(root, "a/../file/x/y")
    assert os.listdir("/proc/self/fd") == before

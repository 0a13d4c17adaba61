# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import file

FILE_PY = Path(file.__file__)


def start(script, *arguments):
    """A process that runs ``script``, which has kernel/file.py as ``file``."""
    prelude = (
        f"import sys; sys.path.insert(0, {str(FILE_PY.parent)!r})\n"
        "import file, os, time\nfrom pathlib import Path\n"
    )
    return subprocess.Popen(
        [sys.executable, "-u", "-c", prelude + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
with file.lock(Path(sys.argv[1]), timeout=60):
    print("held")
    time.sleep(600)
"""


def test_read_text(tmp_path):
    (tmp_path / "a").write_text("hällo\n", encoding="utf-8")
    assert file.read_text(tmp_path / "a") == "hällo\n"
    assert file.read_text(tmp_path / "none") is None
    assert file.read_text(tmp_path / "a" / "below a file") is None
    with pytest.raises(IsADirectoryError):
        file.read_text(tmp_path)


def test_write_atomically(tmp_path):
    path = tmp_path / "new" / "parents" / "file"
    mask = os.umask(0o077)
    try:
        file.write_atomically(path, "one\n")
    finally:
        os.umask(mask)
    assert path.read_text() == "one\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # as asked, whatever the umask
    file.write_atomically(path, "two\n", 0o600)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["file"]


def test_what_a_killed_writer_left_is_overwritten(tmp_path):
    (tmp_path / ".file.new").write_text("a longer text, half of it " * 10)
    file.write_atomically(tmp_path / "file", "whole\n")
    assert (tmp_path / "file").read_text() == "whole\n"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_in_the_way_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link").symlink_to(victim)
    file.write_atomically(tmp_path / "link", "new\n")
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / ".file.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        file.write_atomically(tmp_path / "file", "new\n")
    assert victim.read_text() == "untouched"


def test_a_reader_never_sees_half_a_file_even_when_writers_are_killed(tmp_path):
    path = tmp_path / "file"
    file.write_atomically(path, "0" * 200_000)
    script = """
n = 0
while True:
    n += 1
    file.write_atomically(Path(sys.argv[1]), str(n % 10) * 200_000)
    if n == 1: print("writing")
"""
    for _round in range(5):
        writer = start(script, path)
        assert writer.stdout.readline() == "writing\n"
        for _reading in range(20):
            text = path.read_text()
            assert len(text) == 200_000
            assert len(set(text)) == 1
        writer.kill()
        writer.communicate()
    file.write_atomically(path, "last\n")
    assert os.listdir(tmp_path) == ["file"]


def test_remove(tmp_path):
    file.write_atomically(tmp_path / "file", "x")
    (tmp_path / ".file.new").touch()
    file.remove(tmp_path / "file")
    assert os.listdir(tmp_path) == []
    file.remove(tmp_path / "file")
    file.remove(tmp_path / "none" / "file")


def test_remove_empty(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "kept").touch()
    file.remove_empty(tmp_path / "a" / "b" / "c" / "gone already", up_to=tmp_path)
    assert os.listdir(tmp_path / "a") == ["kept"]
    (tmp_path / "a" / "kept").unlink()
    file.remove_empty(tmp_path / "a", up_to=tmp_path)
    assert os.listdir(tmp_path) == []
    assert tmp_path.exists()


def test_a_lock_exists_as_long_as_it_is_held(tmp_path):
    path = tmp_path / "run" / "lock" / "web"
    with file.lock(path, timeout=0):
        assert path.exists()
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), file.lock(path, timeout=0):
        raise ZeroDivisionError
    assert not path.exists()


def test_who_holds_a_lock_is_told(tmp_path):
    path = tmp_path / "web"
    holder = start(HOLD, path)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(file.Locked) as locked, file.lock(path, timeout=0.05):
            pass
        assert (locked.value.path, locked.value.pid) == (path, holder.pid)
        with file.lock(tmp_path / "another", timeout=0):
            pass
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT])
def test_a_lock_goes_with_its_holder_and_who_waits_gets_it(tmp_path, way):
    path = tmp_path / "web"
    holder = start(HOLD, path)
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def wait():
        with file.lock(path, timeout=60):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.is_set()
    holder.send_signal(way)
    holder.communicate()
    waiting.join(60)
    assert got.is_set()
    assert not path.exists()


def test_only_one_holds_a_lock_at_a_time(tmp_path):
    """Also when the file comes and goes: each adds one to a counter that only the lock keeps exact."""
    script = """
for _ in range(50):
    with file.lock(Path(sys.argv[1]) / "lock", timeout=60):
        counter = Path(sys.argv[1]) / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    (tmp_path / "counter").write_text("0")
    processes = [start(script, tmp_path) for _process in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    for process in processes:
        process.stdout.close()
    assert (tmp_path / "counter").read_text() == "200"
    assert os.listdir(tmp_path) == ["counter"]

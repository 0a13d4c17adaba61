# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import visit
from ansible_collections.bare.containers.plugins.module_utils.container.bundle import FAILED, Refused


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("enter", []),
        ("enter", ["web"]),
        ("enter", ["--user"]),
        ("enter", ["--user", "app", "web"]),
        ("put", ["web", "/file"]),
        ("put", ["web", "/file", "0", "-1"]),
        ("fetch", ["web", "/file", "0", "x"]),
        ("fetch", ["web", "/file", "0", "1", "2"]),
    ],
)
def test_words_that_are_not_its_own_are_not_taken(verb, words):
    assert visit.run(verb, words) is None


@pytest.mark.parametrize("name", ["", "..", "../web", "a/b", ".web"])
def test_a_name_is_no_path(monkeypatch, capsys, name):
    monkeypatch.setattr(visit.process, "die_with_parent", lambda: None)
    monkeypatch.setattr(visit._signal, "signal", lambda *words: None)
    assert visit.run("enter", [name, "true"]) == FAILED
    assert capsys.readouterr().err == f"launch: {name}: name: {name!r} is no container's name.\n"


@pytest.fixture
def stdio(tmp_path):
    """Standard input and output as files: gives what is written, and writes what is read."""
    kept = [os.dup(number) for number in (0, 1)]
    source, target = tmp_path / "source", tmp_path / "target"
    target.touch()

    def given(data=b""):
        source.write_bytes(data)
        for number, file, flags in ((0, source, os.O_RDONLY), (1, target, os.O_WRONLY | os.O_TRUNC)):
            descriptor = os.open(file, flags)
            os.dup2(descriptor, number)
            os.close(descriptor)
        return target

    yield given
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
        os.close(descriptor)


def test_pieces_make_a_file_and_come_of_one(stdio, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"something longer than that")
    for offset, piece in ((0, b"abcd"), (4, b"ef"), (4, b"again"), (9, b"")):
        stdio(piece)
        visit.put(str(file), offset, len(piece))
    assert file.read_bytes() == b"abcdagain"
    for offset, length, piece in ((0, 4, b"abcd"), (4, 100, b"again"), (9, 4, b""), (50, 4, b"")):
        target = stdio()
        visit.fetch(str(file), offset, length)
        assert target.read_bytes() == piece


def test_a_piece_that_is_cut_off_or_has_no_place_is_refused(stdio, tmp_path):
    stdio(b"abc")
    with pytest.raises(Refused, match="is not whole"):
        visit.put(str(tmp_path / "file"), 0, 4)
    stdio(b"abc")
    with pytest.raises(Refused, match="changed by another"):
        visit.put(str(tmp_path / "file"), 4, 3)
    with pytest.raises(Refused, match="No such file"):
        visit.put(str(tmp_path / "other"), 4, 3)
    assert (tmp_path / "file").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/dev/null", "no regular file"),
        ("fifo", "no regular file"),
        ("/proc/self/environ", "in /proc|Too many levels"),
        ("/proc/self/exe", "Too many levels"),
        ("", "no regular file|Is a directory"),
    ],
)
def test_what_is_no_file_is_neither_read_nor_written(stdio, tmp_path, monkeypatch, place, reason):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    target = stdio(b"abc")
    with pytest.raises(Refused, match=f"can't be written: .*({reason}|denied)"):
        visit.put(place, 0, 3)
    with pytest.raises(Refused, match=f"can't be read: .*({reason})"):
        visit.fetch(place, 0, 3)
    assert target.read_bytes() == b""

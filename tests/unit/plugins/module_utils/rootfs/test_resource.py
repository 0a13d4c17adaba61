# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch of root file systems through the engine, with unpacking that needs no root."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host
from ansible_collections.bare.containers.plugins.module_utils.converge import converge
from ansible_collections.bare.containers.plugins.module_utils.rootfs import files, proof, store, tarball, web
from ansible_collections.bare.containers.plugins.module_utils.rootfs.archive import Read
from ansible_collections.bare.containers.plugins.module_utils.rootfs.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.rootfs.resource import build


@pytest.fixture(autouse=True)
def hashed(tmp_path, monkeypatch):
    """The files that were read to the end for their digest, in order; unpacking copies the archive."""
    monkeypatch.setattr(host, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "RUN", tmp_path / "run")
    read = []
    digest = files.digest

    def counting(algorithm, opened):
        read.append(algorithm)
        return digest(algorithm, opened)

    def unpack(descriptor, tree, limits, watch):
        content = os.pread(descriptor, 1 << 20, 0)
        (tree / "content").write_bytes(content)
        return Read(hashlib.sha256(content).hexdigest(), len(content), 1)

    monkeypatch.setattr(files, "digest", counting)
    monkeypatch.setattr(proof, "digest", counting)
    monkeypatch.setattr(tarball, "unpack", unpack)
    return read


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "archive").write_bytes(b"content")
    return tmp_path / "archive"


def run(*entries, check=False):
    defaults = {option.name: option.default for option in OPTIONS.options}
    normal = [OPTIONS.normalise({**defaults, **entry}) for entry in entries]
    outcomes = converge(build(normal), check=check)
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return outcomes


def many(archive, **options):
    return [{"name": f"c{number}", "path": str(archive), **options} for number in range(50)]


def test_fifty_containers_read_their_archive_once_and_then_never_again(archive, hashed):
    outcomes = run(*many(archive))
    assert all(outcome.changed for outcome in outcomes)
    assert hashed == ["sha256"] * 2  # to know what it is, and again what was then unpacked
    hashed.clear()
    outcomes = run(*many(archive))
    assert not any(outcome.changed for outcome in outcomes)
    assert hashed == []
    run(*many(archive), {"name": "late", "path": str(archive)})
    assert hashed == []  # one that was there before knows it


def test_a_touched_archive_is_read_again_once(archive, hashed):
    run(*many(archive))
    hashed.clear()
    archive.write_bytes(b"CONTENT")
    outcomes = run(*many(archive))
    assert all(outcome.changed for outcome in outcomes)
    assert hashed == ["sha256"] * 2
    tree = outcomes[0].facts["path"]
    assert (host.Path(tree) / "content").read_bytes() == b"CONTENT"


def test_an_archive_with_a_checksum_is_read_when_it_is_unpacked(archive, hashed):
    checksum = f"sha512:{hashlib.sha512(b'content').hexdigest()}"
    run(*many(archive, checksum=checksum))
    assert hashed == ["sha512"]
    hashed.clear()
    archive.unlink()
    assert not any(outcome.changed for outcome in run(*many(archive, checksum=checksum)))
    assert hashed == []


def test_sources_that_differ_only_in_how_they_are_asked(archive, tmp_path):
    (tmp_path / "sums").write_text(hashlib.sha256(b"content").hexdigest())
    declared = {"path": str(archive), "checksum": f"sha256:{tmp_path}/sums"}
    entries = [{"name": "a", **declared}, {"name": "b", **declared, "timeout": 3}, {"name": "c", **declared}]
    outcomes = run(*entries)
    assert [outcome.changed for outcome in outcomes] == [True] * 3
    assert len({outcome.facts["path"] for outcome in outcomes}) == 1
    assert not any(outcome.changed for outcome in run(*entries))


@pytest.mark.parametrize("state", ["nothing", "same", "another", "lost"])
def test_check_mode_tells_what_then_becomes(archive, tmp_path, state):
    entry = {"name": "web", "path": str(archive)}
    if state != "nothing":
        (first,) = run(entry)
    if state == "another":
        archive.write_bytes(b"another")
    if state == "lost":
        (host.Path(first.facts["path"]) / "content").unlink()
        host.Path(first.facts["path"]).rmdir()
    (predicted,) = run(entry, check=True)
    (real,) = run(entry)
    assert predicted.changed == real.changed == (state != "same")
    assert (predicted.before, predicted.after) == (real.before, real.after)
    assert predicted.commands == real.commands
    assert not run(entry)[0].changed


def test_absent_and_collected(archive):
    run({"name": "web", "path": str(archive)})
    absent = {"name": "web", "state": "absent"}
    (predicted,) = run({**absent, "gc": True}, check=True)
    assert len(store.all_layers()) == 1
    (real,) = run({**absent, "gc": True})
    assert (predicted.before, predicted.after) == (real.before, real.after)
    assert real.after == {"state": "absent", "unused": []}
    assert store.all_layers() == []
    assert not run({**absent, "gc": True})[0].changed


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a/b", "https://a/b"),
        ("https://user:secret@a/b", "https://user:********@a/b"),
        ("https://user@a/b:c@d", "https://user@a/b:c@d"),
        ("https://u:p@ss@a/b", "https://u:********@a/b"),
        ("deb http://u:p@a/b main\ndeb http://c/d@e", "deb http://u:********@a/b main\ndeb http://c/d@e"),
    ],
)
def test_a_password_in_an_address_is_not_shown(url, shown):
    assert web.masked(url) == shown

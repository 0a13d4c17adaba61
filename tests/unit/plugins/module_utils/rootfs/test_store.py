# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import threading

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import file
from ansible_collections.bare.containers.plugins.module_utils.rootfs import store


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "RUN", tmp_path / "run")
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.05)
    return tmp_path / "state/store"


def source(layer, log=None, fail=None):
    """What fetches a layer with one file in it."""

    def unpack(tree):
        (tree / "file").write_text(layer)
        if fail:
            raise fail

    @contextlib.contextmanager
    def fetch(temporary):
        if log is not None:
            log.append(layer)
        yield store.Content(layer, unpack)

    return fetch


def add(layer, **options):
    return store.add(layer, source(layer, **options))


def refer(name, *layers):
    trees = [str(store.tree(layer)) for layer in layers]
    host.Declaration(name, "rootfs").write_step({"layers": trees}).apply()


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_layer_is_made_once(root):
    log = []
    assert add("sha256-1", log=log) == "sha256-1"
    assert add("sha256-1", log=log) == "sha256-1"
    assert log == ["sha256-1"]
    assert store.has("sha256-1")
    assert store.size("sha256-1") == len("sha256-1")
    assert everything(root) == [
        "layers",
        "layers/sha256-1",
        "layers/sha256-1/manifest.json",
        "layers/sha256-1/tree",
        "layers/sha256-1/tree/file",
    ]
    assert root.stat().st_mode & 0o777 == 0o700
    assert os.listdir(host.RUN / "lock") == []


def test_a_layer_whose_name_only_fetching_tells():
    log = []
    for _run in range(2):
        assert store.add("url-1", source("sha256-1", log)) == "sha256-1"
    assert log == ["sha256-1"] * 2  # fetched again, but unpacked once
    assert store.layers() == ["sha256-1"]


def test_what_fails_leaves_nothing(root):
    for error in (Failure("no"), OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            add("sha256-1", fail=error)
        assert not root.exists()
        assert not store.has("sha256-1")


def test_a_damaged_layer_is_replaced(root):
    add("sha256-1")
    os.rename(store.tree("sha256-1"), store.directory("sha256-1") / "elsewhere")
    assert not store.has("sha256-1")
    add("sha256-1")
    assert everything(store.directory("sha256-1")) == ["manifest.json", "tree", "tree/file"]


def test_what_was_left_goes_unless_somebody_works_on_it(root):
    for left in (".sha256-2/tree/a/b", ".sha256-3/tree/a", ".url-1"):
        (root / left).mkdir(parents=True)
    (root / ".file").touch()
    (root / ".link").symlink_to("/etc")
    with file.lock(host.RUN / "lock/.sha256-3", timeout=0):
        assert store.unused(set()) == [str(root / left) for left in (".file", ".link", ".sha256-2", ".url-1")]
        add("sha256-1")
        assert sorted(os.listdir(root)) == [".sha256-3", "layers"]
    assert store.unused(set()) == [str(store.directory("sha256-1")), str(root / ".sha256-3"), str(root)]
    store.collect()
    assert not root.exists()
    assert os.path.isdir("/etc")


def test_what_was_left_of_the_same_layer_is_made_anew(root):
    (root / ".sha256-1/tree/old").mkdir(parents=True)
    add("sha256-1")
    assert everything(store.tree("sha256-1")) == ["file"]


def test_a_layer_that_another_run_makes_is_waited_for(root, monkeypatch):
    with file.lock(host.RUN / "lock/.sha256-1", timeout=0):
        with pytest.raises(Failure) as failure:
            add("sha256-1")
        assert str(failure.value) == (
            f"The layer sha256-1 is still being made by process {os.getpid()}; nothing was changed."
        )
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 60)
    log = []
    made = threading.Barrier(2, timeout=30)

    @contextlib.contextmanager
    def slow(temporary):
        made.wait()
        with source("sha256-1", log)(temporary) as content:
            yield content

    first = threading.Thread(target=store.add, args=("sha256-1", slow))
    first.start()
    made.wait()
    store.add("sha256-1", source("sha256-1", log))
    first.join()
    assert log == ["sha256-1"]


def test_only_what_nobody_uses_is_collected(root):
    for number in range(4):
        add(f"sha256-{number}")
    refer("a", "sha256-0", "sha256-1")
    refer("b", "sha256-1")
    paths = [str(store.directory(f"sha256-{number}")) for number in range(4)]
    assert store.unused(set()) == paths[2:]
    assert store.unused({"b"}) == paths[2:]
    assert store.unused({"a"}) == [paths[0], *paths[2:]]
    assert store.unused({"a", "b"}) == [*paths, str(root)]
    store.collect()
    assert store.layers() == ["sha256-0", "sha256-1"]
    for name in "ab":
        host.Declaration(name, "rootfs").remove_step().apply()
    store.collect()
    assert not host.STATE.exists()
    store.collect()
    assert not host.STATE.exists()


def test_nothing_is_collected_where_a_declaration_cannot_be_read():
    add("sha256-1")
    refer("a")
    host.Declaration("a", "rootfs").path.write_text("{")
    with pytest.raises(Failure, match="no JSON object"):
        store.collect()
    assert store.layers() == ["sha256-1"]


def test_a_pinned_layer_is_there_and_stays():
    add("sha256-1")
    with store.pinned("sha256-1"), pytest.raises(Failure, match="still being made"):
        store.collect()
    assert store.has("sha256-1")
    with pytest.raises(Failure, match="was removed by another run meanwhile"), store.pinned("sha256-2"):
        pass


def test_a_tree_that_is_deeper_than_any_path_can_be_removed(root):
    deep = root / ".sha256-9/tree"
    deep.mkdir(parents=True)
    here = os.open(deep, os.O_RDONLY)
    for _level in range(3000):
        os.mkdir("directory", dir_fd=here)
        below = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    add("sha256-1")
    assert os.listdir(root) == ["layers"]


def test_the_size_counts_a_file_once_and_no_links():
    def unpack(tree):
        (tree / "a").mkdir()
        (tree / "a/one").write_bytes(b"x" * 1000)
        os.link(tree / "a/one", tree / "two")
        (tree / "link").symlink_to("/etc/passwd")

    store.add("sha256-1", lambda temporary: contextlib.nullcontext(store.Content("sha256-1", unpack)))
    assert store.size("sha256-1") == 1000


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"size": "many"}', '{"size": null}'])
def test_a_damaged_manifest_is_no_matter(text):
    add("sha256-1")
    (store.directory("sha256-1") / "manifest.json").write_text(text)
    assert store.size("sha256-1") is None

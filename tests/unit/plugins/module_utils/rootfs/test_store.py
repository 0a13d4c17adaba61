# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import subprocess
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


def source(image, log=None, fail=None, layers=None):
    """What fetches an image of these layers, each with one file in it; by default of one, with its name."""

    def layer(name):
        def unpack(place):
            (place.tree / "file").write_text(name)
            if log is not None:
                log.append(f"unpack {name} above {len(place.lower)}")
            if fail:
                raise fail
            return name

        return store.Layer(name, unpack)

    @contextlib.contextmanager
    def fetch(temporary):
        if log is not None:
            log.append(f"fetch {image}")
        yield store.Content(image, [layer(name) for name in layers or [image]], {"user": image})

    return fetch


def add(image, **options):
    return store.add(image, source(image, **options))


def refer(name, image):
    trees = [str(store.tree(layer)) for layer in store.layers(image)]
    declaration = {"digest": image.replace("-", ":"), "layers": trees}
    host.Declaration(name, "rootfs").write_step(declaration).apply()


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_an_image_is_made_once(root):
    log = []
    assert add("sha256-1", log=log) == "sha256-1"
    assert add("sha256-1", log=log) == "sha256-1"
    assert log == ["fetch sha256-1", "unpack sha256-1 above 0"]
    assert store.has("sha256-1")
    assert store.layers("sha256-1") == ["sha256-1"]
    assert store.size("sha256-1") == len("sha256-1")
    assert store.config("sha256-1") == {"user": "sha256-1"}
    assert everything(root) == [
        "images",
        "images/sha256-1.json",
        "layers",
        "layers/sha256-1",
        "layers/sha256-1/manifest.json",
        "layers/sha256-1/tree",
        "layers/sha256-1/tree.sha256",
        "layers/sha256-1/tree/file",
    ]
    assert root.stat().st_mode & 0o777 == 0o700
    assert os.listdir(host.RUN / "lock") == []


def test_an_image_whose_name_only_fetching_tells():
    log = []
    for _run in range(2):
        assert store.add("url-1", source("sha256-1", log)) == "sha256-1"
    # fetched again, but unpacked once
    assert log == ["fetch sha256-1", "unpack sha256-1 above 0", "fetch sha256-1"]
    assert store.images() == store.all_layers() == ["sha256-1"]


def test_a_layer_whose_name_only_unpacking_tells(root):
    def fetch(temporary):
        def unpack(place):
            (place.tree / "file").touch()
            return "sha256-9"

        return contextlib.nullcontext(store.Content("sha256-1", [store.Layer(None, unpack)]))

    assert store.add("sha256-1", fetch) == "sha256-1"
    assert store.layers("sha256-1") == ["sha256-9"]
    assert store.has("sha256-1")
    assert sorted(os.listdir(root)) == ["images", "layers"]


def test_images_share_the_layers_that_they_have_in_common():
    log = []
    add("sha256-1", log=log, layers=["sha256-a", "sha256-b"])
    add("sha256-2", log=log, layers=["sha256-a", "sha256-c", "sha256-d"])
    assert [line for line in log if "unpack" in line] == [
        "unpack sha256-a above 0",
        "unpack sha256-b above 1",
        "unpack sha256-c above 1",
        "unpack sha256-d above 2",
    ]
    assert store.size("sha256-2") == 3 * len("sha256-a")
    refer("web", "sha256-2")
    store.collect()
    assert store.images() == ["sha256-2"]
    assert store.all_layers() == ["sha256-a", "sha256-c", "sha256-d"]


def test_an_image_that_lacks_a_layer_is_not_there(root):
    add("sha256-1", layers=["sha256-a", "sha256-b"])
    store.tree("sha256-b").rename(store.directory("sha256-b") / "elsewhere")
    assert not store.has("sha256-1")
    log = []
    add("sha256-1", layers=["sha256-a", "sha256-b"], log=log)
    assert log == ["fetch sha256-1", "unpack sha256-b above 1"]
    store.collect()
    assert not root.exists()


def test_the_name_of_a_layer_is_its_chain_id():
    """The rule of the OCI image spec (config, Layer ChainID), worked out with sha256sum(1)."""
    assert store.chain(None, "a" * 64) == f"sha256-{'a' * 64}"
    text = f"sha256:{'a' * 64} sha256:{'b' * 64}"
    printed = subprocess.run(["sha256sum"], input=text, capture_output=True, text=True, check=True).stdout
    assert store.chain(f"sha256-{'a' * 64}", "b" * 64) == f"sha256-{printed.split()[0]}"


def test_what_fails_leaves_nothing(root):
    for error in (Failure("no"), OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            add("sha256-1", fail=error)
        assert not root.exists()


def test_a_damaged_layer_is_replaced(root):
    add("sha256-1")
    os.rename(store.tree("sha256-1"), store.directory("sha256-1") / "elsewhere")
    assert not store.has("sha256-1")
    add("sha256-1")
    assert everything(store.directory("sha256-1")) == ["manifest.json", "tree", "tree.sha256", "tree/file"]


def test_what_was_left_goes_unless_somebody_works_on_it(root):
    for left in (".sha256-2/tree/a/b", ".sha256-3/tree/a", ".url-1"):
        (root / left).mkdir(parents=True)
    (root / ".file").touch()
    (root / ".link").symlink_to("/etc")
    with file.lock(host.RUN / "lock/.sha256-3", timeout=0):
        assert store.unused(set()) == [str(root / left) for left in (".file", ".link", ".sha256-2", ".url-1")]
        add("sha256-1")
        assert sorted(os.listdir(root)) == [".sha256-3", "images", "layers"]
    made = [store.image_file("sha256-1"), store.directory("sha256-1")]
    assert store.unused(set()) == [str(path) for path in (*made, root / ".sha256-3", root)]
    store.collect()
    assert not root.exists()
    assert os.path.isdir("/etc")


def test_what_was_left_of_the_same_layer_is_made_anew(root):
    (root / ".sha256-1/tree/old").mkdir(parents=True)
    add("sha256-1")
    assert everything(store.tree("sha256-1")) == ["file"]


def test_a_layer_that_another_run_makes_is_waited_for(root, monkeypatch):
    with file.lock(host.RUN / "lock/.image-sha256-1", timeout=0):
        with pytest.raises(Failure) as failure:
            add("sha256-1")
        assert str(failure.value) == (
            f"The image sha256-1 is still being made by process {os.getpid()}; nothing was changed."
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
    assert log == ["fetch sha256-1", "unpack sha256-1 above 0"]


def test_only_what_nobody_uses_is_collected(root):
    for number in range(3):
        add(f"sha256-{number}")
    refer("a", "sha256-0")
    refer("b", "sha256-1")

    def paths(*numbers):
        images = [str(store.image_file(f"sha256-{number}")) for number in numbers]
        return [*images, *(str(store.directory(f"sha256-{number}")) for number in numbers)]

    assert store.unused(set()) == paths(2)
    assert store.unused({"a"}) == paths(0, 2)
    assert store.unused({"a", "b"}) == [*paths(0, 1, 2), str(root)]
    store.collect()
    assert store.images() == store.all_layers() == ["sha256-0", "sha256-1"]
    for name in "ab":
        host.Declaration(name, "rootfs").remove_step().apply()
    store.collect()
    assert not host.STATE.exists()
    store.collect()
    assert not host.STATE.exists()


def test_a_layer_that_only_a_declaration_knows_stays_as_long_as_that(root):
    add("sha256-1")
    refer("a", "sha256-1")
    store.image_file("sha256-1").unlink()
    assert store.unused(set()) == []
    assert store.unused({"a"}) == [str(store.directory("sha256-1")), str(root)]


def test_nothing_is_collected_where_a_declaration_cannot_be_read():
    add("sha256-1")
    refer("a", "sha256-1")
    host.Declaration("a", "rootfs").path.write_text("{")
    with pytest.raises(Failure, match="no JSON object"):
        store.collect()
    assert store.all_layers() == ["sha256-1"]


def test_a_pinned_image_is_there_and_stays():
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
    assert sorted(os.listdir(root)) == ["images", "layers"]


def test_the_size_counts_a_file_once_and_no_links():
    def unpack(place):
        (place.tree / "a").mkdir()
        (place.tree / "a/one").write_bytes(b"x" * 1000)
        os.link(place.tree / "a/one", place.tree / "two")
        (place.tree / "link").symlink_to("/etc/passwd")
        return "sha256-1"

    content = store.Content("sha256-1", [store.Layer("sha256-1", unpack)])
    store.add("sha256-1", lambda temporary: contextlib.nullcontext(content))
    assert store.size("sha256-1") == 1000


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"size": "many"}', '{"size": null}'])
def test_a_damaged_manifest_is_no_matter(text):
    add("sha256-1")
    (store.directory("sha256-1") / "manifest.json").write_text(text)
    assert store.size("sha256-1") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"layers": 1}', '{"layers": [1]}', '{"layers": ["../x"]}']
)
def test_a_damaged_image_is_made_again(text):
    add("sha256-1")
    store.image_file("sha256-1").write_text(text)
    assert not store.has("sha256-1")
    add("sha256-1")
    assert store.layers("sha256-1") == ["sha256-1"]


def damage(tree, kind):
    """Changes one thing, and has the times be what they were."""
    file = tree / "file"
    times = [(path, path.stat()) for path in (tree, file)]
    if kind == "content":
        file.write_text("SHA256-1")
    elif kind == "mode":
        file.chmod(0o4755)
    elif kind == "name":
        file.rename(tree / "elif")
    elif kind == "another":
        (tree / "more").touch()
    elif kind == "link":
        os.link(file, tree / "same")
    elif kind == "attribute":
        os.setxattr(file, "user.colour", b"red")
    for path, status in times:
        if path.exists():
            os.utime(path, ns=(0, status.st_mtime_ns + (kind == "time")))


@pytest.mark.parametrize("kind", ["content", "mode", "name", "another", "link", "attribute", "time"])
def test_a_changed_tree_is_told(kind):
    add("sha256-1")
    add("sha256-2", layers=["sha256-1", "sha256-2"])
    damage(store.tree("sha256-1"), "nothing")
    assert store.damaged("sha256-1") == store.damaged("sha256-2") == []
    damage(store.tree("sha256-1"), kind)
    assert store.damaged("sha256-1") == store.damaged("sha256-2") == ["sha256-1"]
    with pytest.raises(Failure):
        store.add("sha256-2", source("sha256-2", fail=Failure("gone"), layers=["sha256-1"]), ["sha256-1"])
    assert store.has("sha256-2")
    store.add("sha256-2", source("sha256-2", layers=["sha256-1", "sha256-2"]), ["sha256-1"])
    assert store.damaged("sha256-1") == store.damaged("sha256-2") == []


def test_a_tree_that_nobody_counted_is_not_known_to_be_whole():
    add("sha256-1")
    (store.directory("sha256-1") / "tree.sha256").unlink()
    assert store.has("sha256-1")
    assert store.damaged("sha256-1") == ["sha256-1"]

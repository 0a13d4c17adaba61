# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import os
import re
import stat

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.rootfs import skopeo, watch
from ansible_collections.bare.containers.plugins.module_utils.rootfs.skopeo import (
    Reference,
    Skopeo,
    reference,
)
from ansible_collections.bare.containers.plugins.module_utils.rootfs.watch import OutOfTime, Watch

WATCH = Watch("it", float("inf"))
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("docker://registry.example/a/b:1", "docker://registry.example/a/b:1"),
        ("nginx", "docker://nginx"),
        ("nginx:1.25", "docker://nginx:1.25"),
        ("127.0.0.1:5000/a", "docker://127.0.0.1:5000/a"),
        (f"docker://a/b@{DIGEST}", f"docker://a/b@{DIGEST}"),
        ("oci:/srv/layout:tag", "oci:/srv/layout:tag"),
        ("docker-archive:/srv/a.tar", "docker-archive:/srv/a.tar"),
        ("docker-daemon:a:latest", "docker-daemon:a:latest"),
    ],
)
def test_names_of_images(text, normal):
    assert reference(text) == Reference(normal)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a\nb",
        "-a",
        "oci:layout",
        "dir:x",
        "http://a/b",
        f"a@{DIGEST[:-1]}",
        "a@md5:1",
        "docker-archive:",
    ],
)
def test_what_is_no_name_of_an_image(text):
    with pytest.raises(ValueError, match=r"."):
        reference(text)


@pytest.mark.parametrize(
    ("text", "registry", "digest", "file"),
    [
        ("docker://nginx:1", "docker.io", None, None),
        ("docker://library/nginx", "docker.io", None, None),
        ("docker://localhost/a", "localhost", None, None),
        ("docker://127.0.0.1:5000/a:1", "127.0.0.1:5000", None, None),
        (f"docker://r.example/a@{DIGEST}", "r.example", DIGEST, None),
        ("oci:/srv/l:tag", None, None, "/srv/l/index.json"),
        ("dir:/srv/d", None, None, "/srv/d/manifest.json"),
        ("docker-archive:/srv/a.tar:name:1", None, None, "/srv/a.tar"),
        ("oci-archive:/srv/a.tar", None, None, "/srv/a.tar"),
        ("docker-daemon:a:1", None, None, None),
    ],
)
def test_what_a_name_says(text, registry, digest, file):
    found = Reference(text)
    assert (found.registry, found.digest, found.file) == (registry, digest, file)


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("docker://r:5000/a/b:1", f"docker://r:5000/a/b@{DIGEST}"),
        ("docker://r:5000/a/b", f"docker://r:5000/a/b@{DIGEST}"),
        (f"docker://a@{DIGEST}", f"docker://a@{DIGEST}"),
        ("oci:/srv/l:tag", "oci:/srv/l:tag"),
    ],
)
def test_a_name_by_its_digest(text, pinned):
    assert Reference(text).by_digest(DIGEST) == Reference(pinned)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A skopeo that writes down how it was called, and then does what the test says."""

    def make(script):
        path = tmp_path / "bin/skopeo"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    (tmp_path / "temporary").mkdir()
    return make


def skopeo_of(image, **options):
    entry = {"validate_certs": True, **options}
    return Skopeo(entry, Reference(image), 1 << 30)


def test_a_password_is_in_a_file_for_root_alone(program, tmp_path):
    given = f"$(sed -n 's/--authfile=//p' {tmp_path}/called)"
    program(f'cp -p "{given}" {tmp_path}/kept; printf manifest')
    asked = skopeo_of("docker://r.example/a", username="user", password="sesame", platform="linux/arm/v7")
    assert asked.resolve(tmp_path / "temporary", WATCH) == f"sha256:{hashlib.sha256(b'manifest').hexdigest()}"
    called = (tmp_path / "called").read_text()
    assert "sesame" not in called
    assert called.splitlines()[:3] == ["--override-os=linux", "--override-arch=arm", "--override-variant=v7"]
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600
    kept = json.loads((tmp_path / "kept").read_text())
    assert kept == {"auths": {"r.example": {"auth": "dXNlcjpzZXNhbWU="}}}
    shown = asked.command("/x") + asked.raw_command()
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (r'time="2026-01-01T00:00:00Z" level=fatal msg="reading \"a\":\n no such"', 'reading "a": no such'),
        ("plain text.", "plain text"),
        ("", "skopeo ended with 1"),
    ],
)
def test_what_it_says_is_part_of_one_sentence(program, tmp_path, said, reason):
    (tmp_path / "said").write_text(said)
    program(f"cat {tmp_path}/said >&2; exit 1")
    with pytest.raises(Failure) as failure:
        skopeo_of("docker://a/b").resolve(tmp_path / "temporary", WATCH)
    assert str(failure.value) == f"image: docker://a/b could not be fetched: {reason}; nothing was changed."


def test_without_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(skopeo.shutil, "which", lambda name: None)
    with pytest.raises(Failure) as failure:
        skopeo_of("docker://a/b").resolve(tmp_path, WATCH)
    assert str(failure.value) == (
        "image: docker://a/b takes the program skopeo; install the package skopeo; nothing was changed."
    )


def test_it_takes_no_longer_than_it_may(program, tmp_path):
    program("exec sleep 1000")
    with pytest.raises(OutOfTime):
        skopeo_of("docker://a/b").resolve(tmp_path / "temporary", Watch("it", 0.2))


def test_it_says_how_much_has_come(program, tmp_path, monkeypatch):
    program("mkdir -p layout/blobs; head -c 2048 /dev/zero > layout/blobs/x; read line < fifo")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    monkeypatch.setattr(watch, "INTERVAL", 0.5)
    watched = Watch("it", 60)

    def say(where, tick=watched.tick):
        tick(where)
        if any("2.0 KiB" in text for text in watched.said):
            (tmp_path / "fifo").write_text("go\n")

    monkeypatch.setattr(watched, "tick", say)
    skopeo_of("dir:/x").copy(None, tmp_path / "layout", tmp_path / "temporary", watched)
    assert re.fullmatch(r"it: fetched 2.0 KiB, \d+ B/s|it: fetched 2.0 KiB, [0-9.]+ KiB/s", watched.said[-1])

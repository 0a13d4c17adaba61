# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images through rootfs_fetch on this kernel: made by umoci and skopeo, served by a registry, and what a
container sees of them is what umoci unpacks."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import (
    BASE,
    DEVICE,
    DIRECTORY,
    FILE,
    HARD,
    SYMBOLIC,
    Registry,
    add_image,
    archive,
    make_directory,
    run,
)
from rootfs import STORE, Entries, entries, fetch, ours, without

Machine = Any  # conftest.Machine

# Three layers, as archives that GNU tar has packed; the second and the third say only what they change.
MAKE_LAYERS = r"""
T='tar --format=pax --numeric-owner --xattrs --xattrs-include=* --no-recursion --create'
mkdir -p one/usr/bin one/opaque/sub one/hidden/sub one/gone one/dir/sub one/etc one/private/deep one/old
chown 1000:1001 one/private; chmod 0700 one/private; chmod 2775 one/private/deep; chmod 0750 one/hidden
ln -s usr/bin one/bin
cp /bin/busybox one/usr/bin/busybox; ln one/usr/bin/busybox one/usr/bin/sh
cp /bin/true one/usr/bin/ping; setcap cap_net_raw+ep one/usr/bin/ping; chmod 4755 one/usr/bin/busybox
for name in opaque/a opaque/sub/b hidden/a hidden/sub/b gone/g dir/sub/f etc/removed etc/lower etc/two-names \
    to-dir removed private/deep/file old/o; do echo $name > one/$name; done
ln one/etc/two-names one/etc/second-name
mkfifo one/fifo; mknod one/null c 1 3; ln -s nowhere one/dangling
truncate -s 5M one/sparse; printf middle | dd of=one/sparse bs=1 seek=3000000 conv=notrunc status=none
python3 -c 'import os; os.setxattr("one/dir", "user.colour", b"red"); os.setxattr("one/etc", "user.x", b"y")'
find one -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
(cd one; find . | $T --sparse --files-from=-) > one.tar

mkdir -p two/opaque two/hidden two/bin two/etc two/private/deep two/to-dir
echo new > two/opaque/new; echo new > two/hidden/new; echo file > two/dir; echo in > two/to-dir/in
echo new > two/bin/new-tool; echo more > two/private/deep/more; echo x > two/etc/second-name
touch two/.wh.removed two/.wh.gone two/.wh.nothing two/opaque/.wh..wh..opq two/hidden/.wh..wh..opq two/.wh.old
find two -exec touch -h -d '2002-02-03 04:05:06.5' {} +
(cd two; $T . .wh.removed .wh.gone .wh.nothing .wh.old opaque/.wh..wh..opq opaque/new hidden/new \
    hidden/.wh..wh..opq dir to-dir to-dir/in bin/new-tool private/deep/more etc/second-name) > two.tar

mkdir -p three/gone/back three/etc three/old; echo again > three/gone/back/x; touch three/etc/.wh.removed
python3 -c 'import os; os.setxattr("three/old", "user.colour", b"blue")'
find three -exec touch -h -d '2003-02-03 04:05:06.5' {} +
(cd three; $T . gone gone/back gone/back/x etc/.wh.removed old) > three.tar
# Links to what a lower layer has, which GNU tar would not write without the file itself.
python3 -c '
import tarfile
with tarfile.open("three.tar", "a") as archive:
    for name, target in (("etc/hard", "etc/lower"), ("link", "dangling"), ("etc/harder", "etc/hard")):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.LNKTYPE, target
        archive.addfile(entry)
'
"""

CONFIG = {
    "Cmd": ["serve", "--all"],
    "Entrypoint": ["/bin/sh", "-c"],
    "Env": ["PATH=/usr/bin:/bin", "GREETING=hello world"],
    "ExposedPorts": ["80/tcp"],
    "Labels": {"maker": "the test"},
    "StopSignal": "SIGQUIT",
    "User": "1000:1001",
    "Volumes": ["/data"],
    "WorkingDir": "/etc",
}


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with the image ``three``; beside it ``unpacked/rootfs``, what umoci unpacks of it."""
    top = tmp_path_factory.mktemp("image")
    run("sh", "-ec", MAKE_LAYERS, cwd=top)
    add_image(top / "layout", "three", [top / f"{name}.tar" for name in ("one", "two", "three")], CONFIG)
    run("umoci", "unpack", "--image", f"{top}/layout:three", top / "unpacked")
    return top / "layout"


def merged(machine: Machine, layers: list[str]) -> Entries:
    """What a container sees: the layers, lowest first, through an overlay."""
    machine.run("mkdir", "-p", "/run/merged")
    lower = ":".join(reversed([*(["/run/nothing"] if len(layers) == 1 else []), *layers]))
    machine.shell(f"mkdir -p /run/nothing; mount -t overlay overlay -o lowerdir={lower} /run/merged")
    found = entries(machine, "/run/merged")
    machine.run("umount", "/run/merged")
    return found


def test_what_a_container_sees_is_what_umoci_unpacks(machine: Machine, layout: Path) -> None:
    result = fetch(machine, name="web", image=f"oci:{layout}:three")
    expected = entries(machine, str(layout.parent / "unpacked/rootfs"))
    found = merged(machine, result["layers"])
    assert found.keys() == expected.keys()
    assert found == expected
    assert len(result["layers"]) == 3
    assert len(found) > 30
    assert found["usr/bin/ping"]["xattrs"]
    assert result["config"] == CONFIG
    assert result["path"] is None
    assert not fetch(machine, name="web", image=f"oci:{layout}:three")["changed"]


# A registry


@pytest.fixture
def registry(machine: Machine, tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    started = Registry(machine, tmp_path / "registry")
    yield started
    started.end()


def digest_of(layout: Path, tag: str) -> str:
    """The digest of an image's manifest, as the index says it."""
    index = json.loads((layout / "index.json").read_text())
    (found,) = (
        entry["digest"]
        for entry in index["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    )
    return str(found)


def blobs_of(layout: Path, tag: str) -> list[str]:
    """The digests of an image's configuration and of its layers' blobs, lowest first."""
    manifest = json.loads((layout / "blobs/sha256" / digest_of(layout, tag)[7:]).read_text())
    return [each["digest"] for each in (manifest["config"], *manifest["layers"])]


THREE = "docker://127.0.0.1:5000/test/three:1"


def test_an_image_of_a_registry(machine: Machine, layout: Path, registry: Registry) -> None:
    registry.push(f"oci:{layout}:three", "test/three:1")
    predicted = fetch(machine, name="web", image=THREE, check=True, **registry.access)
    assert (predicted["changed"], predicted["digest"], registry.requests()) == (True, None, [])
    assert ours(machine) == []
    result = fetch(machine, name="web", image=THREE, **registry.access)
    assert predicted["diff"] == result["diff"]
    assert any(request.startswith("GET /v2/test/three/blobs/") for request in registry.requests())
    assert merged(machine, result["layers"]) == entries(machine, str(layout.parent / "unpacked/rootfs"))
    assert result["digest"] == digest_of(layout, "three")
    assert "sesame" not in machine.shell("grep -r sesame /var/lib/bare-containers || true")
    assert "sesame" not in json.dumps({**result, "invocation": None})
    # Neither the same container nor another one asks for what is there.
    assert not fetch(machine, name="web", image=THREE, **registry.access)["changed"]
    assert fetch(machine, name="other", image=THREE, **registry.access)["layers"] == result["layers"]
    assert not fetch(machine, name="web", image="127.0.0.1:5000/test/three:1")["changed"]
    assert registry.requests() == []


def test_an_image_by_its_digest(machine: Machine, layout: Path, registry: Registry) -> None:
    registry.push(f"oci:{layout}:three", "test/three:1")
    image = f"docker://127.0.0.1:5000/test/three@{digest_of(layout, 'three')}"
    result = fetch(machine, name="web", image=image, **registry.access)
    assert result["digest"] == digest_of(layout, "three")
    registry.requests()
    assert not fetch(machine, name="web", image=image, pull="always", **registry.access)["changed"]
    assert fetch(machine, name="other", image=image, **registry.access)["digest"] == result["digest"]
    assert registry.requests() == []
    none = f"docker://127.0.0.1:5000/test/three@sha256:{'0' * 64}"
    missing = fetch(machine, name="web", image=none, ok=False, **registry.access)
    assert missing["msg"].startswith(f"web: image: {none} could not be fetched: ")
    assert "manifest unknown" in missing["msg"]


def test_a_tag_that_moves(machine: Machine, layout: Path, registry: Registry, tmp_path: Path) -> None:
    """Only who pulls always sees it; what is in the store already is not unpacked again."""
    registry.push(f"oci:{layout}:three", "test/three:1")
    first = fetch(machine, name="web", image=THREE, **registry.access)
    registry.requests()
    assert not fetch(machine, name="web", image=THREE, pull="always", **registry.access)["changed"]
    asked = registry.requests()
    assert [
        request for request in asked if request.split()[1] not in ("/v2/", "/v2/test/three/manifests/1")
    ] == []
    add_image(tmp_path / "layout", "two", [layout.parent / f"{name}.tar" for name in ("one", "two")])
    registry.push(f"oci:{tmp_path}/layout:two", "test/three:1")
    assert not fetch(machine, name="web", image=THREE, **registry.access)["changed"]
    written = machine.run("stat", "--format=%Z", *first["layers"])
    predicted = fetch(machine, name="web", image=THREE, pull="always", check=True, **registry.access)
    second = fetch(machine, name="web", image=THREE, pull="always", **registry.access)
    assert (predicted["changed"], second["changed"]) == (True, True)
    assert predicted["diff"] == second["diff"]
    assert digest_of(tmp_path / "layout", "two") in second["diff"][0]["after"]
    assert second["layers"] == first["layers"][:2]
    assert second["config"] == {}
    assert machine.run("stat", "--format=%Z", *first["layers"]) == written
    assert not fetch(machine, name="web", image=THREE, pull="always", **registry.access)["changed"]


def test_blobs_of_layers_that_are_there_are_not_fetched(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    """Unless they are needed after all: the same layer above another one is not the same, and a damaged one
    is none."""
    registry.push(f"oci:{layout}:three", "test/three:1")
    first = fetch(machine, name="web", image=THREE, **registry.access)
    shutil.copytree(layout, tmp_path / "layout")
    (tmp_path / "new").write_text("new\n")
    run("tar", "--create", f"--file={tmp_path}/top.tar", f"--directory={tmp_path}", "new")
    run("umoci", "raw", "add-layer", "--image", f"{tmp_path}/layout:three", "--tag=top", tmp_path / "top.tar")
    add_image(tmp_path / "layout", "two", [layout.parent / "two.tar"])
    blobs = {tag: blobs_of(tmp_path / "layout", tag) for tag in ("three", "top", "two")}
    assert set(blobs["two"][1:]) < set(blobs["three"])
    registry.push(f"oci:{tmp_path}/layout:top", "test/three:1")
    second = fetch(machine, name="web", image=THREE, pull="always", **registry.access)
    assert registry.fetched() == {blobs["top"][0], blobs["top"][4]}
    assert second["layers"][:3] == first["layers"]
    registry.push(f"oci:{tmp_path}/layout:two", "test/two:1")
    alone = fetch(machine, name="two", image=THREE.replace("three", "two"), **registry.access)
    assert registry.fetched() == set(blobs["two"])
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:two", tmp_path / "unpacked")
    found = without(merged(machine, alone["layers"]), "mtime")
    assert found == without(entries(machine, f"{tmp_path}/unpacked/rootfs"), "mtime")
    machine.shell(f"echo changed > {first['layers'][0]}/etc/lower")
    assert fetch(machine, name="web", image=THREE, verify=True, **registry.access)["changed"]
    assert registry.fetched() == {blobs["top"][0], blobs["top"][1]}
    assert machine.run("cat", f"{first['layers'][0]}/etc/lower") == "etc/lower\n"


def test_what_goes_wrong_with_a_registry(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    """One sentence each, and the container keeps what it has."""
    registry.push(f"oci:{layout}:three", "test/three:1")
    busybox = fetch(machine, name="web", busybox=True)
    before = ours(machine)
    access, top = registry.access, registry.top
    wrong = [
        ({**access, "password": "wrong"}, "unauthorized"),
        ({"ca_path": access["ca_path"]}, "unauthorized"),
        ({**access, "ca_path": str(top / "other.crt")}, "certificate"),
        ({"username": "user", "password": "sesame"}, "certificate"),
    ]
    for options, reason in wrong:
        result = fetch(machine, name="web", image=THREE, ok=False, **options)
        assert result["msg"].startswith(f"web: image: {THREE} could not be fetched: "), result["msg"]
        assert reason in result["msg"]
        assert result["msg"].endswith("; nothing was changed.")
        assert "\n" not in result["msg"]
        assert ours(machine) == before
    none = THREE.replace("three", "none")
    assert "manifest unknown" in fetch(machine, name="web", image=none, ok=False, **access)["msg"]
    registry.end()
    assert "refused" in fetch(machine, name="web", image=THREE, ok=False, **access)["msg"]
    assert ours(machine) == before
    assert not fetch(machine, name="web", busybox=True)["changed"]
    assert machine.run("ls", busybox["path"])


def test_certificates_that_are_not_looked_at_and_an_authfile(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    registry.push(f"oci:{layout}:three", "test/three:1")
    (tmp_path / "auth.json").write_text('{"auths": {"127.0.0.1:5000": {"auth": "dXNlcjpzZXNhbWU="}}}')
    access = {"validate_certs": False, "authfile": str(tmp_path / "auth.json")}
    assert fetch(machine, name="web", image=THREE, **access)["digest"] == digest_of(layout, "three")


def configure(machine: Machine, name: str, text: str) -> None:
    """Writes one of skopeo's files in /etc/containers, which is the machine's own."""
    machine.shell("mountpoint -q /etc/containers || mount -t tmpfs tmpfs /etc/containers")
    machine.run("sh", "-ec", 'mkdir -p "${0%/*}"; cat > "$0"', f"/etc/containers/{name}", input=text)


ANYTHING = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})


@pytest.mark.parametrize(
    ("location", "mirrors"),
    [
        pytest.param("registry.example", ["127.0.0.1:1", "127.0.0.1:5000"], id="the second mirror serves"),
        pytest.param("127.0.0.1:5000", ["127.0.0.1:1"], id="no mirror serves"),
    ],
)
def test_mirrors(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path, location: str, mirrors: list[str]
) -> None:
    """Where registries.conf(5) says so, and in its order."""
    registry.push(f"oci:{layout}:three", "test/three:1")
    lines = [f'[[registry]]\nlocation = "{location}"']
    lines += [f'[[registry.mirror]]\nlocation = "{mirror}"' for mirror in mirrors]
    configure(machine, "policy.json", ANYTHING)
    configure(machine, "registries.conf", "\n".join(lines))
    (tmp_path / "auth.json").write_text('{"auths": {"127.0.0.1:5000": {"auth": "dXNlcjpzZXNhbWU="}}}')
    access = {"ca_path": registry.access["ca_path"], "authfile": str(tmp_path / "auth.json")}
    image = {"name": "web", "image": f"docker://{location}/test/three:1", **access}
    assert fetch(machine, **image)["digest"] == digest_of(layout, "three")
    assert len(registry.fetched()) == 4
    registry.end()
    assert not fetch(machine, **image)["changed"]
    failed = fetch(machine, **image, pull="always", ok=False)["msg"]
    assert failed.startswith(f"web: image: {image['image']} could not be fetched: ")
    assert failed.endswith("; nothing was changed.")
    assert "\n" not in failed


def test_a_policy_takes_signatures(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    """Where policy.json(5) says so: what is signed by nobody, or by somebody else, is not fetched."""
    with tempfile.TemporaryDirectory(prefix="keys", dir="/tmp") as home:  # a socket in it has a short name
        gpg = ["env", f"GNUPGHOME={home}", "gpg", "--batch", "--quiet"]
        for maker in ("maker", "other"):
            run(*gpg, "--passphrase", "", "--quick-gen-key", maker, "ed25519", "sign", "1d")
            run(*gpg, "--output", tmp_path / f"{maker}.gpg", "--export", maker)
        place = {"lookaside": f"file://{tmp_path}/signed", "lookaside-staging": f"file://{tmp_path}/signed"}
        configure(machine, "policy.json", ANYTHING)
        configure(machine, "registries.d/test.yaml", json.dumps({"docker": {"127.0.0.1:5000": place}}))
        fingerprint = run(*gpg, "--list-keys", "--with-colons", "maker").partition("fpr:::::::::")[2][:40]
        registry.push(f"oci:{layout}:three", "test/three:1", f"--sign-by={fingerprint}", GNUPGHOME=home)
        registry.push(f"oci:{layout}:three", "test/unsigned:1")
        run("gpgconf", "--homedir", home, "--kill", "all")

    def demand(key: str) -> None:
        signed = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{tmp_path}/{key}.gpg"}
        transports = {"docker": {"127.0.0.1:5000": [signed]}}
        configure(
            machine, "policy.json", json.dumps({"default": [{"type": "reject"}], "transports": transports})
        )

    demand("other")
    refused = fetch(machine, name="web", image=THREE, ok=False, **registry.access)["msg"]
    assert refused.startswith(f"web: image: {THREE} could not be fetched: Source image rejected: "), refused
    demand("maker")
    unsigned = THREE.replace("three", "unsigned")
    refused = fetch(machine, name="web", image=unsigned, ok=False, **registry.access)["msg"]
    assert "A signature was required, but no signature exists" in refused
    assert fetch(machine, name="web", image=f"oci:{layout}:three", ok=False)["failed"]
    assert ours(machine) == []
    assert fetch(machine, name="web", image=THREE, **registry.access)["digest"] == digest_of(layout, "three")


# At any moment

_CUT = """
import contextlib, socket, sys, threading
limit = int(sys.argv[1])
listening = socket.create_server(("127.0.0.1", 5001))
print("ready", flush=True)

def forward(source, target, limit):
    while limit > 0:
        data = source.recv(min(limit, 65536))
        if not data:
            break
        target.sendall(data)
        limit -= len(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

while True:
    client, _address = listening.accept()
    server = socket.create_connection(("127.0.0.1", 5000))
    threading.Thread(target=forward, args=(client, server, 1 << 40), daemon=True).start()
    threading.Thread(target=forward, args=(server, client, limit), daemon=True).start()
"""


def test_a_registry_that_is_gone_in_the_middle(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "random").write_bytes(random.randbytes(4_000_000))
    run("tar", "--create", f"--file={tmp_path}/big.tar", f"--directory={tmp_path}", "random")
    add_image(tmp_path / "layout", "big", [layout.parent / "one.tar", tmp_path / "big.tar"])
    registry.push(f"oci:{layout}:three", "test/big:1")
    first = fetch(machine, name="web", image="docker://127.0.0.1:5000/test/big:1", **registry.access)
    registry.push(f"oci:{tmp_path}/layout:big", "test/big:1")
    before = ours(machine)
    image = "docker://127.0.0.1:5001/test/big:1"
    proxy = subprocess.Popen(
        machine.command(sys.executable, "-c", _CUT, "2000000"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        cut = fetch(machine, name="web", image=image, ok=False, **registry.access)
    finally:
        proxy.kill()
        proxy.communicate()
    assert cut["msg"].startswith(f"web: image: {image} could not be fetched: "), cut["msg"]
    assert cut["msg"].endswith("; nothing was changed.")
    assert ours(machine) == before
    assert entries(machine, first["layers"][0])
    again = fetch(
        machine, name="web", image="docker://127.0.0.1:5000/test/big:1", **registry.access, pull="always"
    )
    assert (again["layers"][0], len(again["layers"])) == (first["layers"][0], 2)


def test_killed_at_any_moment_the_next_run_converges(machine: Machine, layout: Path, instants: Any) -> None:
    image = {"name": "web", "image": f"oci:{layout}:three"}
    absent = {"name": "web", "state": "absent", "gc": True}
    fetch(machine, **image)
    fetch(machine, **absent)
    begun = time.monotonic()
    result = fetch(machine, **image)
    taken = time.monotonic() - begun
    whole, finished = merged(machine, result["layers"]), ours(machine)
    for moment in instants.within(taken / 10, taken):
        fetch(machine, **absent)
        assert ours(machine) == [], moment
        machine.module_killed_after(moment, "rootfs_fetch", image)
        for layer in machine.shell(f"ls -d {STORE}/layers/* 2>/dev/null || true").split():
            assert f"{layer}/tree" in result["layers"], moment
        again = fetch(machine, **image)
        assert ours(machine) == finished, moment
        assert again["layers"] == result["layers"], moment
        assert not fetch(machine, **image, verify=True)["changed"], moment
    assert merged(machine, result["layers"]) == whole


def test_two_runs_at_once_do_the_work_once(machine: Machine, layout: Path, registry: Registry) -> None:
    registry.push(f"oci:{layout}:three", "test/three:1")
    runs = []
    for name in ("a", "b", "c"):
        runs.append(
            subprocess.Popen(
                machine.module_command("rootfs_fetch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        runs[-1].stdin.write(json.dumps({"name": name, "image": THREE, **registry.access}))
        runs[-1].stdin.close()
        runs[-1].stdin = None
    results = [json.loads(run.communicate()[0]) for run in runs]
    assert [result.get("msg") for result in results] == [None] * 3
    assert len({str(result["layers"]) for result in results}) == 1
    asked = [request for request in registry.requests() if "/blobs/" in request]
    assert len(asked) == len(set(asked)) == 4  # three layers and the configuration


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image": "oci:layout"},
            "image: 'oci:layout' is not accepted, it takes an absolute path after oci:; nothing was changed.",
        ),
        (
            {"image": "http://a/b"},
            "image: 'http://a/b' is not accepted, it takes an image that begins with docker:// or one of "
            "dir, docker-archive, oci, oci-archive, containers-storage, docker-daemon and a colon; nothing "
            "was changed.",
        ),
        (
            {"image": "oci:/no", "platform": "arm"},
            "platform: 'arm' is not accepted, it takes an operating system and an architecture such as "
            "linux/arm64, or with a variant linux/arm/v7; nothing was changed.",
        ),
        (
            {"image": "oci:/no"},
            "web: image: there is no file /no/index.json on this host; nothing was changed.",
        ),
        (
            {"image": "docker://a/b", "checksum": f"sha256:{'0' * 64}"},
            f"checksum: 'sha256:{'0' * 64}' of web is not accepted with image, whose name may end with "
            "@sha256: and the digest of its manifest; nothing was changed.",
        ),
        (
            {"image": "docker://a/b", "password": "x"},
            "username: missing for web, whose password is given; nothing was changed.",
        ),
        (
            {"image": "docker://a/b", "username": "x", "authfile": "/a"},
            "authfile: /a of web is not accepted beside username, it takes one of them; nothing was changed.",
        ),
        (
            {"image": "docker://127.0.0.1:1/b", "ca_path": "/no"},
            "web: ca_path: there is no file /no on this host; nothing was changed.",
        ),
    ],
)
def test_bad_input(machine: Machine, options: dict[str, Any], message: str) -> None:
    assert fetch(machine, name="web", ok=False, **options)["msg"] == message
    assert ours(machine) == []


@pytest.mark.parametrize(
    ("kind", "form"), [("docker-archive", "v2s2"), ("oci-archive", "oci"), ("dir", "oci"), ("dir", "v2s2")]
)
def test_the_other_files_that_images_are_kept_in(
    machine: Machine, layout: Path, tmp_path: Path, kind: str, form: str
) -> None:
    """As skopeo makes them of the same image; a file that is changed is another image."""
    image = f"{kind}:{tmp_path}/image"
    run("skopeo", "copy", "--quiet", f"--format={form}", f"oci:{layout}:three", image)
    result = fetch(machine, name="web", image=image)
    if kind == "dir":
        manifest = (tmp_path / "image/manifest.json").read_bytes()
        assert (b"docker" in manifest) == (form == "v2s2")
        assert result["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert merged(machine, result["layers"]) == entries(machine, str(layout.parent / "unpacked/rootfs"))
    assert result["config"] == CONFIG
    assert not fetch(machine, name="web", image=image)["changed"]
    add_image(tmp_path / "layout", "one", [layout.parent / "one.tar"])
    shutil.rmtree(tmp_path / "image", ignore_errors=True)
    (tmp_path / "image").unlink(missing_ok=True)
    run("skopeo", "copy", "--quiet", f"oci:{tmp_path}/layout:one", image)
    again = fetch(machine, name="web", image=image)
    assert (again["changed"], again["layers"], again["config"]) == (True, result["layers"][:1], {})


def test_what_docker_export_writes_is_a_tarball(machine: Machine, layout: Path) -> None:
    """An archive of the merged tree, in which a name that begins as a whiteout is a name."""
    machine.shell(f"cp -a {layout.parent}/unpacked/rootfs /run/export; touch /run/export/.wh.kept")
    machine.shell(
        "tar --create --numeric-owner --format=pax --xattrs --file=/run/export.tar -C /run/export ."
    )
    result = fetch(machine, name="web", path="/run/export.tar")
    assert entries(machine, result["path"]) == entries(machine, "/run/export")
    assert machine.run("ls", f"{result['path']}/.wh.kept")
    assert result["config"] == {}


def test_an_image_of_several_platforms(
    machine: Machine, layout: Path, registry: Registry, tmp_path: Path
) -> None:
    """An index, of which each platform's image is another one by the same name and digest."""
    digests = {}
    for architecture, layers in {"arm64": ("one",), "s390x": ("one", "two")}.items():
        add_image(tmp_path / "layout", architecture, [layout.parent / f"{name}.tar" for name in layers])
        run(
            "umoci",
            "config",
            "--image",
            f"{tmp_path}/layout:{architecture}",
            f"--architecture={architecture}",
        )
        digests[architecture] = digest_of(tmp_path / "layout", architecture)
    found = json.loads((tmp_path / "layout/index.json").read_text())
    for entry in found["manifests"]:
        architecture = entry.pop("annotations")["org.opencontainers.image.ref.name"]
        entry["platform"] = {"os": "linux", "architecture": architecture}
    text = json.dumps({**found, "mediaType": "application/vnd.oci.image.index.v1+json"}).encode()
    digest = hashlib.sha256(text).hexdigest()
    (tmp_path / f"layout/blobs/sha256/{digest}").write_bytes(text)
    index = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(text),
    }
    top = {
        "schemaVersion": 2,
        "manifests": [{**index, "annotations": {"org.opencontainers.image.ref.name": "all"}}],
    }
    (tmp_path / "layout/index.json").write_text(json.dumps(top))
    certificates = registry.top / "certificates"
    certificates.mkdir()
    shutil.copy(registry.top / "ca.crt", certificates)
    copy = [
        "skopeo",
        "copy",
        "--all",
        "--quiet",
        f"--dest-cert-dir={certificates}",
        "--dest-creds=user:sesame",
    ]
    machine.run(*copy, f"oci:{tmp_path}/layout:all", "docker://127.0.0.1:5000/test/all:1")
    image = "docker://127.0.0.1:5000/test/all:1"
    for architecture in ("arm64", "s390x"):
        entry = {"name": architecture, "image": image, "platform": f"linux/{architecture}", **registry.access}
        assert fetch(machine, **entry)["digest"] == digests[architecture]
        registry.requests()
        assert not fetch(machine, **entry)["changed"]
        pinned = {**entry, "image": f"docker://127.0.0.1:5000/test/all@sha256:{digest}"}
        assert fetch(machine, **pinned)["digest"] == digests[architecture]
        assert registry.requests() == []


# What nobody vouches for


@pytest.mark.parametrize(
    ("entries_of_layer", "reason"),
    [
        ((("../x", FILE, "x"),), "has an entry that leads out of it: '../x'"),
        (((".wh...", FILE, ""),), "has a whiteout of nothing that has a name: '.wh...'"),
        ((("etc/.wh..", FILE, ""),), "has a whiteout of nothing that has a name: '.wh..'"),
        (((".wh.", FILE, ""),), "has a whiteout of nothing that has a name: '.wh.'"),
        ((("x", HARD, "etc/none"),), "can't be unpacked: No such file or directory (/etc/none)"),
        ((("x", HARD, "/etc/shadow"),), "can't be unpacked: No such file or directory (/etc/shadow)"),
        ((("white", DEVICE, ""),), "has a device 0:0, which is a whiteout to overlayfs: 'white'"),
    ],
)
def test_a_hostile_layer_changes_nothing(
    machine: Machine, tmp_path: Path, entries_of_layer: Any, reason: str
) -> None:
    image = f"dir:{make_directory(tmp_path / 'image', {}, {}, [BASE, archive(*entries_of_layer)])}"
    result = fetch(machine, name="web", image=image, ok=False)
    assert result["msg"] == f"web: image: {image} {reason}; nothing was changed."
    assert ours(machine) == []


def test_whiteouts_and_links_stay_inside(machine: Machine, tmp_path: Path) -> None:
    """Where a link leads to the host, what is there below the root is meant (the gauntlet has the host)."""
    out = [
        ("out", SYMBOLIC, "/run/victim"),
        ("up", SYMBOLIC, "../../../../../../run/victim"),
        ("run", DIRECTORY, ""),
    ]
    away = [
        ("out/.wh.file", FILE, ""),
        ("up/.wh..wh..opq", FILE, ""),
        ("up/new", FILE, "x"),
        (".wh.out", FILE, ""),
    ]
    inside = ("run/victim", DIRECTORY, "")
    layers = [archive(*out, inside), archive(*away)]
    result = fetch(machine, name="web", image=f"dir:{make_directory(tmp_path / 'image', {}, {}, layers)}")
    found = merged(machine, result["layers"])
    assert found.keys() == {".", "up", "run", "run/victim", "run/victim/new"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"config": []}, "has a configuration whose config is no object"),
        ({"config": {"Env": "PATH=/"}}, "has a configuration whose Env is not a list of NAME=VALUE"),
        ({"config": {"Env": ["PATH"]}}, "has a configuration whose Env is not a list of NAME=VALUE"),
        ({"config": {"Env": ["=x"]}}, "has a configuration whose Env is not a list of NAME=VALUE"),
        ({"config": {"Cmd": "sh"}}, "has a configuration whose Cmd is not a list of strings"),
        ({"config": {"Cmd": [1]}}, "has a configuration whose Cmd is not a list of strings"),
        ({"config": {"Cmd": ["a\0b"]}}, "has a configuration whose Cmd is not a list of strings"),
        ({"config": {"Cmd": ["\ud800"]}}, "has a configuration whose Cmd is not a list of strings"),
        (
            {"config": {"Entrypoint": {"a": 1}}},
            "has a configuration whose Entrypoint is not a list of strings",
        ),
        ({"config": {"User": 0.5}}, "has a configuration whose User is not a string"),
        ({"config": {"WorkingDir": "x"}}, "has a configuration whose WorkingDir is not an absolute path"),
        ({"config": {"WorkingDir": "/../x"}}, "has a configuration whose WorkingDir is not an absolute path"),
        (
            {"config": {"Volumes": ["/x"]}},
            "has a configuration whose Volumes is not an object with absolute paths for names",
        ),
        ({"config": {"Labels": {"a": 1}}}, "has a configuration whose Labels is not an object of strings"),
        (
            {"config": {"Healthcheck": {"Interval": "x"}}},
            "has a configuration whose Healthcheck is not an object with Test and numbers",
        ),
        ({"rootfs": {}}, "has no list of diff_ids"),
        ({"rootfs": {"diff_ids": []}}, "has 1 layers and a configuration with diff_ids of 0"),
        (
            {"rootfs": {"diff_ids": ["sha256:../../x"]}},
            "names something by 'sha256:../../x', accepted is sha256: and 64 hexadecimal digits",
        ),
    ],
)
def test_a_hostile_configuration_is_refused(
    machine: Machine, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    image = f"dir:{make_directory(tmp_path / 'image', {}, config, [BASE])}"
    result = fetch(machine, name="web", image=image, ok=False)
    assert result["msg"] == f"web: image: {image} {reason}; nothing was changed."
    assert ours(machine) == []


@pytest.mark.parametrize("config", [b"[]", b"{", b"[" * 100000, b'{"rootfs": 1}', b"\xff", b"null"])
def test_a_configuration_that_is_none_is_refused(machine: Machine, tmp_path: Path, config: bytes) -> None:
    """Whether it is skopeo or we who looks first."""
    image = f"dir:{make_directory(tmp_path / 'image', {}, config, [BASE])}"
    result = fetch(machine, name="web", image=image, ok=False)
    assert result["msg"].startswith(f"web: image: {image} "), result["msg"]
    assert result["msg"].endswith("; nothing was changed.")
    assert ours(machine) == []


def test_a_layer_that_is_not_what_the_configuration_says(machine: Machine, tmp_path: Path) -> None:
    wrong = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}
    image = f"dir:{make_directory(tmp_path / 'image', {}, wrong, [BASE])}"
    result = fetch(machine, name="web", image=image, ok=False)
    digest = hashlib.sha256(BASE).hexdigest()
    assert result["msg"] == (
        f"web: image: {image} has a layer that is sha256:{digest} when decompressed, in place of "
        f"sha256:{'0' * 64}; nothing was changed."
    )
    assert ours(machine) == []


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_blob(machine: Machine, tmp_path: Path, damage: str) -> None:
    directory = make_directory(tmp_path / "image", {}, {}, [BASE])
    blob = directory / hashlib.sha256(BASE).hexdigest()
    if damage == "truncated":
        blob.write_bytes(BASE[:1000])
    else:
        blob.unlink()
    busybox = fetch(machine, name="web", busybox=True)
    before = ours(machine)
    result = fetch(machine, name="web", image=f"dir:{directory}", ok=False)
    assert result["msg"].startswith(f"web: image: dir:{directory} ")
    assert result["msg"].endswith("; nothing was changed.")
    assert ours(machine) == before
    assert machine.run("ls", busybox["path"])


def test_the_limits_are_for_an_image_as_a_whole(machine: Machine, tmp_path: Path) -> None:
    layers = [archive((f"file{number}", FILE, "x" * 5000)) for number in range(3)]
    image = f"dir:{make_directory(tmp_path / 'image', {}, {}, layers)}"
    assert len(layers[0]) == 10240
    few = fetch(machine, name="web", image=image, max_entries=2, ok=False)
    assert few["msg"].endswith(" has more than the 2 entries that max_entries allows; nothing was changed.")
    small = fetch(machine, name="web", image=image, max_size=30000, ok=False)
    assert small["msg"].endswith(" has more than the 30000 bytes that max_size allows; nothing was changed.")
    blob = fetch(machine, name="web", image=image, max_size=10000, ok=False)
    assert "could not be fetched" in blob["msg"]
    assert ours(machine) == []
    assert fetch(machine, name="web", image=image, max_size=30720, max_entries=3)["size"] == 15000


def test_too_many_layers(machine: Machine, tmp_path: Path) -> None:
    layers = [archive((f"file{number}", FILE, "x")) for number in range(129)]
    image = f"dir:{make_directory(tmp_path / 'image', {}, {}, layers)}"
    result = fetch(machine, name="web", image=image, ok=False)
    assert result["msg"] == (
        f"web: image: {image} has 129 layers, from 1 to 128 are accepted; nothing was changed."
    )


# What is kept


@pytest.mark.parametrize("what", ["content", "whiteout", "attribute"])
def test_a_changed_layer_is_found_and_repaired(machine: Machine, layout: Path, what: str) -> None:
    image = {"name": "web", "image": f"oci:{layout}:three"}
    result = fetch(machine, **image)
    one, two, _three = result["layers"]
    whole = merged(machine, result["layers"])
    assert not fetch(machine, **image, verify=True)["changed"]
    changes = {
        "content": f"touch -r {one}/etc/lower /run/time; echo LOWER > {one}/etc/lower",
        "whiteout": f"touch -r {two} /run/time; rm {two}/removed",
        "attribute": f"touch -r {one}/usr/bin/ping /run/time; setcap -r {one}/usr/bin/ping",
    }
    back = {"content": f"{one}/etc/lower", "whiteout": two, "attribute": f"{one}/usr/bin/ping"}
    machine.shell(f"{changes[what]}; touch -r /run/time {back[what]}")
    assert not fetch(machine, **image)["changed"]
    damaged = str(Path(two if what == "whiteout" else one).parent)
    predicted = fetch(machine, **image, verify=True, check=True)
    repaired = fetch(machine, **image, verify=True)
    assert (predicted["changed"], repaired["changed"]) == (True, True)
    assert predicted["diff"] == repaired["diff"]
    assert damaged in repaired["diff"][0]["before"]
    assert damaged not in repaired["diff"][0]["after"]
    assert merged(machine, result["layers"]) == whole
    assert not fetch(machine, **image, verify=True)["changed"]


def test_a_damaged_layer_stays_where_it_cannot_be_fetched(
    machine: Machine, layout: Path, tmp_path: Path
) -> None:
    shutil.copytree(layout, tmp_path / "layout")
    image = {"name": "web", "image": f"oci:{tmp_path}/layout:three"}
    result = fetch(machine, **image)
    machine.shell(f"echo changed > {result['layers'][0]}/etc/lower; rm -r {tmp_path}/layout/blobs")
    failed = fetch(machine, **image, verify=True, ok=False)
    assert failed["msg"].startswith(f"web: image: {image['image']} could not be fetched: ")
    assert machine.run("cat", f"{result['layers'][0]}/etc/lower") == "changed\n"
    assert not fetch(machine, **image)["changed"]


def test_what_nobody_refers_to_goes(machine: Machine, layout: Path, tmp_path: Path) -> None:
    add_image(tmp_path / "layout", "two", [layout.parent / f"{name}.tar" for name in ("one", "two")])
    three = fetch(machine, name="web", image=f"oci:{layout}:three")
    two = fetch(machine, name="other", image=f"oci:{tmp_path}/layout:two")
    assert two["layers"] == three["layers"][:2]
    assert two["size"] < three["size"]
    fetch(machine, name="web", state="absent", gc=True)
    left = [path.split("/")[-2] for path in two["layers"]]
    assert sorted(machine.run("ls", f"{STORE}/layers").split()) == sorted(left)
    assert len(machine.run("ls", f"{STORE}/images").split()) == 1
    fetch(machine, name="other", state="absent", gc=True)
    assert ours(machine) == []


# The equivalent commands


@pytest.mark.parametrize("source", ["layout", "registry"])
def test_replayed_commands_make_the_same(
    machine: Machine, layout: Path, registry: Registry, source: str
) -> None:
    """But for the times of directories, and how overlayfs notes what was removed."""
    registry.push(f"oci:{layout}:three", "test/three:1")
    (registry.top / "auth.json").write_text('{"auths": {"127.0.0.1:5000": {"auth": "dXNlcjpzZXNhbWU="}}}')
    access = {"ca_path": str(registry.top / "certificates"), "authfile": str(registry.top / "auth.json")}
    image = {"name": "web", "image": f"oci:{layout}:three"}
    if source == "registry":
        image = {"name": "web", "image": THREE, **access}
    result = fetch(machine, **image)
    expected = merged(machine, result["layers"])
    files = (
        f"cat {STORE}/images/*.json {STORE}/layers/*/manifest.json /var/lib/bare-containers/containers/*/*"
    )
    texts = machine.shell(files)
    fetch(machine, name="web", state="absent", gc=True)
    assert ours(machine) == []
    machine.shell("\n".join(result["commands"]))
    assert machine.shell(files) == texts
    found = merged(machine, result["layers"])
    directories = [path for path, entry in expected.items() if stat.S_ISDIR(entry["type"])]
    for path in directories:
        assert found[path].pop("mtime") is not None
        assert expected[path].pop("mtime") is not None
    assert found == expected
    again = fetch(machine, **image)
    assert not again["changed"]
    assert again["config"] == CONFIG


# A container

APP = {
    "Cmd": ["sleep", "1000"],
    "Entrypoint": ["/bin/busybox"],
    "Env": ["PATH=/usr/bin:/bin", "GREETING=hello world", "COLOUR=red"],
    "StopSignal": "SIGQUIT",
    "User": "1000:1001",
    "WorkingDir": "/etc",
}


@pytest.fixture
def app(containers: Any, layout: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a container of an image that has the configuration APP, or of another one."""
    made: list[str] = []

    def converge(config: dict[str, Any] | None = None, *, ok: bool = True, **options: Any) -> dict[str, Any]:
        name = containers.name("one")
        if not made or config is not None:
            made.append(f"app{len(made)}")
            three = [layout.parent / f"{layer}.tar" for layer in ("one", "two", "three")]
            add_image(tmp_path / "layout", made[-1], three, APP if config is None else config)
            fetch(containers.machine, name=name, image=f"oci:{tmp_path}/layout:{made[-1]}")
        result = containers.machine.module("container_process", {"name": name, "stop_timeout": 0, **options})
        assert bool(result.get("failed")) != ok, result
        return dict(result)

    return converge


def process(containers: Any) -> dict[str, Any]:
    """What of a container's first process the image has a say in, by /proc."""
    top = Path(f"/proc/{containers.pid()}")
    variables = (top / "environ").read_bytes().rstrip(b"\0").split(b"\0")
    status = containers.status()
    return {
        "command": (top / "cmdline").read_text().rstrip("\0").split("\0"),
        "env": dict(variable.decode().split("=", 1) for variable in variables),
        "user": f"{status['Uid'].split()[0]}:{status['Gid'].split()[0]}",
        "workdir": os.readlink(top / "cwd"),
    }


def test_a_container_is_as_its_image_says(containers: Any, app: Callable[..., dict[str, Any]]) -> None:
    assert app()["changed"]
    found = process(containers)
    assert found["command"] == ["/bin/busybox", "sleep", "1000"]
    assert (found["user"], found["workdir"]) == ("1000:1001", "/etc")
    assert (
        found["env"].items() >= {"PATH": "/usr/bin:/bin", "GREETING": "hello world", "COLOUR": "red"}.items()
    )
    assert containers.inside("cat /opaque/*") == "new\n"
    assert not app()["changed"]
    info = containers.machine.module("container_info", {"name": containers.name("one")})
    assert info["containers"][containers.name("one")]["drift"] == []
    kept = json.loads(containers.machine.run("cat", f"{containers.directory()}/process.json"))
    assert kept["stop_signal"] == "SIGQUIT"
    assert app(state="stopped")["changed"]
    assert app(state="restarted")["changed"]
    assert process(containers)["command"] == ["/bin/busybox", "sleep", "1000"]


def test_what_is_declared_wins(containers: Any, app: Callable[..., dict[str, Any]]) -> None:
    app(command=["sleep", "2000"], env={"COLOUR": "blue", "OWN": "x"}, user="7:8", workdir="/usr")
    found = process(containers)
    assert found["command"] == ["/bin/busybox", "sleep", "2000"]
    assert (found["user"], found["workdir"]) == ("7:8", "/usr")
    assert found["env"].items() >= {"GREETING": "hello world", "COLOUR": "blue", "OWN": "x"}.items()
    app(entrypoint=["/bin/busybox", "sh", "-c"], command=["sleep 3000; true"])
    assert process(containers)["command"] == ["/bin/busybox", "sh", "-c", "sleep 3000; true"]
    app(entrypoint=[], command=["/bin/busybox", "sleep", "4000"])
    assert process(containers)["command"] == ["/bin/busybox", "sleep", "4000"]
    alone = {"image_config": False, "command": ["/usr/bin/busybox", "sleep", "5000"]}
    app(**alone)
    found = process(containers)
    assert found["command"] == alone["command"]
    assert (found["user"], found["workdir"]) == ("0:0", "/")
    assert "GREETING" not in found["env"]
    assert not app(**alone)["changed"]
    info = containers.machine.module("container_info", {"name": containers.name("one")})
    assert info["containers"][containers.name("one")]["drift"] == []


def test_another_image_is_another_container(containers: Any, app: Callable[..., dict[str, Any]]) -> None:
    app()
    before = containers.pid()
    assert app({**APP, "Cmd": ["sleep", "6000"]})["changed"]
    assert process(containers)["command"] == ["/bin/busybox", "sleep", "6000"]
    assert containers.pid() != before


def test_an_image_that_says_nothing_or_what_cannot_be(
    containers: Any, app: Callable[..., dict[str, Any]]
) -> None:
    assert app({}, ok=False)["msg"] == (
        f"{containers.name('one')}: command: it is missing, a process takes one, and no image says which; "
        "nothing was changed."
    )
    said = app({**APP, "StopSignal": "SIGNONE"}, ok=False)["msg"]
    assert said.startswith(
        f"{containers.name('one')}: image_config: of what the image says, stop_signal: 'SIGNONE'"
    )


def test_check_mode_goes_on_where_the_image_is_still_to_be_fetched(containers: Any) -> None:
    name = containers.name("one")
    told = containers.machine.module("container_process", {"name": name}, check=True)
    assert told["changed"], told
    assert any("(what its image says)" in text for text in told["commands"])
    done = containers.machine.module("container_process", {"name": name})
    assert done["msg"].startswith(f"{name}: rootfs: {name} has no root file system")


def test_an_image_of_more_layers_than_mount_takes_names(
    containers: Any, layout: Path, tmp_path: Path
) -> None:
    layers = [layout.parent / "one.tar"]
    for number in range(70):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / f"etc/{number}").write_text(f"{number}\n")
        layers.append(tmp_path / f"{number}.tar")
        run("tar", "--create", f"--file={layers[-1]}", f"--directory={tmp_path}", f"etc/{number}")
    add_image(tmp_path / "layout", "many", layers, {"Cmd": ["/bin/busybox", "sleep", "1000"]})
    name = containers.name("one")
    result = fetch(containers.machine, name=name, image=f"oci:{tmp_path}/layout:many")
    assert len(result["layers"]) == 71
    assert len(":".join(result["layers"])) > 4096
    run_it = containers.machine.module("container_process", {"name": name, "stop_timeout": 0})
    assert not run_it.get("failed"), run_it
    assert containers.inside("/usr/bin/sh -c 'cd /etc; cat 0 35 69'") == "0\n35\n69\n"


def test_layers_in_a_user_namespace(containers: Any, app: Callable[..., dict[str, Any]]) -> None:
    """Whiteouts and opaque directories are still that, and owners those of the image."""
    app(uidmap=["0:100000:65536"])
    found = containers.inside(
        "cat /opaque/* /hidden/*; ls /removed /gone/g 2>/dev/null || stat -c %u:%g /private"
    )
    assert found.split() == ["new", "new", "1000:1001"]
    assert containers.status()["Uid"].split()[0] == "101000"

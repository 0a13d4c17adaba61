# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images made to reach the host by what one layer lays for the next, or to be others than they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images import BASE, DIRECTORY, FILE, HARD, SYMBOLIC, Registry, archive, make_directory
from rootfs import fetch, ours

Machine = Any  # conftest.Machine
VICTIM = "/run/victim"


@pytest.fixture
def victim(machine: Machine) -> Machine:
    """A machine with something to lose."""
    machine.shell(f"mkdir -m 0700 {VICTIM}; echo precious > {VICTIM}/file; chmod 0600 {VICTIM}/file")
    return machine


def state(machine: Machine) -> str:
    """The victim: names and what is in files."""
    listed = f"find {VICTIM} -printf '%p %M %U %s %T@ %n %l\\n' | sort"
    return str(machine.shell(f"{listed}; cat {VICTIM}/* 2>&1 || true"))


# All names are in /run, which is the machine's own.
LINKS = archive(
    ("run", DIRECTORY, ""), ("run/out", SYMBOLIC, VICTIM), ("run/up", SYMBOLIC, "../../../run/victim")
)
THROUGH = {
    "a whiteout": ("run/out/.wh.file", FILE, ""),
    "an opaque marker": ("run/up/.wh..wh..opq", FILE, ""),
    "a file": ("run/up/file", FILE, "pwned"),
    "a directory": ("run/out/new", DIRECTORY, ""),
    "a hard link": ("run/own", HARD, "run/out/file"),
}
PIVOT = '    mount.pivot_root(".", ".")\n    mount.unmount(".", mount.MNT_DETACH)\n    os.chdir("/")\n'


@pytest.mark.parametrize("entry", THROUGH)
def test_a_layer_goes_through_a_link_of_the_one_below(
    victim: Machine, collection: Any, tmp_path: Path, entry: str
) -> None:
    layers = [LINKS, archive(THROUGH[entry])]
    image = {"name": "web", "image": f"dir:{make_directory(tmp_path / 'image', {}, {}, layers)}"}
    before = state(victim)
    result = victim.module("rootfs_fetch", image)
    assert state(victim) == before
    if result.get("failed"):
        assert result["msg"].endswith("; nothing was changed.")
    fetch(victim, name="web", state="absent", gc=True)
    assert ours(victim) == []
    collection.weaken("rootfs/extract.py", PIVOT, "")
    assert not collection.module("rootfs_fetch", image).get("failed")
    assert state(victim) != before


# Called by another's digest

# Takes any image in a directory for what it says it is.
_CARELESS = """#!/usr/bin/python3
import hashlib, json, shutil, sys
from pathlib import Path
source, layout = (Path(word.partition(":")[2]) for word in sys.argv[-2:])
blobs = layout / "blobs/sha256"
for path in source.iterdir():
    shutil.copy(path, blobs)
manifest = hashlib.sha256((source / "manifest.json").read_bytes()).hexdigest()
shutil.copy(source / "manifest.json", blobs / manifest)
(layout / "index.json").write_text(json.dumps({"manifests": [{"digest": f"sha256:{manifest}"}]}))
"""


@pytest.fixture
def careless(collection: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs rootfs_fetch with a skopeo that checks nothing."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/skopeo").write_text(_CARELESS)
    (tmp_path / "bin/skopeo").chmod(0o755)

    def run(**arguments: Any) -> dict[str, Any]:
        path = f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return dict(collection.module("rootfs_fetch", {"name": "web", **arguments}, PATH=path))

    return run


CHECKS = {
    "has a damaged blob": ("rootfs/oci.py", "    if found != blob:\n", "    if False:\n"),
    "has a layer that is": ("rootfs/image.py", "if read.digest != digest:", "if False:"),
}
"""What is looked at after skopeo has: what is refused without, and how to be without."""


def test_a_blob_is_exchanged_where_it_is_served(
    machine: Machine, collection: Any, careless: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Three look at it: skopeo, we at what has come, and at what that is when decompressed."""
    directory = make_directory(tmp_path / "image", {}, {}, [BASE])
    digest = hashlib.sha256(BASE).hexdigest()
    evil = BASE.replace(b"base", b"evil")
    (tmp_path / "registry").mkdir()
    registry = Registry(machine, tmp_path / "registry")
    try:
        registry.push(f"dir:{directory}", "test/one:1")
        served = tmp_path / f"registry/data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
        assert served.read_bytes() == BASE
        served.write_bytes(evil)
        image = "docker://127.0.0.1:5000/test/one:1"
        result = fetch(machine, name="web", image=image, ok=False, **registry.access)
    finally:
        registry.end()
    assert result["msg"].startswith(f"web: image: {image} could not be fetched: "), result["msg"]
    assert digest in result["msg"]
    assert ours(machine) == []
    (directory / digest).write_bytes(evil)
    for reason, check in CHECKS.items():
        refused = careless(image=f"dir:{directory}")["msg"]
        assert refused.startswith(f"web: image: dir:{directory} {reason}"), refused
        assert ours(machine) == []
        collection.weaken(*check)
    accepted = careless(image=f"dir:{directory}")
    assert machine.run("cat", f"{accepted['path']}/etc/motd") == "evil"


def test_a_blob_is_called_by_the_path_of_a_file_of_the_host_s(
    victim: Machine, collection: Any, careless: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """A container is to get it for its root file system."""
    victim.shell(f"tar --create --file=/run/private.tar --directory={VICTIM} file")
    path = f"sha256:{'../' * 20}run/private.tar"
    kind = "application/vnd.oci.image.layer.v1.tar"
    layers = {"layers": [{"mediaType": kind, "digest": path, "size": 10240}]}
    image = f"dir:{make_directory(tmp_path / 'image', layers, {}, [BASE])}"
    result = fetch(victim, name="web", image=image, ok=False)
    assert result["msg"].startswith(f"web: image: {image} could not be fetched: "), result["msg"]
    assert ours(victim) == []
    digest = ("rootfs/oci.py", '_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")')
    checks = {"names something by 'sha256:../../": (*digest, '_DIGEST = re.compile("sha256:(.*)")'), **CHECKS}
    for reason, check in checks.items():
        refused = careless(image=image)["msg"]
        assert refused.startswith(f"web: image: {image} {reason}"), refused
        assert ours(victim) == []
        collection.weaken(*check)
    assert victim.run("cat", f"{careless(image=image)['path']}/file") == "precious\n"

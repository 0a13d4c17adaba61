# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What getting a root file system costs: pulled from a server on loopback and unpacked, against GNU tar; and
an image of three layers from a registry, against skopeo with umoci, and podman where it is installed.

The archive has some 120 MiB of this machine's own /usr. Ours is rootfs_fetch as Ansible runs it, from the
start of its interpreter to its end: a checksum that is checked, an unpacking process of its own, a census of
what came out, and all of it on the disk. Theirs is what one would type. All are run in turns, in network and
mount namespaces of their own on one file system, so that nothing of the machine is touched. Times are
medians.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modules import PROJECT, module

SERVER = PROJECT / "tests/support/web_server.py"
SIZE = 120 << 20
FROM = ("bin", "lib/python3", "lib/x86_64-linux-gnu", "share", "lib")
LAYERS = 3
SHARING = 50
IMAGE = "127.0.0.1:5000/bench:1"
REGISTRY = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "127.0.0.1:5000"}}
"""
COMPRESS = {"plain": "cat", "gzip": "gzip -1", "zstd": "zstd -q", "xz": "xz -0 -T2"}


@dataclass(frozen=True)
class Case:
    """One thing to get: by ``ours`` and by each of ``theirs``, in turns; ``clear`` undoes it all."""

    name: str
    ours: Callable[[], None]
    theirs: dict[str, Callable[[], None]]
    clear: Callable[[], None]


def fetch(**arguments: object) -> None:
    """Runs rootfs_fetch."""
    module("rootfs_fetch", **arguments)


def shell(text: str) -> None:
    """Runs a shell script."""
    subprocess.run(["sh", "-ec", text], check=True)


def make_archive(folder: Path) -> Path:
    """Files of this machine, in an order that is always the same."""
    chosen: dict[str, None] = {}
    size = 0
    for top in FROM:
        for path in sorted(Path("/usr", top).rglob("*")):
            its = 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
            if size + its <= SIZE and not path.is_dir() and str(path) not in chosen:
                chosen[str(path)] = None
                size += its
    archive = folder / "plain"
    words = ["tar", "--create", "--numeric-owner", "--file", archive, "--null", "--no-recursion"]
    words += ["--files-from=-"]
    names = "\0".join(chosen).encode()
    subprocess.run(words, input=names, check=True, stderr=subprocess.DEVNULL)
    return archive


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder."""
    words = [sys.executable, SERVER, folder, "/dev/null"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def tarball(name: str, archive: Path, address: str, folder: Path) -> Case:
    """An archive from a server, known by its checksum."""
    url = f"{address}/{archive.name}"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    into = shlex.quote(str(folder / "theirs"))
    get = f"curl -fsS -o {into}/archive {url}; echo '{digest}  {into}/archive' | sha256sum --check --quiet -"
    extract = f"tar --extract --numeric-owner --xattrs --file {into}/archive -C {into}/tree"

    def clear() -> None:
        fetch(name="bench", state="absent", gc=True)
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        (folder / "theirs/tree").mkdir(parents=True)

    return Case(
        name,
        lambda: fetch(name="bench", url=url, checksum=f"sha256:{digest}"),
        {
            "tar": lambda: shell(f"{get}; {extract}"),
            "tar, synced": lambda: shell(f"{get}; {extract}; sync -f {into}"),
        },
        clear,
    )


def push(folder: Path) -> None:
    """Has the registry hold the files of the archive, as an image of three layers that umoci makes."""
    layout, tree = folder / "layout", folder / "tree"
    tree.mkdir()
    shell(f"tar --extract --file {folder}/served/plain -C {tree}; umoci init --layout {layout}")
    shell(f"mkdir -p {tree}/bin; cp /bin/busybox {tree}/bin/sleep; umoci new --image {layout}:bench")
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir())
    for number in range(LAYERS):
        layer = folder / "layer.tar"
        words = [
            "tar",
            "--create",
            "--numeric-owner",
            "--file",
            layer,
            "-C",
            tree,
            "--null",
            "--files-from=-",
        ]
        subprocess.run(words, input="\0".join(names[number::LAYERS]).encode(), check=True)
        shell(f"umoci raw add-layer --image {layout}:bench {layer}")
    shell(f"skopeo copy -q --dest-tls-verify=false oci:{layout}:bench docker://{IMAGE}")
    shutil.rmtree(tree)


@contextmanager
def registry(folder: Path) -> Iterator[None]:
    """A docker-registry on 127.0.0.1 that keeps what it has in ``folder``."""
    config = folder / "registry.yml"
    config.write_text(REGISTRY.format(folder=folder))
    words = ["docker-registry", "serve", config]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            shell(
                f"until curl -fsS -o /dev/null http://{IMAGE.partition('/')[0]}/v2/ 2>&-; do sleep 0.1; done"
            )
            yield
        finally:
            server.kill()


def image(folder: Path) -> Case:
    """An image by its tag. Of podman's storage, all is in the folder."""
    into = shlex.quote(str(folder / "theirs"))
    copy = f"skopeo copy -q --src-tls-verify=false docker://{IMAGE} oci:{into}/layout:bench"
    unpack = f"umoci unpack --image {into}/layout:bench {into}/bundle"
    storage = f"--root {into}/storage --runroot /run/podman --storage-driver overlay"
    podman = f"podman {storage} pull -q --tls-verify=false {IMAGE} > {into}/id"

    def clear() -> None:
        fetch(name="bench", state="absent", gc=True)
        if (folder / "theirs/storage").exists():
            shell(f"podman {storage} rmi -af > {into}/id")
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        (folder / "theirs").mkdir(parents=True)

    theirs = {
        "skopeo and umoci": lambda: shell(f"{copy}; {unpack}"),
        "the same, synced": lambda: shell(f"{copy}; {unpack}; sync -f {into}"),
    }
    if shutil.which("podman"):
        theirs["podman pull"] = lambda: shell(podman)
    return Case(
        f"image, {LAYERS} layers",
        lambda: fetch(name="bench", image=f"docker://{IMAGE}", validate_certs=False),
        theirs,
        clear,
    )


def cases(folder: Path, address: str, rounds: int) -> Iterator[Case]:
    """What is measured."""
    with registry(folder):
        push(folder)
        yield image(folder)
        share(folder, rounds)
    plain = folder / "served/plain"
    for name, compress in COMPRESS.items():
        archive = folder / "served" / name
        if name != "plain":
            shell(f"{compress} < {plain} > {archive}")
        yield tarball(f"{name}, {archive.stat().st_size >> 20} MiB", archive, address, folder)


def share(folder: Path, rounds: int) -> None:
    """Prints what containers cost of an image that is there, and the disk that they use."""
    names = [f"bench-{number}" for number in range(SHARING)]

    def declare(count: int) -> float:
        began = time.perf_counter()
        images = [{"name": name, "image": f"docker://{IMAGE}", "validate_certs": False} for name in names]
        fetch(batch=images[:count])
        started = [{"name": name, "command": ["sleep", "infinity"], "stop_timeout": 0} for name in names]
        module("container_process", batch=started[:count])
        return time.perf_counter() - began

    def end() -> None:
        module("container_process", batch=[{"name": name, "state": "absent"} for name in names])
        fetch(batch=[{"name": name, "state": "absent"} for name in names])

    def disk() -> int:
        words = ["du", "--summarize", "--block-size=1K", "/var/lib/bare-containers"]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])

    module("launcher")
    fetch(name="bench", image=f"docker://{IMAGE}", validate_certs=False)
    before = disk()
    ones, wholes = [], []
    for _round in range(rounds):
        ones.append(declare(1))
        end()
        wholes.append(declare(SHARING))
        after = disk()
        end()
    each = (statistics.median(wholes) - statistics.median(ones)) / (SHARING - 1)
    print(f"declared to running: {statistics.median(ones):.2f} s the first, {each * 1000:.1f} ms each of the")
    print(f"2nd to {SHARING}th of its image; on disk {before} KiB with none, {after} KiB with {SHARING}")
    fetch(name="bench", state="absent", gc=True)


def timed(act: Callable[[], None], clear: Callable[[], None]) -> float:
    clear()
    os.sync()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(folder: Path, rounds: int) -> None:
    """Prints the table. Runs inside the namespaces that main() makes."""
    (folder / "served").mkdir()
    make_archive(folder / "served")
    print(f"{'':20} {'ours s':>8}  against")
    with served(folder / "served") as address:
        for case in cases(folder, address, rounds):
            ways = {"ours": case.ours, **case.theirs}
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _round in range(rounds):
                for way, act in ways.items():
                    seconds[way].append(timed(act, case.clear))
            case.clear()
            names = list(case.theirs)
            ours, *theirs = [statistics.median(each) for each in seconds.values()]
            ratios = ", ".join(
                f"{way} {its:.2f} s: {ours / its:.2f}" for way, its in zip(names, theirs, strict=True)
            )
            print(f"{case.name:20} {ours:8.2f}  {ratios}", flush=True)
    print(f"medians of {rounds}; a ratio is our time by theirs")


def main(rounds: int = 5) -> None:
    """Measures inside a host of its own, whose store is on the file system of temporary files."""
    inside = """
    mount -t tmpfs none /run; mount -t tmpfs none /var/log; mount -t tmpfs none /usr/local/lib
    mkdir "$1/lib"
    mount --bind "$1/lib" /var/lib
    ip link set lo up
    shift; exec "$@"
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        words = ["sh", folder, sys.executable, __file__, "inside", folder, str(rounds)]
        subprocess.run(["unshare", "--net", "--mount", "sh", "-ec", inside, *words], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        measure(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))

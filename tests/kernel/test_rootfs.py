# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rootfs_fetch on this kernel: what it unpacks is what GNU tar unpacks, and what it keeps is whole whatever
happens."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from images import Registry, add_image
from rootfs import STORE, Entries, entries, fetch, ours, without

Machine = Any  # conftest.Machine
PYTHONS = ("/usr/bin/python3", sys.executable)
MODULE = Path(__file__).parents[2] / "plugins/modules/rootfs_fetch.py"

_SET_XATTR = "import os, sys; os.setxattr(sys.argv[1], 'user.colour', bytes(range(256)))"

MAKE_SOURCE = r"""
mkdir -p /run/source && cd /run/source
mkdir -p usr/bin etc empty 'with space' deep/a/b/c/d/e secret
echo hello > etc/motd
printf 'no newline' > 'with space/$(file) "x"'
printf x > "$(printf 'umlaut-\303\244')"
printf x > "$(printf 'latin1-\344')"
: > empty-file
head -c 300000 /dev/urandom > usr/bin/big
ln usr/bin/big usr/bin/big-too
ln usr/bin/big deep/a/b/big-three
ln -s usr/bin bin
ln -s /etc/motd absolute
ln -s ../../../../../../../etc/motd deep/up
ln -s nowhere dangling
ln deep/up deep/up-too
mkfifo fifo
mknod null c 1 3
mknod disk b 7 200
cp /bin/true setuid && chown 12345:54321 setuid && chmod 6755 setuid
chmod 0 secret && chmod 1777 empty
chown -h 1000:1001 dangling
long=$(printf 'n%.0s' $(seq 1 180))
mkdir -p $long/$long && echo long > $long/$long/$long && ln -s $long/$long/$long/$long long-link
ln $long/$long/$long long-hard
truncate -s 5M sparse && printf middle | dd of=sparse bs=1 seek=3000000 conv=notrunc status=none
truncate -s 1M all-hole
find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
touch -d '1960-01-01 00:00:00.5' etc/motd
touch -d '2100-01-01' usr
chmod 0750 .
touch -d '2010-10-10 10:10:10' .
"""

COMPRESSIONS = {"plain": "cat", "gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd -q"}
DECOMPRESS = {program: f"{program.split()[0]} -d" for program in COMPRESSIONS.values()}
DECOMPRESS["cat"] = "cat"
TWO_MEMBERS = "(gzip; printf '' | gzip)"
DECOMPRESS[TWO_MEMBERS] = "gzip -d"
FORMATS = {
    "gnu": "--format=gnu",
    "pax": "--format=pax --xattrs",
    "oldgnu-sparse": "--format=oldgnu --sparse",
    "pax-sparse-0.0": "--format=pax --sparse --sparse-version=0.0",
    "pax-sparse-0.1": "--format=pax --sparse --sparse-version=0.1",
    "pax-sparse-1.0": "--format=pax --sparse --sparse-version=1.0",
    "labelled": "--format=gnu --label=image",
    # Keywords of one's own, as Alpine's packages and archives have them (pax(1), "vendor").
    "apk": "--format=pax --xattrs --pax-option=APK-TOOLS.checksum.SHA1:=0123456789abcdef,delete=atime",
}


def pack(
    machine: Machine, archive: str, options: str = "", compress: str = "cat", source: str = "/run/source"
) -> str:
    """Has GNU tar pack a directory; returns the archive's name."""
    machine.shell(f"tar --create --numeric-owner {options} -C {source} . | {compress} > {archive}")
    return archive


def unpack_by_tar(machine: Machine, archive: str) -> Entries:
    """What GNU tar makes of an archive."""
    machine.shell(
        f"mkdir -m 0755 /run/by-tar; tar --extract --file {archive} --numeric-owner --preserve-permissions "
        "--xattrs --xattrs-include='user.*' --xattrs-include=security.capability -C /run/by-tar"
    )
    return entries(machine, "/run/by-tar")


@pytest.mark.parametrize(
    ("options", "compress"),
    [
        *(pytest.param(FORMATS["gnu"], program, id=name) for name, program in COMPRESSIONS.items()),
        *(pytest.param(options, "cat", id=name) for name, options in FORMATS.items() if name != "gnu"),
        pytest.param("--format=gnu --hard-dereference", TWO_MEMBERS, id="two gzip members"),
    ],
)
@pytest.mark.parametrize("python", PYTHONS)
def test_an_archive_is_unpacked_as_gnu_tar_does_it(
    machine: Machine, options: str, compress: str, python: str
) -> None:
    machine.shell(MAKE_SOURCE)
    if "--xattrs" in options:
        machine.shell("cd /run/source; setcap cap_net_raw+ep setuid")
        machine.run("/usr/bin/python3", "-c", _SET_XATTR, "/run/source/etc/motd")
    archive = pack(machine, "/run/image.tar", options, compress)
    expected = unpack_by_tar(machine, archive)
    result = fetch(machine, name="web", path=archive, python=python)
    found = entries(machine, result["path"])
    assert found.keys() == expected.keys()
    assert found == expected
    assert len(found) > 30
    assert bool(found["setuid"]["xattrs"]) == ("--xattrs" in options)
    digest = machine.run("sha256sum", archive).split()[0]
    assert result["digest"] == f"sha256:{digest}"
    content = machine.shell(f"{DECOMPRESS[compress]} < {archive} | sha256sum").split()[0]
    assert result["path"] == f"{STORE}/layers/sha256-{content}/tree"
    assert result["layers"] == [result["path"]]
    sizes = {entry["same"]: entry["content"][0] for entry in found.values() if "content" in entry}
    assert result["size"] == sum(sizes.values())
    again = fetch(machine, name="web", path=archive, python=python)
    assert not again["changed"]
    assert (again["size"], again["path"], again["commands"]) == (result["size"], result["path"], [])


def test_holes_stay_holes(machine: Machine) -> None:
    machine.shell(MAKE_SOURCE)
    tree = fetch(machine, name="web", path=pack(machine, "/run/image.tar", FORMATS["pax-sparse-1.0"]))["path"]
    blocks, size = machine.run("stat", "--format", "%b %s", f"{tree}/sparse").split()
    assert int(size) == 5 * 1024 * 1024
    assert int(blocks) * 512 < 100_000


# Busybox


@pytest.mark.parametrize("python", PYTHONS)
def test_busybox(machine: Machine, python: str) -> None:
    predicted = fetch(machine, name="web", busybox=True, check=True, python=python)
    assert ours(machine) == []
    result = fetch(machine, name="web", busybox=True, python=python)
    tree = result["path"]
    assert (predicted["changed"], predicted["diff"], predicted["commands"]) == (
        True,
        result["diff"],
        result["commands"],
    )
    assert (predicted["path"], predicted["digest"]) == (None, result["digest"])
    inside = machine.run(
        "chroot",
        tree,
        "/bin/sh",
        "-lc",
        "id -un; awk -F: '{print $1}' /etc/passwd | head -1; echo $PATH; ls -ld /tmp",
    )
    name, first, path, tmp = inside.splitlines()
    assert (name, first) == ("root", "root")
    assert path == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert tmp.startswith("drwxrwxrwt")
    for applet in machine.run("/bin/busybox", "--list-full").split():
        if "/" in applet:
            machine.run("chroot", tree, "/bin/busybox", "test", "-x", f"/{applet}")
    listed = entries(machine, tree)
    assert {
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "etc/group",
        "etc/hosts",
        "etc/nsswitch.conf",
    } <= listed.keys()
    assert all(entry["owner"] == [0, 0] for entry in listed.values())
    again = fetch(machine, name="web", busybox=True, python=python)
    assert not again["changed"]
    assert again["diff"] == []


def test_an_upgraded_busybox_is_another_layer(machine: Machine) -> None:
    before = fetch(machine, name="web", busybox=True)
    machine.shell("cp /bin/busybox /run/newer; printf x >> /run/newer; mount --bind /run/newer /bin/busybox")
    after = fetch(machine, name="web", busybox=True)
    assert after["changed"]
    assert after["digest"] != before["digest"]
    assert (
        machine.run("sha256sum", f"{after['path']}/bin/busybox").split()[0]
        == machine.run("sha256sum", "/run/newer").split()[0]
    )
    assert machine.run("ls", before["path"])  # who runs on it still has it


def test_a_dynamically_linked_busybox_is_refused(machine: Machine) -> None:
    machine.shell("mount --bind /bin/true /bin/busybox")
    result = fetch(machine, name="web", busybox=True, ok=False)
    assert result["msg"] == (
        "web: busybox: /bin/busybox is dynamically linked, so it would not run in a root file "
        "system without its "
        "libraries; install the package busybox-static; nothing was changed."
    )
    assert ours(machine) == []


# Bad input


@pytest.fixture
def image(machine: Machine, tmp_path: Path) -> Path:
    """An archive that all machines see."""
    machine.shell("mkdir -p /run/source/etc; echo one > /run/source/etc/motd; ln -s etc /run/source/link")
    pack(machine, str(tmp_path / "image.tar.gz"), compress="gzip -n")
    return tmp_path / "image.tar.gz"


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


WRONG = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {},
            "web: no source is given, it takes one of busybox, image, path, url, bootstrap; nothing was "
            "changed.",
        ),
        (
            {"busybox": False},
            "web: no source is given, it takes one of busybox, image, path, url, bootstrap; nothing was "
            "changed.",
        ),
        (
            {"busybox": True, "path": "/x"},
            "web: all of busybox, path are given, it takes one of busybox, image, path, url, bootstrap; "
            "nothing was changed.",
        ),
        (
            {"path": "x.tar"},
            "path: 'x.tar' is not accepted, it takes an absolute path of a file on the managed "
            "host; nothing was changed.",
        ),
        ({"path": "/no/x.tar"}, "web: path: there is no file /no/x.tar on this host; nothing was changed."),
        (
            {"path": "/dev/null"},
            "web: path: /dev/null is not a regular file; nothing was changed.",
        ),
        (
            {"path": "/run"},
            "web: path: /run is not a regular file; nothing was changed.",
        ),
        (
            {"url": "ftp://127.0.0.1/x"},
            "url: 'ftp://127.0.0.1/x' is not accepted, it takes an address that begins with "
            "https:// or http://; "
            "nothing was changed.",
        ),
        (
            {"url": "http://127.0.0.1/x"},
            "checksum: missing for web, whose url is not encrypted; http:// takes a checksum "
            "or a signature, https:// can do "
            "without; nothing was changed.",
        ),
        (
            {"path": "/x", "checksum": "md5:0"},
            "checksum: 'md5:0' is not accepted, it takes sha256: and 64 hexadecimal digits, sha512: and 128, "
            "or one of them and where a file of checksums is: a path on the managed host, or an address; "
            "nothing was changed.",
        ),
        (
            {"busybox": True, "checksum": WRONG},
            f"checksum: '{WRONG}' of web is not accepted with busybox; "
            f"it goes with path "
            "or url; nothing was changed.",
        ),
        (
            {"path": "/x", "max_size": "12Q"},
            "max_size: '12Q' is not accepted, it takes a number of bytes such as 268435456, "
            "256M or 1.5G; nothing "
            "was changed.",
        ),
        (
            {"path": "/x", "max_entries": 0},
            "max_entries: 0 is not accepted, it takes a number from 1 up; nothing was changed.",
        ),
    ],
)
def test_bad_input(machine: Machine, arguments: dict[str, Any], message: str) -> None:
    assert fetch(machine, name="web", ok=False, **arguments)["msg"] == message
    assert ours(machine) == []


def test_gc_beside_what_is_present_is_refused(machine: Machine) -> None:
    batch = [{"name": "old", "state": "absent", "gc": True}, {"name": "web", "busybox": True}]
    assert fetch(machine, batch=batch, ok=False)["msg"] == (
        "gc: true for old is not accepted beside web, which is to be present; it takes state: "
        "absent for every entry "
        "of the task; nothing was changed."
    )


def test_a_wrong_checksum_changes_nothing(machine: Machine, image: Path) -> None:
    result = fetch(machine, name="web", path=str(image), checksum=WRONG, ok=False)
    assert result["msg"] == (
        f"web: path: {image} has the checksum {sha256(image)}, declared is {WRONG}; nothing was changed."
    )
    assert not result["changed"]
    assert ours(machine) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_right_checksum(machine: Machine, image: Path, algorithm: str) -> None:
    checksum = f"{algorithm}:{hashlib.new(algorithm, image.read_bytes()).hexdigest()}"
    result = fetch(machine, name="web", path=str(image), checksum=checksum.upper())
    assert result["digest"] == checksum
    image.unlink()
    assert not fetch(machine, name="web", path=str(image), checksum=checksum)["changed"]
    machine.shell(f"rm -r {result['path']}")
    gone = fetch(machine, name="web", path=str(image), checksum=checksum, ok=False)
    assert gone["msg"] == f"web: path: there is no file {image} on this host; nothing was changed."


# What a later run makes of it


def test_a_changed_archive_is_another_root_file_system(machine: Machine, image: Path) -> None:
    first = fetch(machine, name="web", path=str(image))
    machine.shell("echo two > /run/source/etc/motd")
    pack(machine, str(image), compress="gzip -n")
    predicted = fetch(machine, name="web", path=str(image), check=True)
    second = fetch(machine, name="web", path=str(image))
    assert (predicted["changed"], predicted["diff"]) == (True, second["diff"])
    assert [part["before"] for part in second["diff"]] == [
        f'state: present\npath: {image}\ndigest: "{first["digest"]}"\nunpacked: true\n'
    ]
    assert [part["after"] for part in second["diff"]] == [
        f'state: present\npath: {image}\ndigest: "{sha256(image)}"\nunpacked: true\n'
    ]
    assert machine.run("cat", f"{second['path']}/etc/motd") == "two\n"
    assert machine.run("cat", f"{first['path']}/etc/motd") == "one\n"


def test_an_archive_that_was_only_touched_is_no_change(machine: Machine, image: Path) -> None:
    fetch(machine, name="web", path=str(image))
    image.touch()
    assert not fetch(machine, name="web", path=str(image))["changed"]


def test_a_lost_tree_is_restored(machine: Machine, image: Path) -> None:
    result = fetch(machine, name="web", path=str(image))
    whole = entries(machine, result["path"])
    for damage in (f"rm -r {result['path']}", f"rm -r {STORE}", f"rm -r {STORE}/layers/*"):
        machine.shell(damage)
        lost = fetch(machine, name="web", path=str(image), check=True)
        assert lost["changed"]
        assert "unpacked: false" in lost["diff"][0]["before"]
        again = fetch(machine, name="web", path=str(image))
        assert again["diff"] == lost["diff"]
        assert entries(machine, again["path"]) == whole
        assert not fetch(machine, name="web", path=str(image))["changed"]


def test_an_option_taken_out_is_a_change_of_the_declaration_alone(machine: Machine, image: Path) -> None:
    result = fetch(machine, name="web", path=str(image), checksum=sha256(image))
    less = fetch(machine, name="web", path=str(image))
    assert less["changed"]
    assert not [command for command in less["commands"] if "tar " in command]
    assert less["path"] == result["path"]
    kept = json.loads(machine.run("cat", "/var/lib/bare-containers/containers/web/rootfs.json"))
    assert "checksum" not in kept
    assert kept["layers"] == [result["path"]]


def test_absent_and_garbage_collection(machine: Machine, image: Path) -> None:
    batch = [{"name": "web", "busybox": True}, {"name": "worker", "path": str(image)}]
    both = fetch(machine, batch=batch)["containers"]
    gone = fetch(machine, name="web", state="absent")
    assert gone["changed"]
    assert not fetch(machine, name="web", state="absent")["changed"]
    assert machine.run("ls", both["web"]["path"])  # the store is left alone
    predicted = fetch(machine, name="web", state="absent", gc=True, check=True)
    collected = fetch(machine, name="web", state="absent", gc=True)
    assert (predicted["changed"], predicted["diff"]) == (True, collected["diff"])
    kept = [both["worker"]["path"].split("/")[-2]]
    assert machine.run("ls", f"{STORE}/layers").split() == kept
    assert not fetch(machine, name="web", state="absent", gc=True)["changed"]
    assert fetch(machine, name="worker", state="absent", gc=True)["changed"]
    assert ours(machine) == []
    assert not fetch(machine, name="worker", state="absent", gc=True)["changed"]
    assert ours(machine) == []


def test_fifty_containers_share_one_layer(machine: Machine, image: Path) -> None:
    batch = [{"name": f"c{number}", "path": str(image)} for number in range(50)]
    result = fetch(machine, batch=batch)
    assert len({entry["path"] for entry in result["containers"].values()}) == 1
    assert machine.run("ls", f"{STORE}/images").split() == [f"{sha256(image).replace(':', '-')}.json"]
    assert len(machine.run("ls", f"{STORE}/layers").split()) == 1
    assert len([command for command in result["commands"] if command.startswith("tar ")]) == 1
    before = entries(machine, "/var/lib/bare-containers")
    assert not fetch(machine, batch=batch)["changed"]
    assert entries(machine, "/var/lib/bare-containers") == before
    absent = [{"name": entry["name"], "state": "absent", "gc": True} for entry in batch]
    assert fetch(machine, batch=absent)["changed"]
    assert ours(machine) == []


def test_one_bad_source_does_not_stop_the_others(machine: Machine, image: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 1000)
    batch = [{"name": "bad", "path": str(tmp_path / "bad.tar")}, {"name": "good", "path": str(image)}]
    result = fetch(machine, batch=batch, ok=False)
    assert [entry["failed"] for entry in result["containers"].values()] == [True, False]
    assert machine.run("ls", f"{STORE}/images").split() == [f"{sha256(image).replace(':', '-')}.json"]
    assert len(machine.run("ls", f"{STORE}/layers").split()) == 1
    assert machine.run("ls", "/var/lib/bare-containers/containers").split() == ["good"]


# The equivalent commands


def replay(machine: Machine, result: dict[str, Any]) -> None:
    machine.shell("\n".join(result["commands"]))


def made(machine: Machine) -> Entries:
    """All that is kept, but for times, and what a shell does not count (census.py)."""
    found = without(entries(machine, "/var/lib/bare-containers"), "mtime", "same")
    return {path: entry for path, entry in found.items() if not path.endswith("/tree.sha256")}


def test_replayed_commands_make_the_same(new_machine: Callable[[], Machine], tmp_path: Path) -> None:
    one, two = new_machine(), new_machine()
    one.shell(MAKE_SOURCE + "setcap cap_net_raw+ep setuid")
    archive = str(tmp_path / "it's an image.tar.xz")
    pack(one, shlex.quote(archive), FORMATS["pax"], "xz")
    batch = [
        {"name": "web", "busybox": True},
        {"name": "worker", "path": archive},
        {"name": "too", "path": archive},
    ]
    replay(two, fetch(one, batch=batch))
    assert made(two) == made(one)
    # What tar has unpacked has its times too.
    tree = fetch(one, batch=batch, check=True)["containers"]["worker"]["path"]
    assert entries(two, tree) == entries(one, tree)
    assert not fetch(two, batch=batch)["changed"]
    absent = [{"name": entry["name"], "state": "absent", "gc": True} for entry in batch]
    replay(two, fetch(one, batch=absent))
    assert ours(one) == ours(two) == []


# From a server

_SERVER = """
import http.server, os, ssl, sys
os.chdir(sys.argv[1])
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments): pass
    def do_GET(self):
        print(self.path, file=open(sys.argv[2], "a"), flush=True)
        if self.path == "/short":
            self.send_response(200); self.send_header("Content-Length", "1000"); self.end_headers()
            self.wfile.write(b"x" * 10)
        elif self.path.startswith("/to/"):
            self.send_response(302); self.send_header("Location", self.path[4:]); self.end_headers()
        else:
            super().do_GET()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Server:
    """A web server on a machine's 127.0.0.1 that serves a folder and counts what it is asked for."""

    def __init__(self, machine: Machine, folder: Path, log: Path, certificate: Path | None = None) -> None:
        log.touch()
        self._log = log
        words = [str(folder), str(log), *([str(certificate)] if certificate else [])]
        self._process = subprocess.Popen(
            machine.command(sys.executable, "-c", _SERVER, *words),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"

    def requests(self) -> list[str]:
        return self._log.read_text().split()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def serve(machine: Machine, image: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of ``image``'s folder on the machine."""
    servers: list[Server] = []

    def start(encrypted: bool = False) -> Server:
        certificate = None
        if encrypted:
            certificate = tmp_path / "certificate"
            subprocess.run(
                [
                    *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"],
                    *["-addext", "subjectAltName=IP:127.0.0.1"],
                    *["-keyout", certificate, "-out", tmp_path / "public"],
                ],
                check=True,
                capture_output=True,
            )
            with certificate.open("a") as whole:
                whole.write((tmp_path / "public").read_text())
        servers.append(Server(machine, image.parent, tmp_path / f"requests{len(servers)}", certificate))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def test_a_download_with_a_checksum(machine: Machine, image: Path, serve: Callable[..., Server]) -> None:
    server = serve()
    declared = {"url": f"{server.url}/{image.name}", "checksum": sha256(image)}
    predicted = fetch(machine, name="web", check=True, **declared)
    assert server.requests() == []
    assert ours(machine) == []
    result = fetch(machine, name="web", **declared)
    assert (predicted["changed"], predicted["diff"], predicted["commands"]) == (
        True,
        result["diff"],
        result["commands"],
    )
    assert (predicted["path"], predicted["digest"]) == (None, result["digest"])
    assert server.requests() == [f"/{image.name}"]
    assert not fetch(machine, name="web", **declared)["changed"]
    assert fetch(machine, name="worker", **declared)["changed"]
    assert fetch(machine, name="third", path=str(image))["path"] == result["path"]
    assert server.requests() == [f"/{image.name}"]  # what is in the store is not fetched again
    assert machine.run("cat", f"{result['path']}/etc/motd") == "one\n"


def test_a_download_with_a_wrong_checksum_leaves_nothing(
    machine: Machine, image: Path, serve: Callable[..., Server]
) -> None:
    url = f"{serve().url}/{image.name}"
    result = fetch(machine, name="web", url=url, checksum=WRONG, ok=False)
    assert result["msg"] == (
        f"web: url: {url} has the checksum {sha256(image)}, declared is {WRONG}; nothing was changed."
    )
    assert ours(machine) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none", "HTTP Error 404: File not found"),
        ("/short", "it broke off after 10 of 1000 bytes"),
        ("/large", "it has more than the 1000 bytes that max_size allows"),
    ],
)
def test_a_failing_download_leaves_nothing(
    machine: Machine, image: Path, serve: Callable[..., Server], path: str, reason: str
) -> None:
    (image.parent / "large").write_bytes(b"x" * 1001)
    url = f"{serve().url}{path}"
    result = fetch(machine, name="web", url=url, checksum=WRONG, max_size=1000, ok=False)
    assert result["msg"] == f"web: url: {url} could not be fetched: {reason}; nothing was changed."
    assert ours(machine) == []


def test_a_server_that_does_not_answer(machine: Machine) -> None:
    url = "http://user:sesame@127.0.0.1:9/x"
    result = fetch(machine, name="web", url=url, checksum=WRONG, ok=False)
    assert result["msg"].startswith("web: url: http://user:********@127.0.0.1:9/x could not be fetched: ")
    assert "refused" in result["msg"]
    assert "sesame" not in json.dumps({**result, "invocation": None})


def test_a_download_without_a_checksum_is_fetched_once(
    machine: Machine, image: Path, serve: Callable[..., Server]
) -> None:
    server = serve(encrypted=True)
    declared = {"url": f"{server.url}/{image.name}", "validate_certs": False}
    predicted = fetch(machine, name="web", check=True, **declared)
    assert (predicted["path"], predicted["digest"], server.requests()) == (None, None, [])
    result = fetch(machine, name="web", **declared)
    assert (predicted["changed"], predicted["diff"], predicted["commands"]) == (
        True,
        result["diff"],
        result["commands"],
    )
    assert result["digest"] == sha256(image)
    assert not fetch(machine, name="web", **declared)["changed"]
    assert len(server.requests()) == 1
    machine.shell("echo two > /run/source/etc/motd")
    pack(machine, str(image), compress="gzip -n")
    assert not fetch(machine, name="web", **declared)["changed"]
    assert len(server.requests()) == 1
    forced = fetch(machine, name="web", force=True, **declared)
    assert (forced["changed"], forced["digest"]) == (True, sha256(image))
    assert len(server.requests()) == 2
    assert not fetch(machine, name="web", **declared)["changed"]
    machine.shell(f"rm -r {STORE}")
    assert fetch(machine, name="web", **declared)["digest"] == sha256(image)
    assert len(server.requests()) == 3


def test_fifty_containers_fetch_once(machine: Machine, image: Path, serve: Callable[..., Server]) -> None:
    server = serve(encrypted=True)
    declared = {"url": f"{server.url}/{image.name}", "validate_certs": False}
    batch = [{"name": f"c{number}", **declared} for number in range(50)]
    made = fetch(machine, batch=batch)
    assert made["changed"]
    assert [name for name, entry in made["containers"].items() if entry["progress"]] == ["c0"]
    assert len(server.requests()) == 1
    more = [*batch, {"name": "late", **declared}]
    result = fetch(machine, batch=more)
    assert [name for name, entry in result["containers"].items() if entry["changed"]] == ["late"]
    assert len(server.requests()) == 2
    assert not fetch(machine, batch=more)["changed"]


def test_a_download_s_replayed_commands_make_the_same(
    machine: Machine, image: Path, serve: Callable[..., Server]
) -> None:
    known, unknown = serve(), serve(encrypted=True)
    batch = [
        {"name": "a", "url": f"{unknown.url}/{image.name}", "validate_certs": False},
        {"name": "b", "url": f"{known.url}/{image.name}", "checksum": sha256(image)},
        {"name": "c", "url": f"{unknown.url}/{image.name}", "validate_certs": False},
    ]
    for entry in batch:
        result = fetch(machine, **entry)
        before = made(machine)
        fetch(machine, name=entry["name"], state="absent", gc=True)
        assert ours(machine) == []
        replay(machine, result)
        assert made(machine) == before
        assert not fetch(machine, **entry)["changed"]
        fetch(machine, name=entry["name"], state="absent", gc=True)
    result = fetch(machine, batch=batch)
    before = made(machine)
    fetch(machine, batch=[{"name": entry["name"], "state": "absent", "gc": True} for entry in batch])
    replay(machine, result)
    assert made(machine) == before


def test_an_invalid_certificate_and_a_way_to_http_are_refused(
    machine: Machine, image: Path, serve: Callable[..., Server]
) -> None:
    encrypted, plain = serve(encrypted=True), serve()
    result = fetch(machine, name="web", url=f"{encrypted.url}/{image.name}", ok=False)
    assert "could not be fetched" in result["msg"]
    assert encrypted.requests() == []
    url = f"{encrypted.url}/to/{plain.url}/{image.name}"
    result = fetch(machine, name="web", url=url, validate_certs=False, ok=False)
    assert result["msg"] == (
        f"web: url: {url} could not be fetched: it leads to an address without encryption, which "
        f"takes a checksum or a signature; "
        "nothing was changed."
    )


# At any moment


def start(machine: Machine, **arguments: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        machine.module_command("rootfs_fetch"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(arguments))
    process.stdin.close()
    process.stdin = None
    return process


def test_two_runs_at_once_do_the_work_once(
    machine: Machine, image: Path, serve: Callable[..., Server]
) -> None:
    server = serve()
    machine.shell("for i in $(seq 2000); do echo $i > /run/source/$i; done")
    pack(machine, str(image), compress="gzip -n")
    declared = {"url": f"{server.url}/{image.name}", "checksum": sha256(image)}
    runs = [start(machine, name=f"c{number}", **declared) for number in range(4)]
    results = [json.loads(run.communicate()[0]) for run in runs]
    assert [result.get("msg") for result in results] == [None] * 4
    assert len({result["path"] for result in results}) == 1
    assert server.requests() == [f"/{image.name}"]
    assert entries(machine, results[0]["path"]).keys() == entries(machine, "/run/source").keys()
    assert machine.run("ls", "-A", STORE).split() == ["images", "layers"]
    assert machine.shell("ls -A /run/bare-containers/lock 2>/dev/null || true") == ""


def test_two_runs_for_one_container(machine: Machine, image: Path) -> None:
    runs = [start(machine, name="web", path=str(image)) for _number in range(3)]
    results = [json.loads(run.communicate()[0]) for run in runs]
    assert [result.get("msg") for result in results] == [None] * 3
    assert sum(result["changed"] for result in results) == 1


# Ends the module by SIGKILL when it, or the process that unpacks for it, is about to change something for the
# N-th time; with 0 it comes to its end, and says how often it did.
_KILL_AT = """
import mmap, os, struct, sys
CHANGES = "mkdir rename rmdir remove symlink link chmod chown utime setxattr truncate".split()
wanted, module, shared = int(sys.argv[2]), os.getpid(), mmap.mmap(-1, 8)

def count(event, arguments):
    if event[3:] in CHANGES or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        number = struct.unpack("q", shared[:8])[0] + 1
        shared[:8] = struct.pack("q", number)
        if number == wanted:
            os.kill(module, 9)
        if wanted == 0:
            print(number, file=sys.stderr)

sys.addaudithook(count)
"""


def run_until(machine: Machine, number: int, arguments: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Runs the module, until it is killed at its N-th change."""
    words = [*machine.module_command("rootfs_fetch"), str(number)]
    script = words.index("-c") + 1
    words[script] = _KILL_AT + words[script]
    return subprocess.run(words, input=json.dumps(arguments), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", ["busybox", "path"])
def test_killed_at_any_moment_the_next_run_converges(
    machine: Machine, image: Path, instants: Any, source: str
) -> None:
    machine.shell("mkdir /run/source/many; for i in $(seq 30); do echo $i > /run/source/many/$i; done")
    pack(machine, str(image), compress="gzip -n")
    declared = {"name": "web", **({"busybox": True} if source == "busybox" else {"path": str(image)})}
    ignored = ["mtime"] if source == "busybox" else []
    absent = {"name": "web", "state": "absent", "gc": True}
    whole = without(entries(machine, fetch(machine, **declared)["path"]), *ignored)
    finished = ours(machine)
    fetch(machine, **absent)
    changes = int(run_until(machine, 0, declared).stderr.split()[-1])
    fetch(machine, **absent)
    assert changes > 100
    # Most of them unpack; what comes before and after that is tried step by step.
    between = map(int, instants.within(4, changes - 4, 12))
    for moment in (*range(1, 4), *between, *range(changes - 4, changes + 1)):
        killed = run_until(machine, moment, declared)
        assert killed.returncode == -signal.SIGKILL, (moment, killed)
        for layer in machine.shell(f"ls -d {STORE}/layers/*/tree 2>/dev/null || true").split():
            assert without(entries(machine, layer), *ignored) == whole, moment
        again = fetch(machine, **declared)
        assert ours(machine) == finished, moment
        assert without(entries(machine, again["path"]), *ignored) == whole, moment
        # Removing is tried at as many moments: there are fewer of them.
        run_until(machine, moment, absent)
        fetch(machine, **absent)
        assert ours(machine) == [], moment


def test_what_a_killed_run_left_goes_with_the_next_that_writes(machine: Machine, image: Path) -> None:
    for name in ("one that fetches", "one that refers to what is there"):
        machine.shell(
            f"mkdir -p {STORE}/.sha256-1/tree/a {STORE}/layers; touch {STORE}/.sha256-1/tree/a/b {STORE}/.x"
        )
        fetch(machine, name=name.replace(" ", "-"), path=str(image))
        assert machine.run("ls", "-A", STORE).split() == ["images", "layers"], name


# The documentation


def test_examples(machine: Machine, image: Path, serve: Callable[..., Server], tmp_path: Path) -> None:
    text = MODULE.read_text().partition('EXAMPLES = r"""')[2].partition('"""')[0]
    text = text.replace("{{ minirootfs_checksum }}", sha256(image))
    server = serve()
    text = text.replace("http://127.0.0.1:8000/minirootfs.tar.gz", f"{server.url}/{image.name}")
    machine.shell("mount -t tmpfs tmpfs /srv; mkdir /srv/images")
    machine.shell(f"cp {image} /srv/images/minirootfs.tar.gz")
    add_image(tmp_path / "layout", "three", [Path(pack(machine, f"{tmp_path}/layer.tar"))])
    (tmp_path / "registry").mkdir()
    registry = Registry(machine, tmp_path / "registry")
    registry.push(f"oci:{tmp_path}/layout:three", "test/three:1")
    machine.shell(f"cp {tmp_path}/registry/ca.crt /srv/images")
    tasks = yaml.safe_load(text.replace("{{ registry_password }}", "sesame"))
    # The others are run where there is what they fetch.
    tasks = [task["bare.containers.rootfs_fetch"] for task in tasks]
    tasks = [task for task in tasks if not {"signature", "bootstrap"} & task.keys()]
    try:
        changed = [fetch(machine, **task)["changed"] for task in tasks]
    finally:
        registry.end()
    # A look at what is in the store finds nothing that was changed.
    looks = ["verify" in task for task in tasks]
    assert changed == [not look for look in looks]
    assert looks.count(True) == 1
    assert ours(machine) == []

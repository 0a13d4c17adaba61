# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that rootfs_fetch has to believe in: files of checksums, signatures, and the servers that have
them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rootfs import STORE, entries, fetch, ours

Machine = Any  # conftest.Machine
SERVER = Path(__file__).parents[1] / "support/web_server.py"
MODULE = Path(__file__).parents[2] / "plugins/modules/rootfs_fetch.py"


class Web:
    """A web server on a machine's 127.0.0.1 (web_server.py)."""

    def __init__(self, machine: Machine, folder: Path, log: Path, *options: str) -> None:
        log.touch()
        self._log = log
        words = machine.command(sys.executable, str(SERVER), str(folder), str(log), *options)
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"{'https' if '--certificate' in options else 'http'}://127.0.0.1:{self.port}"

    def requests(self) -> list[tuple[str, dict[str, str]]]:
        """What it was asked for since the last time: paths and headers."""
        lines = self._log.read_text().splitlines()
        self._log.write_text("")
        return [tuple(json.loads(line)) for line in lines]

    def paths(self) -> list[str]:
        return [path for path, _headers in self.requests()]

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Keys:
    """Keys of a maker of archives, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._home = folder / "home"
        self._home.mkdir(mode=0o700)
        self._folder = folder

    def gpg(self, *words: str, text: str | None = None) -> None:
        environment = {**os.environ, "GNUPGHOME": str(self._home)}
        done = subprocess.run(
            ["gpg", "--batch", "--yes", *words],
            capture_output=True,
            text=True,
            check=False,
            input=text,
            env=environment,
        )
        assert done.returncode == 0, done.stderr

    def make(self, name: str, *options: str, expire: str = "1d") -> None:
        self.gpg(*options, "--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", expire)

    def revoke(self, name: str) -> None:
        """By the certificate that is made with each key, which a colon keeps from being used by mistake."""
        newest = max((self._home / "openpgp-revocs.d").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert name in newest.read_text()
        self.gpg("--import", text=newest.read_text().replace(":-----BEGIN", "-----BEGIN"))

    def export(self, name: str, *options: str) -> Path:
        """The public key, in a file of its own."""
        path = self._folder / f"{name}{'.asc' if '--armor' in options else '.gpg'}"
        self.gpg(*options, "--output", str(path), "--export", name)
        return path

    def sign(self, name: str, path: Path, *options: str) -> Path:
        signature = path.with_name(f"{path.name}.sig")
        self.gpg("--local-user", name, *options, "--output", str(signature), "--detach-sign", str(path))
        return signature

    def end(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    # The agent's socket has to have a short name.
    with tempfile.TemporaryDirectory(prefix="keys", dir="/tmp") as folder:
        made = Keys(Path(folder))
        made.make("maker")
        made.make("stranger")
        yield made
        made.end()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """In a folder with nothing else, which servers serve."""
    (tmp_path / "served").mkdir()
    (tmp_path / "motd").write_text("hello\n")
    path = tmp_path / "served/root.tar.gz"
    subprocess.run(["tar", "-czf", path, "-C", tmp_path, "motd"], check=True)
    return path


@pytest.fixture
def serve(machine: Machine, archive: Path, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Starts servers of the archive's folder."""
    servers: list[Web] = []

    def start(*options: str) -> Web:
        servers.append(Web(machine, archive.parent, tmp_path / f"log{len(servers)}", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, which nobody else has signed."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    words += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        tmp_path / "key",
        "-out",
        tmp_path / "ca.pem",
    ]
    subprocess.run(words, check=True, capture_output=True)
    (tmp_path / "both").write_text((tmp_path / "key").read_text() + (tmp_path / "ca.pem").read_text())
    return tmp_path / "both"


def digest(path: Path, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


# Files of checksums

WRONG = "0" * 64


def sums(archive: Path, text: str) -> Path:
    """A file of checksums beside the archive, with its digests where they are meant."""
    path = archive.parent / "SHA256SUMS"
    path.write_text(text.format(sha256=digest(archive), sha512=digest(archive, "sha512"), wrong=WRONG))
    return path


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        ("sha256", "{wrong}  other.tar.gz\n{sha256}  root.tar.gz\n"),
        ("sha256", "{sha256} *./images/root.tar.gz\n"),
        ("sha256", "{wrong}  root.tar.gz.old\n{wrong}  xroot.tar.gz\n{sha256}  root.tar.gz\r\n"),
        (
            "sha256",
            "MD5 (root.tar.gz) = 1234\nSHA256 (root.tar.gz) = {sha256}\nSHA512 (root.tar.gz) = {sha512}\n",
        ),
        (
            "sha512",
            "MD5 (root.tar.gz) = 1234\nSHA256 (root.tar.gz) = {wrong}\nSHA512 (root.tar.gz) = {sha512}\n",
        ),
        ("sha512", "{wrong}  root.tar.gz\n{sha512}  root.tar.gz\n"),
        ("sha256", "{sha256}\n"),
    ],
)
@pytest.mark.parametrize("where", ["path", "url"])
def test_a_file_of_checksums(
    machine: Machine, archive: Path, serve: Callable[..., Web], algorithm: str, text: str, where: str
) -> None:
    listed = sums(archive, text)
    declared = {"path": str(archive), "checksum": f"{algorithm}:{listed}"}
    if where == "url":
        declared = {"url": f"{serve().url}/root.tar.gz", "checksum": f"{algorithm}:{listed}"}
    result = fetch(machine, name="web", **declared)
    assert machine.run("cat", f"{result['path']}/motd") == "hello\n"
    assert result["digest"] == f"{algorithm}:{digest(archive, algorithm)}"
    assert not fetch(machine, name="web", **declared)["changed"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "{wrong}  root.tar.gz\n",
            "path: {archive} has the checksum sha256:{sha256}, in {sums} is sha256:{wrong}; nothing was "
            "changed.",
        ),
        (
            "{sha256}  other.tar.gz\n",
            "checksum: {sums} has no sha256 of root.tar.gz, or several; nothing was changed.",
        ),
        (
            "{sha256}  a/root.tar.gz\n{wrong}  b/root.tar.gz\n",
            "checksum: {sums} has no sha256 of root.tar.gz, or several; nothing was changed.",
        ),
        ("", "checksum: {sums} has no sha256 of root.tar.gz, or several; nothing was changed."),
        ("{sha512}\n", "checksum: {sums} has no sha256 of root.tar.gz, or several; nothing was changed."),
    ],
)
def test_a_file_of_checksums_that_says_something_else(
    machine: Machine, archive: Path, text: str, reason: str
) -> None:
    listed = sums(archive, text)
    result = fetch(machine, name="web", path=str(archive), checksum=f"sha256:{listed}", ok=False)
    expected = reason.format(archive=archive, sha256=digest(archive), sums=listed, wrong=WRONG)
    assert result["msg"] == f"web: {expected}"
    assert ours(machine) == []


def test_the_server_is_asked_again_when_the_documentation_says_so(
    machine: Machine, archive: Path, serve: Callable[..., Web], certificate: Path, tmp_path: Path
) -> None:
    sums(archive, "{sha256}  root.tar.gz\n")
    (archive.parent / "TOO").write_text(f"{digest(archive)}  root.tar.gz\n")
    server = serve("--certificate", str(certificate))
    declared = {
        "name": "web",
        "url": f"{server.url}/root.tar.gz",
        "checksum": f"sha256:{server.url}/SHA256SUMS",
        "ca_path": str(tmp_path / "ca.pem"),
    }
    predicted = fetch(machine, check=True, **declared)
    assert (predicted["changed"], server.paths()) == (True, [])
    first = fetch(machine, **declared)
    assert (first["diff"], first["commands"]) == (predicted["diff"], predicted["commands"])
    both = ["/root.tar.gz", "/SHA256SUMS"]
    assert server.paths() == both
    assert not fetch(machine, **declared)["changed"]
    assert not fetch(machine, **{**declared, "timeout": 5})["changed"]
    assert server.paths() == []
    assert fetch(machine, force=True, **declared)["digest"] == first["digest"]
    assert server.paths() == both
    machine.shell(f"rm -r {STORE}")
    assert fetch(machine, **declared)["changed"]
    assert server.paths() == both
    assert fetch(machine, **{**declared, "checksum": f"sha256:{server.url}/TOO"})["changed"]
    assert server.paths() == ["/root.tar.gz", "/TOO"]
    fetch(machine, **{**declared, "checksum": f"sha256:{digest(archive)}"})
    assert server.paths() == []


# Signatures


def test_a_signature_of_the_archive(
    machine: Machine, archive: Path, keys: Keys, serve: Callable[..., Web]
) -> None:
    signature = keys.sign("maker", archive)
    server = serve()
    for number, declared in enumerate(
        [
            {"path": str(archive), "signature": str(signature), "keyring": str(keys.export("maker"))},
            {
                "path": str(archive),
                "signature": f"{server.url}/{signature.name}",
                "keyring": str(keys.export("maker")),
            },
            # What is signed may come unencrypted.
            {
                "url": f"{server.url}/root.tar.gz",
                "signature": f"{server.url}/{signature.name}",
                "keyring": str(keys.export("maker", "--armor")),
            },
            {
                "url": f"{server.url}/root.tar.gz",
                "signature": str(keys.sign("maker", archive, "--armor")),
                "keyring": str(keys.export("maker")),
                "checksum": f"sha512:{digest(archive, 'sha512')}",
            },
        ]
    ):
        name = f"c{number}"
        predicted = fetch(machine, name=name, check=True, **declared)
        result = fetch(machine, name=name, **declared)
        assert (predicted["diff"], predicted["commands"]) == (result["diff"], result["commands"])
        assert result["changed"]
        assert machine.run("cat", f"{result['path']}/motd") == "hello\n"
        server.paths()
        assert not fetch(machine, name=name, **declared)["changed"]
        assert server.paths() == []
        made = entries(machine, result["path"])["motd"]
        fetch(machine, name=name, state="absent", gc=True)
        assert ours(machine) == []
        machine.shell("\n".join(result["commands"]))
        assert not fetch(machine, name=name, **declared)["changed"]
        assert entries(machine, result["path"])["motd"] == made
        fetch(machine, name=name, state="absent", gc=True)


def test_a_signature_of_the_file_of_checksums(machine: Machine, archive: Path, keys: Keys) -> None:
    listed = sums(archive, "{sha256}  root.tar.gz\n")
    signature = keys.sign("maker", listed)
    declared = {
        "name": "web",
        "path": str(archive),
        "checksum": f"sha256:{listed}",
        "signature": str(signature),
        "keyring": str(keys.export("maker")),
    }
    assert fetch(machine, **declared)["changed"]
    assert not fetch(machine, **declared)["changed"]
    # Another archive takes the word of its maker, too.
    listed.write_text(listed.read_text() + f"{WRONG}  other.tar.gz\n")
    assert not fetch(machine, **declared)["changed"]
    result = fetch(machine, force=True, ok=False, **declared)
    assert result["msg"].startswith(
        f"web: signature: checksum: {listed} is not signed as declared: the signature of "
    )
    assert not fetch(machine, **declared)["changed"]


PAST = ("--faked-system-time", "20240101T000000")


def sign_badly(keys: Keys, archive: Path, how: str) -> tuple[Path, Path]:
    """A signature, and a keyring."""
    if how == "of another archive":
        (archive.parent / "other").write_text("other")
        return keys.sign("maker", archive.parent / "other"), keys.export("maker")
    if how == "by a stranger":
        return keys.sign("stranger", archive), keys.export("maker")
    if how == "none":
        (archive.parent / "none").write_text("no signature\n")
        return archive.parent / "none", keys.export("maker")
    name = how.replace(" ", "-")
    if how == "by an expired key":
        keys.make(name, *PAST)
        return keys.sign(name, archive, *PAST), keys.export(name)
    if how == "expired":
        keys.make(name, *PAST, expire="0")
        return keys.sign(name, archive, *PAST, "--default-sig-expire", "1d"), keys.export(name)
    assert how == "by a revoked key"
    keys.make(name)
    signature = keys.sign(name, archive)
    keys.revoke(name)
    return signature, keys.export(name)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("of another archive", "the signature of KEY is not of what was got"),
        ("by a stranger", "the key KEY, which it is signed with, is not in the keyring"),
        ("none", "there is no OpenPGP signature in it"),
        ("by an expired key", "the key KEY, which it is signed with, has expired"),
        ("expired", "the signature of KEY has expired"),
        ("by a revoked key", "the key KEY, which it is signed with, was revoked"),
    ],
)
def test_a_signature_that_is_no_reason_to_believe(
    machine: Machine, archive: Path, keys: Keys, how: str, reason: str
) -> None:
    earlier = fetch(machine, name="web", busybox=True)
    signature, keyring = sign_badly(keys, archive, how)
    declared = {"path": str(archive), "signature": str(signature), "keyring": str(keyring)}
    # That somebody else believes in it is no reason either.
    fetch(machine, name="careless", path=str(archive))
    result = fetch(machine, name="web", ok=False, **declared)
    message = re.sub("[0-9A-F]{16}", "KEY", result["msg"])
    assert message == (
        f"web: signature: path: {archive} is not signed as declared: {reason}; keyring is {keyring}; "
        "nothing was changed."
    )
    assert not result["changed"]
    again = fetch(machine, name="web", busybox=True)
    assert (again["changed"], again["path"]) == (False, earlier["path"])


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"path": "/x", "signature": "/x.sig"},
            "signature: '/x.sig' of web is not accepted without keyring: who has signed is to be one of "
            "those who may; nothing was changed.",
        ),
        (
            {"path": "/x", "keyring": "/keys"},
            "keyring: '/keys' of web is not accepted without signature: who has signed is to be one of those "
            "who may; nothing was changed.",
        ),
        (
            {"busybox": True, "signature": "/x.sig", "keyring": "/keys"},
            "signature: '/x.sig' of web is not accepted with busybox; it goes with path or url; nothing was "
            "changed.",
        ),
        (
            {"url": "https://a/x", "checksum": "sha256:http://u:sesame@a/sums"},
            "checksum: 'sha256:http://u:********@a/sums' of web is not encrypted; http:// takes a signature, "
            "https:// can do without; nothing was changed.",
        ),
        (
            {"path": "/x", "signature": "x.sig", "keyring": "/keys"},
            "signature: 'x.sig' is not accepted, it takes an absolute path of a file on the managed host, or "
            "an address that begins with https:// or http://; nothing was changed.",
        ),
        (
            {"bootstrap": {"suite": "bookworm", "keyring": "/keys"}},
            "bootstrap.keyring: '/keys' of web is not accepted without bootstrap.mirror, whose keys it has; "
            "nothing was changed.",
        ),
        (
            {"bootstrap": {"suite": "--help"}},
            "bootstrap.suite: '--help' is not accepted, it takes a name without spaces and commas; nothing "
            "was changed.",
        ),
    ],
)
def test_bad_input(machine: Machine, declared: dict[str, Any], message: str) -> None:
    result = fetch(machine, name="web", ok=False, **declared)
    assert result["msg"] in (message, f"web: {message}")
    assert ours(machine) == []


def test_without_gpgv(machine: Machine, archive: Path, keys: Keys) -> None:
    signature, keyring = keys.sign("maker", archive), keys.export("maker")
    machine.shell("mount --bind /dev/null $(command -v gpgv)")
    result = fetch(
        machine, name="web", path=str(archive), signature=str(signature), keyring=str(keyring), ok=False
    )
    assert result["msg"] == (
        f"web: signature: path: {archive} can't be checked without gpgv; install the package gpgv; nothing "
        "was changed."
    )


# Servers


def test_what_a_server_is_told(
    machine: Machine, archive: Path, serve: Callable[..., Web], certificate: Path, tmp_path: Path
) -> None:
    server = serve("--certificate", str(certificate), "--user", "reader:sesame")
    declared = {
        "url": f"{server.url}/root.tar.gz",
        "ca_path": str(tmp_path / "ca.pem"),
        "url_username": "reader",
        "url_password": "sesame",
        "http_agent": "us",
        "headers": {"X-Key": "mustard", "X-Other": "pepper"},
    }
    result = fetch(machine, name="web", **declared)
    (_path, first), (_path, second) = server.requests()
    assert "Authorization" not in first
    assert (second["User-Agent"], second["X-Key"], second["X-Other"]) == ("us", "mustard", "pepper")
    batch = [{"name": "web", **declared, "force": True, "force_basic_auth": True}]
    results = [result, fetch(machine, batch=batch)]
    ((_path, only),) = server.requests()
    assert only["Authorization"] == "Basic cmVhZGVyOnNlc2FtZQ=="
    results.append(
        fetch(machine, name="web", **{**declared, "url_password": "wrong-one"}, force=True, ok=False)
    )
    assert "could not be fetched: HTTP Error 401: Unauthorized; nothing was changed." in results[-1]["msg"]
    kept = machine.shell("cat /var/lib/bare-containers/containers/web/rootfs.json")
    for secret in ("sesame", "mustard", "pepper", "wrong-one", "cmVhZGVyOnNlc2FtZQ"):
        assert secret not in json.dumps(results) + kept


def test_a_password_in_an_address_is_shown_nowhere(
    machine: Machine, archive: Path, serve: Callable[..., Web]
) -> None:
    server = serve("--user", "reader:sesame")
    sums(archive, "{sha256}  root.tar.gz\n")
    address = f"http://reader:sesame@127.0.0.1:{server.port}"
    declared = {"url": f"{address}/root.tar.gz", "checksum": f"sha256:{digest(archive)}"}
    result = fetch(machine, name="web", **declared)
    assert f"http://reader:********@127.0.0.1:{server.port}/root.tar.gz" in json.dumps(result["commands"])
    assert "sesame" not in json.dumps({**result, "invocation": None})
    assert not fetch(machine, name="web", **declared)["changed"]
    info = machine.module("container_info", {})
    assert "sesame" not in json.dumps(info)


def test_the_certificate_has_to_be_one_that_is_believed(
    machine: Machine, archive: Path, serve: Callable[..., Web], certificate: Path, tmp_path: Path
) -> None:
    server = serve("--certificate", str(certificate))
    declared = {"name": "web", "url": f"{server.url}/root.tar.gz"}
    result = fetch(machine, ok=False, **declared)
    assert "CERTIFICATE_VERIFY_FAILED" in result["msg"].replace(
        "certificate verify failed", "CERTIFICATE_VERIFY_FAILED"
    )
    assert server.requests() == []
    assert fetch(machine, ca_path=str(tmp_path / "ca.pem"), **declared)["changed"]


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("broken", None),
        ("cut", "it broke off after {step} of {size} bytes"),
        ("changing", "it broke off after {step} of {size} bytes"),
    ],
)
def test_a_transfer_that_breaks_off_goes_on_from_there(
    machine: Machine, archive: Path, serve: Callable[..., Web], way: str, reason: str | None
) -> None:
    size = archive.stat().st_size
    step = size // 3
    server = serve()
    url = f"{server.url}/{way}/{step}/root.tar.gz"
    checksum = f"sha256:{digest(archive)}"
    result = fetch(machine, name="web", url=url, checksum=checksum, ok=reason is None)
    ranges = [headers.get("Range") for _path, headers in server.requests()]
    starts = [step] if reason else range(step, size, step)
    assert ranges == [None, *(f"bytes={start}-" for start in starts)]
    if reason:
        expected = reason.format(step=step, size=size)
        assert result["msg"] == f"web: url: {url} could not be fetched: {expected}; nothing was changed."
        assert ours(machine) == []


def test_a_transfer_that_takes_too_long(machine: Machine, archive: Path, serve: Callable[..., Web]) -> None:
    url = f"{serve().url}/slow/10/root.tar.gz"
    result = fetch(machine, name="web", url=url, checksum=f"sha256:{WRONG}", max_time=2, ok=False)
    assert result["msg"] == (
        f"web: url: {url} took longer than the 2 seconds that max_time allows; nothing was changed."
    )
    assert ours(machine) == []


_LISTEN = """
import socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
print("ready", flush=True)
said = ""
while "unpacked" not in said:
    said = log.recv(5000).decode()
    if "bare-rootfs" in said:  # else it is the module's own beginning, by Ansible
        print(said.rstrip("\\0\\n"), flush=True)
"""


def test_what_takes_long_says_where_it_is(machine: Machine, archive: Path, serve: Callable[..., Web]) -> None:
    machine.shell("mkdir /run/dev; cp -a /dev/null /dev/urandom /run/dev; mount --bind /run/dev /dev")
    listening = subprocess.Popen(
        machine.command(sys.executable, "-c", _LISTEN), stdout=subprocess.PIPE, text=True
    )
    assert listening.stdout is not None
    assert listening.stdout.readline() == "ready\n"
    size = archive.stat().st_size
    url = f"{serve().url}/slow/{size // 12}/root.tar.gz"
    declared = {"name": "web", "url": url, "checksum": f"sha256:{digest(archive)}"}
    assert fetch(machine, **declared, check=True)["progress"] == []
    progress = fetch(machine, **declared)["progress"]
    said, _nothing = listening.communicate()
    assert [line.partition(" bare-rootfs: ")[2] for line in said.splitlines()] == progress
    sentences = [r"\d+ B of SIZE B, \d+ B/s", r"fetched SIZE B in 1\d\.\d s"]
    sentences.append(r"unpacked 10\.0 KiB with 1 entries in \d\.\d s")
    for sentence, text in zip(sentences, progress, strict=True):
        assert re.fullmatch(f"url: {re.escape(url)}: {sentence.replace('SIZE', str(size))}", text)
    assert fetch(machine, **declared)["progress"] == []


def test_the_example(
    machine: Machine, archive: Path, keys: Keys, serve: Callable[..., Web], certificate: Path, tmp_path: Path
) -> None:
    archive = archive.rename(archive.parent / "minirootfs.tar.gz")
    listed = archive.parent / "SHA256SUMS"
    listed.write_text(f"{digest(archive)}  {archive.name}\n")
    keys.sign("maker", listed).rename(archive.parent / "SHA256SUMS.gpg")
    machine.shell("mount -t tmpfs tmpfs /srv; mkdir /srv/images")
    machine.shell(f"cp {keys.export('maker', '--armor')} {tmp_path}/ca.pem /srv/images")
    text = MODULE.read_text().partition('EXAMPLES = r"""')[2].partition('"""')[0]
    text = text.replace("https://127.0.0.1:8443", serve("--certificate", str(certificate)).url)
    tasks = [task["bare.containers.rootfs_fetch"] for task in yaml.safe_load(text)]
    (task,) = [task for task in tasks if "signature" in task]
    assert fetch(machine, **task)["changed"]
    assert not fetch(machine, **task)["changed"]

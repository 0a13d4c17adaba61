# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that others make and serve: umoci, skopeo and docker-registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

Machine = Any  # conftest.Machine

REGISTRY = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {top}/data}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}
http: {{addr: "127.0.0.1:5000", tls: {{certificate: {top}/server.crt, key: {top}/server.key}}}}
auth: {{htpasswd: {{realm: test, path: {top}/htpasswd}}}}
"""

MAKE_CERTIFICATES = r"""
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1' > extensions
openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile extensions \
    -out server.crt
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt
htpasswd -Bbn user sesame > htpasswd
"""


def run(*words: Any, **options: Any) -> str:
    """What a program prints that has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def add_image(layout: Path, tag: str, layers: list[Path], config: dict[str, Any] | None = None) -> None:
    """Has umoci make an image of these archives, with that configuration, in an OCI layout."""
    if not layout.exists():
        run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:{tag}")
    for layer in layers:
        run("umoci", "raw", "add-layer", "--image", f"{layout}:{tag}", layer)
    options = {
        "Cmd": "cmd",
        "Entrypoint": "entrypoint",
        "Env": "env",
        "ExposedPorts": "exposedports",
        "Labels": "label",
        "StopSignal": "stopsignal",
        "User": "user",
        "Volumes": "volume",
        "WorkingDir": "workingdir",
    }
    words = []
    for name, value in (config or {}).items():
        if isinstance(value, dict):
            value = [f"{key}={text}" for key, text in value.items()]
        for each in [value] if isinstance(value, str) else value:
            words.append(f"--config.{options[name]}={each}")
    if words:
        run("umoci", "config", "--image", f"{layout}:{tag}", *words)


class Registry:
    """A docker-registry on a machine's 127.0.0.1:5000, with a certificate and a password; it says what it is
    asked for."""

    def __init__(self, machine: Machine, top: Path) -> None:
        self.top = top
        self.access = {"username": "user", "password": "sesame", "ca_path": str(top / "ca.crt")}
        self._machine = machine
        run("sh", "-ec", MAKE_CERTIFICATES, cwd=top)
        (top / "config.yml").write_text(REGISTRY.format(top=top))
        with (top / "log").open("w") as log, (top / "errors").open("w") as errors:
            self._process = subprocess.Popen(
                machine.command("docker-registry", "serve", str(top / "config.yml")),
                stdout=log,
                stderr=errors,
            )
        machine.shell(
            "for i in $(seq 500); do ss -Hltn sport = 5000 | grep -q . && exit; sleep 0.02; done; exit 1"
        )

    def push(self, source: str, name: str, *options: str, **variables: str) -> None:
        """Has skopeo put an image there, with more options and variables in its environment."""
        certificates = self.top / "certificates"
        certificates.mkdir(exist_ok=True)
        shutil.copy(self.top / "ca.crt", certificates)
        self._machine.run(
            *["skopeo", "copy", "--quiet", "--preserve-digests", f"--dest-cert-dir={certificates}"],
            *["--dest-creds=user:sesame", *options, source, f"docker://127.0.0.1:5000/{name}"],
            env={**os.environ, **variables},
        )
        self.requests()

    def requests(self) -> list[str]:
        """Methods and paths of all that it was asked for since the last call."""
        lines = (self.top / "log").read_text().splitlines()
        self._seen, seen = len(lines), getattr(self, "_seen", 0)
        return [" ".join(line.split('"')[1].split()[:2]) for line in lines[seen:] if line.count('"') > 1]

    def fetched(self) -> set[str]:
        """The digests of the blobs among them."""
        found = (request.partition(" ") for request in self.requests())
        paths = [path for method, _space, path in found if method == "GET" and "/blobs/" in path]
        return {path.rpartition("/")[2] for path in paths}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def make_directory(path: Path, manifest: Any, config: Any, layers: list[bytes]) -> Path:
    """An image as skopeo's ``dir:`` has it; what is given of manifest and configuration is in place of what
    belongs there."""
    path.mkdir()
    (path / "version").write_text("Directory Transport Version: 1.1\n")

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (path / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    if not isinstance(config, bytes):
        digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        whole = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}
        config = json.dumps({**whole, **config}).encode()
    kind = "application/vnd.oci.image"
    whole = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **blob(config)},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar", **blob(layer)} for layer in layers],
    }
    (path / "manifest.json").write_text(json.dumps({**whole, **manifest}))
    return path


def archive(*entries: tuple[str, bytes, str]) -> bytes:
    """A tar archive of names, types and contents, or for links targets."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as opened:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, content if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            opened.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


FILE, DIRECTORY, HARD, SYMBOLIC, DEVICE = (
    *(tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE),
)
BASE = archive(("etc", DIRECTORY, ""), ("etc/motd", FILE, "base"), ("link", SYMBOLIC, "/etc"))

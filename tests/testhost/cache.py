# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache directory, its locks, and the keys that everything in it shares."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from progress import run, wait_for


def root() -> Path:
    default = Path.home() / ".cache/bare-containers-testhost"
    path = Path(os.environ.get("BARE_TESTHOST_CACHE") or default).absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: Path, why: str) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path`.lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w", encoding="utf-8") as lock:

        def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_for(f"another process to finish {why}", taken, timeout=1800)
        yield


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty directory for a caller who holds its lock; removed at the end, or else by the next one."""
    path = Path(name)

    def removed() -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()

    # Processes that were killed while they wrote here may take a moment to be gone.
    wait_for(f"{path} to be removable", removed, timeout=30)
    path.mkdir()
    try:
        yield path
    finally:
        wait_for(f"{path} to be removable", removed, timeout=30)


@dataclass(frozen=True)
class Keys:
    """The key that logs in to every test host, and the key every test host shows: one pair each per cache."""

    directory: Path

    HOST_ALIAS = "bare-testhost"

    @property
    def identity(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"


def keys() -> Keys:
    made = Keys(root() / "keys")
    with locked(made.directory, "making ssh keys"):
        made.directory.mkdir(exist_ok=True)
        for key, comment in ((made.identity, "testhost-user"), (made.host_key, Keys.HOST_ALIAS)):
            if not key.exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key])
        public = made.host_key.with_suffix(".pub").read_text()
        made.known_hosts.write_text(f"{Keys.HOST_ALIAS} {public}")
    return made

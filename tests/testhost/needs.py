# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that the test host is made with, and the Debian packages that have them."""

from __future__ import annotations

import os
import shutil

from progress import HostError, run, say

PACKAGE_OF = {
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


def missing(path: str | None = None) -> list[str]:
    """Packages of the programs that are not on the search path."""
    return sorted(
        {package for program, package in PACKAGE_OF.items() if not shutil.which(program, path=path)}
    )


def ensure() -> None:
    packages = missing()
    if not packages:
        return
    names = " ".join(packages)
    if os.geteuid() != 0:
        raise HostError(f"these Debian packages are needed, and only root can install them: {names}")
    say(f"installing Debian packages: {names}")
    run(["apt-get", "-qq", "update"])
    run(
        ["apt-get", "-qq", "--yes", "--no-install-recommends", "install", *packages],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )

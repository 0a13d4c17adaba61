# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a container's output goes: the journal, a file, or nowhere; and who keeps the file small."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..converge import Failure
from . import bundle

Entry = Mapping[str, Any]

LOGROTATE = "/usr/sbin/logrotate"

_DRIVER_OF_OPTION = {"path": "file", "max_size": "file", "tag": "journald"}


def check(entry: Entry, kind: str) -> None:
    """Raises Failure for what the supervisor of that kind, or this host, can't do."""
    name, own = entry["name"], driver(entry, kind)
    if own == "journald" and kind == "direct":
        raise Failure(
            f"log_driver: 'journald' takes a unit of systemd, and {name} has none; it takes 'file' or 'none' "
            "here; nothing was changed."
        )
    for option in entry.get("log_opt", {}):
        if _DRIVER_OF_OPTION[option] != own:
            raise Failure(
                f"log_opt: {option!r} is for the log_driver {_DRIVER_OF_OPTION[option]!r}, and {name} has "
                f"{own!r}; nothing was changed."
            )
    if "max_size" in entry.get("log_opt", {}) and not os.path.exists(LOGROTATE):
        raise Failure(
            f"log_opt: 'max_size' takes {LOGROTATE}, which this host does not have and the package logrotate "
            "installs; nothing was changed."
        )


def driver(declared: Entry, kind: str) -> str:
    """Unless declared, systemd has the journal, and others a file."""
    return str(declared.get("log_driver", "journald" if kind == "systemd" else "file"))


def path(declared: Entry, kind: str) -> Path | None:
    """The file with a container's output, None where there is none."""
    if driver(declared, kind) != "file":
        return None
    return Path(declared.get("log_opt", {}).get("path", default_path(declared["name"])))


def default_path(name: str) -> Path:
    return Path(bundle.LOGS) / f"{name}.log"


def tag(declared: Entry) -> str:
    """What the journal calls a container."""
    return str(declared.get("log_opt", {}).get("tag", declared["name"]))


def notes(declared: Entry) -> dict[str, str]:
    """What config.json says of it, for the launcher (bundle.LOG_ANNOTATION)."""
    options = declared.get("log_opt", {})
    told = {bundle.TAG_ANNOTATION: options["tag"]} if "tag" in options else {}
    if declared.get("log_driver") == "none":
        return {bundle.LOG_ANNOTATION: "none"}
    if declared.get("log_driver") == "file" or "path" in options:
        return {bundle.LOG_ANNOTATION: options.get("path", str(default_path(declared["name"])))}
    return told


def rotation_path(name: str) -> Path:
    """With an end of its own: logrotate leaves out files with some endings, and a name may have any."""
    return Path(f"/etc/logrotate.d/bare-{name}.conf")


def rotation(declared: Entry, kind: str) -> str | None:
    """What logrotate(8) is to do. The file is emptied in place, as the container keeps it open."""
    file, size = path(declared, kind), declared.get("log_opt", {}).get("max_size")
    if file is None or size is None:
        return None
    return f"""\
# Kept by the module bare.containers.container_process, which undoes what is changed here.
{file} {{
    size {size}
    rotate 1
    copytruncate
    nocompress
    missingok
    notifempty
}}
"""


def files(name: str, kept: Entry | None) -> Iterator[Path]:
    """All that a container's output may be in."""
    declared = {**(kept or {}), "log_driver": "file", "name": name}
    for file in {default_path(name): None, path(declared, "direct"): None}:
        if file is not None:
            yield from (file, file.with_name(f"{file.name}.1"))

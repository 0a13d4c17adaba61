# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets its Debian packages from, read from its own apt configuration (sources.list(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from progress import HostError, run

DEBIAN_SUITE = re.compile(
    r"^(?:stable|oldstable|testing|bullseye|bookworm|trixie|forky|sid)(?P<part>-security|-updates)?(?:/updates)?$"
)


@dataclass(frozen=True)
class Source:
    """One repository suite, as one line of sources.list has it."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    def line(self) -> str:
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def parse_list(text: str) -> Iterator[Source]:
    """The `deb` lines of the one-line style."""
    line = re.compile(
        r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)"
    )
    for found in filter(None, map(line.match, text.splitlines())):
        options = dict(option.partition("=")[::2] for option in (found["options"] or "").split())
        components = tuple(found["components"].split())
        yield Source(found["uri"], found["suite"], components, options.get("signed-by"))


def parse_deb822(text: str) -> Iterator[Source]:
    """The stanzas of the deb822 style. A key written into the stanza itself is not taken along."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", lines):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza.strip())
        fields = {
            name.lower(): value.split()
            for name, found, value in (f.partition(":") for f in unfolded.splitlines())
            if found
        }
        if "deb" not in fields.get("types", []) or fields.get("enabled", ["yes"]) == ["no"]:
            continue
        keyring = fields.get("signed-by", [""])[0]
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                signed_by = keyring if keyring.startswith("/") else None
                yield Source(uri, suite, tuple(fields.get("components", [])), signed_by)


def debian_sources(suite: str, configured: Iterable[Source]) -> list[Source]:
    """Of the configured sources Debian's own, turned to `suite`: release, updates and security."""
    wanted: dict[Source, None] = {}
    for source in configured:
        found = DEBIAN_SUITE.match(source.suite)
        if found and "main" in source.components:
            wanted[Source(source.uri, suite + (found["part"] or ""), ("main",), source.signed_by)] = None
    if not any(source.suite == suite for source in wanted):
        raise HostError(
            "this machine's apt sources have no Debian release with the component main to build from"
        )
    return list(wanted)


def machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    sources: list[Source] = []
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(path.suffix)
        if parse and path.is_file():
            sources += parse(path.read_text())
    return sources


def acquire_options(etc_apt: Path = Path("/etc/apt")) -> list[str]:
    """How this machine reaches its repositories (proxies, certificates, passwords), as apt.conf(5) lines."""
    ours = re.compile(
        r'^Acquire::(http|https|ftp|Check-Valid-Until|Check-Date)\b[^"]* "[^"]+";$', re.IGNORECASE
    )
    options = [line for line in run(["apt-config", "dump"]).splitlines() if ours.match(line)]
    passwords = {"netrc": etc_apt / "auth.conf", "netrcparts": etc_apt / "auth.conf.d"}
    return options + [f'Dir::Etc::{name} "{path}";' for name, path in passwords.items() if path.exists()]

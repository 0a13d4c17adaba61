# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files from web servers, by Ansible's own way to ask them and its options for that."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from ..converge import Failure
from ..options import Option
from .watch import OutOfTime, Watch

_CHUNK = 1 << 20
_HIDDEN = "********"


def _headers(value: Mapping[str, Any]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", str(name)) or re.search(r"[\r\n]", str(text)):
            raise ValueError("header names and their values, each of one line")
    return {str(name): str(text) for name, text in value.items()}


OPTIONS = (
    Option("validate_certs", "bool", default=True, declared=False),
    Option("ca_path", "path", declared=False),
    Option("client_cert", "path", declared=False),
    Option("client_key", "path", declared=False),
    Option("ciphers", "list", elements="str", declared=False),
    Option("url_username", declared=False),
    Option("url_password", no_log=True, declared=False),
    Option("force_basic_auth", "bool", default=False, declared=False),
    Option("use_gssapi", "bool", default=False, declared=False),
    Option("use_netrc", "bool", default=True, declared=False),
    Option("use_proxy", "bool", default=True, declared=False),
    Option("http_agent", declared=False),
    Option("headers", "dict", no_log=True, normalise=_headers, declared=False),
    Option("unredirected_headers", "list", elements="str", declared=False),
)
"""How a server is asked; none of them says what is fetched, so none is kept."""


class Web:
    """What servers give to an entry. ``timeout`` is how many seconds each may keep silent."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        names = ("timeout", *(option.name for option in OPTIONS))
        self._options = {name: entry[name] for name in names if name in entry}
        self._password = str(entry.get("url_password") or "")

    def download(
        self, label: str, url: str, target: BinaryIO, limit: int, watch: Watch, *, anyhow: bool = False
    ) -> None:
        """Appends what is at ``url`` to the empty file ``target``. Raises Failure, with ``label`` for what it
        is.

        A transfer that breaks off goes on from there, as long as the server has the same file and each time
        gives some more of it. An address without encryption is nothing that one may be led to, unless
        ``anyhow``: then something else shows that the right thing has come.
        """
        where = f"{label}: {masked(url)} could not be fetched"
        try:
            for data in self._chunks(url, limit, watch, anyhow):
                target.write(data)
        except OutOfTime:
            raise
        except Failure as failure:
            raise Failure(f"{where}: {failure}; nothing was changed.") from None
        # Beside OSError there are http.client's errors and Ansible's own, which have no base in common.
        except Exception as error:
            cause = getattr(error, "reason", None)
            reason = masked(str(cause if isinstance(cause, Exception) else error))
            hidden = reason.replace(self._password, _HIDDEN) if self._password else reason
            raise Failure(f"{where}: {hidden}; nothing was changed.") from None

    def curl(self, url: str, target: str) -> list[str]:
        """The words of the command that does the same, without what is secret."""
        options = self._options
        user = options.get("url_username")
        words = {
            "--insecure": None if options["validate_certs"] else (),
            "--cacert": options.get("ca_path"),
            "--cert": options.get("client_cert"),
            "--key": options.get("client_key"),
            "--ciphers": ":".join(options.get("ciphers", ())) or None,
            "--user": f"{user}:{_HIDDEN}" if user else None,
            "--negotiate": () if options["use_gssapi"] else None,
            "--noproxy": None if options["use_proxy"] else "*",
            "--user-agent": options.get("http_agent"),
        }
        given = [(flag, value) for flag, value in words.items() if value is not None]
        given += [("--header", f"{name}: {_HIDDEN}") for name in options.get("headers", {})]
        flat = [
            word for flag, value in given for word in ((flag, value) if isinstance(value, str) else (flag,))
        ]
        return ["curl", "-fsSL", *flat, "-o", target, masked(url)]

    def _chunks(self, url: str, limit: int, watch: Watch, anyhow: bool) -> Iterator[bytes]:
        """The body, of the length that was announced and within the limit."""
        response = self._ask(url, {}, anyhow)
        announced = response.headers.get("Content-Length")
        total = None if announced is None else int(announced)
        same = _validator(response.headers)
        got = 0
        while True:
            before = got
            for data in _pieces(response, whole=total is None):
                got += len(data)
                if got > limit:
                    raise Failure(f"it has more than the {limit} bytes that max_size allows")
                watch.tick(functools.partial(watch.amount, got, total))
                yield data
            if total is None or got == total:
                return
            if same is None or got == before:
                raise Failure(f"it broke off after {got} of {total} bytes")
            response = self._ask(url, {"Range": f"bytes={got}-", "If-Range": same}, anyhow)
            if not str(response.headers.get("Content-Range")).startswith(f"bytes {got}-"):
                raise Failure(f"it broke off after {got} of {total} bytes")

    def _ask(self, url: str, headers: Mapping[str, str], anyhow: bool) -> Any:
        # Slow to import, and not needed by a run that has everything.
        from ansible.module_utils.urls import open_url

        options = {**self._options, "headers": {**self._options.get("headers", {}), **headers}}
        response = open_url(url, decompress=False, **options)
        if not anyhow and not response.geturl().startswith("https:"):
            raise Failure("it leads to an address without encryption, which takes a checksum or a signature")
        return response


def _pieces(response: Any, *, whole: bool) -> Iterator[bytes]:
    """What comes until the end or, unless only a ``whole`` answer is of use, until the connection breaks."""
    with response:
        while True:
            try:
                data = response.read1(_CHUNK)
            except OSError:
                if whole:
                    raise
                return
            if not data:
                return
            yield data


def _validator(headers: Any) -> str | None:
    """What tells the server which version of a file we have the beginning of (RFC 9110, "If-Range")."""
    tag = headers.get("ETag")
    strong = tag if tag and not tag.startswith("W/") else None
    value = strong or headers.get("Last-Modified")
    return None if value is None else str(value)


def masked(text: str) -> str:
    """An address, or a text with some in it, without the passwords that may be there, for people to see."""
    return re.sub(r"(//[^/@:\s]*:)[^/?#\s]*@", rf"\1{_HIDDEN}@", text)


def without_passwords(value: Any) -> Any:
    """Plain data with every text in it masked()."""
    if isinstance(value, Mapping):
        return {name: without_passwords(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_passwords(item) for item in value]
    return masked(value) if isinstance(value, str) else value

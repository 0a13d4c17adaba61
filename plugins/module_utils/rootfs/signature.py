# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detached OpenPGP signatures, checked by gpgv(1): who has signed is told apart from who may sign by a
keyring of one's own, and by nothing else on the host."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

from ..converge import Failure
from ..shell import command
from .files import open_file

_LARGEST_KEYRING = 16 << 20
_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)

# doc/DETAILS of GnuPG, "General status codes": what is said of a signature that is none to rely on. gpgv ends
# with success also where a key has expired or was revoked.
_FAULTS = {
    "BADSIG": "the signature of {key} is not of what was got",
    "EXPKEYSIG": "the key {key}, which it is signed with, has expired",
    "REVKEYSIG": "the key {key}, which it is signed with, was revoked",
    "EXPSIG": "the signature of {key} has expired",
    "NO_PUBKEY": "the key {key}, which it is signed with, is not in the keyring",
    "ERRSIG": "the signature of {key} can't be checked",
}


def verify(label: str, signed: BinaryIO, signature: Path, keyring: str, temporary: Path) -> None:
    """Raises Failure unless ``signature`` has a good one of the open file ``signed``, by a key in
    ``keyring``; of several one has to be, and none wrong. Raises OSError.

    ``label`` is for what is signed, ``temporary`` a directory for what has to be put aside.
    """
    program = shutil.which("gpgv")
    if program is None:
        raise Failure(
            f"signature: {label} can't be checked without gpgv; install the package gpgv; nothing was "
            "changed."
        )
    keys = temporary / "keyring"
    keys.write_bytes(_keys(keyring))
    signed.seek(0)
    words = [
        program,
        "--homedir",
        str(temporary),
        "--status-fd",
        "1",
        "--keyring",
        str(keys),
        str(signature),
        "-",
    ]
    checked = subprocess.run(  # pylint: disable=ansible-bad-function
        words, stdin=signed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    said = [line.split() for line in checked.stdout.decode("utf-8", "replace").splitlines()]
    codes = {words[1]: words[2] for words in said if len(words) > 2 and words[0] == "[GNUPG:]"}
    if {"GOODSIG", "VALIDSIG"} <= codes.keys() and "BADSIG" not in codes:
        return
    faults = [text.format(key=codes[code]) for code, text in _FAULTS.items() if code in codes]
    reason = faults[0] if faults else "there is no OpenPGP signature in it"
    raise Failure(
        f"signature: {label} is not signed as declared: {reason}; keyring is {keyring}; nothing was changed."
    )


def commands(signed: str, signature: str, keyring: str, temporary: Path) -> tuple[str, ...]:
    """The shell commands that do the same with files."""
    if _ARMOUR.search(_read(keyring)):
        dearmour = command(["gpg", "--dearmor", "--output", temporary / "keyring", keyring])
        return (dearmour, command(["gpgv", "--keyring", temporary / "keyring", signature, signed]))
    return (command(["gpgv", "--keyring", keyring, signature, signed]),)


def _keys(keyring: str) -> bytes:
    """The public keys in a file in the form that gpgv takes, which is not the armoured one (RFC 9580, section
    6.2). Raises Failure."""
    content = _read(keyring)
    blocks = [block.replace(b"\r", b"").partition(b"\n\n")[2] for block in _ARMOUR.findall(content)]
    lines = [b"".join(line for line in block.split() if not line.startswith(b"=")) for block in blocks]
    try:
        return b"".join(map(base64.b64decode, lines)) or content
    except ValueError:
        raise Failure(f"keyring: {keyring} has no OpenPGP public key; nothing was changed.") from None


def _read(keyring: str) -> bytes:
    with open_file("keyring", keyring) as opened:
        return opened.read(_LARGEST_KEYRING)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.rootfs.options import OPTIONS, validate

SHA256, SHA512 = "sha256:" + "ab" * 32, "sha512:" + "ab" * 64


def normal(**given):
    defaults = {option.name: option.default for option in OPTIONS.options}
    return OPTIONS.normalise({**defaults, "name": "web", **given})


@pytest.mark.parametrize("checksum", [SHA256, SHA512, SHA256.upper(), f" {SHA512} "])
def test_a_checksum(checksum):
    assert normal(checksum=checksum)["checksum"] == checksum.strip().lower()


@pytest.mark.parametrize(
    "checksum",
    [
        "",
        "ab" * 32,
        "sha256:",
        "sha256:" + "ab" * 64,
        "sha512:" + "ab" * 32,
        "md5:" + "ab" * 16,
        ":a",
        SHA256[:-1] + "g",
    ],
)
def test_what_is_no_checksum(checksum):
    with pytest.raises(
        Failure, match="it takes sha256: and 64 hexadecimal digits, sha512: and 128, or one of them and where"
    ):
        normal(checksum=checksum)


@pytest.mark.parametrize("path", ["/x", "/x/../x", "//x", "/x/."])
def test_a_path_has_one_form(path):
    assert normal(path=path)["path"] in ("/x", "//x")


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "file:///etc/passwd", "/a", "https:///a", "https:a", "http://", ""]
)
def test_what_is_no_address(url):
    with pytest.raises(Failure, match=r"^url: .* begins with https:// or http://; nothing was changed\.$"):
        normal(url=url)


def test_what_steers_one_run_is_not_kept():
    entry = normal(url="https://a/b", force=True, timeout=3, max_size="1G", validate_certs=False, gc=True)
    assert OPTIONS.declaration(entry) == {"name": "web", "state": "present", "url": "https://a/b"}


@pytest.mark.parametrize(
    "given",
    [
        {"busybox": True},
        {"busybox": False, "path": "/x"},
        {"path": "/x", "checksum": SHA256},
        {"url": "https://a/b"},
        {"url": "http://a/b", "checksum": SHA512},
        {"state": "absent"},
        {"state": "absent", "gc": True},
        {"state": "absent", "busybox": True, "path": "/x"},
    ],
)
def test_what_goes_together(given):
    validate([normal(**given)])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"busybox": False},
        {"busybox": True, "path": "/x"},
        {"path": "/x", "url": "https://a/b"},
        {"busybox": True, "checksum": SHA256},
        {"url": "http://a/b"},
        {"url": "HTTP://a/b"},
        {"busybox": True, "gc": True},
    ],
)
def test_what_does_not(given):
    with pytest.raises(Failure, match=r"; nothing was changed\.$"):
        validate([normal(**given)])

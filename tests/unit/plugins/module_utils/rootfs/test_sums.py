# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of checksums, as the tools write them."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.bare.containers.plugins.module_utils.rootfs import sums
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("options", [[], ["--tag"], ["--binary"]])
def test_what_coreutils_write_is_found(tmp_path, algorithm, options):
    files = {name: name.encode() for name in ("a", "a.tar", "b a.tar", "(a)")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    words = [f"{algorithm}sum", *options, *files]
    listed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for name in files:
        alone = subprocess.run(
            [f"{algorithm}sum", name], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert sums.find(listed, algorithm, name) == alone.stdout.split()[0]
    assert sums.find(listed, algorithm, "tar") is None


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    assert sums.find(text, "sha256", "a") is None


def test_a_digest_of_another_length_is_none():
    assert sums.find("ab" * 20 + "  a\n", "sha256", "a") is None
    assert sums.find("ab" * 32 + "  a\n", "sha512", "a") is None

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import stat
import subprocess

import pytest
from ansible_collections.bare.containers.plugins.module_utils.shell import command, write_file, write_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))


def run(*commands):
    """Runs the commands as they are meant to be run, and returns their output."""
    done = subprocess.run(["sh", "-e"], input="\n".join(commands), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TEXT.filter(bool), min_size=1, max_size=4))
def test_a_command_s_words_arrive_as_they_are(words):
    line = command(["printf", r"%s\0", *words])
    assert (
        subprocess.run(["sh", "-ec", line], stdout=subprocess.PIPE, check=True).stdout
        == "".join(word + "\0" for word in words).encode()
    )


@pytest.mark.parametrize(
    "text",
    [
        "one line\n",
        "$HOME `id` \\ 'quoted' \"twice\"\n\n",
        "",
        "no newline at the end",
        "\n",
        "END_OF_FILE\n",
        "before\nEND_OF_FILE\nrm -rf /nowhere\n",
        "-n\n",
        "%s %d\n",
    ],
)
def test_write_file(tmp_path, text):
    path = tmp_path / "it's new" / "etc" / "a file"
    run(*write_file(path, text))
    assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    run(*write_file(path, "secret\n", 0o600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT)
def test_write_file_writes_any_text(tmp_path, text):
    path = tmp_path / "file"
    run(*write_file(path, text))
    assert path.read_bytes() == text.encode()


def test_write_value(tmp_path):
    path = tmp_path / "cpu max"
    run(write_value(path, "100000 $HOME"))
    assert path.read_text() == "100000 $HOME\n"

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers as hosts of the inventory, by way of their host's OpenSSH."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def tasks(play, tmp_path_factory):
    """What the tasks returned, by their names, one result for each container; and what was fetched."""
    fetched = tmp_path_factory.mktemp("fetched") / "file"
    results = {}
    for line in play("inside.yml", fetched=str(fetched)).results:
        assert line["status"] == "ok", line
        results.setdefault(line["task"], []).append(line["result"])
    return {**results, "fetched": fetched.read_text()}


def test_commands_run_inside_with_the_container_s_environment(tasks):
    looked = {tuple(result["stdout_lines"]) for result in tasks["Look around"]}
    assert looked == {("web.example", "0::/", "hello"), ("app", "0::/", "hello")}
    assert [result["rc"] for result in tasks["Bring a program and run it"]] == [0]


def test_users_are_those_inside(tasks):
    for task in ("Enter as somebody else", "Become somebody else"):
        assert [result["stdout"].strip() for result in tasks[task]] == ["1000"], task


def test_files_are_sent_and_fetched(host, container, tasks):
    (sent,) = tasks["Send a file"]
    assert sent["changed"]
    app = container("app")
    assert app.output("stat -c '%u %a' '/srv/a file'; cat '/srv/a file'") == "0 640\ngröße"
    assert not host.file("/srv/a file").exists
    assert tasks["fetched"] == "größe\n"
    app.output("rm '/srv/a file'")

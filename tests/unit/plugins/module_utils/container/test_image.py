# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container.image import completed
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure

CONFIG = {
    "Entrypoint": ["/entry"],
    "Cmd": ["serve", "-v"],
    "Env": ["A=1", "B=x=y"],
    "User": "7",
    "WorkingDir": "/w",
}


@pytest.mark.parametrize(
    ("declared", "config", "words"),
    [
        # As docker run has it (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact").
        ({}, CONFIG, ["/entry", "serve", "-v"]),
        ({"command": ["other"]}, CONFIG, ["/entry", "other"]),
        ({"entrypoint": ["/mine"]}, CONFIG, ["/mine"]),
        ({"entrypoint": ["/mine"], "command": ["x"]}, CONFIG, ["/mine", "x"]),
        ({"entrypoint": [], "command": ["x"]}, CONFIG, ["x"]),
        ({"entrypoint": []}, CONFIG, None),
        ({}, {"Entrypoint": ["/entry"]}, ["/entry"]),
        ({}, {"Cmd": ["serve"]}, ["serve"]),
        ({}, {}, None),
        ({"command": ["x"]}, {}, ["x"]),
        ({"entrypoint": ["/mine"], "command": ["x"]}, {}, ["/mine", "x"]),
        ({"image_config": False}, CONFIG, None),
        ({"image_config": False, "command": ["x"]}, CONFIG, ["x"]),
    ],
)
def test_what_is_run(declared, config, words):
    whole = completed({"image_config": True, **declared}, config)
    assert whole.get("command") == words
    assert completed(whole, config).get("command") == words


def test_what_is_declared_wins():
    whole = completed({"image_config": True, "env": {"A": "2", "C": "3"}, "workdir": "/mine"}, CONFIG)
    assert whole["env"] == {"A": "2", "B": "x=y", "C": "3"}
    assert (whole["user"], whole["workdir"]) == ("7", "/mine")
    assert "stop_signal" not in whole
    assert completed(whole, CONFIG) == whole


def test_without_an_image_nothing_is_added():
    declared = {"image_config": True, "command": ["x"], "env": {"A": "1"}}
    assert completed(declared, {}) == declared
    assert completed({**declared, "image_config": False}, CONFIG) == {**declared, "image_config": False}


@pytest.mark.parametrize(
    ("name", "value"), [("User", "a b"), ("StopSignal", "SIGNONE"), ("WorkingDir", "/a/../b")]
)
def test_what_an_image_may_not_say(name, value):
    with pytest.raises(Failure, match=r"^image_config: of what the image says, "):
        completed({"image_config": True}, {**CONFIG, name: value})

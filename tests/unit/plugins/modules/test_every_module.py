# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every module of the collection."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

COLLECTION = Path(__file__).parents[4]
MODULES = sorted(path.stem for path in (COLLECTION / "plugins/modules").glob("*.py"))


def load(name):
    return importlib.import_module(f"ansible_collections.bare.containers.plugins.modules.{name}")


def is_about_a_container(name):
    documentation = yaml.safe_load(load(name).DOCUMENTATION)
    fragments = documentation["extends_documentation_fragment"]
    return "name" in documentation["options"] or "bare.containers.batch" in fragments


@pytest.mark.parametrize("name", MODULES)
def test_without_root_nothing_is_begun(capsys, monkeypatch, name):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    arguments = {"name": "web"} if is_about_a_container(name) else {}
    with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
        load(name).main()
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)["msg"]
    assert told == "This needs root and runs as user 1000: set become: true; nothing was changed."


def test_the_action_group_has_them_all():
    runtime = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["containers"] == MODULES

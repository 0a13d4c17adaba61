# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules run as Ansible runs them on a managed host, each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
RUN_MODULE = """
import json, runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.load(sys.stdin)}).encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.bare.containers.plugins.modules." + sys.argv[1], run_name="__main__")
"""


def module(module_name: str, /, **arguments: object) -> None:
    """Runs a module, which has to succeed, from the start of its interpreter to its end."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_MODULE, module_name],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT / ".collections")},
    )
    result = json.loads(done.stdout)
    assert not result.get("failed"), result["msg"]

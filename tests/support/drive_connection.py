# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls methods of the connection plugin as Ansible's task executor does, without the second that it takes.

Standard input is the JSON {variables, calls}, each call [METHOD, ARGUMENT...]; standard output a JSON list of
what they return, bytes as Latin-1, or of {error, message}. An argument {"bytes": TEXT} is one in Latin-1.
"""

from __future__ import annotations

import json
import sys

from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader, init_plugin_loader


def main() -> None:
    asked = json.load(sys.stdin)
    init_plugin_loader()
    context = PlayContext()
    context.remote_addr = asked["variables"]["ansible_host"]
    connection = connection_loader.get("bare.containers.nsenter", context)
    connection.set_options(task_keys={"timeout": 10}, var_options=asked["variables"])
    results = []
    for method, *arguments in asked["calls"]:
        try:
            results.append(getattr(connection, method)(*map(given, arguments)))
        except AnsibleError as error:
            results.append({"error": type(error).__name__, "message": str(error)})
    json.dump(results, sys.stdout, default=lambda value: value.decode("latin-1"))


def given(argument):
    return argument["bytes"].encode("latin-1") if isinstance(argument, dict) else argument


if __name__ == "__main__":
    main()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's files: what is installed is what Ansible sends along, and all that the launcher imports."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from ansible_collections.bare.containers.plugins.module_utils.container import installation

PACKAGE = installation.DIRECTORY / "bare_containers"


def installed() -> set[tuple[str, str]]:
    return {
        (path.parent.name, path.stem)
        for path in installation.files()
        if path.parent.parent == PACKAGE and path.stem != "__init__"
    }


def relative_imports(text: str, package: str) -> set[tuple[str, str]]:
    """Package and name of every module of ours that a module of ``package`` imports from one of its own."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = [*([package] if node.level == 1 else []), *(node.module or "").split(".")]
            place = [part for part in parts if part]
            names = [place[1]] if len(place) > 1 else [alias.name for alias in node.names]
            found |= {(place[0], name) for name in names}
    return found


def test_every_installed_module_is_imported_somewhere_in_the_text_and_so_sent() -> None:
    text = Path(str(installation.__file__)).read_text(encoding="utf-8")
    assert installed() <= relative_imports(text, "container")
    assert len(installed()) > 15


def test_all_that_an_installed_module_imports_is_installed() -> None:
    for path, text in installation.files().items():
        if path.suffix == ".py":
            missing = {
                (package, module)
                for package, module in relative_imports(text, path.parent.name)
                if package in ("kernel", "container") and module != "__future__"
            } - installed()
            assert not missing, f"{path} imports {missing}"


def test_the_texts_are_the_modules_own() -> None:
    here = os.path.dirname(str(installation.__file__))
    for path, text in installation.files().items():
        if (path.parent.name, path.stem) in installed():
            assert text == Path(here, "..", path.parent.name, path.name).read_text(encoding="utf-8")

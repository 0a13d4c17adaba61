# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image says of the containers made from it (OCI image spec, config, "Properties"): defaults for what
is not declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..converge import Failure
from .options import OPTIONS

Entry = Mapping[str, Any]

_NAMES = {"user": "User", "workdir": "WorkingDir", "stop_signal": "StopSignal"}


def completed(declared: Entry, config: Mapping[str, Any]) -> dict[str, Any]:
    """The declaration with an image's configuration; completing it again changes nothing. Raises Failure.

    As with docker run: a declared command stands in place of Cmd alone, a declared entrypoint in place of
    both, and declared variables beside those of the image.
    """
    config = config if declared["image_config"] else {}
    entrypoint = declared.get("entrypoint", config.get("Entrypoint", []))
    arguments = [] if "entrypoint" in declared else config.get("Cmd", [])
    words = [*entrypoint, *declared.get("command", arguments)]
    variables = dict(variable.split("=", 1) for variable in config.get("Env", []))
    found: dict[str, Any] = {option: config[name] for option, name in _NAMES.items() if name in config}
    if words:
        found["command"] = words
    if variables:
        found["env"] = {**variables, **declared.get("env", {})}
    normal = {name: _normal(name, value) for name, value in found.items()}
    folded = (
        {"command": normal["command"], "entrypoint": []} if words and words != declared.get("command") else {}
    )
    environment = {"env": normal["env"]} if variables else {}
    return {**normal, **declared, **folded, **environment}


def _normal(name: str, value: Any) -> Any:
    (option,) = (option for option in OPTIONS.options if option.name == name)
    try:
        return option.normal(value)
    except Failure as failure:
        raise Failure(f"image_config: of what the image says, {failure}") from None

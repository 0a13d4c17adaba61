# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From block devices as they are declared, by path, to those that control files name, by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..converge import Failure
from ..kernel import block, cgroup
from . import files, hierarchy
from .kinds import Value


def resolve(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values by file with every device by the ``MAJOR:MINOR`` that its disk has now.

    Raises Failure for what is no block device here, for a disk that is named twice, and for a disk that can't
    have a weight.
    """
    resolved = dict(values)
    for file, value in values.items():
        row = files.control(file)
        if row is not None and row.by_device and isinstance(value, Mapping):
            resolved[file] = _by_number(row.option, value)
    _require_weighable(resolved.get("io.weight"))
    return resolved


def _by_number(option: str, value: Mapping[str, Any]) -> dict[str, Any]:
    numbers: dict[str, str] = {}
    for device in value:
        number = device if device == "default" else _disk(option, device)
        if number in numbers:
            raise Failure(
                f"{option}: {numbers[number]} and {device} are both on the disk {number}, which takes one "
                "entry; nothing was changed."
            )
        numbers[number] = device
    return {number: value[device] for number, device in sorted(numbers.items())}


def _disk(option: str, device: str) -> str:
    try:
        return block.disk(device)
    except OSError as error:
        raise Failure(
            f"{option}: {device!r} is not accepted ({error.strerror}), it takes block devices of this host "
            "such as /dev/vda or 254:0; nothing was changed."
        ) from None


def _require_weighable(weights: Any) -> None:
    """A disk has weights of its own where the cost model was switched on for it (ioc_weight_write())."""
    disks = [device for device in weights or () if device != "default"]
    if not disks:
        return
    costs = cgroup.read(hierarchy.root(), "io.cost.qos") or ""
    switched_on = [line.split()[0] for line in costs.splitlines()]
    for disk in disks:
        if disk not in switched_on:
            raise Failure(
                f"io_weight: {disk} has no weights by cgroup until its cost model is switched on, as with "
                f"'echo {disk} enable=1 > {hierarchy.root()}/io.cost.qos' at each boot; nothing was changed."
            )

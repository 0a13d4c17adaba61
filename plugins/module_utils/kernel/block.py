# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block devices by path and by number, as sysfs has them
(Documentation/ABI/stable/sysfs-dev, sysfs-block)."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

SYS = Path("/sys/dev/block")

_NUMBER = re.compile(r"\d+:\d+")


def disk(device: str) -> str:
    """``MAJOR:MINOR`` of the disk under a block device, which is given by its path or its own MAJOR:MINOR.

    The kernel limits and weighs whole disks only (blkg_conf_open_bdev()): a partition gives its disk, and a
    mapped device (LUKS, LVM) that lies on one disk gives that one, as systemd has it. Raises OSError, ENOTBLK
    for what is no block device.
    """
    number = device if _NUMBER.fullmatch(device) else _number(device)
    if not (SYS / number).exists():
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), device)
    return _below(number)


def _number(path: str) -> str:
    status = os.stat(path)
    if not stat.S_ISBLK(status.st_mode):
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), path)
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _below(number: str) -> str:
    directory = (SYS / number).resolve()
    if (directory / "partition").exists():
        return _below(_read(directory.parent))
    disks = {_below(_read(slave)) for slave in directory.glob("slaves/*")}
    return disks.pop() if len(disks) == 1 else number


def _read(directory: Path) -> str:
    return (directory / "dev").read_text(encoding="ascii").strip()

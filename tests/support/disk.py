# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of one's own: an ext4 with a journal in a file, whose power can be cut."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Machine = Any  # conftest.Machine
MEBIBYTE = 1 << 20

# EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), with EXT4_GOING_FLAGS_NOLOGFLUSH (include/uapi/linux/ext4.h): from
# now on nothing is written, be it data or journal.
_CUT = """
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
"""


class Disk:
    """A file system on a Machine, of ``size`` bytes, mounted at ``place``. It goes with the Machine."""

    def __init__(
        self, machine: Machine, file: Path, size: int, place: str, eventually: Callable[..., Any]
    ) -> None:
        self._machine = machine
        self._eventually = eventually
        self._file = file
        self._kept = file.with_suffix(".kept")
        self._place = place
        with file.open("wb") as opened:
            opened.truncate(size)
        # Made at once, as the kernel would else write its tables as long as it is mounted.
        options = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run(["mkfs.ext4", *options, file], check=True)
        machine.run("mkdir", "-p", place)
        self.mount()
        machine.run("rmdir", f"{place}/lost+found")

    def mount(self) -> None:
        self._machine.run("mount", "-o", "loop", str(self._file), self._place)

    def unmount(self) -> None:
        """Waits for all who have it in a mount namespace of their own: until then it would be the same file
        system that is mounted again."""
        self._eventually(lambda: self._run("umount", self._place).returncode == 0)
        self._eventually(lambda: self._run("losetup", "--associated", str(self._file)).stdout == "")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._machine.command(*words), capture_output=True, text=True, check=False)

    def cut_power(self) -> None:
        """What is not on the disk is lost, for whoever mounts it again."""
        self._machine.run("python3", "-c", _CUT, self._place)

    def keep(self) -> None:
        """Keeps a copy of what is on it, for restore()."""
        self.unmount()
        self._copy(self._file, self._kept)
        self.mount()

    def restore(self) -> None:
        """Has on it what it had when that was kept."""
        self.unmount()
        self._copy(self._kept, self._file)
        self.mount()

    def _copy(self, source: Path, target: Path) -> None:
        subprocess.run(["cp", "--sparse=always", source, target], check=True)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A terminal for the container's process: a pair of its own devpts, whose master is handed to who asked.

It is handed over as runc and crun do it, through a Unix socket that the caller listens on
(``--console-socket``), since a terminal needs somebody to hold it as long as the container lives.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from ..kernel import mount, path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/asm-generic/ioctls.h
_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def connect(place: str) -> int:
    """A descriptor of a connection to the socket at ``place``. Raises OSError."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    channel.connect(place)
    return channel.detach()


def open_pair(root: int) -> tuple[int, int]:
    """Master and slave of a new terminal of the container whose root directory is ``root``. Raises OSError.

    The slave is got from the master, not from its name, which is the container's to fake (CVE-2025-52565).
    """
    master = path.open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, bytes(4))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def mount_console(root: int, slave: int) -> None:
    """Makes the terminal /dev/console, in the directory that is mounted there. Raises OSError."""
    directory = path.open_in_root(root, "/dev", os.O_PATH | os.O_DIRECTORY, symlinks=False)
    if os.path.lexists(f"/proc/self/fd/{directory}/console"):
        os.unlink("console", dir_fd=directory)
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open("console", flags, 0o600, dir_fd=directory)
    tree = mount.clone_tree(slave)
    mount.attach(tree, target)
    for descriptor in (tree, target, directory):
        os.close(descriptor)


def hand_over(channel: int, master: int) -> None:
    """Sends the master through the connected socket, and closes both. Raises OSError."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))
    connection.sendmsg([b"/dev/ptmx"], [rights])
    connection.close()
    os.close(master)


def take(slave: int, size: dict[str, Any] | None) -> None:
    """Makes it our controlling terminal and standard input, output and error. Raises OSError."""
    if size:
        words = [size["height"], size["width"], 0, 0]
        fcntl.ioctl(slave, _TIOCSWINSZ, b"".join(word.to_bytes(2, sys.byteorder) for word in words))
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)

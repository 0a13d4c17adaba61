# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the launcher does first, before it loads the rest of itself, as it begins anew with that."""

from __future__ import annotations

import os
import sys

from ..kernel import mount


def protect_interpreter() -> None:
    """Runs this program again from a read-only copy of the mount that its interpreter lies on.

    Until exec a container's first process has the host's interpreter as /proc/PID/exe, and a container may
    make that its command; through the copy it can't be opened for writing (CVE-2019-5736). Raises OSError.
    """
    # Who is not root gets no further than to be told so.
    if os.geteuid() != 0 or os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        return
    clone = mount.clone_tree(mount.AT_FDCWD, os.readlink("/proc/self/exe"))
    mount.set_attributes(clone, ["ro", "nosuid", "nodev"])
    os.execve(clone, [sys.executable, "-I", "-S", *sys.argv], os.environ)

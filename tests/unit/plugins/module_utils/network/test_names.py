# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.bare.containers.plugins.module_utils.container import bundle
from ansible_collections.bare.containers.plugins.module_utils.network import names


def test_the_launcher_looks_for_the_lists_where_they_are():
    """The rooms know each other by what is written only."""
    assert str(names.LISTS) == bundle.NAMES
    assert f"{names.STARTED}\n" == bundle.OWN_NAME

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import bundle, launch
from ansible_collections.bare.containers.plugins.module_utils.network import names
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS


def test_the_launcher_looks_for_the_lists_where_they_are():
    """The rooms know each other by what is written only."""
    assert str(names.LISTS) == bundle.NAMES
    assert f"{names.STARTED}\n" == bundle.OWN_NAME


@pytest.mark.parametrize(
    "link", [{"bridge": "bare0"}, {"bridge": "bare0", "vlan": 1}, {"bridge": "bare0", "vlan": 10}]
)
def test_the_launcher_looks_for_those_of_the_vlan(link):
    defaults = {option.name: option.default for option in OPTIONS.options}
    network = Network.resolve("web", OPTIONS.normalise({**defaults, "name": "web", **link}))
    assert launch._segment(network.declaration()) == network.attachments[0].segment

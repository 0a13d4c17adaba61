# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host
from ansible_collections.bare.containers.plugins.module_utils.container import surroundings
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure

HOSTS = {"nameserver": ["192.0.2.53"], "search": ["example.org"]}
OUTWARD = {"dns": "static", "internal": False, "gateway": ["10.1.0.1"]}
SERVED = {"dns": "dynamic", "internal": False, "gateway": ["10.2.0.1", "fd00:2::1"]}
INTERNAL = {"dns": "dynamic", "internal": True, "gateway": ["10.3.0.1"]}


@pytest.fixture
def name_servers(monkeypatch, tmp_path):
    """What a container asks whose network has these links, the first of which is the network's own."""
    monkeypatch.setattr(host, "STATE", tmp_path)
    monkeypatch.setattr(surroundings, "_resolver", lambda: HOSTS)

    def ask(*links: Any, of: str = "web", network: str = "auto") -> list[str]:
        if links:
            folder = tmp_path / "containers" / of
            folder.mkdir(parents=True)
            kept = {"interfaces": links[1:], **links[0]}
            (folder / "network.json").write_text(json.dumps(kept))
        found = surroundings.resolver({"name": "web", "network": network})
        assert found["search"] == ["example.org"]
        return list(found["nameserver"])

    return ask


@pytest.mark.parametrize(
    ("links", "asked"),
    [
        ([], ["192.0.2.53"]),
        ([OUTWARD], ["192.0.2.53"]),
        ([SERVED], ["10.2.0.1", "fd00:2::1"]),
        ([OUTWARD, SERVED], ["10.2.0.1", "fd00:2::1"]),
        ([INTERNAL], ["10.3.0.1"]),
        ([INTERNAL, SERVED], ["10.2.0.1", "fd00:2::1"]),
        ([INTERNAL, OUTWARD], ["10.3.0.1", "192.0.2.53"]),
    ],
)
def test_name_servers_of_bridges_stand_for_those_that_they_forward_to(name_servers, links, asked):
    assert name_servers(*links) == asked


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        ("container:db", ["10.2.0.1", "fd00:2::1"]),
        ("auto", ["192.0.2.53"]),
        ("host", ["192.0.2.53"]),
        ("none", ["192.0.2.53"]),
        ("ns:/run/netns/db", ["192.0.2.53"]),
    ],
)
def test_they_are_those_of_the_network_that_it_has(name_servers, network, asked):
    assert name_servers(SERVED, of="db", network=network) == asked


@pytest.mark.parametrize("kept", [{"interfaces": 5}, {"interfaces": [5]}, {"interfaces": ["ab"]}])
def test_a_damaged_network_is_told(name_servers, kept):
    with pytest.raises(Failure, match=r"network: .*/web/network.json is damaged"):
        name_servers({**SERVED, **kept})

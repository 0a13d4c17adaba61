# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.bare.containers.plugins.filter.packages import packages

ROLE = Path(__file__).parents[4] / "roles/host"
TABLE = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["host_packages_of_options"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, []),
        ({"rootfs": {"busybox": True}, "network": {"address": "10.200.0.2/24"}}, []),
        ({"rootfs": {"image": "docker://registry.example/web:1"}}, ["skopeo"]),
        ({"rootfs": {"bootstrap": {"suite": "bookworm"}}}, ["mmdebstrap"]),
        ({"rootfs": {"url": "https://example.org/root.tar.zst"}}, ["zstd"]),
        ({"rootfs": {"path": "/srv/root.tzst", "signature": "/srv/root.tzst.sig"}}, ["gpgv", "zstd"]),
        ({"rootfs": {"path": "/srv/root.tar.gz"}}, []),
        ({"process": {"init": True}}, ["catatonit"]),
        ({"process": {"init": False}}, []),
        ({"network": {"dns": "dynamic"}}, ["dnsmasq-base"]),
        ({"network": {"interfaces": [{"interface": "eth1", "dns": "dynamic"}]}}, ["dnsmasq-base"]),
        ({"rootfs": None, "network": None}, []),
    ],
)
def test_the_role_installs_what_the_declared_options_take(parts: dict, expected: list[str]) -> None:
    assert packages([{"name": "one", **parts}], TABLE) == expected


def test_packages_of_several_containers_come_once_and_none_of_one_that_is_absent() -> None:
    declared = [
        {"name": "one", "rootfs": {"image": "docker://registry.example/web:1"}},
        {"name": "two", "rootfs": {"image": "oci:/srv/two:1"}},
        {"name": "old", "state": "absent", "rootfs": {"bootstrap": {"suite": "bookworm"}}},
    ]
    assert packages(declared, TABLE) == ["skopeo"]


def test_an_option_of_each_entry_of_a_list_counts_by_its_value() -> None:
    table = [{"option": "network.interfaces.kind", "value": "ipv*", "package": "wanted"}]
    interfaces = [{"interface": "eth1"}, {"interface": "eth2", "kind": "ipvlan"}]
    assert packages([{"name": "one", "network": {"interfaces": interfaces}}], table) == ["wanted"]
    assert packages([{"name": "one", "network": {"interfaces": interfaces[:1]}}], table) == []


def test_what_is_documented_is_what_is_installed() -> None:
    documented = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())
    options = documented["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    for option in ("host_packages", "host_packages_of_options"):
        assert options[option]["default"] == defaults[option]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import overlay
from hypothesis import given
from hypothesis import strategies as st

PATHS = st.lists(st.text("/ab:,\\\\ é", min_size=1, max_size=9), min_size=1, max_size=5)


@given(PATHS)
def test_what_is_named_is_found_again(layers):
    option = overlay.lowerdir(layers)
    assert overlay.split(["userxattr", option, "upperdir=/x"]) == layers


def test_without_layers_there_are_none():
    assert overlay.split(["size=1m"]) == []


@pytest.mark.parametrize(("length", "fits"), [(4095, True), (4096, False)])
def test_a_page_is_the_limit(length, fits):
    assert overlay.fits(["x" * (length - 2), "y"]) is fits


def test_more_than_a_page_are_named_by_descriptors(monkeypatch, tmp_path):
    layers = []
    for number in range(120):
        layers.append(str(tmp_path / f"{number:0100}"))
        os.mkdir(layers[-1])
    told = []

    def mount(source, target, kind, flags, options):
        lower, upper = options.split(",")
        places = lower.partition("=")[2].split(":")
        told.append((source, target, kind, len(options) < 4096, upper))
        assert [os.readlink(place) for place in places] == layers

    monkeypatch.setattr(overlay.mount, "mount", mount)
    before = len(os.listdir("/proc/self/fd"))
    overlay.mount_layers("/there", [overlay.lowerdir(layers), "upperdir=/up"])
    assert told == [("overlay", "/there", "overlay", True, "upperdir=/up")]
    assert len(os.listdir("/proc/self/fd")) == before

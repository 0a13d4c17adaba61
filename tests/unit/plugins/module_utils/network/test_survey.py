# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept on disk of networks, whatever has become of it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.network import survey
from ansible_collections.bare.containers.plugins.module_utils.network.declared import Network
from ansible_collections.bare.containers.plugins.module_utils.network.options import OPTIONS
from hypothesis import given
from hypothesis import strategies as st

WEB = Network.resolve(
    "web",
    OPTIONS.normalise(
        {
            **{option.name: option.default for option in OPTIONS.options},
            "name": "web",
            "bridge": "bare0",
            "address": ["10.200.0.2/24", "fd00:200::2/64"],
            "nat": True,
            "publish": ["8080:80"],
        }
    ),
)
KEPT = json.loads(json.dumps(WEB.declaration()))
RECORD = {"bridges": ["bare0"], "settings": {"/proc/sys/net/ipv4/ip_forward": "0"}}

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def state(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "STATE", tmp_path)
    monkeypatch.setattr(survey, "RECORD", tmp_path / "network/host.json")
    (tmp_path / "network").mkdir()
    return tmp_path


def test_what_is_kept_is_what_was_declared():
    assert Network.read_kept("web", KEPT) == WEB


@given(st.dictionaries(st.sampled_from(sorted(KEPT)), JUNK) | st.dictionaries(st.text(), JUNK))
def test_whatever_else_is_kept_is_a_network_or_refused(changes):
    """A network that is read has nothing in it that a declared one could not have."""
    for kept in ({**KEPT, **changes}, changes):
        try:
            network = Network.read_kept("web", kept)
        except Failure:
            continue
        own = {key: value for key, value in network.declaration().items() if value is not None}
        assert OPTIONS.normalise(own) == own
        assert {key: type(value) for key, value in own.items()} == {key: type(KEPT[key]) for key in own}


@pytest.mark.parametrize("key", sorted(KEPT))
@pytest.mark.parametrize("value", [5, 5.0, True, "5", "", [5], {}, [["a"]]])
def test_values_of_other_types_are_refused(key, value):
    if type(value) is type(KEPT[key]) and key not in ("interface", "bridge", "mac_address"):
        return
    if (key, value) in (("bridge", "5"), ("interface", "5"), ("vlan", 5)):
        return
    with pytest.raises(Failure, match=r"web|is not accepted"):
        Network.read_kept("web", {**KEPT, key: value})


@pytest.mark.parametrize("key", ["address", "gateway", "interface", "mtu", "nat", "publish"])
def test_one_that_lacks_something_is_refused(key):
    kept = {name: value for name, value in KEPT.items() if name != key}
    with pytest.raises(Failure, match="kept of web is no declaration of this collection"):
        Network.read_kept("web", kept)


ALWAYS_KEPT = ("address", "bridge", "gateway", "interface", "mac_address", "mtu", "nat", "publish")
"""The options that there were in the first release (0.1.0)."""


def test_one_that_is_older_than_an_option_has_its_default():
    older = {name: KEPT[name] for name in ALWAYS_KEPT}
    assert Network.read_kept("web", older) == WEB
    link = {"interface": "eth1", "address": ["10.201.0.2/24"], "gateway": [], "mtu": 1500}
    (first, second) = Network.read_kept("web", {**older, "interfaces": [link]}).attachments
    assert first == WEB.attachments[0]
    assert (second.isolate, second.default_route, second.routes) == (True, False, ())


def test_one_that_is_damaged_leaves_the_others(state):
    texts = {"web": json.dumps(KEPT), "a": "{", "b": "[]", "c": "{}", "d": '{"mtu": "x"}', "e": "[" * 10**5}
    for name, text in texts.items():
        path = state / "containers" / name / "network.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert survey._read_kept(host.declared_names("network")) == {"web": WEB}


def test_a_record_is_read(state):
    assert survey.read_record() == survey.NO_RECORD
    survey.RECORD.write_text(json.dumps(RECORD))
    assert survey.read_record() == RECORD


@pytest.mark.parametrize("text", ["{", "5", "[]", "{}", '"x"', "[" * 10**5, '{"bridges": []}', "\udcff"])
def test_a_damaged_record_is_none(state, text):
    survey.RECORD.write_text(text, errors="surrogateescape")
    assert survey.read_record() is None


@given(st.sampled_from(["bridges", "settings", "more"]), JUNK)
def test_whatever_is_in_a_record_it_is_one_or_none(tmp_path_factory, key, junk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "RECORD", tmp_path_factory.mktemp("network") / "host.json")
        survey.RECORD.write_text(json.dumps({**RECORD, key: junk}))
        record = survey.read_record()
    if record is not None:
        assert key != "more"
        assert all(isinstance(name, str) for name in record["bridges"])
        assert all(isinstance(value, str) for pair in record["settings"].items() for value in pair)

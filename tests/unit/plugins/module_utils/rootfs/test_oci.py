# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.bare.containers.plugins.module_utils.rootfs import oci
from ansible_collections.bare.containers.plugins.module_utils.rootfs.archive import Refused
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from([*oci.CONFIGURATION, "OnBuild"])


@given(ANYTHING | st.dictionaries(NAMES, ANYTHING))
def test_any_configuration_is_refused_or_plain(config):
    try:
        found = oci.configuration(config)
    except Refused:
        return
    assert set(found) <= set(oci.CONFIGURATION)
    for name in ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Volumes"):
        assert all(isinstance(item, str) and "\0" not in item for item in found.get(name, []))
    json.dumps(found).encode()


def test_what_says_nothing_is_left_out():
    config = {
        "Cmd": None,
        "Entrypoint": [],
        "User": "",
        "Labels": {},
        "Volumes": {"/b": {}, "/a": {}},
        "Tty": True,
    }
    assert oci.configuration(config) == {"Volumes": ["/a", "/b"]}
    assert oci.configuration(None) == {}


@pytest.fixture
def image(tmp_path):
    """A layout with an image of one layer that is not there."""
    (tmp_path / "blobs/sha256").mkdir(parents=True)

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        (tmp_path / "blobs/sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}"}

    def make(text=None, **manifest):
        config = blob(json.dumps({"rootfs": {"diff_ids": [f"sha256:{'a' * 64}"]}}).encode())
        whole = {"config": config, "layers": [{"digest": f"sha256:{'b' * 64}"}], **manifest}
        described = blob(json.dumps(whole).encode() if text is None else text.encode())
        (tmp_path / "index.json").write_text(json.dumps({"manifests": [described]}))
        return tmp_path

    return make


def test_an_image(image):
    found = oci.read(image())
    index = json.loads((image() / "index.json").read_text())
    assert found == oci.Image(index["manifests"][0]["digest"][7:], ["b" * 64], ["a" * 64], {})
    with pytest.raises(Refused, match="lacks the blob"):
        oci.check(image(), "b" * 64)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"layers": None}, "has no list of layers"),
        ({"layers": []}, "has 0 layers, from 1 to 128 are accepted"),
        ({"layers": ["x"]}, "names something by 'None'"),
        ({"layers": [{"digest": "../x"}]}, "names something by '../x'"),
        ({"layers": [{"digest": f"sha512:{'b' * 128}"}]}, "names something by 'sha512:"),
        ({"config": {"digest": f"sha256:{'c' * 64}"}}, "lacks the blob sha256:cccc"),
        ({"config": None}, "names something by 'None'"),
    ],
)
def test_a_hostile_manifest(image, manifest, reason):
    with pytest.raises(Refused) as refused:
        oci.read(image(**manifest))
    assert str(refused.value).startswith(reason)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100000, "{}", "x" * ((4 << 20) + 1)])
def test_no_manifest(image, text):
    with pytest.raises(Refused):
        oci.read(image(text))


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"manifests": []}', '{"manifests": [{"digest": "../x"}]}']
)
def test_no_index(image, index):
    layout = image()
    (layout / "index.json").write_text(index)
    with pytest.raises(Refused):
        oci.read(layout)


def test_blobs_that_only_seem_to_be_there(tmp_path):
    """Nobody takes them for what they stand for."""
    oci.stand_in(tmp_path / "layout", ["b" * 64])
    with pytest.raises(Refused, match="damaged blob"):
        oci.check(tmp_path / "layout", "b" * 64)
    oci.remove(tmp_path / "layout", "b" * 64)
    with pytest.raises(Refused, match="lacks the blob"):
        oci.check(tmp_path / "layout", "b" * 64)

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest
from ansible_collections.bare.containers.plugins.module_utils import host
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import file
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A host of the test's own; the folders above ours hold something else, as they do on a real one."""
    (tmp_path / "var/lib/other").mkdir(parents=True)
    monkeypatch.setattr(host, "STATE", tmp_path / "var/lib/bare-containers")
    monkeypatch.setattr(host, "RUN", tmp_path / "run/bare-containers")
    return tmp_path


def tree(root):
    """Every file below with its mode and text."""
    return {
        str(path.relative_to(root)): (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["web", "a", "0", "a.b-c_d", "Web-1", "x" * 64])
def test_a_container_s_name(name):
    assert host.container_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/a",
        "../a",
        ".a",
        "-a",
        "_a",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "x" * 65,
        "a:b",
        "a@b",
        "٣",
    ],
)
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="up to 64 letters"):
        host.container_name(name)


def test_no_container_has_the_unit_of_the_networks():
    with pytest.raises(ValueError, match=r"bare-network\.service is the unit"):
        host.container_name("network")


def test_no_container_has_the_folder_of_the_locks():
    with pytest.raises(ValueError, match="has the locks of all containers"):
        host.container_name("lock")
    assert host.container_name("locks") == "locks"


@given(st.text())
def test_a_name_stays_in_its_folder(text):
    try:
        name = host.container_name(text)
    except ValueError:
        return
    assert host.directory(name).parent == host.STATE / "containers"
    assert os.path.normpath(host.directory(name)) == str(host.directory(name))


DECLARATION = {
    "cpu_max": 1,
    "env": {"A": "it's $HOME", "B": "END_OF_FILE"},
    "publish": ["8080:80"],
    "hostname": None,
}


def test_a_declaration_is_kept_and_forgotten(root):
    kept = host.Declaration("web", "process")
    assert kept.read() is None
    kept.write_step(DECLARATION).apply()
    assert kept.read() == DECLARATION
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert host.declared_names("process") == ["web"]
    assert host.declared_names("cgroup") == []
    kept.remove_step().apply()
    assert kept.read() is None
    assert os.listdir(root / "var/lib") == ["other"]
    kept.remove_step().apply()


def test_what_a_killed_run_left_of_a_declaration_goes_too(root):
    web = host.Declaration("web", "process")
    assert not web.is_left()
    host.STATE.mkdir()
    assert web.is_left()
    web.path.parent.mkdir(parents=True)
    assert web.is_left()
    (web.path.parent / ".process.json.new").touch()
    assert web.is_left()
    assert web.read() is None
    web.remove_step().apply()
    assert not host.STATE.exists()
    host.Declaration("another", "process").write_step({}).apply()
    assert not web.is_left()
    host.Declaration("web", "cgroup").write_step({}).apply()
    assert not web.is_left()
    web.write_step({}).apply()
    assert web.is_left()


def test_a_mount_point_without_anything_in_it_is_not_left_by_us(root, monkeypatch):
    host.STATE.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(host.STATE))
    assert not host.Declaration("web", "process").is_left()


def test_the_folder_goes_with_the_last_part(root):
    parts = [host.Declaration("web", part) for part in host.PARTS]
    for part in parts:
        part.write_step({}).apply()
    host.Declaration("another", "cgroup").write_step({}).apply()
    for part in parts:
        assert host.directory("web").is_dir()
        part.remove_step().apply()
    assert not host.directory("web").exists()
    assert host.declared_names("cgroup") == ["another"]


def test_the_commands_do_what_the_steps_do(root):
    def run(step):
        subprocess.run(["sh", "-e"], input="\n".join(step.commands), text=True, check=True)

    web, other = (host.Declaration(name, "process") for name in ("web", "other"))
    web.write_step(DECLARATION).apply()
    applied = tree(root)
    web.remove_step().apply()
    run(web.write_step(DECLARATION))
    assert tree(root) == applied
    run(other.write_step({}))
    run(web.remove_step())
    assert not host.directory("web").exists()
    assert other.read() == {}
    run(other.remove_step())
    assert os.listdir(root / "var/lib") == ["other"]


DAMAGED = (
    b"",
    b"{",
    b"5",
    b'"text"',
    b'""',
    b"[]",
    b"[1]",
    b'[["a", 1]]',
    b"[" * 10**5,
    b"\xff",
    b'{"a": 1} x',
)


@pytest.mark.parametrize("content", [*DAMAGED, b"null"])
def test_a_damaged_declaration_is_told(root, content):
    kept = host.Declaration("web", "cgroup")
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(content)
    with pytest.raises(Failure) as failure:
        kept.read()
    assert (
        str(failure.value) == f"{kept.path} is no JSON object; remove it to have the container declared anew."
    )


def test_a_declaration_does_not_depend_on_the_order_it_was_written_in(root):
    kept = host.Declaration("web", "cgroup")
    kept.write_step({"b": 1, "a": [2, 1]}).apply()
    first = kept.path.read_text()
    kept.write_step({"a": [2, 1], "b": 1}).apply()
    assert kept.path.read_text() == first
    assert json.loads(first) == {"a": [2, 1], "b": 1}


def test_a_container_is_locked_alone(root):
    with host.lock("web"), host.lock("worker"):
        assert sorted(os.listdir(host.RUN / "lock")) == ["web", "worker"]
    assert not host.RUN.exists()


def test_the_holder_of_a_lock_is_named(root, monkeypatch):
    monkeypatch.setattr(host, "LOCK_TIMEOUT", 0.05)
    with file.lock(host.RUN / "lock" / "web", timeout=0), pytest.raises(Failure) as failure, host.lock("web"):
        pass
    assert str(failure.value) == (
        f"name: 'web' is being changed by process {os.getpid()}; nothing was changed."
    )


def test_locks_that_nobody_holds_are_swept(root):
    host.sweep_locks()
    folder = host.RUN / "lock"
    folder.mkdir(parents=True)
    (folder / "of-a-killed-run").touch()
    with host.lock("web"):
        host.sweep_locks()
        assert os.listdir(folder) == ["web"]
    folder.mkdir(parents=True)
    (folder / "of-a-killed-run").touch()
    host.sweep_locks()
    assert not host.RUN.exists()


def test_the_containers_of_which_there_is_anything(root):
    assert host.names() == []
    (host.STATE / "containers/web").mkdir(parents=True)
    (host.STATE / "containers/file").touch()
    (host.RUN / "running").mkdir(parents=True)
    (host.RUN / "running/state.json").touch()
    (host.RUN / "lock").mkdir()
    assert host.names() == ["running", "web"]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the test host can be shown without starting one."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from access import Login, inventory
from cache import Keys
from image import Image, Recipe, modules_in_order
from machine import Hardware, Machine, Process, parse_usernet
from needs import PACKAGE_OF, missing
from progress import HostError, tail, wait_for
from sources import Source, debian_sources, machine_sources, parse_deb822, parse_list

RECIPE = Recipe("bookworm", "bare", "ssh-ed25519 user", "ssh-ed25519 host")
LOGIN = Login("web", 2222, Path("/tmp/x/ssh"), Keys(Path("/cache/keys")))


def test_same_recipe_same_key() -> None:
    assert RECIPE.key == Recipe("bookworm", "bare", "ssh-ed25519 user", "ssh-ed25519 host").key
    assert re.fullmatch(r"bookworm-bare-[0-9a-f]{16}", RECIPE.key)


@pytest.mark.parametrize("ingredient", [field.name for field in fields(Recipe)])
def test_key_changes_with_every_ingredient(ingredient: str) -> None:
    values: dict[str, Any] = {ingredient: ("other",) if "packages" in ingredient else "other"}
    assert replace(RECIPE, **values).key.rpartition("-")[2] != RECIPE.key.rpartition("-")[2]


def test_inventory_is_yaml_that_ansible_and_testinfra_understand() -> None:
    found = yaml.safe_load(inventory([(LOGIN, {8080: 40000}), (replace(LOGIN, name="db-1"), {})]))
    hosts = found["container_hosts"]["hosts"]
    assert list(hosts) == ["web", "db-1"]
    web = hosts["web"]
    assert (web["ansible_host"], web["ansible_port"], web["ansible_user"]) == ("127.0.0.1", 2222, "root")
    assert web["ansible_ssh_private_key_file"] == "/cache/keys/id_ed25519"
    assert web["ansible_ssh_pipelining"] is True
    assert web["testhost_forwards"] == {"8080": 40000}
    assert hosts["db-1"]["testhost_forwards"] == {}
    options = web["ansible_ssh_common_args"].removeprefix("-o ").split(" -o ")
    assert {"ControlMaster=auto", "ControlPersist=600", "ControlPath=/tmp/x/ssh"} <= set(options)
    assert "UserKnownHostsFile=/cache/keys/known_hosts" in options


def test_ssh_config_names_host_port_and_key() -> None:
    lines = [line.strip() for line in LOGIN.ssh_config().splitlines()]
    assert lines[0] == "Host web"
    assert {"HostName 127.0.0.1", "Port 2222", "User root", "IdentityFile /cache/keys/id_ed25519"} <= set(
        lines
    )


def test_an_empty_inventory_is_valid() -> None:
    assert yaml.safe_load(inventory([])) == {"container_hosts": {"hosts": {}}}


LIST = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # a comment
deb [arch=amd64 signed-by=/usr/share/keyrings/debian.gpg] https://mirror.example/sec bookworm-security main
deb-src http://mirror.example/debian bookworm main
"""
DEB822 = """\
Types: deb deb-src
# a comment within
URIs: http://mirror.example/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://inline.example/debian
Suites: stable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
"""
KEYRING = "/usr/share/keyrings/debian.gpg"


def test_one_line_sources() -> None:
    assert list(parse_list(LIST)) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("https://mirror.example/sec", "bookworm-security", ("main",), KEYRING),
    ]


def test_deb822_sources() -> None:
    assert list(parse_deb822(DEB822)) == [
        Source("http://mirror.example/debian", "bookworm", ("main",), KEYRING),
        Source("http://mirror.example/debian", "bookworm-updates", ("main",), KEYRING),
        Source("http://inline.example/debian", "stable", ("main",)),
    ]


def test_both_styles_are_read_where_apt_reads_them(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/ bookworm main\n")
    (parts / "b.list").write_text("deb http://b.example/ bookworm main\n")
    (parts / "c.sources").write_text(
        "Types: deb\nURIs: http://c.example/\nSuites: bookworm\nComponents: main\n"
    )
    (parts / "d.list.disabled").write_text("deb http://d.example/ bookworm main\n")
    assert [source.uri for source in machine_sources(tmp_path)] == [f"http://{x}.example/" for x in "abc"]


def test_debians_own_sources_are_turned_to_the_suite() -> None:
    configured = [
        Source("http://m.example/debian", "bookworm", ("main", "contrib"), KEYRING),
        Source("http://m.example/debian", "bookworm-updates", ("main",), KEYRING),
        Source("http://m.example/security", "bookworm-security", ("main",), KEYRING),
        Source("http://m.example/debian", "bookworm-backports", ("main",), KEYRING),
        Source("http://other.example/", "nodistro", ("main",)),
        Source("http://other.example/", "bookworm", ("stable",)),
    ]
    assert [source.line() for source in debian_sources("trixie", configured)] == [
        f"deb [signed-by={KEYRING}] http://m.example/debian trixie main",
        f"deb [signed-by={KEYRING}] http://m.example/debian trixie-updates main",
        f"deb [signed-by={KEYRING}] http://m.example/security trixie-security main",
    ]


def test_a_machine_without_debian_sources_is_told() -> None:
    with pytest.raises(HostError, match="no Debian release"):
        debian_sources("bookworm", [Source("http://m.example/security", "bookworm-security", ("main",))])


def test_modules_come_after_what_they_need_and_builtin_ones_are_left_out() -> None:
    dependencies = (
        "net/top.ko.xz: net/middle.ko.xz lib/base.ko.xz\nnet/middle.ko.xz: lib/base.ko.xz\nlib/base.ko.xz:\n"
    )
    assert modules_in_order(dependencies, "kernel/fixed-in.ko\n", ["fixed_in", "middle", "top"]) == [
        "lib/base.ko.xz", "net/middle.ko.xz", "net/top.ko.xz",
    ]  # fmt: skip


def test_a_restore_has_the_devices_of_the_boot() -> None:
    machine = Machine(Path("/d"), Path("/s"), Image(Path("/i")), Hardware("tcg", 2, 1024))
    booting = machine.command({22: 0}, restore=False)
    restoring = machine.command({22: 2222, 80: 8080}, restore=True)
    assert restoring[-2:] == ["-loadvm", "booted"]
    assert [word.partition(",hostfwd")[0] for word in restoring[:-2]] == [
        word.partition(",hostfwd")[0] for word in booting
    ]


def test_forwards_are_read_from_qemus_table() -> None:
    table = """\
Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   21       127.0.0.1 41000       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 44577       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  13       127.0.0.1  8080       10.0.2.15    80     0     0
"""
    assert parse_usernet(table) == {22: 44577, 80: 8080}


def test_a_process_is_not_mistaken_for_its_successor() -> None:
    myself = Process.of(os.getpid())
    assert myself.alive()
    assert not replace(myself, started=myself.started - 1).alive()


def test_an_ended_process_is_not_alive_even_before_it_is_reaped() -> None:
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    try:
        process = Process.of(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert not process.alive()
    finally:
        os.waitpid(pid, 0)


def test_a_wait_in_vain_says_for_what_and_shows_the_console(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("\x1b[0;1;39mKernel panic\x1b[0m - not syncing\r\n")
    with pytest.raises(HostError, match=r"in vain for a sign of life; .*\nKernel panic - not syncing$"):
        wait_for("a sign of life", lambda: False, timeout=0, log=console)


def test_a_console_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "console.log") == ""


def test_missing_packages_are_found_by_their_programs(tmp_path: Path) -> None:
    assert missing(str(tmp_path)) == sorted(set(PACKAGE_OF.values()))
    for program in PACKAGE_OF:
        (tmp_path / program).touch(mode=0o755)
    assert missing(str(tmp_path)) == []

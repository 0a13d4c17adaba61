# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.bare.containers.plugins.connection import nsenter
from ansible_collections.bare.containers.plugins.module_utils.container import installation
from hypothesis import given
from hypothesis import strategies as st

VARIABLES = {
    "inventory_hostname": "web",
    "ansible_host": "vm1",
    "ansible_user": "admin",
    "ansible_port": 2222,
}


class Host:
    """In the place of a connection to the container's host: runs the launcher's lines on files in memory."""

    def __init__(self):
        self.lines = []
        self.files = {}
        self.answer = None

    def exec_command(self, line, in_data=None, sudoable=True):
        words = shlex.split(line)
        self.lines.append(words)
        if self.answer:
            return self.answer
        verb, _name, *arguments = words[words.index(str(installation.LAUNCHER)) + 1 :]
        if verb == "enter":
            return 0, b"", b""
        assert not sudoable
        path, offset, length = arguments[0], int(arguments[1]), int(arguments[2])
        if verb == "fetch":
            return 0, self.files[path][offset : offset + length], b""
        assert len(in_data) == length
        self.files[path] = self.files.get(path, b"")[:offset] + in_data
        return 0, b"", b""


@pytest.fixture
def connection(monkeypatch):
    """As the plugin loader makes it, which knows no collections here: ssh and local have short names."""
    load = connection_loader.get
    monkeypatch.setattr(
        connection_loader,
        "get",
        lambda name, *more, **options: load(name.rpartition(".")[2], *more, **options),
    )
    name = "bare.containers.nsenter"
    documented = yaml.safe_load(nsenter.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("connection", name, documented)
    context = PlayContext()
    context.remote_addr = "vm1"
    made = nsenter.Connection(context)
    made._load_name = made.ansible_name = name
    made.set_options(task_keys={}, var_options=VARIABLES)
    made._hosts["ssh"], made.ssh = Host(), made._hosts["ssh"]
    return made


def test_a_command_is_one_word_of_the_launcher_s(connection):
    host = connection._hosts["ssh"]
    connection.exec_command("echo 'a  b' && exit")
    options = {"container": "worker", "remote_user": "app", "host_become_command": "sudo -n"}
    for name, value in options.items():
        connection.set_option(name, value)
    connection.exec_command("id")
    assert host.lines == [
        [installation.LAUNCHER, "enter", "web", "/bin/sh", "-c", "echo 'a  b' && exit"],
        ["sudo", "-n", installation.LAUNCHER, "enter", "--user", "app", "worker", "/bin/sh", "-c", "id"],
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_words_are_as_they_were_for_a_shell(words):
    line = nsenter.command_line(["sudo", "-n"], "put", "web", "app", tuple(words))
    assert shlex.split(line) == [
        "sudo", "-n", installation.LAUNCHER, "put", "--user", "app", "web", *words,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17])
def test_files_go_in_pieces(connection, monkeypatch, tmp_path, size):
    monkeypatch.setattr(nsenter, "PIECE", 8)
    host = connection._hosts["ssh"]
    data = bytes(range(size))
    (tmp_path / "sent").write_bytes(data)
    connection.put_file(str(tmp_path / "sent"), "/a file")
    assert host.files == {"/a file": data}
    connection.fetch_file("/a file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def test_a_file_that_is_not_there_is_not_sent(connection, tmp_path):
    with pytest.raises(AnsibleFileNotFound, match="no-such"):
        connection.put_file(str(tmp_path / "no-such"), "/file")
    assert connection._hosts["ssh"].lines == []


def test_a_file_that_can_not_be_fetched_leaves_nothing(connection, tmp_path):
    connection._hosts["ssh"].answer = (125, b"", b"launch: web: fetch: '/x' can't be read: No such file.\n")
    with pytest.raises(AnsibleError, match=r"^vm1: fetch: '/x' can't be read: No such file\.$"):
        connection.fetch_file("/x", str(tmp_path / "back"))
    assert list(tmp_path.iterdir()) == []


NOT_INSTALLED = "the role bare.containers.host does that"


@pytest.mark.parametrize(
    ("status", "output", "sentence"),
    [
        (125, b"launch: web: name: 'web' is not running.\n", "^vm1: container: 'web' is not running.$"),
        (125, b"launch: it takes root on the host, and runs as user 7.\r\n", "^vm1: it takes root .* 7.$"),
        (125, b"usage: launch start NAME...\n", "not of this collection's version"),
        (127, b"sh: 1: /usr/local/lib/bare-containers/launch: not found\n", NOT_INSTALLED),
        (127, b"/usr/local/lib/bare-containers/launch: No such file or directory\r\n", NOT_INSTALLED),
        (1, b"sudo: /usr/local/lib/bare-containers/launch: command not found\n", NOT_INSTALLED),
    ],
)
def test_who_does_not_get_in_is_told_why(connection, status, output, sentence):
    for answer in ((status, output, b""), (status, b"", output)):
        connection._hosts["ssh"].answer = answer
        with pytest.raises(AnsibleConnectionFailure, match=sentence):
            connection.exec_command("true")


@pytest.mark.parametrize(
    "answer", [(125, b"", b""), (1, b"launch: web: said", b""), (127, b"", b"x: not found")]
)
def test_a_command_s_own_failure_is_its_own(connection, answer):
    connection._hosts["ssh"].answer = answer
    assert connection.exec_command("true") == answer


@pytest.mark.parametrize("name", ["../web", "", "a/b", "-x"])
def test_what_is_no_container_s_name_is_refused(connection, name):
    connection.set_option("container", name)
    with pytest.raises(AnsibleError, match=f"container: '{name}' is no name"):
        connection.exec_command("true")


def test_variables_are_those_of_the_way_to_the_host_too(connection):
    connection._hosts["ssh"] = connection.ssh
    variables = {
        **VARIABLES,
        "ansible_ssh_private_key_file": trust_as_template("{{ keys }}/one"),
        "keys": "/keys",
        "other": 1,
    }
    resolved = connection._resolve_option_variables(variables, Templar(DataLoader(), variables=variables))
    assert resolved["ansible_ssh_private_key_file"] == "/keys/one"
    assert "other" not in resolved
    connection.set_options(task_keys={"timeout": 7}, var_options=resolved)
    options = ("host", "port", "remote_user", "private_key_file", "timeout")
    assert [connection.ssh.get_option(name) for name in options] == ["vm1", 2222, "admin", "/keys/one", 7]
    # Who logs in on the host is not who is meant inside.
    assert connection.get_option("remote_user") is None


def test_becoming_is_watched_by_who_sees_the_prompt(connection):
    connection._hosts["ssh"] = connection.ssh
    plugin = become_loader.get("sudo")
    connection.set_become_plugin(plugin)
    assert connection.become is connection.ssh.become is plugin


@pytest.mark.parametrize(
    ("arguments", "pipelined"), [("", True), ("-tt", False), ("-o RequestTTY=force", False)]
)
def test_a_terminal_that_is_asked_for_rules_pipelining_out(connection, arguments, pipelined):
    connection._hosts["ssh"] = connection.ssh
    connection.set_options(
        var_options={**VARIABLES, "ansible_pipelining": True, "ansible_ssh_extra_args": arguments}
    )
    assert connection.is_pipelining_enabled() is pipelined
    assert connection.has_tty is not pipelined


def test_the_launcher_is_where_it_is_installed():
    assert str(nsenter.LAUNCHER) == installation.LAUNCHER


def test_the_example_is_an_inventory_of_its_options():
    documented = yaml.safe_load(nsenter.DOCUMENTATION)["options"]
    names = {each["name"] for option in documented.values() for each in option["vars"]}
    containers = yaml.safe_load(nsenter.EXAMPLES)["containers"]
    used = set(containers["vars"]).union(*(host or {} for host in containers["hosts"].values()))
    assert {name for name in used if name.startswith("ansible_nsenter_")} <= names

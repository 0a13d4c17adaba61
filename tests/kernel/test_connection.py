# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers managed from inside like hosts, by the connection plugin."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

FIRST = 100000
ODD_NAMES = ("with blanks", "it's", 'a "quoted" $HOME', "größe-日本", "-n", "back\\slash", "two\nlines")
PASSWD = "app:x:1234:1235::/home/app:/bin/sh"


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory):
    """Keys of a server and of who logs in there."""
    directory = tmp_path_factory.mktemp("ssh")
    subprocess.run(
        ["dropbearkey", "-t", "ed25519", "-f", directory / "host"], check=True, capture_output=True
    )
    told = subprocess.run(
        ["dropbearkey", "-y", "-f", directory / "host"], check=True, capture_output=True, text=True
    ).stdout
    host_key = next(line for line in told.splitlines() if line.startswith("ssh-ed25519 "))
    (directory / "known_hosts").write_text(f"[127.0.0.1]:2222 {host_key}\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True)
    return directory


LOG_IN = """
mkdir -p /run/ssh/root/.ssh /run/ssh/admin/.ssh
printf '%s\\n' 'root:*:0:0::/run/ssh/root:/bin/sh' 'admin:*:1234:1234::/run/ssh/admin:/bin/sh' \\
    > /run/ssh/passwd
printf '%s\\n' 'admin ALL=(root) NOPASSWD: /usr/local/lib/bare-containers/launch' > /run/ssh/sudoers
for user in root admin; do cp {directory}/key.pub /run/ssh/$user/.ssh/authorized_keys; done
chown -R 1234:1234 /run/ssh/admin
chmod 440 /run/ssh/sudoers
mount --bind /run/ssh/passwd /etc/passwd
mount --bind /run/ssh/sudoers /etc/sudoers
"""


@pytest.fixture
def by_ssh(inside, containers, ssh_server, eventually):
    """The machine is reached by ssh, as a user who may run the launcher as root."""
    containers.machine.shell(LOG_IN.format(directory=ssh_server))
    words = ("dropbear", "-F", "-E", "-s", "-r", f"{ssh_server}/host", "-P", "/run/ssh/pid")
    server = subprocess.Popen(
        containers.machine.command(*words, "-p", "127.0.0.1:2222"), stderr=subprocess.PIPE
    )
    eventually(lambda: ":2222" in containers.machine.run("ss", "-Hltn"))
    inside.variables.update(
        ansible_nsenter_host_connection="ssh",
        ansible_port=2222,
        ansible_user="admin",
        ansible_ssh_private_key_file=str(ssh_server / "key"),
        ansible_ssh_common_args=f"-o UserKnownHostsFile={ssh_server}/known_hosts",
        ansible_host_key_checking=True,
        ansible_nsenter_host_become_command="sudo -n",
    )
    yield inside
    server.terminate()
    server.communicate()


@pytest.fixture(params=["local", "ssh"])
def way(request, inside):
    """Both ways to the container's host."""
    return request.getfixturevalue("by_ssh") if request.param == "ssh" else inside


def test_a_command_runs_in_the_container(containers, way):
    containers.converge(env={"OWN": "of the container"}, hostname="inside", workdir="/work")
    look = "hostname; pwd; echo $OWN; readlink /proc/self/ns/mnt; grep ^Seccomp: /proc/self/status"
    lines = way.shell(look).splitlines()
    assert lines[:3] == ["inside", "/work", "of the container"]
    assert lines[3] == os.readlink(f"/proc/{containers.pid()}/ns/mnt")
    assert lines[4].split() == ["Seccomp:", "2"]


def test_status_output_and_input_are_the_command_s(containers, way):
    containers.converge()
    data = bytes(range(256)) * 4000
    script = "cat; echo 'it'\\''s \"said\"' >&2; exit 3"
    calls = [
        ["exec_command", script, {"bytes": data.decode("latin-1")}, False],
        ["exec_command", "kill -TERM $$", None, False],
        ["exec_command", "exit 125", None, False],
        ["exec_command", "test -t 0", None, True],
    ]
    piped, killed, failed, terminal = way.calls(*calls)
    assert piped == [3, data.decode("latin-1"), 'it\'s "said"\n']
    assert killed[0] == 128 + 15
    # That is the launcher's own status too.
    assert failed == [125, "", ""]
    # Standard input is a terminal where ssh has one made.
    assert terminal[0] == (0 if way.variables["ansible_nsenter_host_connection"] == "ssh" else 1)


@pytest.mark.parametrize("size", [0, 1, 100_000, (16 << 20) + 5])
def test_a_file_goes_in_and_comes_back(containers, way, tmp_path, size):
    """The pieces are of 8 MiB."""
    containers.converge()
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(size))
    calls = [["put_file", str(sent), "/tmp/file"], ["fetch_file", "/tmp/file", str(back)]]
    assert way.calls(*calls) == [None, None]
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()
    assert containers.inside("sha256sum /tmp/file").split()[0] == digest
    assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
    assert containers.inside("stat -c '%u %g %a' /tmp/file").split() == ["0", "0", "644"]


def test_names_are_taken_as_they_are(containers, way, tmp_path):
    containers.converge(workdir="/work")
    calls = []
    for number, name in enumerate(ODD_NAMES):
        (tmp_path / name).write_text(f"content {number}")
        calls.append(["put_file", str(tmp_path / name), name])
        calls.append(["fetch_file", name, str(tmp_path / f"{name}.back")])
    assert way.calls(*calls) == [None] * len(calls)
    for number, name in enumerate(ODD_NAMES):
        # Those that are no absolute paths are where a command would find them.
        assert containers.inside(f"cat {shlex.quote('/work/' + name)}") == f"content {number}"
        assert (tmp_path / f"{name}.back").read_text() == f"content {number}"


def test_a_file_becomes_another(containers, inside, tmp_path):
    containers.converge()
    containers.inside(
        "echo 'much longer than the other' > /tmp/file; chmod 600 /tmp/file; ln -s /tmp/new /tmp/link"
    )
    (tmp_path / "short").write_text("short")
    inside.calls(
        ["put_file", f"{tmp_path}/short", "/tmp/file"], ["put_file", f"{tmp_path}/short", "/tmp/link"]
    )
    assert containers.inside("cat /tmp/file; stat -c ' %a' /tmp/file; cat /tmp/new") == "short 600\nshort"


def test_what_is_no_file_is_refused(containers, inside, tmp_path, eventually):
    """Without waiting for who would write to a FIFO, and without a byte into one that is read."""
    script = "mkfifo /tmp/fifo /tmp/read; cat /tmp/read > /tmp/got & exec sleep 1000"
    containers.converge(command=["sh", "-c", script])
    eventually(lambda: "got" in containers.inside("ls /tmp"))
    (tmp_path / "file").write_text("x")
    places = (
        "/tmp/fifo",
        "/tmp/read",
        "/dev/null",
        "/dev/tty",
        "/tmp",
        "/proc/self/environ",
        "/proc/1/cmdline",
    )
    began = time.monotonic()
    calls = [["put_file", f"{tmp_path}/file", place] for place in places]
    calls += [["fetch_file", place, f"{tmp_path}/back"] for place in places]
    calls += [["fetch_file", "/no/such", f"{tmp_path}/back"], ["put_file", f"{tmp_path}/file", "/no/such"]]
    for call, result in zip(calls, inside.calls(*calls), strict=True):
        assert result["error"] == "AnsibleError", (call, result)
        verb, place = call[0].partition("_")[0], call[1 if call[0] == "fetch_file" else 2]
        assert f"{verb}: '{place}'" in result["message"]
        assert len(result["message"].splitlines()) == 1
    assert time.monotonic() - began < 60
    assert containers.inside("cat /tmp/got") == ""
    assert not (tmp_path / "back").exists()


def test_the_user_inside(containers, way, tmp_path):
    containers.converge()
    containers.inside(
        f"echo '{PASSWD}' > /etc/passwd; mkdir -p /home/app /root; chown 1234:1235 /home/app; chmod 700 /root"
    )
    (tmp_path / "file").write_text("x")
    user = {"ansible_nsenter_user": "app"}
    assert way.shell("id -u; id -g; echo ~; grep ^CapEff /proc/self/status", **user).split() == [
        "1234", "1235", "/home/app", "CapEff:", "0" * 16,
    ]  # fmt: skip
    done, refused, unknown = way.calls(
        ["put_file", f"{tmp_path}/file", "/home/app/file"], ["put_file", f"{tmp_path}/file", "/root/file"],
        ["put_file", f"{tmp_path}/file", "/etc/passwd"], **user,
    )  # fmt: skip
    assert done is None
    assert containers.inside("stat -c %u:%g /home/app/file") == "1234:1235\n"
    assert "Permission denied" in refused["message"]
    assert "Permission denied" in unknown["message"]
    (told,) = way.calls(["exec_command", "true"], ansible_nsenter_user="nobody")
    assert told["error"] == "AnsibleConnectionFailure"
    assert "user: 'nobody' is not in the container's /etc/passwd" in told["message"]


def test_a_container_with_a_user_namespace(containers, inside, tmp_path):
    containers.converge(uidmap=[f"0:{FIRST}:65536"], user="7:8", tmpfs={"/own": "uid=7,gid=8,mode=700"})
    (tmp_path / "file").write_text("x")
    inside.calls(["put_file", f"{tmp_path}/file", "/own/file"])
    assert inside.shell("id -u; stat -c %u:%g /own/file; cat /own/file") == "7\n7:8\nx"
    inside.calls(["put_file", f"{tmp_path}/file", "/root-s"], ansible_nsenter_user="0")
    upper = f"{containers.directory()}/upper"
    assert containers.machine.shell(f"stat -c %u:%g {upper}/root-s") == f"{FIRST}:{FIRST}\n"
    inside.calls(["fetch_file", "/root-s", f"{tmp_path}/back"])
    assert (tmp_path / "back").read_text() == "x"


def test_the_container_s_filter_is_not_in_the_way_of_files(containers, inside, tmp_path):
    """With privileges to be gained, it is loaded before they are dropped."""
    refused = {"names": ["openat2", "fstatfs", "ftruncate"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}
    containers.write("/var/lib/profile.json", json.dumps(profile))
    containers.converge(no_new_privileges=False, seccomp="/var/lib/profile.json")
    (tmp_path / "file").write_text("x")
    calls = [["put_file", f"{tmp_path}/file", "/tmp/file"], ["fetch_file", "/tmp/file", f"{tmp_path}/back"]]
    assert inside.calls(*calls) == [None, None]
    assert (tmp_path / "back").read_text() == "x"


def test_a_file_counts_as_the_container_s_memory(containers, eventually):
    """It is written by a process of the container's cgroup."""
    containers.converge()
    command = ("/usr/local/lib/bare-containers/launch", "put", containers.name("one"), "/tmp/file", "0", "5")
    with subprocess.Popen(containers.machine.command(*command), stdin=subprocess.PIPE) as sender:
        procs = containers.cgroup("one") / "cgroup.procs"
        eventually(lambda: len(procs.read_text().split()) == 2)
        sender.communicate(b"whole")
        assert sender.returncode == 0
    assert containers.inside("cat /tmp/file") == "whole"


def test_what_keeps_it_from_the_container_is_told_in_a_sentence(containers, way):
    def told(name="one", **variables):
        (result,) = way.calls(["exec_command", "true"], name=name, **variables)
        assert result["error"] in ("AnsibleConnectionFailure", "AnsibleError")
        assert len(result["message"].splitlines()) == 1
        return result["message"]

    name = containers.name("one")
    assert told() == f"127.0.0.1: container: '{name}' is not running."
    assert "container: '../one' is no name" in told(ansible_nsenter_container="../one")
    containers.converge()
    containers.converge(state="paused")
    assert "the container is paused" in told()
    containers.converge(state="started")
    if way.variables["ansible_nsenter_host_connection"] == "ssh":
        assert "it takes root on the host, and runs as user 1234" in told(
            ansible_nsenter_host_become_command=""
        )
    launch = "/usr/local/lib/bare-containers/launch"
    containers.machine.shell(f"mv {launch} {launch}.away")
    assert f"{launch} is not installed; the role bare.containers.host does that" in told()
    containers.write(launch, "#!/bin/sh\necho 'usage: launch start NAME...' >&2; exit 125\n")
    containers.machine.shell(f"chmod 755 {launch}")
    assert "is not of this collection's version" in told()


def test_a_host_that_is_not_reached_is_told_by_ssh(containers, by_ssh):
    containers.converge()
    (result,) = by_ssh.calls(["exec_command", "true", {"bytes": "x"}], ansible_port=2223)
    assert result["error"] == "AnsibleConnectionFailure"
    assert "Connection refused" in result["message"]


TASKS = [
    {"name": "raw", "raw": "echo 'it'\\''s'; cat /proc/1/cmdline | tr '\\0' ' '"},
    {"name": "failing", "raw": "echo why >&2; exit 3", "ignore_errors": True},
    {"name": "setup", "setup": {"gather_subset": ["!all", "platform"]}},
    {"name": "copy", "copy": {"content": "größe\n", "dest": "/tmp/a file", "mode": "0640"}},
    {"name": "again", "copy": {"content": "größe\n", "dest": "/tmp/a file", "mode": "0640"}},
    {"name": "command", "command": {"argv": ["cat", "/tmp/a file"]}},
    {"name": "stdin", "shell": {"cmd": "cat", "stdin": "given"}},
    {"name": "fetch", "fetch": {"src": "/tmp/a file", "dest": "{{ fetched }}", "flat": True}},
    {"name": "async", "command": "id -u", "async": 60, "poll": 1},
]


@pytest.mark.parametrize("pipelining", [True, False])
def test_ansible_runs_tasks_inside(containers, way, with_python, tmp_path, pipelining):
    containers.converge(hostname="inside", **with_python)
    results = way.play(
        TASKS,
        ansible_python_interpreter="/usr/bin/python3",
        ansible_pipelining=pipelining,
        fetched=f"{tmp_path}/fetched",
    )
    by_name = {each["task"]: each["result"] for each in results}
    assert {each["task"]: each["status"] for each in results if each["status"] != "ok"} == {
        "failing": "failed"
    }
    assert by_name["raw"]["stdout_lines"] == ["it's", "sleep 1000 "]
    assert by_name["failing"]["rc"] == 3
    assert by_name["setup"]["ansible_facts"]["ansible_hostname"] == "inside"
    assert (by_name["copy"]["changed"], by_name["again"]["changed"]) == (True, False)
    assert by_name["command"]["stdout"] == "größe"
    assert by_name["stdin"]["stdout"] == "given"
    assert by_name["async"]["stdout"] == "0"
    assert Path(f"{tmp_path}/fetched").read_text() == "größe\n"
    assert containers.inside("stat -c %a '/tmp/a file'") == "640\n"


def test_ansible_becomes_another_user_inside(containers, way, with_python):
    """By su(1), which busybox has."""
    containers.converge(**with_python)
    containers.inside(f"printf '%s\\n' 'root:x:0:0::/:/bin/sh' '{PASSWD}' > /etc/passwd; mkdir -p /home/app")
    containers.inside("chown 1234:1235 /home/app; mkdir -p -m 755 /var; mkdir -m 1777 /var/tmp")
    tasks = [
        {"name": "who", "command": "id -u", "become": True, "become_user": "app"},
        {"name": "raw", "raw": "id -u", "become": True, "become_user": "app"},
        {"name": "self", "command": "id -u"},
    ]
    results = way.play(tasks, ansible_python_interpreter="/usr/bin/python3", ansible_become_method="su")
    assert [(each["status"], each["result"].get("stdout", "").strip()) for each in results] == [
        ("ok", "1234"), ("ok", "1234"), ("ok", "0"),
    ]  # fmt: skip


def test_a_container_that_does_not_run_is_unreachable(containers, inside):
    (result,) = inside.play([{"name": "raw", "raw": "true"}])
    assert result["status"] == "unreachable"
    assert f"container: '{containers.name('one')}' is not running" in result["result"]["msg"]


def test_a_password_to_become_root_is_asked_for_inside(containers, way):
    """By a su(1) that is set-user-ID, of a user who is not root there."""
    containers.machine.shell(f"chmod 4755 {containers.tree}/bin/busybox")
    hashed = containers.machine.run("perl", "-e", "print crypt('pass word', '$6$salt$')")
    containers.converge(no_new_privileges=False)
    containers.inside(
        f"printf '%s\\n' 'root:x:0:0::/:/bin/sh' '{PASSWD}' > /etc/passwd; umask 77\n"
        f"echo 'root:{hashed}:1::::::' > /etc/shadow"
    )

    def become(password):
        (done,) = way.play(
            [{"name": "who", "raw": "id -u", "become": True}],
            ansible_become_method="su",
            ansible_become_password=password,
            ansible_nsenter_user="app",
        )
        return done["status"], "".join(done["result"].get("stdout_lines", []))

    assert become("pass word") == ("ok", "0")
    status, output = become("another")
    assert status == "failed"
    assert "0" not in output

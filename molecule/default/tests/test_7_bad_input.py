# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one sentence that says what is wrong, and nothing is changed."""

from __future__ import annotations

import pytest

WEB = {"rootfs": {"busybox": True}, "process": {"command": ["true"]}}

BAD = {
    "an unknown size": ({**WEB, "cgroup": {"memory_max": "12Q"}}, ["memory_max", "12Q"]),
    "an address outside the subnet": (
        {**WEB, "network": {"address": "10.250.0.2/24", "gateway": "10.251.0.1"}},
        ["gateway", "10.251.0.1"],
    ),
    "an address that is taken": (
        {**WEB, "network": {"bridge": "bare0", "address": "10.200.0.2/24"}},
        ["10.200.0.2", "web"],
    ),
    "a name that is a path": ({**WEB, "name": "../x"}, ["name", "../x"]),
    "a checksum that differs": (
        {"rootfs": {"path": "/root/tree.tar", "checksum": "sha256:" + "0" * 64}},
        ["checksum", "0" * 64],
    ),
}


def state(host):
    """What must not change."""
    return host.check_output(
        "find /etc/systemd/system /var/lib/bare-containers /run/netns /run/bare-containers"
        " -printf '%p %T@\\n' | sort;"
        "ip -brief link | grep -v @if; nft list ruleset; ls /sys/fs/cgroup/system.slice | grep bare"
    )


@pytest.mark.parametrize("case", BAD)
def test_one_sentence_and_nothing_changed(host, play, declare, case):
    container, words = BAD[case]
    host.check_output("tar -C /etc -cf /root/tree.tar hostname")
    before = state(host)
    run = play(declared=[*declare("web"), {"name": "wrong", **container}], fails=True)
    failed = [line["result"]["msg"] for line in run.results if line["status"] == "failed"]
    assert len(failed) == 1
    assert all(word in failed[0] for word in words), failed
    assert "Traceback" not in run.output
    assert len(failed[0].splitlines()) == 1
    if "rootfs" in container and "path" in container["rootfs"]:
        assert host.run("find /var/lib/bare-containers -name '*%s*' | grep .", "tree").rc != 0
    else:
        assert state(host) == before
    play(containers_prune=True)


def test_a_command_that_is_not_there_is_named_and_nothing_of_it_stays(host, play, declare):
    wrong = {"name": "wrong", "rootfs": {"busybox": True}, "process": {"command": ["/no/such/command"]}}
    run = play(declared=[*declare("web"), wrong], fails=True)
    failed = [line["result"]["msg"] for line in run.results if line["status"] == "failed"]
    assert len(failed) == 1
    assert "command" in failed[0]
    assert "/no/such/command" in failed[0]
    assert host.run("systemctl is-active bare-wrong.service").rc != 0
    assert not host.file("/sys/fs/cgroup/system.slice/bare-wrong.service").exists
    assert host.run("systemctl is-active bare-web.service").rc == 0
    play(containers_prune=True)
    assert not host.file("/var/lib/bare-containers/containers/wrong").exists


def test_memory_below_what_is_in_use_is_refused(host, play, declare, container):
    bare = container("bare")
    filled = bare.output(
        "dd if=/dev/zero of=/dev/shm/fill bs=1M count=40 2>/dev/null; ls -l /dev/shm/fill | awk '{print $5}'"
    )
    assert filled == str(40 << 20)
    before = bare.control("memory.max")
    run = play(declared=declare("bare", cgroup={"memory_max": "16M"}), fails=True)
    failed = [line["result"]["msg"] for line in run.results if line["status"] == "failed"]
    assert "memory_max" in failed[0]
    assert bare.control("memory.max") == before
    bare.output("rm /dev/shm/fill")


def test_who_is_not_root_is_told(play):
    assert len(play("not_root.yml").ours) == 6

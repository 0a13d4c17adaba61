# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one sentence that says what is wrong, and nothing is changed."""

from __future__ import annotations

FILES = "/etc/systemd/system /var/lib/bare-containers /run/netns /run/bare-containers"


def state(host):
    """What must not change."""
    return host.check_output(
        f"find {FILES} -type d -printf '%p\\n' -o -printf '%p %T@\\n' | sort;"
        "ip -brief address; nft list ruleset;"
        "ls /sys/fs/cgroup/system.slice; cat /proc/self/mountinfo"
    )


def test_every_module_refuses_bad_input_in_one_sentence_and_changes_nothing(host, play):
    host.check_output("tar -C /etc -cf /root/tree.tar hostname")
    before = state(host)
    # The sentences are expected in the playbook, beside the input.
    run = play("bad_input.yml")
    told = [result["msg"] for result in run.ours]
    assert len(told) == 8
    assert [message for message in told if "\n" in message or "Traceback" in message] == []
    assert state(host) == before


def test_a_command_that_is_not_there_is_named_and_nothing_of_it_stays(host, play, declare, container):
    web = container("web").pid
    wrong = {"name": "wrong", "rootfs": {"busybox": True}, "process": {"command": ["/no/such/command"]}}
    run = play("containers.yml", declared=[*declare("web"), wrong], fails=True)
    failed = [line["result"]["msg"] for line in run.results if line["status"] == "failed"]
    assert len(failed) == 1
    assert "command: '/no/such/command'" in failed[0]
    assert host.run("systemctl is-active bare-wrong.service").rc != 0
    assert not host.file("/sys/fs/cgroup/system.slice/bare-wrong.service").exists
    assert container("web").pid == web
    unused = "/var/lib/bare-containers/store/images/sha256-" + "0" * 64 + ".json"
    host.check_output("echo '{}' > %s", unused)
    play("containers.yml", containers_prune=True)
    assert not host.file("/var/lib/bare-containers/containers/wrong").exists
    assert not host.file(unused).exists


def test_memory_below_what_is_in_use_is_refused(host, play, declare, container):
    bare = container("bare")
    bare.output("dd if=/dev/zero of=/dev/shm/fill bs=1M count=40 2>/dev/null")
    before = bare.control("memory.max")
    run = play("containers.yml", declared=declare("bare", cgroup={"memory_max": "16M"}), fails=True)
    failed = [line["result"]["msg"] for line in run.results if line["status"] == "failed"]
    assert "memory_max: 16777216 is below" in failed[0]
    assert bare.control("memory.max") == before
    bare.output("rm /dev/shm/fill")

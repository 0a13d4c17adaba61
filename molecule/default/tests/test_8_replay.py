# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Teardown leaves nothing; and the commands that modules return, replayed by a shell, make the same host."""

from __future__ import annotations

import json

import pytest

RUNNING = ("web", "worker", "stubborn", "bare", "app")
CONTROLS = ("memory.max", "memory.high", "cpu.max", "cpu.weight", "pids.max")


def kernel_state(host, container):
    """What the kernel and the disk hold of the containers, without what differs from start to start."""
    state = {
        "rules": host.check_output("nft --stateless list ruleset"),
        "forwarding": host.check_output("sysctl -n net.ipv4.ip_forward"),
        "host links": links(host, "ip"),
        "units": host.check_output(
            "grep -r . /etc/systemd/system/bare-* /etc/systemd/system/*.wants/bare-* | sort"
        ),
        "kept": host.check_output(
            "cd /var/lib/bare-containers/containers &&"
            " find . -type f -not -path './*/upper/*' -exec sha256sum {} + | sort -k2"
        ),
    }
    for name in RUNNING:
        one = container(name)
        status = one.status
        state[name] = {
            "status": {
                key: status[key]
                for key in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapPrm", "CapBnd")
            },
            "controls": {file: one.control(file) for file in CONTROLS},
            "links": links(host, f"nsenter --target {one.pid} --net ip"),
            "routes": host.check_output("nsenter --target %s --net ip route", one.pid),
            "hostname": one.output("hostname"),
            "command": host.check_output("tr '\\0' ' ' < %s", f"/proc/{one.pid}/cmdline"),
            "mounts": sorted(
                " ".join(line.split()[1:4]) for line in one.output("cat /proc/self/mounts").splitlines()
            ),
        }
    return state


def links(host, ip):
    """Names, addresses and states; the peer's and the namespace's numbers are the kernel's to choose."""
    shown = json.loads(host.check_output(f"{ip} -json address show"))
    keys = ("ifname", "mtu", "operstate", "address", "master")
    return sorted(
        (
            {
                **{
                    key: link.get(key)
                    for key in keys
                    if not (key == "address" and link["ifname"].startswith("bare"))
                },
                "addresses": sorted(
                    f"{item['local']}/{item['prefixlen']}"
                    for item in link["addr_info"]
                    if item["scope"] != "link"
                ),
            }
            for link in shown
        ),
        key=lambda link: link["ifname"],
    )


@pytest.fixture(scope="module")
def torn_down(play):
    return play("../../playbooks/teardown.yml")


def test_teardown_leaves_nothing(host, torn_down):
    assert torn_down.changed
    assert host.check_output("ls /run/netns") == "internet"
    assert set(host.check_output("ls /sys/class/net").split()) == {"lo", "eth0", "uplink"}
    assert host.check_output("nft list ruleset") == ""
    assert host.check_output("sysctl -n net.ipv4.ip_forward") == "0"
    assert host.check_output("find /etc/systemd -name '*bare*'") == ""
    assert host.check_output("systemctl list-units --all --no-legend --plain 'bare*'") == ""
    assert host.check_output("find /sys/fs/cgroup -name '*bare*'") == ""
    assert "bare" not in host.check_output("cat /proc/self/mountinfo")
    assert host.check_output("find /run /var/log /usr/local /etc -name '*bare[-_]containers*'") == ""
    assert host.check_output("ls -A /var/lib/bare-containers") == "store"
    assert host.check_output("pgrep -af '[h]ttpd|[s]leep 864' || true") == ""


def test_teardown_again_changes_no_more_than_the_store_when_asked(host, play, torn_down):
    again = play("../../playbooks/teardown.yml", containers_store="absent")
    assert again.changed == ["Remove the store too"]
    assert not host.file("/var/lib/bare-containers").exists


def test_the_commands_replayed_make_the_same_host(host, ssh, play, container, torn_down, eventually):
    # From an empty store, so that its commands are among those returned.
    converged = play()
    served = "curl --silent --fail --max-time 20 http://203.0.113.1:8080/"
    assert host.check_output(served) == "hello from web.example"
    state = kernel_state(host, container)
    # All of it, the store too, but the launcher, which a host has that is prepared.
    play("containers.yml", declared=[], containers_prune=True)
    assert not host.file("/var/lib/bare-containers").exists
    ssh("cat > /root/replay.sh", "\n".join(converged.commands) + "\n")
    replayed = host.run("env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -e /root/replay.sh")
    assert replayed.rc == 0, replayed.stderr
    eventually(lambda: host.run(served).stdout.strip() == "hello from web.example")
    assert kernel_state(host, container) == state
    assert play("containers.yml").changed == []

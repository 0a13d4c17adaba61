# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process sees from inside: itself as PID 1, its own names, mounts and links, nothing of the host."""

from __future__ import annotations

import pytest

NAMESPACES = ("mnt", "pid", "uts", "ipc", "net", "cgroup")


@pytest.mark.parametrize("name", ["web", "worker", "stubborn", "bare", "app"])
def test_its_namespaces_are_its_own(host, container, name):
    pid = container(name).pid
    for namespace in NAMESPACES:
        inside = host.check_output("readlink %s", f"/proc/{pid}/ns/{namespace}")
        assert inside != host.check_output("readlink %s", f"/proc/1/ns/{namespace}"), namespace


@pytest.mark.parametrize("name", ["web", "stubborn"])
def test_the_process_is_pid_1_and_sees_no_process_of_the_host(host, container, name):
    one = container(name)
    assert host.check_output("awk '/^NSpid/ {print $NF}' %s", f"/proc/{one.pid}/status") == "1"
    seen = one.output("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
    assert "systemd" not in seen
    assert "sshd" not in seen
    assert ("httpd" if name == "web" else "86401") in seen


def test_it_has_its_own_hostname(host, container):
    before = host.check_output("hostname")
    assert container("web").output("hostname") == "web.example"
    assert container("worker").output("hostname") == "worker"
    assert container("bare").output("hostname renamed; hostname") == "renamed"
    assert host.check_output("hostname") == before
    container("bare").output("hostname bare")


def test_ipc_objects_are_its_own(host, container):
    host.check_output(
        "python3 -c 'import ctypes; assert ctypes.CDLL(None).shmget(0x51de, 4096, 0o1600) >= 0'"
    )
    listed = host.check_output("cat /proc/sysvipc/shm")
    assert str(0x51DE) in listed
    assert str(0x51DE) not in container("web").output("cat /proc/sysvipc/shm")


def test_only_lo_and_its_declared_links(container):
    links = "ls /sys/class/net"
    assert container("web").output(links).split() == ["eth0", "eth1", "lo"]
    assert container("bare").output(links).split() == ["eth0", "lo"]
    assert container("worker").output(links).split() == ["lo"]
    assert "LOOPBACK,UP" in container("worker").output("ip -o link show lo")


def test_the_root_is_the_declared_root_file_system_and_nothing_else(host, container):
    web = container("web")
    assert web.output("ls -d /bin /dev /etc /proc /sys /tmp /usr /var").split() == [
        "/bin", "/dev", "/etc", "/proc", "/sys", "/tmp", "/usr", "/var",
    ]  # fmt: skip
    assert web.run("ls /boot/vmlinuz* /lib/systemd").rc != 0
    marker = "/root/of-the-host"
    host.check_output("touch %s", marker)
    assert web.run(f"ls {marker}").rc != 0
    for way_out in ("/..", "/../../..", "/proc/1/root/..", "/proc/self/root/../.."):
        assert web.run(f"ls {way_out}{marker}").rc != 0, way_out
        assert web.output(f"ls -id {way_out} | awk '{{print $1}}'") == web.output(
            "ls -id / | awk '{print $1}'"
        )


def test_no_mount_of_the_host_is_left(host, container):
    host_root = host.check_output("findmnt --noheadings --output MAJ:MIN /")
    for name in ("web", "worker", "stubborn", "bare"):
        points = {}
        for line in container(name).output("cat /proc/self/mountinfo").splitlines():
            fields = line.split()
            points[fields[4]] = (fields[2], fields[3])
        # Of the host's file system only the container's own files under /etc are there.
        from_host = {point for point, (device, _root) in points.items() if device == host_root}
        assert from_host <= {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, (name, from_host)
        assert {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/tmp", "/sys/fs/cgroup"} <= set(points)


def test_proc_shows_its_own_processes_and_tmp_is_a_small_tmpfs(container):
    web = container("web")
    assert web.output("readlink /proc/self") != ""
    assert web.output("cat /proc/1/comm") == "httpd"
    line = web.output("grep ' /tmp ' /proc/self/mounts").split()
    assert line[2] == "tmpfs"
    assert {"nosuid", "size=65536k"} <= set(line[3].split(","))


def test_a_read_only_root_refuses_writing(container):
    assert container("stubborn").run("touch /x").rc != 0
    assert container("web").output("touch /x && ls /x") == "/x"


def test_the_environment_is_the_declared_one(host, container):
    web = container("web")
    environment = dict(
        item.split("=", 1)
        for item in host.check_output("tr '\\0' '\\n' < %s", f"/proc/{web.pid}/environ").splitlines()
        if "=" in item
    )
    assert environment["GREETING"] == "hello"
    assert set(environment) <= {
        "GREETING",
        "PATH",
        "HOME",
        "HOSTNAME",
        "TERM",
        "container",
        "PWD",
        "SHLVL",
        "OLDPWD",
    }


def test_no_descriptor_but_the_standard_ones_is_open(host, container):
    # A process without a listening socket of its own.
    assert host.check_output("ls %s", f"/proc/{container('bare').pid}/fd").split() == ["0", "1", "2"]


def test_an_image_says_what_runs_and_what_is_there(host, container):
    app = container("app")
    command = host.check_output("tr '\\0' ' ' < %s", f"/proc/{app.pid}/cmdline").strip()
    assert command == "/bin/sh /entrypoint the image"
    assert app.output("cat /srv/said") == "hello from /srv: the image"
    # The second layer takes away what the first one has.
    assert app.output("ls /srv") == "said"


def test_the_host_has_the_packages_that_declared_options_take_and_no_others(host):
    optional = "skopeo mmdebstrap catatonit dnsmasq-base zstd"
    status = f"dpkg-query --show --showformat='${{Package}} ${{db:Status-Status}}\\n' {optional}"
    assert host.check_output(f"{status} | grep ' installed$'") == "skopeo installed"

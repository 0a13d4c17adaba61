# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Privileges, read from /proc/PID/status; the numbers are those of capabilities(7)."""

from __future__ import annotations

CAPABILITIES = {
    "chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7,
    "setpcap": 8, "net_bind_service": 10, "sys_chroot": 18, "setfcap": 31,
}  # fmt: skip
# podman's default set, containers.conf(5) "default_capabilities".
DEFAULT = sum(1 << number for number in CAPABILITIES.values())


def masks(status):
    return {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def test_the_default_is_the_set_that_container_users_know(container):
    status = container("web").status
    assert masks(status) == {
        "CapInh": 0,
        "CapPrm": DEFAULT,
        "CapEff": DEFAULT,
        "CapBnd": DEFAULT,
        "CapAmb": 0,
    }
    assert status["NoNewPrivs"] == "1"


def test_an_unprivileged_user_without_capabilities_has_none(container):
    status = container("stubborn").status
    assert set(masks(status).values()) == {0}
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4
    assert status["Groups"].split() in ([], ["1000"])
    assert status["NoNewPrivs"] == "1"


def test_the_privileged_one_has_all_that_the_host_has(host, container):
    status = container("bare").status
    every = int(host.check_output("awk '/^CapBnd/ {print $2}' /proc/1/status"), 16)
    assert bin(every).count("1") > 35
    assert {masks(status)[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {every}
    assert status["NoNewPrivs"] == "0"


def test_no_process_of_ours_stays(host):
    everything = host.check_output("ps -e -o pid=,args=")
    assert [
        line for line in everything.splitlines() if "bare-containers" in line or "bare_containers" in line
    ] == []

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name server for the containers of a bridge, here without systemd: who is told what, and by whom."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from networks import ask, converge, inside, refused, serving

MESSAGES = Path(__file__).parents[1] / "support/dns_messages.py"
GATEWAYS = ("10.207.0.1", "fd00:207::1")
SUBNETS = ["10.207.0.0/24", "fd00:207::/64"]
PID_FILE = "/run/bare-dns@bare7.pid"
UNKNOWN = ["NXDOMAIN", []]


class Names:
    """Containers behind a bridge with a name server; they need not run to have a network."""

    def __init__(self, containers: Any) -> None:
        self.containers = containers
        self.machine = containers.machine

    def entry(self, name: str, **options: Any) -> dict[str, Any]:
        own = {"name": self.containers.name(name), "bridge": "bare7", "subnet": SUBNETS, "dns": "dynamic"}
        return {**own, **options}

    def join(self, *names: str, check: bool = False, **options: Any) -> dict[str, Any]:
        batch = {"batch": [self.entry(name, **options) for name in names]}
        return converge(self.machine, batch, check=check)

    def leave(self, *names: str, check: bool = False) -> dict[str, Any]:
        gone = [{"name": self.containers.name(name), "state": "absent"} for name in names]
        return converge(self.machine, {"batch": gone}, check=check)

    def ask(
        self, *questions: str, of: str = "10.207.0.1", way: str = "UDP", by: str | None = "one"
    ) -> dict[str, Any]:
        """What each is answered, asked from a container's network; from the host's own with None."""
        where = inside(self.containers.name(by)) if by else ()
        return _ask(self.machine, *where, of=of, way=way, questions=questions)

    def pid(self, bridge: str = "bare7") -> int:
        pid = int(self.machine.run("cat", f"/run/bare-dns@{bridge}.pid"))
        assert f"--interface={bridge}" in command_line(pid)
        return pid


def command_line(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _ask(machine: Any, *where: str, of: str, way: str = "UDP", questions: tuple[str, ...]) -> dict[str, Any]:
    words = ("/usr/bin/python3", str(MESSAGES), "ask", of, way, *questions)
    return dict(zip(questions, json.loads(machine.run(*where, *words)), strict=True))


@pytest.fixture
def names(containers: Any) -> Names:
    return Names(containers)


@pytest.fixture
def upstream(names: Names, internet: Any, tmp_path: Path) -> Iterator[Any]:
    """The resolver of the machine, beyond it; gives what it was asked."""
    names.machine.shell("""
        echo nameserver 192.0.2.1 > /run/resolv.conf
        mount --bind /run/resolv.conf /etc/resolv.conf
    """)
    asked = tmp_path / "asked"
    words = internet.command("/usr/bin/python3", str(MESSAGES), "serve", "192.0.2.1", str(asked))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield lambda: asked.read_text().split()
    finally:
        process.kill()
        process.communicate()


def reverse(address: str) -> str:
    return f"{ipaddress.ip_address(address).reverse_pointer}/PTR"


def test_it_answers_names_and_addresses_at_the_gateway(names: Names) -> None:
    names.join("one", "two")
    one, two = names.containers.name("one"), names.containers.name("two")
    answers = {
        f"{one}/A": ["NOERROR", ["10.207.0.2"]],
        f"{two}/A": ["NOERROR", ["10.207.0.3"]],
        f"{two.upper()}/A": ["NOERROR", ["10.207.0.3"]],
        f"{two}/AAAA": ["NOERROR", ["fd00:207::3"]],
        reverse("10.207.0.3"): ["NOERROR", [two]],
        reverse("fd00:207::3"): ["NOERROR", [two]],
        "nobody/A": UNKNOWN,
        "nobody/AAAA": UNKNOWN,
        reverse("10.207.0.9"): UNKNOWN,
        # The host's own hosts(5) are not theirs.
        "localhost/AAAA": UNKNOWN,
    }
    for server in GATEWAYS:
        for way in ("UDP", "TCP"):
            assert names.ask(*answers, of=server, way=way) == answers
    status = Path(f"/proc/{names.pid()}/status").read_text()
    assert "\nUid:\t0\t" not in status


def test_a_container_asks_it_unless_it_is_declared_to_ask_others(names: Names) -> None:
    names.join("one", "two")
    names.containers.converge("one")
    lines = names.containers.inside("cat /etc/resolv.conf").splitlines()
    assert [line for line in lines if "nameserver" in line] == [f"nameserver {each}" for each in GATEWAYS]
    # Without its hosts(5), which say the same.
    told = names.containers.inside(f": > /etc/hosts; nslookup {names.containers.name('two')}")
    assert "10.207.0.3" in told
    assert "fd00:207::3" in told
    names.containers.converge("one", dns=["192.0.2.9"])
    assert "nameserver 192.0.2.9\n" in names.containers.inside("cat /etc/resolv.conf")
    names.join("one", "two", dns="static")
    names.containers.converge("one")
    assert "10.207.0.1" not in names.containers.inside("cat /etc/resolv.conf")


def test_who_comes_and_goes_is_known_without_a_restart(names: Names, eventually: Any) -> None:
    names.join("one", "two")
    pid = names.pid()
    question = f"{names.containers.name('three')}/A"
    assert names.ask(question) == {question: UNKNOWN}
    for address in ("10.207.0.4", "10.207.0.9"):
        names.join("three", address=f"{address}/24")
        eventually(lambda address=address: names.ask(question) == {question: ["NOERROR", [address]]})
    names.leave("three")
    eventually(
        lambda: (
            names.ask(question, reverse("10.207.0.9"))
            == {
                question: UNKNOWN,
                reverse("10.207.0.9"): UNKNOWN,
            }
        )
    )
    assert names.pid() == pid


def test_each_bridge_has_its_own_names_and_nobody_else_is_answered(names: Names, internet: Any) -> None:
    names.join("one")
    names.join("other", bridge="bare8", subnet=["10.208.0.0/24"])
    one, other = (f"{names.containers.name(name)}/A" for name in ("one", "other"))
    assert names.ask(one, other) == {one: ["NOERROR", ["10.207.0.2"]], other: UNKNOWN}
    assert names.ask(one, other, of="10.208.0.1", by="other") == {
        one: UNKNOWN,
        other: ["NOERROR", ["10.208.0.2"]],
    }
    # Whoever is elsewhere may well have a route to the gateway, and the host would answer there.
    internet.shell("ip route add 10.207.0.0/24 via 192.0.2.2")
    with serving(names.machine, address="10.207.0.1"):
        assert ask(internet, address="10.207.0.1", port=80) == "192.0.2.1"
    for way in ("UDP", "TCP"):
        assert _ask(internet, of="10.207.0.1", way=way, questions=(one,)) == {one: None}
    assert names.ask(one, of="127.0.0.1", by=None) == {one: None}


def test_it_asks_the_hosts_resolvers_for_the_rest_alone(names: Names, upstream: Any) -> None:
    names.join("one", dns_domain="Containers.Example.")
    one = names.containers.name("one")
    own = {
        f"{one}/A": ["NOERROR", ["10.207.0.2"]],
        f"{one}/MX": ["NOERROR", []],
        f"{one}.containers.example/A": ["NOERROR", ["10.207.0.2"]],
        reverse("10.207.0.2"): ["NOERROR", [f"{one}.containers.example"]],
        "nobody/A": UNKNOWN,
        "nobody/MX": UNKNOWN,
        "nobody.containers.example/A": UNKNOWN,
        reverse("10.207.0.9"): UNKNOWN,
        reverse("fd00:207::9"): UNKNOWN,
    }
    assert names.ask(*own) == own
    assert not upstream()
    assert names.ask("www.example.org/A") == {"www.example.org/A": ["NOERROR", ["198.51.100.7"]]}
    assert upstream() == ["www.example.org"]


def test_an_internal_one_asks_nobody(names: Names, upstream: Any) -> None:
    names.join("one", internal=True)
    one = f"{names.containers.name('one')}/A"
    assert names.ask(one, "www.example.org/A", "nobody/A") == {
        one: ["NOERROR", ["10.207.0.2"]],
        "www.example.org/A": ["REFUSED", []],
        "nobody/A": UNKNOWN,
    }
    assert not upstream()


DRIFTS = {
    "killed": "kill -KILL PID; while grep -qs '^State:.[^Z]' /proc/PID/status; do sleep 0.01; done",
    "another in its place": """
        kill PID; while grep -qs '^State:.[^Z]' /proc/PID/status; do sleep 0.01; done
        dnsmasq --conf-file=/dev/null --no-hosts --pid-file=/run/bare-dns@bare7.pid --interface=bare7 \
            --except-interface=lo --bind-dynamic
    """,
    "list gone": "rm -r /var/lib/bare-containers/network/names",
    "bridge gone": "ip link delete bare7",
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_reported_and_repaired(names: Names, drift: str, eventually: Any) -> None:
    names.join("one")
    one, two = (f"{names.containers.name(name)}/A" for name in ("one", "two"))
    names.machine.shell(drift.replace("PID", str(names.pid())))
    foretold = names.join("one", check=True)
    repaired = names.join("one")
    assert repaired["diff"] == foretold["diff"]
    assert repaired["changed"]
    eventually(lambda: names.ask(one) == {one: ["NOERROR", ["10.207.0.2"]]})
    names.join("two")
    eventually(lambda: names.ask(two) == {two: ["NOERROR", ["10.207.0.3"]]})
    assert names.machine.name_servers() == [names.pid()]


def test_a_pid_that_is_anothers_is_left_alone(names: Names) -> None:
    names.join("one")
    os.kill(names.pid(), signal.SIGKILL)
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        try:
            names.machine.shell(f"echo {bystander.pid} > {PID_FILE}")
            assert names.join("one")["changed"]
            assert names.pid() != bystander.pid
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_second_run_writes_nothing_and_restarts_nothing(names: Names) -> None:
    names.join("one", "two")
    before = names.containers.files(), names.pid()
    assert not names.join("one", "two")["changed"]
    assert (names.containers.files(), names.pid()) == before


def test_the_commands_do_the_same(names: Names) -> None:
    names.machine.shell("\n".join(names.join("one", check=True)["commands"]))
    one = f"{names.containers.name('one')}/A"
    assert names.ask(one, of=GATEWAYS[1]) == {one: ["NOERROR", ["10.207.0.2"]]}
    assert not names.join("one")["changed"]
    names.machine.shell("\n".join(names.join("one", dns_domain="example", check=True)["commands"]))
    assert not names.join("one", dns_domain="example")["changed"]
    names.machine.shell("\n".join(names.leave("one", check=True)["commands"]))
    assert not names.leave("one")["changed"]
    assert not names.machine.name_servers()


def test_nothing_is_left_of_it(names: Names) -> None:
    names.join("one", "two")
    names.leave("one")
    assert names.machine.name_servers() == [names.pid()]
    names.join("two", dns="static")
    assert not names.machine.name_servers()
    names.join("two")
    names.leave("two")
    assert not names.machine.name_servers()
    left = names.machine.shell("ls /run /var/lib/bare-containers 2> /dev/null || true")
    assert "bare-dns" not in left
    assert "network" not in left


def test_one_that_may_be_of_a_network_that_is_damaged_stays(names: Names) -> None:
    names.join("one")
    names.join("other", bridge="bare8", subnet=["10.208.0.0/24"])
    pid = names.pid()
    kept = f"{names.containers.directory('one')}/network.json"
    names.machine.shell(f"cp {kept} /run/kept; echo '{{' > {kept}")
    names.join("other", bridge="bare8", subnet=["10.208.0.0/24"])
    assert names.pid() == pid


def test_a_bridge_of_others_or_one_without_is_refused_and_nothing_changed(names: Names) -> None:
    names.machine.shell("ip link add br0 type bridge")
    names.join("one")
    before = names.containers.files(), names.pid()
    for told, options in (
        ("that this collection did not make", {"bridge": "br0", "subnet": ["10.209.0.0/24"]}),
        ("takes one for all", {"dns": "static"}),
    ):
        sentence = refused(names.machine, names.entry("two", **options))
        assert sentence.startswith("dns: ")
        assert told in sentence
        assert "nothing was changed" in sentence
    assert (names.containers.files(), names.pid()) == before


def test_without_the_program_nothing_is_changed(names: Names) -> None:
    names.machine.shell("mount --bind /dev/null $(command -v dnsmasq)")
    before = names.containers.files()
    sentence = refused(names.machine, names.entry("one"))
    assert "dnsmasq-base" in sentence
    assert "nothing was changed" in sentence
    assert names.containers.files() == before
    assert not names.join("one", dns="static").get("failed")


def test_a_server_that_does_not_start_says_why(names: Names) -> None:
    names.join("one", dns="static")
    with serving(names.machine, address="10.207.0.1", port=53):
        assert "10.207.0.1" in refused(names.machine, names.entry("one"))
    assert not names.join("one").get("failed")


def test_it_is_among_the_facts(names: Names) -> None:
    result = names.join("one", dns_domain="a.example")
    one = names.containers.name("one")
    assert result["containers"][one]["name_servers"] == list(GATEWAYS)
    facts = names.machine.module("container_info", {"name": [one]})["containers"][one]
    assert facts["network"]["dns"] == [
        {"bridge": "bare7", "addresses": list(GATEWAYS), "domain": "a.example", "pid": names.pid()}
    ]
    assert not facts["drift"]
    os.kill(names.pid(), signal.SIGKILL)
    facts = names.machine.module("container_info", {"name": [one]})["containers"][one]
    assert facts["network"]["dns"][0]["pid"] is None
    assert [drift["name"] for drift in facts["drift"]] == ["_dns"]

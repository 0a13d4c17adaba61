# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""container_info on real containers: what it tells is what /proc, ip(8), findmnt(8) and nft(8) say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# containers.conf(5), default_capabilities.
DEFAULT = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
}
COUNTED = {"PATH": "/run/counting:/usr/sbin:/usr/bin:/sbin:/bin"}
COUNTING = """
mkdir /run/counting
printf '#!/bin/sh\necho "$@" >> /run/counting/log\nexec /usr/sbin/nft "$@"\n' > /run/counting/nft
chmod +x /run/counting/nft
"""


@pytest.fixture(scope="module")
def containers(module_utils):
    """``web`` with all parts, ``plain`` with few and the host's network, ``mapped`` in a user namespace,
    ``idle`` that is stopped, and ``piece`` of which only a root file system is declared."""
    from tests.kernel.conftest import Containers, Machine

    machine = Machine(module_utils)
    made = Containers(machine)
    try:
        names = {name: made.name(name) for name in ("web", "plain", "mapped", "idle", "piece")}
        batches = {
            "rootfs_fetch": [{"name": names[name], "busybox": True} for name in ("web", "piece")],
            "cgroup_v2": [{"name": names["web"], "controls": {"cgroup.max.depth": 5}}],
            "netns_veth": [
                {
                    "name": names["web"],
                    "bridge": "bare0",
                    "address": ["10.200.0.2/24", "fd00:200::2/64"],
                    "nat": True,
                    "publish": ["8080:80"],
                },
                {"name": names["idle"], "bridge": "bare0", "address": "10.200.0.3/24", "nat": True},
            ],
            "container_process": [
                {
                    "name": names["web"],
                    "command": ["sh", "-c", "echo written > /kept; sleep 1001 & exec sleep 1000"],
                    "stop_timeout": 0,
                    "ulimit": ["nofile=100:200"],
                    "oom_score_adj": 500,
                    "tmpfs": {"/cache": "size=1m"},
                },
                made.options("plain", privileged=True, network="host", user="1234:1235"),
                made.options("mapped", uidmap=["0:100000:65536"], user="7:8"),
                made.options("idle", state="stopped", rootfs_mode="read_only"),
            ],
        }
        for module, batch in batches.items():
            result = machine.module(module, {"batch": batch})
            assert not result.get("failed"), result
        machine.shell(COUNTING)
        yield made
    finally:
        made.end()
        machine.end()


def ask(containers, **options):
    """What is told, by the names that the tests use."""
    result = containers.machine.module("container_info", {}, **options)
    assert not result.get("failed"), result
    assert result["changed"] is False
    return {name.partition("-")[2]: told for name, told in result["containers"].items()}


@pytest.fixture(scope="module")
def told(containers):
    """What is told of all of them as they were made; and that nothing is written for it."""
    before = containers.files()
    found = ask(containers, check=True)
    assert containers.files() == before
    return found


@pytest.fixture
def web(containers, told):
    """What is told of a process that runs, and its PID."""
    return told["web"]["process"], containers.pid("web")


def test_they_are_in_the_state_they_were_made_in(containers, told):
    states = {name: each["state"] for name, each in told.items()}
    running = ("web", "plain", "mapped")
    assert states == {**dict.fromkeys(running, "started"), "idle": "stopped", "piece": "half-made"}
    for name in running:
        assert told[name]["pid"] == told[name]["process"]["pid"] == containers.pid(name)
        assert told[name]["log"] == f"/var/log/bare-containers/{containers.name(name)}.log"
    for name in ("idle", "piece"):
        assert (told[name]["pid"], told[name]["process"], told[name]["cgroup"]) == (None, None, None)
    # Nobody watches a container here who could count.
    assert {each["restarts"] for each in told.values()} == {each["unit"] for each in told.values()} == {None}


def test_without_drift_there_is_none(told):
    assert {name: (each["drift"], each["errors"]) for name, each in told.items()} == dict.fromkeys(
        told, ([], [])
    )


def test_the_declaration_is_the_one_that_is_kept(containers, told):
    parts = {
        "web": {"rootfs", "cgroup", "network", "process"},
        "plain": {"process"},
        "mapped": {"process"},
        "idle": {"network", "process"},
        "piece": {"rootfs"},
    }
    assert {name: set(each["declared"]) for name, each in told.items()} == parts
    for name, each in told.items():
        for part, declared in each["declared"].items():
            kept = containers.machine.run("cat", f"{containers.directory(name)}/{part}.json")
            assert declared == json.loads(kept)


def test_namespaces_and_which_are_the_host_s(containers, told, web):
    process, pid = web
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    assert process["namespaces"] == {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in kinds}
    assert process["shared_namespaces"] == ["time", "user"]
    assert told["plain"]["process"]["shared_namespaces"] == ["net", "time", "user"]
    assert told["mapped"]["process"]["shared_namespaces"] == ["time"]


def test_identity_and_privileges(containers, told, web):
    process, _pid = web
    sets = process["capabilities"]
    assert set(sets["bounding"]) == set(sets["effective"]) == set(sets["permitted"]) == DEFAULT
    assert sets["inheritable"] == sets["ambient"] == []
    assert (process["uid"], process["gid"], process["groups"]) == (0, 0, [])
    assert process["no_new_privileges"] is True
    assert process["uid_map"] == [{"container_id": 0, "host_id": 0, "size": 4294967295}]
    plain = told["plain"]["process"]
    assert (plain["uid"], plain["gid"]) == (1234, 1235)
    assert plain["no_new_privileges"] is False
    assert plain["capabilities"]["effective"] == []
    assert {"CAP_SYS_ADMIN", "CAP_NET_RAW"} <= set(plain["capabilities"]["bounding"])
    mapped = told["mapped"]["process"]
    assert (mapped["uid"], mapped["gid"]) == (100007, 100008)
    assert mapped["uid_map"] == mapped["gid_map"] == [{"container_id": 0, "host_id": 100000, "size": 65536}]
    assert (told["web"]["process"]["seccomp"]["mode"], plain["seccomp"]["mode"]) == ("filter", "disabled")
    for name in ("web", "plain"):
        status = containers.status(name)
        mode = {"disabled": "0", "strict": "1", "filter": "2"}[told[name]["process"]["seccomp"]["mode"]]
        assert mode == status["Seccomp"]
        assert str(told[name]["process"]["seccomp"]["filters"]) == status["Seccomp_filters"]


def test_limits_of_the_process(told, web):
    process, _pid = web
    assert process["rlimits"]["nofile"] == {"soft": 100, "hard": 200}
    assert process["rlimits"]["rttime"] == {"soft": "unlimited", "hard": "unlimited"}
    assert process["oom_score_adj"] == 500
    assert told["plain"]["process"]["oom_score_adj"] == 0


def test_its_processes_as_they_are_seen_from_both_sides(containers, web):
    process, pid = web
    assert process["command"] == ["sleep", "1000"]
    found = {each["pid"]: each for each in process["processes"]}
    assert set(found) == {
        int(word) for word in (containers.cgroup("web") / "cgroup.procs").read_text().split()
    }
    assert found[pid] == {"pid": pid, "container_pid": 1, "uid": 0, "command": ["sleep", "1000"]}
    assert sorted(each["command"][-1] for each in found.values()) == ["1000", "1001"]
    for other in found:
        ids = Path(f"/proc/{other}/status").read_text().split("NSpid:")[1].split("\n")[0].split()
        assert ids == [str(other), str(found[other]["container_pid"])]


def test_when_it_was_started(web):
    process, pid = web
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = datetime.strptime(shown.stdout.strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    started = datetime.strptime(process["started_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    # Each rounds in its own way.
    assert abs((started - expected).total_seconds()) <= 1


def test_mounts_are_what_findmnt_shows(web):
    process, pid = web
    columns = {
        "TARGET": lambda mount: mount["destination"],
        "FSTYPE": lambda mount: mount["type"],
        "SOURCE": lambda mount: mount["source"],
        "FSROOT": lambda mount: mount["root"],
        "VFS-OPTIONS": lambda mount: ",".join(mount["options"]),
        "FS-OPTIONS": lambda mount: ",".join(mount["filesystem_options"]),
        "PROPAGATION": lambda mount: mount["propagation"],
    }
    findmnt = ["findmnt", f"--task={pid}", "--nofsroot", "--json", "--list", f"--output={','.join(columns)}"]
    shown = json.loads(subprocess.run(findmnt, capture_output=True, check=True).stdout)["filesystems"]
    assert [
        {name.lower(): show(mount) for name, show in columns.items()} for mount in process["mounts"]
    ] == shown
    (cache,) = (mount for mount in process["mounts"] if mount["destination"] == "/cache")
    assert cache["type"] == "tmpfs"
    assert "size=1024k" in cache["filesystem_options"]


def test_the_root_file_system(containers, told):
    (layer,) = told["web"]["declared"]["rootfs"]["layers"]
    upper = f"{containers.directory('web')}/upper"
    assert told["web"]["rootfs"] == {"layers": [layer], "mode": "overlay", "upper": upper, "upper_size": None}
    assert told["plain"]["rootfs"]["layers"] == [containers.tree]
    assert told["idle"]["rootfs"]["mode"] == "read_only"
    assert told["piece"]["rootfs"] == {"layers": [layer], "mode": None, "upper": None, "upper_size": None}


def test_its_cgroup(containers, told):
    path = containers.cgroup("web")
    cgroup = told["web"]["cgroup"]
    assert cgroup["path"] == str(path)
    assert told["web"]["process"]["cgroup"] == f"/bare/{containers.name('web')}"
    assert cgroup["frozen"] is False
    assert cgroup["controls"]["cgroup.max.depth"] == 5
    assert 0 < cgroup["cpu_stat"]["usage_usec"] <= _keyed(path / "cpu.stat")["usage_usec"]
    assert told["plain"]["cgroup"]["path"] == str(containers.cgroup("plain"))


def _keyed(path):
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def test_links_and_routes_are_what_ip_shows(containers, told):
    for name in ("web", "idle"):
        ip = ["ip", "-n", containers.name(name), "-json", "-details"]
        network = told[name]["network"]
        assert network["netns"] == f"/run/netns/{containers.name(name)}"
        links = json.loads(containers.machine.run(*ip, "address", "show"))
        shown = {link["ifname"]: link for link in links if "UP" in link["flags"]}
        assert set(shown) == {"lo", "eth0"} <= set(network["links"])
        eth0, link = network["links"]["eth0"], shown["eth0"]
        assert (eth0["kind"], eth0["up"], eth0["mac"], eth0["mtu"], eth0["master"]) == (
            link["linkinfo"]["info_kind"],
            "UP" in link["flags"],
            link["address"],
            link["mtu"],
            None,
        )
        addresses = [
            f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"
        ]
        assert eth0["addresses"] == sorted(addresses)
        on_host = json.loads(containers.machine.run("ip", "-json", "link", "show", "dev", eth0["peer"]))
        assert on_host[0]["ifindex"] == link["link_index"]
        routes = json.loads(containers.machine.run(*ip, "-4", "route", "show"))
        assert [route.partition(" ")[0] for route in network["routes"] if ":" not in route] == sorted(
            route["dst"] for route in routes
        )
        assert f"default via {routes[0].get('gateway', '10.200.0.1')} dev eth0" in network["routes"]
    assert told["plain"]["network"] == {
        "netns": None,
        "links": {},
        "routes": [],
        "neighbours": [],
        "dns": [],
        "rules": [],
    }


def test_rules_are_those_for_it_with_what_they_have_counted(containers):
    """And they are listed once for all containers."""
    # Refused, as nobody listens there; but counted.
    containers.machine.run("bash", "-c", "! : < /dev/tcp/10.200.0.1/8080")
    told = ask(containers, environment=COUNTED)
    assert containers.machine.run("cat", "/run/counting/log") == "-j list table inet bare_containers\n"
    listed = json.loads(containers.machine.run("nft", "-j", "list", "table", "inet", "bare_containers"))
    rules = [each["rule"] for each in listed["nftables"] if "rule" in each]
    for name in ("web", "idle"):
        own = [rule for rule in rules if rule["comment"] == containers.name(name)]
        counters = [each["counter"] for rule in own for each in rule["expr"] if "counter" in each]
        assert [
            (rule["chain"], counter["packets"], counter["bytes"])
            for rule, counter in zip(own, counters, strict=True)
        ] == [(rule["chain"], rule["packets"], rule["bytes"]) for rule in told[name]["network"]["rules"]]
    rules = told["web"]["network"]["rules"]
    assert sum(rule["packets"] for rule in rules if rule["chain"] == "output") == 1


LIMITED = {
    "item": {
        "key": "gone",
        "value": {
            "state": "stopped",
            "unit": "bare-gone.service",
            "restarts": 2,
            "last_exit": {"signal": "SIGKILL", "at": "2025-01-31T12:00:00Z", "result": "oom-kill"},
            "health": {
                "status": "unhealthy",
                "failing_streak": 3,
                "last_check": {"at": "2025-01-31T12:00:00Z", "rc": 1, "output": "refused"},
            },
            "declared": {"cgroup": {}},
            "drift": [{"part": "cgroup", "changes": ["memory.max", "pids.max"], "needs": "live"}],
            "errors": ["process: it is damaged."],
            "process": None,
            "network": None,
            "cgroup": {
                "controls": {
                    "cpu.max": {"quota": 50000, "period": 100000},
                    "memory.max": 64 * 2**20,
                    "pids.max": "max",
                },
                "cpu_stat": {"usage_usec": 1500000, "nr_throttled": 3},
                "memory_current": 32 * 2**20,
                "memory_events": {"oom_kill": 1},
                "pids_current": 3,
            },
        },
    }
}
"""What this machine's cgroups can't show, in the form that container_info returns."""


def test_the_examples_and_the_playbook_run(containers, told, tmp_path):
    """As a person runs them, with the names of these containers."""
    source = (ROOT / "plugins/modules/container_info.py").read_text()
    text = source.split('EXAMPLES = r"""')[1].split('"""')[0]
    for name, ours in (("web", "web"), ("worker", "idle")):
        text = text.replace(name, containers.name(ours))
    tasks = yaml.safe_load(text)
    assert len(tasks) == 3
    template = ROOT / "playbooks/templates/container.j2"
    look = {"msg": f"{{{{ lookup('ansible.builtin.template', '{template}').splitlines() }}}}"}
    tasks.append({"name": "Limits and an end", "ansible.builtin.debug": look, "vars": LIMITED})
    examples = tmp_path / "examples.yml"
    examples.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    variables = {"ansible_python_interpreter": "/usr/bin/python3", "container": containers.name("web")}
    said = containers.machine.run(
        "env",
        f"ANSIBLE_CONFIG={ROOT}/ansible.cfg",
        f"ANSIBLE_COLLECTIONS_PATH={ROOT}/.collections",
        str(Path(sys.executable).with_name("ansible-playbook")),
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars={json.dumps(variables)}",
        "--check",
        str(examples),
        str(ROOT / "playbooks/inspect.yml"),
    )
    assert "changed=0" in said
    before, block = said.split("TASK [What there is]")
    limits = before.split("TASK [Limits and an end]")[1]
    for line in (
        "gone is stopped, bare-gone.service, restarted 2 times",
        "ended at 2025-01-31T12:00:00Z with SIGKILL",
        "is unhealthy, 3 checks in a row have failed: refused",
        "CPU 1.5 s used at 50000 us in each 100000, throttled 3 times",
        "memory 32.0 MiB of 64.0 MiB, 1 killed when it ran out",
        "tasks 3 of max",
        "cgroup differs in memory.max, pids.max, set right in place",
        "process: it is damaged.",
    ):
        assert f"- {line}\n" in limits.replace("'", "")
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith("-")]
    assert lines[0].startswith(
        f"- {containers.name('web')} is started as PID {containers.pid('web')} since 20"
    )
    assert "- runs sleep 1000 as user 0, 2 processes in all" in lines
    assert "- eth0 is up with 10.200.0.2/24, fd00:200::2/64, to bare-" in block
    assert "- publishes 8080:80/tcp" in lines
    assert lines[-1] == "- nothing differs from what is declared"
    assert containers.name("idle") not in block


DRIFTS = {
    # What is done by hand: of whom it is told, in which part, whose, which settings, what it takes.
    "ip -n {web} link set dev eth0 mtu 1400": (
        "web",
        "network",
        "{web}",
        ["links.eth0.mtu", "routes"],
        "live",
    ),
    "nft flush chain inet bare_containers forward": ("web", "network", "_firewall", ["table"], "live"),
    "echo 7 > {cgroup}/cgroup.max.depth": ("web", "cgroup", "{web}", ["cgroup.max.depth"], "live"),
    "mv {layer} {layer}.away": ("piece", "rootfs", "{piece}", ["unpacked"], "live"),
    "echo 10.0.0.9 added >> {kept}/{idle}/etc/hosts": ("idle", "process", "{idle}", ["etc/hosts"], "live"),
    "sed -i s/1234/4321/ {kept}/{plain}/config.json": (
        "plain",
        "process",
        "{plain}",
        ["process", "config"],
        "restart",
    ),
}


@pytest.fixture
def drifted(containers, told):
    """What is told after all of DRIFTS, and the words of the commands in there."""
    names = {name: containers.name(name) for name in told}
    (layer,) = told["web"]["rootfs"]["layers"]
    kept = "/var/lib/bare-containers/containers"
    words = {**names, "cgroup": containers.cgroup("web"), "layer": layer, "kept": kept}
    containers.machine.shell("\n".join(DRIFTS).format(**words))
    before = containers.files()
    found = ask(containers)
    assert containers.files() == before
    yield found, words
    containers.machine.shell("mv {layer}.away {layer}".format(**words))


def test_drift_is_named(drifted):
    found, words = drifted
    named = [
        (name, each["part"], each["name"], sorted(each["changes"]), each["needs"])
        for name, container in found.items()
        for each in container["drift"]
    ]
    expected = [(*who[:2], who[2].format(**words), sorted(who[3]), who[4]) for who in DRIFTS.values()]
    # They share the rules, and what web's root file system is made of.
    expected += [("idle", "network", "_firewall", ["table"], "live")]
    expected += [("web", "rootfs", words["web"], ["unpacked"], "live")]
    assert sorted(named) == sorted(expected)
    (depth,) = (each for each in found["web"]["drift"] if each["part"] == "cgroup")
    assert depth["before"] == {"controls": {"cgroup.max.depth": 7}}
    assert depth["after"] == {"controls": {"cgroup.max.depth": 5}}
    assert depth["commands"] == [f"echo 5 > {words['cgroup']}/cgroup.max.depth"]
    (mtu,) = (each for each in found["web"]["drift"] if "links.eth0.mtu" in each["changes"])
    assert (mtu["before"], mtu["after"]) == (
        {"links": {"eth0": {"mtu": 1400}}},
        {"links": {"eth0": {"mtu": 1500}}},
    )


def test_paused_ended_half_made_and_damaged_ones_are_told(containers):
    machine = containers.machine
    (containers.cgroup("web") / "cgroup.freeze").write_text("1\n")
    os.kill(containers.pid("plain"), signal.SIGKILL)
    containers.write(f"{containers.directory('idle')}/process.json", '{"command": ["sl')
    machine.shell(
        f"mkdir {containers.directory('bits')}; touch {containers.directory('bits')}/.process.json.new"
    )
    for part in ("rootfs", "cgroup", "process"):
        containers.declare(part, {"command": 5, "path": [], "busybox": {}, "layers": 7}, "odd")
    try:
        told = ask(containers)
        states = {name: each["state"] for name, each in told.items()}
        assert states == {
            "web": "paused",
            "plain": "stopped",
            "mapped": "started",
            "idle": "half-made",
            "piece": "half-made",
            "bits": "half-made",
            "odd": "half-made",
        }
        assert {change for each in told["plain"]["drift"] for change in each["changes"]} >= {"process"}
        (pause,) = (each for each in told["web"]["drift"] if each["part"] == "process")
        assert (pause["changes"], pause["before"], pause["after"]) == (
            ["state"],
            {"state": "paused"},
            {"state": "started"},
        )
        (error,) = told["idle"]["errors"]
        assert error == (
            f"process: {containers.directory('idle')}/process.json is no JSON object; remove it to have the "
            "container declared anew."
        )
        assert told["idle"]["network"]["links"]["eth0"]["addresses"] == ["10.200.0.3/24"]
        (error,) = told["bits"]["errors"]
        assert containers.directory("bits") in error
        assert {error.partition(":")[0] for error in told["odd"]["errors"]} == {"rootfs", "cgroup", "process"}
        assert all("\n" not in error for each in told.values() for error in each["errors"])
    finally:
        (containers.cgroup("web") / "cgroup.freeze").write_text("0\n")
        machine.shell(f"rm -r {containers.directory('odd')} {containers.directory('bits')}")


def test_a_damaged_network_is_told_of_the_one_that_has_it(containers):
    kept = f"{containers.directory('piece')}/network.json"
    containers.write(kept, '{"publish": [5]}')
    containers.machine.shell(
        "nft -f /var/lib/bare-containers/network/table.nft\n"
        f"ip -n {containers.name('web')} link set eth0 mtu 1301"
    )
    try:
        told = ask(containers)
    finally:
        containers.machine.run("rm", kept)
    (error,) = (error for error in told["piece"]["errors"] if error.startswith("network:"))
    assert containers.name("piece") in error
    assert [error for error in told["web"]["errors"] if error.startswith("network:")] == []
    changes = [each["changes"] for each in told["web"]["drift"] if each["part"] == "network"]
    assert any("links.eth0.mtu" in each for each in changes)
    assert told["web"]["network"]["links"]["eth0"]["up"] is True


def test_names_and_size(containers):
    names = [containers.name("web"), containers.name("nobody")]
    result = containers.machine.module("container_info", {"name": names, "size": True})
    web, nobody = (result["containers"][name] for name in names)
    assert len(result["containers"]) == 2
    assert (nobody["state"], nobody["declared"], nobody["drift"], nobody["errors"]) == ("absent", {}, [], [])
    size = containers.machine.run("du", "-s", "-B1", web["rootfs"]["upper"]).split()[0]
    assert web["rootfs"]["upper_size"] == int(size) > 0
    assert nobody["rootfs"]["upper_size"] is None
    refused = containers.machine.module("container_info", {"name": ["../etc"]})
    assert refused["failed"]
    assert refused["msg"].startswith("name: ['../etc'] is not accepted, it takes up to 64 letters")

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import health, spec, units
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.container.recipe import recipe
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure
from ansible_collections.bare.containers.plugins.module_utils.kernel import capability
from hypothesis import given
from hypothesis import strategies as st

HOST = spec.Host(
    layers=("/store/low", "/store/high"), cgroup="/bare/web", ids=(100000, 100000), init="/usr/bin/catatonit"
)


def declare(**options):
    defaults = {option.name: option.default for option in OPTIONS.options}
    return OPTIONS.normalise({**defaults, "name": "web", "command": ["true"], **options})


def config(given=HOST, **options):
    return spec.config(declare(**options), given)


def mounts(configured):
    return {mount["destination"]: mount for mount in configured["mounts"]}


SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")
"""The published schema, as the package golang-github-opencontainers-specs-dev brings it."""

FULL = {
    "env": {"A": "b=c", "N": 1, "T": True},
    "user": "1000:1000",
    "workdir": "/w//x/",
    "hostname": "h.example",
    "volumes": ["/a:/b:ro,nosuid", "/c/:/d"],
    "tmpfs": {"/cache": "size=1m", "/tmp": None},
    "cap_add": ["net_raw"],
    "cap_drop": ["CAP_CHOWN"],
    "sysctl": {"net.ipv4.ip_forward": 1},
    "ulimit": ["nofile=10:20", "core=unlimited"],
    "oom_score_adj": -5,
    "pid": "host",
    "ipc": "host",
    "cgroupns": "host",
    "uidmap": ["0:100000:1000", "1000:1000:1"],
    "gidmap": ["0:200000:65536"],
    "time_offsets": {"boottime": 3600},
    "shm_size": "1M",
    "device_cgroup_rules": ["c 42:* rw"],
    "apparmor": "some-profile",
    "selinux": "system_u:system_r:container_t:s0",
    "mask": ["/etc/secret"],
    "unmask": ["/proc/kcore"],
    "init": True,
    "systemd": True,
    "group_add": ["7", "wheel"],
    "umask": "077",
    "annotations": {"a": "b"},
    "oci": {"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7}}},
}


@pytest.mark.parametrize(
    "options",
    [{}, FULL, {"privileged": True}, {"rootfs_mode": "read_only"}, {"network": "host"}, {"user": "app"}],
)
def test_a_config_is_one_of_the_oci_runtime_spec(options):
    jsonschema = pytest.importorskip(
        "jsonschema", reason="jsonschema is not in the environment of Python 3.9"
    )
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    def retrieve(uri):
        return DRAFT4.create_resource(json.loads((SCHEMA / uri.rpartition("/")[2]).read_text()))

    # Of time namespaces only later versions of the schema know.
    configured = config(**{key: value for key, value in options.items() if key != "time_offsets"})
    schema = json.loads((SCHEMA / "config-schema.json").read_text())
    validator = jsonschema.Draft4Validator(schema, registry=Registry(retrieve=retrieve))
    assert [error.message for error in validator.iter_errors(configured)] == []
    # The schema is one that refuses.
    wrong = {**configured, "linux": {**configured["linux"], "namespaces": [{"type": "host"}]}}
    assert list(validator.iter_errors(wrong))
    assert json.loads(json.dumps(configured)) == configured


def test_the_defaults():
    configured = config()
    process = configured["process"]
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["noNewPrivileges"] is True
    assert set(process["capabilities"]["effective"]) == set(spec.DEFAULT_CAPABILITIES)
    assert process["capabilities"]["inheritable"] == process["capabilities"]["ambient"] == []
    assert [entry["type"] for entry in configured["linux"]["namespaces"]] == [
        "pid", "ipc", "uts", "cgroup", "mount", "network",
    ]  # fmt: skip
    assert not any("path" in entry for entry in configured["linux"]["namespaces"])
    assert configured["linux"]["maskedPaths"]
    assert configured["linux"]["readonlyPaths"]
    assert configured["root"] == {"path": "rootfs", "readonly": False}
    assert configured["mounts"][0]["options"][0] == "lowerdir=/store/high:/store/low"
    assert {"nosuid", "size=64m"} <= set(mounts(configured)["/tmp"]["options"])


HEALTH = {
    "healthcheck": "test -e /ready",
    "healthcheck_interval": "1m",
    "healthcheck_timeout": "5",
    "healthcheck_retries": 2,
    "healthcheck_start_period": "10s",
    "healthcheck_failure_action": "restart",
}


def test_every_option_makes_a_difference_that_is_seen():
    """Of the config, the files in /etc, the units, the check; what is not in one of them has no effect."""
    changes = {
        **FULL,
        "command": ["false"],
        "rootfs_mode": "read_only",
        "rootfs_size": "64M",
        "upper": "keep",
        "network": "host",
        "privileged": True,
        "no_new_privileges": False,
        "dns": ["10.0.0.1"],
        "dns_search": ["x.example"],
        "dns_options": ["ndots:1"],
        "etc_hosts": {"x": "10.0.0.2"},
        "uts": "host",
        "userns": "auto",
        "stop_signal": "INT",
        "stop_timeout": 1,
        "restart_policy": "always",
        "restart_sec": 5,
        "restart_max_delay_sec": 30,
        **HEALTH,
        "log_driver": "none",
        "log_opt": {"tag": "of-web"},
    }
    needs = {
        "rootfs_size": {"rootfs_mode": "tmpfs"},
        "sysctl": {"network": "auto"},
        **{name: {"restart_policy": "always"} for name in ("restart_sec", "restart_max_delay_sec")},
        **{name: {"healthcheck": ["true"]} for name in HEALTH if name != "healthcheck"},
    }
    # What these come to is for the host to say.
    steering = {"name", "state", "rootfs", "supervisor", "init_path", "devices", "seccomp"}
    # What an image says is a part of the declaration when it comes here.
    steering |= {"entrypoint", "image_config"}
    assert set(changes) == {option.name for option in OPTIONS.options} - steering

    def seen(**options):
        declared = declare(**options)
        made = spec.config(declared, HOST)
        return (
            made,
            spec.etc_files(declared, HOST),
            units.texts(declared, made),
            health.spec(declared),
        )

    for name, value in changes.items():
        options = needs.get(name, {})
        assert seen(**{**options, name: value}) != seen(**options), name


def test_a_network_that_is_declared_is_joined():
    given = spec.Host(layers=("/x",), network=True)
    assert {"type": "network", "path": "/run/netns/web"} in config(given)["linux"]["namespaces"]
    assert {"type": "network"} in config(given, network="none")["linux"]["namespaces"]
    assert all(entry["type"] != "network" for entry in config(given, network="host")["linux"]["namespaces"])


def test_no_sysctl_of_the_host_s_network():
    assert config(network="host")["linux"]["sysctl"] == {}
    with pytest.raises(Failure, match=r"net\.ipv4\.ip_forward"):
        config(network="host", sysctl={"net.ipv4.ip_forward": 1})


@given(
    st.sets(st.sampled_from([*capability.NAMES, "ALL"])),
    st.sets(st.sampled_from([*capability.NAMES, "ALL"])),
    st.booleans(),
    st.sampled_from(["0", "root", "1000", "app"]),
)
def test_no_capability_that_was_not_granted(add, drop, privileged, user):
    sets = config(cap_add=list(add), cap_drop=list(drop), privileged=privileged, user=user)["process"][
        "capabilities"
    ]
    bounding = set(sets["bounding"])
    assert not bounding & (drop - {"ALL"})
    if "ALL" in drop and "ALL" not in add:
        assert bounding <= add
    if not privileged and "ALL" not in add:
        assert bounding <= set(spec.DEFAULT_CAPABILITIES) | add
    for name, names in sets.items():
        assert set(names) <= bounding, name
    if user in ("0", "root"):
        assert sets["inheritable"] == sets["ambient"] == []
    elif not add:
        assert not any(sets[name] for name in ("effective", "permitted", "inheritable", "ambient"))


def test_a_capability_the_host_lacks_is_refused_but_all_is_all_there_is():
    given = spec.Host(layers=("/x",), capabilities=("CAP_CHOWN",))
    with pytest.raises(Failure, match="CAP_SYS_TIME"):
        config(given, cap_add=["SYS_TIME"])
    assert config(given, cap_add=["ALL"])["process"]["capabilities"]["bounding"] == ["CAP_CHOWN"]
    assert config(given, privileged=True)["process"]["capabilities"]["effective"] == ["CAP_CHOWN"]


def test_what_the_user_mounts_replaces_what_would_be_there():
    configured = config(volumes=["/x:/tmp", "/y:/dev/shm", "/z:/etc/hosts"])
    places = [mount["destination"] for mount in configured["mounts"]]
    assert len(places) == len(set(places))
    assert mounts(configured)["/tmp"]["type"] == "bind"
    assert places.index("/dev/shm") > places.index("/dev")


def test_layers_with_characters_that_overlayfs_separates_by():
    given = spec.Host(layers=("/a:b", "/c,d", "/e\\f"))
    assert config(given)["mounts"][0]["options"][0] == r"lowerdir=/e\\f:/c\,d:/a\:b"


def test_what_the_root_is_made_of():
    """What is declared as a directory is that itself; what is in the store is nobody's to write to."""
    itself = config(spec.Host(layers=("/x",)), rootfs="/x", rootfs_mode="direct")
    assert (itself["root"]["path"], itself["mounts"][0]["destination"]) == ("/x", "/proc")
    declared = declare(rootfs_mode="direct")
    assert config(rootfs_mode="direct")["root"]["path"] == "rootfs"
    assert spec.copied_layers(declared, HOST) == ["/store/low", "/store/high"]
    for mode, size in (("read_only", 1 << 20), ("tmpfs", 8 << 20)):
        options = {"rootfs_size": "8M"} if mode == "tmpfs" else {}
        in_memory, layered = config(rootfs_mode=mode, **options)["mounts"][:2]
        assert (in_memory["type"], in_memory["destination"], layered["destination"]) == ("tmpfs", "/", "/")
        assert f"size={size}" in in_memory["options"]
        assert layered["options"] == ["lowerdir=/store/high:/store/low", "upperdir=upper", "workdir=work"]
        assert spec.directories(declare(rootfs_mode=mode)) == ["rootfs"]


@pytest.mark.parametrize(
    "options",
    [
        {"rootfs_mode": "direct", "upper": "keep"},
        {"rootfs_mode": "tmpfs", "upper": "keep"},
        {"rootfs_mode": "read_only", "rootfs_size": "1M"},
        {"rootfs_size": "1M"},
    ],
)
def test_what_the_root_has_no_use_for_is_refused(options):
    option = "upper" if "upper" in options else "rootfs_size"
    with pytest.raises(Failure, match=f"^{option}: .*rootfs_mode.*nothing was changed"):
        config(**options)


def test_resolv_conf_is_the_host_s_without_what_only_the_host_reaches():
    resolver = spec.read_resolver(
        "# a comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\n\n"
        "search a b\noptions edns0\nsearch c d\n"
    )
    given = spec.Host(layers=(), resolver=resolver)
    text = spec.etc_files(declare(), given)["resolv.conf"]
    assert text == "nameserver 10.0.0.1\nsearch c d\noptions edns0\n"
    assert "127.0.0.53" in spec.etc_files(declare(network="host"), given)["resolv.conf"]
    declared = declare(dns=["fd00::1"], dns_search=[], dns_options=["ndots:3"])
    assert spec.etc_files(declared, given)["resolv.conf"] == "nameserver fd00::1\noptions ndots:3\n"


def test_a_unit_says_what_was_declared():
    def lines_of(**options):
        declared = declare(**options)
        return units.texts(declared, spec.config(declared, HOST))["bare-web.service"].splitlines()

    lines = lines_of(stop_signal="int", stop_timeout=3, restart_policy="unless-stopped")
    assert "KillSignal=SIGINT" in lines
    assert "TimeoutStopSec=3" in lines
    assert "Restart=always" in lines
    assert "ExecStart=/usr/local/lib/bare-containers/launch start web" in lines
    # 0 would be no timeout at all to systemd.
    assert "TimeoutStopSec=1ms" in lines_of(stop_timeout=0)
    keys = [line.partition("=")[0] for line in lines if "=" in line]
    assert {key for key in keys if keys.count(key) > 1} == {"DeviceAllow"}
    assert "DevicePolicy=strict" in lines
    assert "DeviceAllow=/dev/char/1:3 rwm" in lines
    hook = {"hooks": {"poststop": [{"path": "/bin/true"}]}}
    assert "ExecStopPost=/usr/local/lib/bare-containers/launch poststop web" in lines_of(oci=hook)
    assert "KillSignal=SIGRTMIN+3" in lines_of(systemd=True)


def test_a_recipe_has_no_line_that_the_config_does_not_ask_for():
    configured = config(**FULL)
    lines = recipe("/bundle", configured, "/sys/fs/cgroup/bare/web")
    mounted = [line.split()[-1] for line in lines if re.match(r"mount -t|mount --r?bind", line)]
    assert mounted == ["/bundle/rootfs", *(place.lstrip("/") for place in mounts(configured) if place != "/")]
    assert lines[0] == "mkdir -p /sys/fs/cgroup/bare/web"
    assert lines[-1] == "END_OF_CONTAINER"
    assert sum(line.startswith("exec ") for line in lines) == 2
    before = copy.deepcopy(configured)
    recipe("/bundle", configured, None)
    assert configured == before

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device filters on this kernel: what a process in a cgroup may make and open."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container.devices import (
    ALL_RULES,
    DEFAULT_RULES,
)
from ansible_collections.bare.containers.plugins.module_utils.kernel import device_filter, mount
from hypothesis import given, settings
from hypothesis import strategies as st

Device = tuple[str, int, int]
MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Path]:
    """A cgroup of this module's own, beside those of the containers."""
    top = mount.find("cgroup2")
    assert top is not None, "no cgroup2 is mounted here"
    parent = Path(top, "bare")
    parent.mkdir(exist_ok=True)
    directory = parent / f"t{os.getpid()}-devices"
    directory.mkdir()
    yield directory
    directory.rmdir()
    with contextlib.suppress(OSError):
        parent.rmdir()


@contextlib.contextmanager
def opened(cgroup: Path) -> Iterator[int]:
    descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def attach(cgroup: Path, rules: Sequence[dict[str, Any]]) -> None:
    with opened(cgroup) as descriptor:
        device_filter.attach(descriptor, device_filter.assemble(rules))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[Device, Path]:
    """Nodes made by the host, for a container to open."""
    directory = tmp_path_factory.mktemp("nodes")
    made = {}
    for device in (("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 5, 0), ("b", 1, 3)):
        made[device] = directory / "-".join(map(str, device))
        make_node(made[device], device)
    return made


def make_node(path: Path, device: Device) -> None:
    kind, major, minor = device
    os.mknod(path, 0o600 | (stat.S_IFCHR if kind == "c" else stat.S_IFBLK), os.makedev(major, minor))


def refusals(cgroup: Path | None, nodes: dict[Device, Path]) -> set[tuple[Device, str]]:
    """What a process in the cgroup may not do to the devices: to open them in MODES, to make them, ``m``."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text("0")
            os.write(writer, repr(attempt(nodes)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 65536).decode()
    os.close(reader)
    os.waitpid(child, 0)
    found: set[tuple[Device, str]] = ast.literal_eval(told)
    return found


def attempt(nodes: dict[Device, Path]) -> set[tuple[Device, str]]:
    refused = set()
    for device, path in nodes.items():
        new = path.with_name(f"new-{os.getpid()}")
        try:
            make_node(new, device)
            new.unlink()
        except PermissionError:
            refused.add((device, "m"))
        for name, mode in MODES.items():
            try:
                os.close(os.open(path, mode | os.O_NOCTTY))
            except OSError as error:
                # Another error is the device's own: that there is no such disk or terminal.
                if error.errno == errno.EPERM:
                    refused.add((device, name))
    return refused


def expected(rules: Sequence[dict[str, Any]], nodes: dict[Device, Path]) -> set[tuple[Device, str]]:
    """As the OCI runtime spec has it (config-linux, "Device allowlist"): the last rule for the device."""

    def decided(device: Device, letter: str) -> bool:
        kind, major, minor = device
        for rule in reversed(rules):
            if (
                rule.get("type", "a") in ("a", kind)
                and rule.get("major", major) == major
                and rule.get("minor", minor) == minor
                and letter in rule["access"]
            ):
                return bool(rule["allow"])
        return False

    return {
        (device, access)
        for device in nodes
        for access in ("m", *MODES)
        if not all(decided(device, letter) for letter in access)
    }


def test_the_default_lets_through_what_belongs_to_every_container(cgroup, nodes):
    assert refusals(None, nodes) == set(), "without a filter nothing is refused"
    attach(cgroup, DEFAULT_RULES)
    disk = ("b", 1, 3)
    assert refusals(cgroup, nodes) == {(disk, "r"), (disk, "w"), (disk, "rw")}
    assert refusals(None, nodes) == set(), "another cgroup is not concerned"


def test_without_rules_all_is_refused_and_with_one_for_all_nothing(cgroup, nodes):
    attach(cgroup, [])
    assert refusals(cgroup, nodes) == {(device, access) for device in nodes for access in ("m", *MODES)}
    attach(cgroup, ALL_RULES)
    assert refusals(cgroup, nodes) == set()


def test_a_filter_takes_the_place_of_those_before(cgroup):
    with opened(cgroup) as descriptor:
        found = []
        for __ in range(3):
            attach(cgroup, DEFAULT_RULES)
            found.append(device_filter.attached(descriptor))
    assert [len(each) for each in found] == [1, 1, 1]
    assert len({number for each in found for number in each}) == 3


def test_a_program_that_the_kernel_does_not_take_changes_nothing(cgroup, nodes):
    attach(cgroup, DEFAULT_RULES)
    with opened(cgroup) as descriptor:
        before = device_filter.attached(descriptor)
        for program in (b"", bytes(8), device_filter.assemble([])[:-8]):
            with pytest.raises(OSError, match=r"Invalid argument|Argument list too long|Permission denied"):
                device_filter.attach(descriptor, program)
        assert device_filter.attached(descriptor) == before


def test_what_a_cgroup_above_refuses_stays_refused(cgroup, nodes):
    attach(cgroup, DEFAULT_RULES)
    inner = cgroup / "inner"
    inner.mkdir()
    try:
        attach(inner, ALL_RULES)
        assert (("b", 1, 3), "r") in refusals(inner, nodes)
        attach(cgroup, ALL_RULES)
        assert refusals(inner, nodes) == set()
    finally:
        inner.rmdir()


ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans(), "access": ACCESS},
        optional={
            "type": st.sampled_from("abc"),
            "major": st.sampled_from([1, 5]),
            "minor": st.sampled_from([0, 3, 5, 7]),
        },
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(rules=RULES)
def test_the_kernel_decides_as_the_rules_say(cgroup, nodes, rules):
    attach(cgroup, rules)
    assert refusals(cgroup, nodes) == expected(rules, nodes)

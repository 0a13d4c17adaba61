# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that the connection plugin copies into a container and out of it, whose paths are the container's to
change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

VICTIM = "/var/lib/victim"
LOOKUP = "path.open_in_root(root, place, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)"
BY_NAME = 'os.open(f"/proc/self/fd/{root}{place}", flags, mode)'
NO_LINK = (
    'assert not os.path.islink(os.path.dirname(f"/proc/self/fd/{root}{place}")); enter.time.sleep(0.001)'
)

LAYERS = {
    "who copies has no other root": (
        ("container/enter.py", '("user", "mnt", ', '("user", '),
        (
            "container/enter.py",
            "        self._cgroup = _open_cgroup(state[0])\n",
            "        self._cgroup = _open_cgroup(state[0])\n"
            "        global ROOT\n"
            "        ROOT = f'/proc/{state[0]}/root'\n",
        ),
        ("container/visit.py", 'os.open("/", ', "os.open(enter.ROOT, "),
    ),
    "it is looked up in the root": (
        ("container/visit.py", f"descriptor = {LOOKUP}", f"{NO_LINK}; descriptor = {BY_NAME}"),
    ),
}
"""What keeps a copy in the container, each of it enough, and what takes it out: a root that is but a path to
the container's, and a path that is checked first and then opened, as docker cp did. The moment in between is
for a busy machine, where the attack may not get its turn there."""

SWAP = """
import ctypes, itertools
libc, AT_FDCWD, RENAME_EXCHANGE = ctypes.CDLL(None), -100, 2
for _round in itertools.count():
    assert libc.renameat2(AT_FDCWD, b"/tmp/place", AT_FDCWD, b"/tmp/link", RENAME_EXCHANGE) == 0
"""
COPIES = 16


@pytest.fixture
def swapping(containers, with_python, launcher):
    """A container in which a directory and a link to another are swapped for each other, again and again.

    Both are there and have the same in them; on the host, there is the other one too.
    """
    containers.machine.shell(f"mkdir {VICTIM}; echo -n host > {VICTIM}/secret")
    containers.machine.shell(
        f"mkdir -p {containers.tree}{VICTIM}; echo -n inside > {containers.tree}{VICTIM}/secret"
    )
    script = (
        f"mkdir /tmp/place; echo -n inside > /tmp/place/secret; ln -s {VICTIM} /tmp/link\n"
        f"exec /usr/bin/python3 -c '{SWAP}'"
    )
    launcher.declare(command=["sh", "-c", script], **with_python)


@pytest.mark.parametrize("only", LAYERS)
def test_a_link_is_swapped_while_files_are_copied(
    containers, launcher, inside, swapping, tmp_path, eventually, only
):
    """CVE-2018-15664: between the look at a path and its use the host's files are read and written."""
    (tmp_path / "file").write_text("put")

    def copy(called):
        """What was fetched, and what there is on the host in the end."""
        puts = [["put_file", f"{tmp_path}/file", f"/tmp/place/{called}-{number}"] for number in range(COPIES)]
        fetched = [tmp_path / f"fetched-{number}" for number in range(COPIES)]
        for file in fetched:
            file.unlink(missing_ok=True)
        inside.calls(*puts, *(["fetch_file", "/tmp/place/secret", str(file)] for file in fetched))
        read = {file.read_text() for file in fetched if file.exists()}
        return read, set(containers.machine.shell(f"ls -A {VICTIM}").split())

    def safe(called, *reached):
        """Nothing but what is inside has been read, and something written where ``reached`` says."""
        assert copy(called) == ({"inside"}, {"secret"})
        found = containers.inside(f"find /tmp {VICTIM} -name '{called}-*' 2> /dev/null || :")
        return all(f"{place}/" in found for place in reached)

    assert launcher.start() == ""
    eventually(lambda: containers.inside("ls /tmp").split() == ["link", "place"])
    # The link is followed, inside.
    eventually(lambda: safe("whole", VICTIM, "/tmp"), 60)
    for layer in LAYERS.keys() - {only}:
        for piece in LAYERS[layer]:
            launcher.weaken(*piece)
    eventually(lambda: safe("one-layer", "/tmp"), 60)
    for piece in LAYERS[only]:
        launcher.weaken(*piece)

    def reached():
        read, written = copy("none")
        return "host" in read and len(written) > 1

    eventually(reached, 120)
    assert containers.alive()


def test_files_of_who_copies_are_copied(containers, launcher, inside, tmp_path, monkeypatch):
    """A link to /proc/self is to one who has come from the host: its environment, its program."""
    monkeypatch.setenv("TOKEN", "of the host")
    launcher.declare()
    assert launcher.start() == ""
    containers.inside("cd /tmp; for name in environ exe fd/1; do ln -s /proc/self/$name ${name%/*}; done")
    back = tmp_path / "back"

    def fetch(name):
        back.unlink(missing_ok=True)
        (result,) = inside.calls(["fetch_file", f"/tmp/{name}", str(back)])
        assert (result is None) is back.exists()
        return result or back.read_bytes()

    for name in ("environ", "exe", "fd"):
        assert fetch(name)["error"] == "AnsibleError"
    launcher.weaken("container/visit.py", "mount.kind(descriptor) == mount.PROC", "False")
    assert b"TOKEN=of the host" in fetch("environ")
    assert fetch("exe")["error"] == "AnsibleError"
    launcher.weaken("container/visit.py", LOOKUP, BY_NAME)
    program = Path("/usr/bin/python3").read_bytes()
    assert hashlib.sha256(fetch("exe")).digest() == hashlib.sha256(program).digest()

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks on the launcher itself while it is in the container: its program, its code, its memory."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

# A descriptor of the program outlives it; once nobody runs it any more, it can be opened for writing.
OVERWRITE = """
import os, sys
descriptor = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(descriptor, True)
write = f"exec 2> /tmp/said; until echo evil > /proc/self/fd/{descriptor}; do sleep 0.05; done"
os.execv("/bin/busybox", ["sh", "-c", write] if os.fork() == 0 else sys.argv[1:])
"""


@pytest.mark.parametrize("verb", ["start", "exec"])
def test_the_interpreter_is_overwritten(containers, launcher, with_python, eventually, verb):
    """CVE-2019-5736: the command is the launcher's own program, by /proc/self/exe."""
    # Not the host's own Python, but a copy that stands in its place.
    place = Path("/usr/bin/python3").resolve()
    containers.machine.shell(f"cp -p {place} /run/python; mount --bind /run/python {place}")
    interpreter = Path(f"/proc/{containers.machine.pid}/root/run/python")
    original = interpreter.read_bytes()
    attack = ["/proc/self/exe", "-c", OVERWRITE]
    command = [*attack, "sleep", "1000"] if verb == "start" else ["sleep", "1000"]
    launcher.declare(command=command, **with_python)

    def attempt():
        assert launcher.start() == ""
        if verb == "exec":
            assert launcher.execute(*attack, "true") == ""

    attempt()
    eventually(lambda: "Read-only file system" in containers.inside("cat /tmp/said || :"))
    assert interpreter.read_bytes() == original
    launcher.weaken("container/protection.py", "os.ST_RDONLY:", "os.ST_RDONLY or True:")
    attempt()
    eventually(lambda: interpreter.read_bytes() == b"evil\n")


PLANTED = "import os; os.mkdir('/planted')"
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")


def test_code_is_loaded_from_the_container(containers, launcher):
    """CVE-2019-14271: the root file system has modules where a late import looks for the host's."""
    for version in VERSIONS:
        for name in (
            "email/__init__", "encodings/idna", "_strptime", "traceback", "linecache", "json/__init__", "pwd",
            "errno",
        ):  # fmt: skip
            containers.write(f"{containers.tree}/usr/lib/python{version}/{name}.py", PLANTED)
    ours = "/usr/local/lib/bare-containers/bare_containers/container/privileges.py"
    containers.write(f"{containers.tree}{ours}", PLANTED)

    def planted():
        return containers.inside("ls -d /planted 2>/dev/null || :") != ""

    failing = ({"command": ["/no/such"]}, {"user": "nobody"}, {"workdir": "/proc/self/fd/5"})
    for options in failing:
        containers.converge(fails=True, **options)
    containers.converge()
    assert containers.execute(command=["true"])["rc"] == 0
    for options in ({"command": ["/no/such"]}, {"command": ["true"], "user": "nobody"}):
        containers.execute(fails=True, **options)
    assert not planted()
    # Of a launcher that would import something late, it is a failing import.
    launcher.weaken(
        "container/privileges.py",
        "    report.before_exec()\n",
        "    try:\n        import email\n    except ImportError:\n        pass\n    report.before_exec()\n",
    )
    assert launcher.start() == ""
    assert launcher.execute("true") == ""
    assert not planted()
    launcher.weaken("container/bundle.py", "        places.clear()\n", "        pass\n")
    assert launcher.start() == ""
    assert planted()
    containers.inside("rmdir /planted")
    assert launcher.execute("true") == ""
    assert planted()


def test_who_joins_is_looked_into(containers, launcher, eventually):
    """CVE-2016-9962: who enters the container has descriptors and memory of the host until it is the command.

    It is made to stay at that point, as the user that the command runs as, until it has been looked into.
    """
    launcher.weaken(
        "container/privileges.py",
        "    report.before_exec()\n",
        "    while command == 'stay' and not os.path.exists('/looked'):\n        pass\n"
        "    report.before_exec()\n",
    )
    launcher.declare()
    look = (
        "cd /proc/$0; sha256sum exe 2> /dev/null || echo refused\n"
        "readlink fd/3 || echo refused; head -c 1 environ > /dev/null 2>&1 && echo read || echo refused"
    )

    def looked_into(user):
        assert launcher.start() == ""
        containers.inside("rm -f /looked")
        visit = threading.Thread(target=lambda: launcher.execute("stay", user=user))
        visit.start()
        try:
            pid = eventually(lambda: joining(containers))
            # Its privileges are those of the command by now.
            privileges = containers.status()["CapEff"] if user == "0" else "0" * 16
            eventually(lambda: field(pid, "CapEff") == [privileges] and field(pid, "Uid")[0] == user)
            inner = field(pid, "NSpid")[-1]
            return launcher.execute("sh", "-c", look, inner, user=user).splitlines()
        finally:
            containers.inside("touch /looked")
            visit.join()

    for user in ("0", "1000"):
        assert looked_into(user) == ["refused", "refused", "refused"]
    launcher.weaken("kernel/process.py", "_PR_SET_DUMPABLE, 0,", "_PR_SET_DUMPABLE, 1,")
    for user in ("0", "1000"):
        program, report, environment = looked_into(user)
        assert program.split()[0] == hashlib.sha256(Path("/usr/bin/python3").read_bytes()).hexdigest()
        assert report.startswith("pipe:")
        assert environment == "read"


def joining(containers):
    """Who is in the container's cgroup beside its first process."""
    inside = (containers.cgroup("one") / "cgroup.procs").read_text().split()
    return next((pid for pid in inside if int(pid) != containers.pid()), None)


def field(pid, name):
    """The words of a field of /proc/PID/status."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1:] for line in status.splitlines() if line.startswith(f"{name}:"))

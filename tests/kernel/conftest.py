# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests on this machine's kernel share: a host of one's own, and modules run as Ansible runs them.

Nothing here touches the machine itself: a Machine is a pair of namespaces and goes with its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).parents[2] / ".collections"
PYTHONS = ("/usr/bin/python3", sys.executable)
"""The host's own Python with the distribution's packages, and the newest of everything."""

_RUN_MODULE = """
import json, runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.load(sys.stdin)}).encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.bare.containers.plugins.modules." + sys.argv[1], run_name="__main__")
"""


class Machine:
    """A host of its own: a network namespace, and a mount namespace with nothing in /run and /var/lib."""

    def __init__(self, module_utils: Path) -> None:
        self._module_utils = module_utils
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation=private", "sh", "-c", _SET_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the namespaces could not be made"

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._process.pid

    def end(self) -> None:
        """Ends the holder, and with it what it held; name servers are processes of their own."""
        for pid in self.name_servers():
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()

    def name_servers(self) -> list[int]:
        """The PIDs of all dnsmasq in its network namespace."""
        own = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text() == "dnsmasq\n" and os.stat(path / "ns/net").st_ino == own:
                    found.append(int(path.name))
        return found

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` in here."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--", *words]

    def run(self, *words: str, **options: Any) -> str:
        """What a program prints in here; it has to succeed."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def shell(self, text: str) -> str:
        """What a shell script prints in here; none of its commands may fail."""
        return self.run("sh", "-e", input=text)

    def module_command(
        self,
        name: str,
        python: str = PYTHONS[0],
        environment: Mapping[str, str] | None = None,
        *,
        online: bool = False,
    ) -> list[str]:
        """The command line that runs a module, which takes its arguments as JSON on standard input.

        ``online``, it has the network of this machine in place of a host's of its own.
        """
        path = f"{COLLECTIONS}:{self._module_utils}"
        # Compiled once for all tests, and outside of the working tree.
        variables = {"PYTHONPATH": path, "PYTHONPYCACHEPREFIX": f"{self._module_utils}/compiled"}
        variables["PYTHONDONTWRITEBYTECODE"] = ""
        variables.update(environment or {})
        settings = [f"{key}={value}" for key, value in variables.items()]
        command = self.command("env", *settings, python, "-c", _RUN_MODULE, name)
        return [word for word in command if word != "--net"] if online else command

    def module(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        check: bool = False,
        python: str = PYTHONS[0],
        environment: Mapping[str, str] | None = None,
        online: bool = False,
    ) -> dict[str, Any]:
        """The result of a module, as Ansible gets it."""
        done = subprocess.run(
            self.module_command(name, python, environment, online=online),
            input=json.dumps({**arguments, "_ansible_check_mode": check, "_ansible_diff": True}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def module_killed_after(
        self, seconds: float, name: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Runs a module and ends it by SIGKILL when it takes longer: then None, else its result.

        Just the module: what it has started is for the kernel to end, or to be found by the next run.
        """
        # A file, as what it has started may hold a pipe open for longer than it lives.
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(self.module_command(name), stdin=subprocess.PIPE, stdout=output)
            assert process.stdin is not None
            process.stdin.write(json.dumps(arguments).encode())
            process.stdin.close()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return None
            output.seek(0)
            result: dict[str, Any] = json.load(output)
            return result


_SET_UP = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && ip link set lo up && echo ready && exec cat
"""


@pytest.fixture(scope="session")
def module_utils(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ansible.module_utils alone, all that a managed host has of Ansible."""
    import ansible

    assert ansible.__file__ is not None
    package = tmp_path_factory.mktemp("managed") / "ansible"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module_utils").symlink_to(Path(ansible.__file__).parent / "module_utils")
    return package.parent


@pytest.fixture
def new_machine(module_utils: Path) -> Iterator[Callable[[], Machine]]:
    """Makes Machines, which end with the test."""
    if os.geteuid() != 0:
        pytest.fail("the tests in tests/kernel need root")
    machines: list[Machine] = []

    def new() -> Machine:
        machines.append(Machine(module_utils))
        return machines[-1]

    yield new
    for machine in machines:
        machine.end()


@pytest.fixture
def machine(new_machine: Callable[[], Machine]) -> Machine:
    """One Machine."""
    return new_machine()


@pytest.fixture(params=PYTHONS, ids=("debian", "newest"))
def python(request: pytest.FixtureRequest) -> str:
    """The Python that runs a module: each in turn."""
    return str(request.param)


@pytest.fixture
def internet(machine: Any, new_machine: Callable[[], Any]) -> Any:
    """Another host, on a link with ours; it knows no way to the containers."""
    other = new_machine()
    machine.shell(f"""
        ip link add wan type veth peer name eth0 netns {other.pid}
        ip address add 192.0.2.2/24 dev wan
        ip address add 2001:db8::2/64 dev wan nodad
        ip link set wan up
    """)
    other.shell("""
        ip address add 192.0.2.1/24 dev eth0
        ip address add 2001:db8::1/64 dev eth0 nodad
        ip link set eth0 up
    """)
    return other


class Containers:
    """Containers of a test, on a Machine that has the launcher and a root file system with busybox in it."""

    tree = "/var/lib/tree"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cgroups = Path(_find_cgroup2()) / "bare"
        self._names: set[str] = set()
        machine.shell(_PREPARE.format(tree=self.tree))
        assert not machine.module("launcher", {}).get("failed")

    def name(self, name: str) -> str:
        """A name that no other test has on this machine, whose cgroups they share."""
        unique = f"t{os.getpid()}-{name}"
        self._names.add(unique)
        return unique

    def directory(self, name: str = "one") -> str:
        """What is kept of a container on the machine."""
        return f"/var/lib/bare-containers/containers/{self.name(name)}"

    def declare(self, part: str, declaration: Mapping[str, Any], name: str = "one") -> None:
        """What another module has declared of a container."""
        self.write(f"{self.directory(name)}/{part}.json", json.dumps(declaration))

    def write(self, path: str, text: str) -> None:
        """Writes a file on the machine, its folder made first."""
        self.machine.run("sh", "-ec", 'mkdir -p "${0%/*}"; cat > "$0"', path, input=text)

    def sums(self, name: str = "one") -> str:
        """The files that are kept of a container, without those it has written itself."""
        find = "find . -type f -not -path './upper/*' -exec sha256sum {} +"
        return self.machine.shell(f"cd {self.directory(name)}; {find} | sort -k2")

    def cgroup(self, name: str) -> Path:
        """Where the container's cgroup is unless declared."""
        return self.cgroups / self.name(name)

    def options(self, name: str, **options: Any) -> dict[str, Any]:
        """A declaration with what every one takes."""
        default = {"command": ["sleep", "1000"], "rootfs": self.tree, "stop_timeout": 0}
        return {"name": self.name(name), **default, **options}

    def converge(self, name: str = "one", *, check: bool = False, fails: bool = False, **options: Any) -> Any:
        """The module's result for one container."""
        result = self.machine.module("container_process", self.options(name, **options), check=check)
        assert result.get("failed", False) is fails, result.get("msg", "it did not fail")
        return result

    def execute(self, name: str = "one", *, fails: bool = False, check: bool = False, **options: Any) -> Any:
        """The result of nsenter_exec."""
        result = self.machine.module("nsenter_exec", {"name": self.name(name), **options}, check=check)
        assert result.get("failed", False) is fails, result.get("msg", "it did not fail")
        return result

    def state(self, name: str = "one") -> dict[str, Any] | None:
        """What the launcher has written down of a container."""
        text = self.machine.shell(f"cat /run/bare-containers/{self.name(name)}/state.json 2>/dev/null || :")
        return json.loads(text) if text else None

    def pid(self, name: str = "one") -> int:
        """The first process of a container that runs."""
        state = self.state(name)
        assert state is not None, "it does not run"
        assert _start_time(state["pid"]) == state["start_time"], "it has ended"
        return int(state["pid"])

    def alive(self, name: str = "one") -> bool:
        state = self.state(name)
        return state is not None and _start_time(state["pid"]) == state["start_time"]

    def inside(self, text: str, name: str = "one") -> str:
        """What a shell says that nsenter(1) runs inside, whatever we think of how to get there."""
        done = subprocess.run(
            ["nsenter", f"--target={self.pid(name)}", "--all", "/bin/sh", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/bin"},
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def status(self, name: str = "one") -> dict[str, str]:
        """The fields of /proc/PID/status of its first process (proc(5))."""
        lines = Path(f"/proc/{self.pid(name)}/status").read_text().splitlines()
        return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}

    def log(self, name: str = "one") -> str:
        return self.machine.shell(f"cat /var/log/bare-containers/{self.name(name)}.log")

    def files(self) -> dict[str, float]:
        """Everything of ours on the machine, with when it was written."""
        where = "/run /var/lib /var/log/bare-containers /usr/local/lib/bare-containers"
        listed = self.machine.shell(f"find {where} -printf '%T@ %C@ %p\\n' 2>/dev/null || :")
        return {line.split(" ", 2)[2]: line.rsplit(" ", 1)[0] for line in listed.splitlines()}

    def end(self) -> None:
        """Kills what runs, and removes the cgroups, as no module is there for any more."""
        for name in self._names:
            state = self.state(name.partition("-")[2])
            if state and _start_time(state["pid"]) == state["start_time"]:
                os.kill(state["pid"], signal.SIGKILL)
            directory = self.cgroups / name
            if directory.exists():
                eventually(lambda directory=directory: not (directory / "cgroup.procs").read_text())
                directory.rmdir()
        with contextlib.suppress(OSError):
            self.cgroups.rmdir()


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true answer of ``condition``, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return answer


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _find_cgroup2() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    pytest.fail("no cgroup2 is mounted here")


_PREPARE = """
mkdir -p /var/log /usr/local/lib
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /usr/local/lib
mkdir -p {tree}/bin {tree}/etc
cp /bin/busybox {tree}/bin/
chroot {tree} /bin/busybox --install -s /bin
"""


@pytest.fixture
def containers(machine: Machine) -> Iterator[Containers]:
    """Containers, all gone after the test."""
    made = Containers(machine)
    yield made
    made.end()


@pytest.fixture
def with_python(containers: Any) -> dict[str, Any]:
    """The options of a container that has the host's Python, for calls that busybox has no applet for."""
    containers.machine.shell(
        f"for name in lib lib64; do test ! -L /$name || cp -P /$name {containers.tree}/; done"
    )
    return {"volumes": ["/usr:/usr:ro"]}


class Inside:
    """The connection plugin on a test's machine, which is controller and host in one."""

    def __init__(self, containers: Containers, directory: Path) -> None:
        self._containers = containers
        self._directory = directory
        (directory / "ansible.cfg").touch()
        self.variables = {
            "ansible_connection": "bare.containers.nsenter",
            "ansible_host": "127.0.0.1",
            "ansible_nsenter_host_connection": "local",
        }
        """The inventory's, of every container; here those of a machine that is not reached by ssh."""

    def calls(self, *calls: Sequence[Any], name: str = "one", **variables: Any) -> list[Any]:
        """What methods of the plugin return (tests/support/drive_connection.py)."""
        container = {"ansible_nsenter_container": self._containers.name(name)}
        asked = {"variables": {**self.variables, **container, **variables}, "calls": calls}
        command = (sys.executable, str(COLLECTIONS.parent / "tests/support/drive_connection.py"))
        results: list[Any] = json.loads(self._run(*command, input=json.dumps(asked)).stdout)
        return results

    def shell(self, text: str, name: str = "one", **variables: Any) -> str:
        """What a shell command inside prints; it has to succeed."""
        ((status, output, errors),) = self.calls(["exec_command", text], name=name, **variables)
        assert status == 0, (text, output, errors)
        return str(output)

    def play(self, tasks: Sequence[Mapping[str, Any]], name: str = "one", **variables: Any) -> list[Any]:
        """The results of tasks that Ansible runs in a container (tests/callback/results.py)."""
        host = {**self.variables, "ansible_nsenter_container": self._containers.name(name), **variables}
        inventory, playbook = self._directory / "hosts.json", self._directory / "play.json"
        results = self._directory / "results"
        inventory.write_text(json.dumps({"all": {"hosts": {"inside": host}}}))
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
        results.write_text("")
        done = self._run("ansible-playbook", "-i", str(inventory), str(playbook), check=False)
        assert "Traceback" not in done.stdout + done.stderr, done
        assert results.read_text(), done
        return [json.loads(line) for line in results.read_text().splitlines()]

    def _run(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        settings = {
            "ANSIBLE_CALLBACK_PLUGINS": str(COLLECTIONS.parent / "tests/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(self._directory / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self._directory / "local"),
            # A connection that persists would outlive the test.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
            "BARE_RESULTS": str(self._directory / "results"),
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        done = subprocess.run(
            self._containers.machine.command(*words),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **settings},
            **options,
        )
        assert done.returncode == 0 or not check, (done.stdout, done.stderr)
        return done


@pytest.fixture
def inside(containers: Containers, tmp_path: Path) -> Inside:
    """The way into containers by the connection plugin."""
    return Inside(containers, tmp_path)


class Instants:
    """Random instants at which to kill what takes a while."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def within(self, begin: float, end: float, count: int = 20) -> list[float]:
        """So many seconds, in no order: one anywhere in each of as many equal parts of the time."""
        part = (end - begin) / count
        chosen = [begin + (number + self._chance.random()) * part for number in range(count)]
        self._chance.shuffle(chosen)
        return chosen


@pytest.fixture
def instants() -> Instants:
    """Others in every run; a test that fails says how to have the same again."""
    seed = os.environ.get("TEST_SEED") or str(random.randrange(10**9))
    print(f"The same instants again: TEST_SEED={seed}")
    return Instants(random.Random(seed))


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the launcher's two verbs share: where things are, how a bundle is read, how a failing step is told.

Runs in the launcher, also between fork and exec inside a container: everything is imported beforehand, and
nothing but the standard library's C parts and ``os`` is, for speed: ``json`` alone would double the time to
start.
"""

from __future__ import annotations

import fcntl
import os

from ..kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Filter = tuple[bytes, list[str]]
    """A compiled seccomp filter, and the flags to load it with (OCI runtime spec, config-linux.md)."""

CONTAINERS = "/var/lib/bare-containers/containers"
RUN = "/run/bare-containers"
LOGS = "/var/log/bare-containers"
OCI_VERSION = "1.0.2"
FAILED = 125
"""The exit status for what the launcher itself could not do, as with docker and podman."""

FILTER = "seccomp.bpf"
"""The file of a bundle that has its config's seccomp filter, compiled for this machine."""

HEALTH = "health.json"
"""The file of a bundle that has its health check, and of a container's folder in /run that has how it went
(check.py)."""

USER_ANNOTATION = "org.bare-containers.user"
GROUPS_ANNOTATION = "org.bare-containers.groups"
"""Names that only the container's own /etc/passwd and /etc/group know, where config.json takes numbers."""

LOG_ANNOTATION = "org.bare-containers.log"
TAG_ANNOTATION = "org.bare-containers.log-tag"
"""Where the container's output goes unless it is the supervisor's to say: a file, or ``none``; and what the
journal calls it, which config.json has so that a change of it starts the container again."""

OWN_NAME = "# Of this container, added when it was started:\n"
"""What stands between the declared lines of a container's hosts(5) and the launcher's."""

NAMES = "/var/lib/bare-containers/network/names"
"""Where there is BRIDGE/hosts for each bridge, and BRIDGE.VLAN/hosts for each VLAN of one, with the lines
that its containers have at the end of their hosts(5) (network/names.py)."""

ETC_LIMIT = 1 << 20
"""How many characters of a file in its /etc are looked at: a container can make it as large as it likes."""

_EXEC = b"\n"
_MAXIMUM = 4096


def one_line(text: str) -> str:
    """``text`` with an escape for every character that is not printable: a config may name any."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Refused(Exception):
    """One sentence without its end, in one line: what can't be done, for the user to read."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


class Report:
    """The way a failing step is told to the one who waits: a pipe that closes by itself when exec succeeds.

    What goes through it: a newline right before exec, so that a process that was killed on the way is told
    from one that got there, or before or after that the errno (0 for none), a blank and the step.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.step = ""

    def close_reader(self) -> None:
        os.close(self.reader)

    def move_to(self, descriptor: int) -> None:
        """Moves the child's end to this number; exec closes it there too."""
        os.dup2(self.writer, descriptor, inheritable=False)
        self.writer = descriptor

    def before_exec(self) -> None:
        os.write(self.writer, _EXEC)

    def failed(self, error: BaseException) -> None:
        """Tells the error, as far as possible with the step it happened in."""
        if isinstance(error, Refused):
            text = f"0 {error}"
        elif isinstance(error, OSError) and error.errno is not None:
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            text = f"{error.errno} {self.step}{where}"
        else:
            text = f"0 {self.step}: {type(error).__name__}: {error}"
        os.write(self.writer, one_line(text).encode("utf-8", "backslashreplace")[:_MAXIMUM])

    def outcome(self) -> str | None:
        """Waits for exec or failure; None for exec, else what went wrong. Call it in the parent, once."""
        os.close(self.writer)
        told = b""
        while True:
            more = os.read(self.reader, _MAXIMUM)
            if not more:
                break
            told += more
        os.close(self.reader)
        if told == _EXEC:
            return None
        if not told:
            return "it was killed while being set up"
        number, _blank, step = told.lstrip(_EXEC).decode("utf-8", "replace").partition(" ")
        return f"{step}: {os.strerror(int(number))}" if int(number) else step


def parse_json(text: str) -> Any:
    """The value of JSON ``text``. Raises ValueError."""
    try:
        from _json import make_scanner  # the C part of json.loads, without the cost of importing json
    except ImportError:
        import json

        return json.loads(text)
    decoder: Any = _Decoder()
    try:
        value, end = make_scanner(decoder)(text, len(text) - len(text.lstrip(_BLANKS)))
    except (RecursionError, StopIteration, SystemError):
        # The last is how the scanner fails to raise json's own exception, of a module that is not loaded.
        raise ValueError("not JSON") from None
    if text[end:].strip(_BLANKS):
        raise ValueError("more than one JSON value")
    return value


_BLANKS = " \t\n\r"


class _Decoder:
    """What the scanner asks of its decoder (json.JSONDecoder's attributes)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def lock(run: str, *, make: bool = True) -> int:
    """Holds a container's folder in /run against other starts, until all copies of the descriptor are closed.

    The first process keeps its copy until exec, so whoever gets the lock sees a container that runs or does
    not. Without ``make`` there has to be a folder. Raises OSError.
    """
    if make:
        os.makedirs(run, 0o711, exist_ok=True)
    descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def running(run: str) -> tuple[int, int] | None:
    """PID and start time of the container's first process, or None. Raises OSError, ValueError."""
    try:
        state = parse_json(read_file(f"{run}/state.json"))
    except FileNotFoundError:
        return None
    pid, started = state["pid"], state["start_time"]
    return (pid, started) if process.start_time(pid) == started else None


def read_file(path: str) -> str:
    """Raises OSError."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write_file(path: str, text: str | bytes, mode: int = 0o600) -> None:
    """Writes a file in /run so that readers see all or nothing of it. Raises OSError."""
    beside = path + ".new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        data = text if isinstance(text, bytes) else text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
    os.rename(beside, path)


def remove_file(path: str) -> None:
    """Raises OSError; no such file is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def json_text(text: str) -> str:
    """``text`` as JSON."""
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        import json

        return json.dumps(text)
    return str(encode_basestring_ascii(text))


def has_hooks(config: dict[str, Any], *points: str) -> bool:
    return any(config.get("hooks", {}).get(point) for point in points)


def read_filter(directory: str, config: dict[str, Any]) -> Filter | None:
    """The seccomp filter in ``directory`` that its config asks for, or None. Raises OSError, Refused."""
    if "seccomp" not in config["linux"]:
        return None
    try:
        with open(f"{directory}/{FILTER}", "rb") as file:
            return file.read(), config["linux"]["seccomp"].get("flags", [])
    except FileNotFoundError:
        raise Refused(f"linux.seccomp: {directory}/{FILTER}, its compiled filter, is missing") from None


def state_text(name: str, config: dict[str, Any], status: str, pid: int) -> str:
    """The container's state as JSON (OCI runtime spec, runtime.md), with the start time that makes the PID
    unmistakable."""
    started = process.start_time(pid) if pid else None
    annotations = ", ".join(
        f"{json_text(key)}: {json_text(value)}" for key, value in config.get("annotations", {}).items()
    )
    return (
        f'{{"ociVersion": "{OCI_VERSION}", "id": "{name}", "status": "{status}", "pid": {pid}, '
        f'"bundle": "{CONTAINERS}/{name}", "annotations": {{{annotations}}}, "start_time": {started or 0}}}\n'
    )


def forget_run(run: str) -> None:
    """Removes from a container's folder in /run what tells of its process. Raises OSError."""
    for name in ("state.json", "config.json", FILTER, HEALTH):
        remove_file(f"{run}/{name}")


def joined_network(config: dict[str, Any]) -> str | None:
    """The file of the network namespace that the container joins, or None where it joins none."""
    joined = (each.get("path") for each in config["linux"]["namespaces"] if each["type"] == "network")
    return next(joined, None)


def own_network(name: str, config: dict[str, Any]) -> bool:
    """Whether the container joins the network namespace that is declared for it."""
    return joined_network(config) == f"/run/netns/{name}"


def cgroup_of(process: int | str) -> str:
    """A process's cgroup below the cgroup2 mount (cgroups(7), /proc/PID/cgroup). Raises OSError, Refused."""
    for line in read_file(f"/proc/{process}/cgroup").splitlines():
        if line.startswith("0::"):
            return line[len("0::") :]
    raise Refused("cgroup: no cgroup2 file system is mounted on this host")


def forget_modules() -> None:
    """Takes from the interpreter every way to load more code: from here on it would be the container's."""
    import sys

    for places in (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache):
        places.clear()

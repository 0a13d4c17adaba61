# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in running containers: what to run, what is expected of it, how it went."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .. import host
from ..converge import Failure
from ..kernel import path
from ..module import NAME
from ..options import Option, Options
from ..shell import command as shell_command
from . import installation
from .state import running
from .values import absolute, command, environment, seconds, user

Entry = Mapping[str, Any]
Result = dict[str, Any]

OPTIONS = Options(
    (
        NAME,
        Option("command", type="list", elements="str", normalise=command),
        Option("user", normalise=user),
        Option("env", type="dict", normalise=environment),
        Option("chdir", normalise=absolute),
        Option("stdin"),
        Option("timeout", type="int", normalise=seconds),
        Option("creates", normalise=absolute),
        Option("removes", normalise=absolute),
        Option("rc", type="int", default=0),
        Option("stdout"),
        Option("read_only", type="bool"),
        Option("within", type="int", default=0, normalise=seconds),
    )
)

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_PAUSE = 0.5
_SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a command."""


def check(entries: Sequence[Entry]) -> None:
    """Raises Failure for an entry without a command."""
    for entry in entries:
        if "command" not in entry:
            raise Failure(f"command: {entry['name']} is given none, there is nothing to run.")


def run(entries: Sequence[Entry], *, predict: bool) -> list[Result]:
    """Runs them one after the other, failing ones again while ``within`` allows it; gives a result for each.

    With ``predict`` nothing is run, and the results tell what would be. Raises Failure, OSError.
    """
    runs = [_Run(entry) for entry in entries]
    pending = [each for each in runs if each.needed()]
    if pending and not predict:
        mismatch = installation.mismatch()
        if mismatch:
            raise mismatch
        while pending:
            for each, outcome in zip(pending, _launch([each.entry for each in pending])):
                each.judge(*outcome)
            pending = [each for each in pending if each.result["failed"] and time.monotonic() < each.deadline]
            if pending:
                time.sleep(_PAUSE)
    return [each.result for each in runs]


class _Run:
    """One entry and what has become of it so far."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.deadline = time.monotonic() + entry["within"]
        self._words = shell_command(entry["command"])
        self.result: Result = {
            "name": entry["name"],
            "command": entry["command"],
            "changed": not entry.get("read_only", "stdout" in entry),
            "failed": False,
            "commands": [as_shell(entry)],
        }

    def needed(self) -> bool:
        """Whether ``creates`` and ``removes`` leave something to be run."""
        for option, state, needless in (("creates", "exists", True), ("removes", "does not exist", False)):
            if option in self.entry and _exists(self.entry["name"], self.entry[option]) is needless:
                said = f"Not run, as {self.entry[option]} {state} in {self.entry['name']}."
                self.result.update(changed=False, rc=0, msg=said, commands=[], **_output(b"", b""))
                return False
        return True

    def judge(self, verdict: str, stdout: bytes, stderr: bytes) -> None:
        """Takes what came of one attempt; ``verdict`` is the launcher's word on it (see enter.py)."""
        how, _blank, what = verdict.partition(" ")
        self.result.update(rc=None, **_output(stdout, stderr))
        if how == "failed":
            failure: str | None = f"{what}."
            self.result["changed"] = False
        elif how == "timeout":
            failure = (
                f"timeout: {self._words} took longer than {self.entry['timeout']} seconds and was killed."
            )
        else:
            self.result["rc"] = int(what) + (_SIGNALLED if how == "killed" else 0)
            failure = self._disappointment()
        self.result["failed"] = failure is not None
        self.result["msg"] = failure or ""

    def _disappointment(self) -> str | None:
        """What is not as expected, in one sentence."""
        if self.result["rc"] != self.entry["rc"]:
            lines = self.result["stderr_lines"] or self.result["stdout_lines"]
            said = f", saying {lines[-1]!r}" if lines else ""
            return f"rc: {self._words} ended with {self.result['rc']}, not {self.entry['rc']}{said}."
        if self.entry.get("stdout", "") not in self.result["stdout"]:
            return f"stdout: {self.entry['stdout']!r} is not in what {self._words} wrote."
        return None


def as_shell(entry: Entry) -> str:
    """What a person would type: nsenter(1), which takes on neither the cgroup nor the privileges."""
    words = list(entry["command"])
    if "env" in entry:
        words = ["env", *(f"{name}={value}" for name, value in entry["env"].items()), *words]
    if "chdir" in entry:
        words = ["sh", "-c", f'cd {shell_command([entry["chdir"]])} && exec "$@"', "sh", *words]
    uid, _colon, gid = entry.get("user", "").partition(":")
    identity = ""
    if uid.isdecimal():
        identity = f"--setuid {uid} --setgid {gid if gid.isdecimal() else uid} "
    elif uid:
        words = ["su", "-s", "/bin/sh", uid, "-c", shell_command(words)]
    state = host.RUN / entry["name"] / "state.json"
    pid = f"$(sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/' {state})"
    line = f'nsenter --target "{pid}" --all {identity}-- {shell_command(words)}'
    if "stdin" in entry:
        line = f"printf %s {shell_command([entry['stdin']])} | {line}"
    if "stdout" in entry:
        line = f"{line} | grep -F -e {shell_command([entry['stdout']])}"
    elif entry["rc"]:
        line = f"{line} || test $? -eq {entry['rc']}"
    if entry["within"]:
        line = f"timeout {entry['within']} sh -c {shell_command([f'until {line}; do sleep 1; done'])}"
    return line


def _exists(name: str, wanted: str) -> bool | None:
    """Whether the path exists inside the container; None where the container does not run. Raises OSError."""
    found = running(name)
    if found is None:
        return None
    root = os.open(f"/proc/{found[0]}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(path.open_in_root(root, wanted, os.O_PATH))
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise
        return False
    finally:
        os.close(root)
    return True


def _launch(entries: Sequence[Entry]) -> Iterator[tuple[str, bytes, bytes]]:
    """One launcher for all: verdict, standard output and standard error of each. Raises OSError."""
    with ExitStack() as opened:
        files = [
            [_memory_file(opened, text) for text in (entry.get("stdin", ""), "", "")] for entry in entries
        ]
        requests = [_request(entry, stdio) for entry, stdio in zip(entries, files)]
        descriptor = _memory_file(opened, json.dumps(requests))
        inherited = [descriptor, *(each for stdio in files for each in stdio)]
        done = installation.run_launcher("exec", str(descriptor), inherited=inherited)
        verdicts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        lost = f"failed The launcher ended with status {done.returncode}: {' '.join(done.stderr.split())}"
        for number, (__, stdout, stderr) in enumerate(files):
            yield verdicts.get(str(number), lost), _read(stdout), _read(stderr)


def _request(entry: Entry, stdio: Sequence[int]) -> dict[str, Any]:
    """What the launcher is asked for one entry (see enter.py)."""
    return {
        "name": entry["name"],
        "args": entry["command"],
        "env": [f"{name}={value}" for name, value in entry.get("env", {}).items()],
        "user": entry.get("user"),
        "cwd": entry.get("chdir"),
        "timeout": entry.get("timeout"),
        "stdio": list(stdio),
    }


def _memory_file(opened: ExitStack, text: str) -> int:
    """A file in memory that holds ``text``, open at its start; unlike a pipe, nobody has to empty it."""
    descriptor = os.memfd_create("stdio")
    opened.callback(os.close, descriptor)
    data = memoryview(text.encode())
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _output(stdout: bytes, stderr: bytes) -> dict[str, Any]:
    """As ansible.builtin.command returns it."""
    texts = {"stdout": stdout, "stderr": stderr}
    output: dict[str, Any] = {
        name: text.decode("utf-8", "replace").rstrip("\r\n") for name, text in texts.items()
    }
    return {**output, **{f"{name}_lines": output[name].splitlines() for name in texts}}


def describe(results: Sequence[Result], *, batch: bool) -> dict[str, Any]:
    """The module's result: the one's own, or all in ``runs`` with what they come to together."""
    if not batch:
        return {key: value for key, value in results[0].items() if key != "name"}
    failures = [f"{result['name']}: {result['msg']}" for result in results if result["failed"]]
    return {
        "changed": any(result["changed"] for result in results),
        "failed": bool(failures),
        "msg": " ".join(failures),
        "commands": [line for result in results for line in result["commands"]],
        "runs": list(results),
    }

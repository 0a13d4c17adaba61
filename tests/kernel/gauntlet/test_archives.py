# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives made to get out of where they are unpacked, or to never end: only the new tree is ever touched."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Machine = Any  # conftest.Machine
STORE = "/var/lib/bare-containers/store"
VICTIM = "/run/victim"

DIR, REG, SYM, LNK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
CHR, FIFO = tarfile.CHRTYPE, tarfile.FIFOTYPE


def entry(name: str, kind: bytes, link: str = "", data: bytes = b"pwned\n", **fields: Any) -> bytes:
    """One entry of an archive, as bytes; nothing of it is checked."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755 if kind == DIR else 0o644
    info.size = len(data) if kind == REG else 0
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.PAX_FORMAT)
    return header + (data + bytes(-len(data) % 512) if kind == REG else b"")


END = bytes(1024)

# What tries to leave, and what of it ends up in the tree: None where the archive is refused as a whole.
ATTACKS: dict[str, tuple[list[bytes], set[str] | None]] = {
    "parent": ([entry("../../../../../../run/victim/file", REG)], None),
    "parent within": ([entry("a/../../../../../run/victim/file", REG)], None),
    "parent directory": ([entry("../run", DIR)], None),
    "absolute": ([entry("/run/victim/file", REG)], {"run", "run/victim", "run/victim/file"}),
    "absolute with slashes": ([entry("//..//run/victim/file", REG)], None),
    "link, then through it": ([entry("a", SYM, "/run/victim"), entry("a/file", REG)], None),
    "relative link, then through it": (
        [entry("a", SYM, "../../../../../../../run/victim"), entry("a/file", REG)],
        None,
    ),
    "link to a directory inside, then through it": (
        [entry("run/victim", DIR), entry("a", SYM, "/run/victim"), entry("a/file", REG)],
        {"a", "run", "run/victim", "run/victim/file"},
    ),
    "chain of links": (
        [entry("a", SYM, "/run"), entry("b", SYM, "a/victim"), entry("c", SYM, "b"), entry("c/file", REG)],
        None,
    ),
    "link over a directory, then through it": (
        [entry("a", DIR), entry("a", SYM, "/run/victim"), entry("a/file", REG)],
        None,
    ),
    "link as the file, then the file": (
        [entry("a", SYM, "/run/victim/file"), entry("a", REG)],
        {"a"},
    ),
    "hard link": ([entry("a", LNK, "/run/victim/file")], None),
    "relative hard link": ([entry("a", LNK, "../../../../../../run/victim/file")], None),
    "hard link through a link": ([entry("v", SYM, "/run/victim"), entry("a", LNK, "v/file")], None),
    "hard link, then written": ([entry("a", LNK, "/run/victim/file"), entry("a", REG)], None),
    "link to a mode": (
        [entry("a", SYM, "/run/victim/file"), entry("a", SYM, "/run/victim/file", mode=0o777)],
        {"a"},
    ),
    "directory through a link": ([entry("a", SYM, "/run/victim"), entry("a", DIR, mode=0o777)], {"a"}),
    "directory in a link": ([entry("a", SYM, "/run/victim"), entry("a/b", DIR)], None),
    "device through a link": (
        [entry("a", SYM, "/run/victim"), entry("a/null", CHR, devmajor=1, devminor=3)],
        None,
    ),
    "pipe over a link": ([entry("a", SYM, "/run/victim/file"), entry("a", FIFO)], {"a"}),
    "root as a link": ([entry(".", SYM, "/run/victim"), entry("file", REG)], None),
    "root as a file": ([entry("./", REG)], None),
    "root with owner and mode": ([entry(".", DIR, mode=0o700, uid=7), entry("file", REG)], {"file"}),
    "magic link": ([entry("a", SYM, "/proc/self/root/run/victim"), entry("a/file", REG)], None),
    "old working directory": (
        [entry("a", SYM, "/proc/self/cwd/../../../run/victim"), entry("a/file", REG)],
        None,
    ),
    "path beyond PATH_MAX": ([entry("d/" * 2100 + "f", REG)], None),
    "chain of links beyond PATH_MAX": (
        [
            entry("d/" * 1000, DIR),
            entry("x", SYM, "d/" * 1000),
            entry("x/" + "d/" * 1000, DIR),
            entry("y", SYM, "x/" + "d/" * 1000),
            entry("y/" + "d/" * 1000, DIR),
            entry("y/" + "../" * 3000 + "run/victim/file", REG),
        ],
        None,
    ),
    "owner that means no change": ([entry("a", REG, uid=0xFFFFFFFF)], None),
    "unknown type": ([entry("a", b"Q")], None),
    "name with a null byte": ([entry("a", SYM, "x", pax_headers={"path": "a\0b"})], None),
    "file over a full directory": ([entry("a/b", REG), entry("a", REG)], None),
    "hard link to itself": ([entry("a", REG), entry("a", LNK, "a")], {"a"}),
    "loop of links": ([entry("a", SYM, "b"), entry("b", SYM, "a"), entry("a/file", REG)], None),
    "negative size": ([entry("a", REG, size=-1024)], None),
    "size beyond everything": (
        [entry("a", DIR), entry("b", REG, pax_headers={"size": "9" * 18})],
        None,
    ),
    "huge extended header": ([entry("x", b"x", data=b"", size=1 << 40)], None),
    "no number for a time": ([entry("a", REG, pax_headers={"mtime": "yesterday"})], None),
}


@pytest.fixture
def victim(machine: Machine) -> Machine:
    """A machine with something to lose."""
    machine.shell(f"mkdir -m 0700 {VICTIM}; echo precious > {VICTIM}/file; chmod 0600 {VICTIM}/file")
    return machine


def state(machine: Machine) -> str:
    """The victim, and all that is in the directories an archive would come by."""
    return str(
        machine.shell(f"find {VICTIM} /etc -printf '%p %M %U %s %T@ %C@ %n %l\\n' | sort; cat {VICTIM}/file")
    )


def unpack(machine: Machine, archive: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = machine.module("rootfs_fetch", {"name": "web", "path": str(archive), **options})
    return result


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_leaves_the_tree(victim: Machine, tmp_path: Path, attack: str) -> None:
    pieces, inside = ATTACKS[attack]
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"".join(pieces) + END)
    before = state(victim)
    result = unpack(victim, archive)
    assert state(victim) == before
    if inside is None:
        assert result["failed"]
        assert not result["changed"]
        assert result["msg"].startswith(f"web: path: {archive} "), result["msg"]
        assert result["msg"].endswith("; nothing was changed.")
        assert "\n" not in result["msg"]
        assert victim.run("find", "/var/lib", "-mindepth", "1") == ""
    else:
        assert not result.get("failed"), result
        found = victim.run("find", result["path"], "-mindepth", "1", "-printf", "%P\n").split()
        assert set(found) == inside


_WITHOUT_PROTECTION = """
import os, sys
from pathlib import Path
from ansible_collections.bare.containers.plugins.module_utils.rootfs import archive, extract, watch
extract._enter = lambda target, below: os.chdir(target)
os.mkdir("/run/tree")
with open(sys.argv[1], "rb") as opened:
    extract.unpack(opened.fileno(), Path("/run/tree"), archive.Limits(1 << 20, 100), watch.Watch("it", 60))
"""


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([entry("run/victim/file", REG)], id="absolute"),
        pytest.param([entry("run/a", SYM, "victim"), entry("run/a/file", REG)], id="through a link"),
        pytest.param([entry("run/a", LNK, "run/victim/file")], id="hard link"),
        pytest.param([entry("run/victim", DIR, mode=0o777)], id="mode of a directory"),
    ],
)
def test_without_the_pivot_such_archives_do_harm(
    victim: Machine, tmp_path: Path, pieces: list[bytes]
) -> None:
    """So that the test above is known to try something. All names are in /run, which is the machine's own."""
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"".join(pieces) + END)
    before = state(victim)
    unpack(victim, archive)
    assert state(victim) == before
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3] / '.collections')!r})\n"
    victim.run(sys.executable, "-c", script + _WITHOUT_PROTECTION, str(archive))
    assert state(victim) != before


# What breaks off


def whole_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"directory/{number}" + "x" * (100 if number % 5 == 0 else 0))
            info.size = number * 100
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return buffer.getvalue()


@pytest.mark.parametrize("program", ["cat", "gzip", "xz", "bzip2", "zstd"])
def test_a_truncated_archive_changes_nothing(machine: Machine, tmp_path: Path, program: str) -> None:
    whole = subprocess.run([program], input=whole_archive(), capture_output=True, check=True).stdout
    # A plain archive may lack some of the zeros at its end, which come in whole records (tar(5)).
    end = len(whole.rstrip(b"\0")) if program == "cat" else len(whole) - 1
    batch = []
    for number, length in enumerate(range(1, end, max(1, end // 25))):
        (tmp_path / str(number)).write_bytes(whole[:length])
        batch.append({"name": f"c{number}", "path": str(tmp_path / str(number))})
    result = machine.module("rootfs_fetch", {"batch": batch})
    assert [name for name, it in result["containers"].items() if not it["failed"]] == []
    assert machine.run("find", "/var/lib", "-mindepth", "1") == ""
    (tmp_path / "whole").write_bytes(whole)
    assert not unpack(machine, tmp_path / "whole").get("failed")


@pytest.mark.parametrize("program", ["cat", "gzip", "xz", "bzip2", "zstd"])
def test_a_damaged_archive_changes_nothing(machine: Machine, tmp_path: Path, program: str) -> None:
    content = bytearray(whole_archive())
    if program == "cat":
        content[512 * 9 + 100] ^= 0xFF  # in a header, which has a checksum
        assert content[512 * 9 + 257 : 512 * 9 + 262] == b"ustar"
    compressed = bytearray(subprocess.run([program], input=content, capture_output=True, check=True).stdout)
    if program != "cat":
        compressed[len(compressed) // 2] ^= 0xFF
    (tmp_path / "archive").write_bytes(compressed)
    result = unpack(machine, tmp_path / "archive")
    assert result["failed"]
    assert result["msg"].endswith("; nothing was changed.")
    assert machine.run("find", "/var/lib", "-mindepth", "1") == ""


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"PK\x03\x04" + b"x" * 2000, b"x" * 511, b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh9"]
)
def test_what_is_no_archive(machine: Machine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    result = unpack(machine, tmp_path / "file")
    assert result["failed"]
    assert result["msg"].startswith(f"web: path: {tmp_path / 'file'} ")
    assert machine.run("find", "/var/lib", "-mindepth", "1") == ""


# What would never end


@pytest.mark.parametrize("program", ["cat", "gzip", "zstd"])
def test_a_bomb_is_stopped_at_its_limit(machine: Machine, tmp_path: Path, program: str) -> None:
    with (tmp_path / "bomb").open("wb") as bomb:
        make = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=bomb)
        assert make.stdin is not None
        header = tarfile.TarInfo("zeros")
        header.size = 64 << 20
        make.stdin.write(header.tobuf())
        for _megabyte in range(64):
            make.stdin.write(bytes(1 << 20))
        make.stdin.write(END)
        make.stdin.close()
        assert make.wait() == 0
    result = unpack(machine, tmp_path / "bomb", max_size="1M")
    assert result["msg"] == (
        f"web: path: {tmp_path / 'bomb'} has more than the 1048576 bytes that max_size "
        "allows; nothing was changed."
    )
    assert machine.run("find", "/var/lib", "-mindepth", "1") == ""
    assert unpack(machine, tmp_path / "bomb", max_size="65M")["size"] == 64 << 20


def test_too_many_entries(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(b"".join(entry(str(number), DIR) for number in range(11)) + END)
    result = unpack(machine, tmp_path / "many", max_entries=10)
    assert result["msg"] == (
        f"web: path: {tmp_path / 'many'} has more than the 10 entries that max_entries "
        "allows; nothing was changed."
    )
    assert not unpack(machine, tmp_path / "many", max_entries=11).get("failed")


def test_a_full_file_system_changes_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.shell(f"mkdir -p {STORE}; mount -t tmpfs -o size=1m tmpfs {STORE}")
    (tmp_path / "large").write_bytes(entry("large", REG, data=bytes(range(256)) * (1 << 13)) + END)
    result = unpack(machine, tmp_path / "large")
    assert result["msg"] == (
        f"web: path: {tmp_path / 'large'} can't be unpacked: No space left on device; nothing was changed."
    )
    assert machine.run("find", STORE, "-mindepth", "1") == ""


# Code of the archive's


def test_no_code_of_the_archive_is_run(victim: Machine, collection: Any, tmp_path: Path) -> None:
    """What Python has not loaded yet would come out of the tree, once that is the root (CVE-2019-14271)."""
    version = victim.run(
        "/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2], sep='.')"
    ).strip()
    mark = b"import os; os.symlink('/run/victim', '/ran-' + __name__)\n"
    names = [
        "traceback",
        "linecache",
        "copyreg",
        "decimal",
        "encodings/idna",
        "encodings/latin_1",
        "json/__init__",
        "cmd",
    ]
    planted = [entry(f"usr/lib/python{version}/{name}.py", REG, data=mark) for name in names]
    failing = [entry("a", REG, pax_headers={"mtime": "yesterday"}), entry("../x", REG)]

    def ran(module: Callable[[str, dict[str, Any]], dict[str, Any]], last: bytes) -> str | None:
        archive = tmp_path / "archive.tar"
        archive.write_bytes(b"".join(planted) + last + END)
        result = module("rootfs_fetch", {"name": "web", "path": str(archive)})
        assert json.dumps(result).count("ran-") == 0
        return None if result.get("failed") else str(victim.run("find", result["path"], "-name", "ran-*"))

    for last in failing:
        assert ran(victim.module, last) is None
    assert ran(victim.module, entry("fine", REG)) == ""
    # Of one that would import something late, it is a failing import.
    late = "        try:\n            import cmd\n        except ImportError:\n            pass\n"
    collection.weaken("rootfs/extract.py", "        tree.finish()\n", f"        tree.finish()\n{late}")
    assert ran(collection.module, entry("other", REG)) == ""
    for closed in ("meta_path", "path_hooks", "path"):
        collection.weaken("rootfs/extract.py", f"    sys.{closed}.clear()\n", "")
    assert (ran(collection.module, entry("third", REG)) or "").endswith("/ran-cmd\n")

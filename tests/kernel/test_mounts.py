# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has mounted: every option of the OCI runtime spec, as the kernel shows it."""

from __future__ import annotations

import json
import os
import re
import struct

import pytest

OF_THE_SPEC = """\
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime
noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev
rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow
ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave
strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap
"""
"""The names of the table in config.md, "Linux mount options"."""

SHOWN = {
    "ro": "ro",
    "nosuid": "nosuid",
    "nodev": "nodev",
    "noexec": "noexec",
    "noatime": "noatime",
    "nodiratime": "nodiratime",
    "nosymfollow": "nosymfollow",
    "relatime": "relatime",
    # The kernel shows it by not showing any other.
    "strictatime": "",
}
"""How /proc/PID/mountinfo shows what a mount has (proc(5))."""

CLEARED = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "atime": "noatime",
    "diratime": "nodiratime",
    "symfollow": "nosymfollow",
    "norelatime": "noatime",
    "nostrictatime": "noatime",
}
"""What undoes what; the last two leave what the kernel does by itself, which is relatime."""

OF_FILE_SYSTEM = {"sync": "sync", "dirsync": "dirsync", "lazytime": "lazytime", "mand": "mand"}
UNDONE = {"async": "sync", "nolazytime": "lazytime", "nomand": "mand"}
PROPAGATION = {"private": "", "shared": "shared:", "slave": "master:", "unbindable": "unbindable"}
NOT_SHOWN = ("defaults", "iversion", "noiversion", "silent", "loud")

SOURCE = "/var/lib/source"


class Line:
    """A line of /proc/PID/mountinfo."""

    def __init__(self, text):
        fields = text.split(" ")
        end = fields.index("-")
        self.place, self.options = fields[4], fields[5].split(",")
        self.propagation = " ".join(fields[6:end])
        self.kind, self.of_file_system = fields[end + 1], fields[end + 3].split(",")


def mounted(containers):
    lines = containers.inside("cat /proc/self/mountinfo").splitlines()
    return {line.place: line for line in map(Line, lines)}


def with_mounts(containers, *more, **options):
    """A declaration whose config.json has these mounts beside all others."""
    containers.converge(**options, state="stopped")
    config = json.loads(containers.machine.shell(f"cat {containers.directory()}/config.json"))
    return {**options, "oci": {"mounts": [*config["mounts"], *more]}}


def tmpfs(place, *options):
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bound(place, *options):
    return {"destination": place, "type": "bind", "source": SOURCE, "options": ["rbind", *options]}


@pytest.fixture
def source(containers):
    """A directory of the host's that is a shared mount with another one below."""
    containers.machine.shell(
        f"mkdir {SOURCE}; mount -t tmpfs t {SOURCE}; mkdir {SOURCE}/below; mount -t tmpfs t {SOURCE}/below\n"
        f"mount --make-rshared {SOURCE}; touch {SOURCE}/file {SOURCE}/below/file"
    )


def test_every_option_of_the_spec_is_honoured(containers, source):
    cases = {
        **{name: tmpfs(f"/o/{name}", name) for name in (*SHOWN, *OF_FILE_SYSTEM, *NOT_SHOWN)},
        **{name: tmpfs(f"/o/{name}", other, name) for name, other in {**CLEARED, **UNDONE}.items()},
        **{f"r{name}": bound(f"/o/r{name}", f"r{name}") for name in SHOWN},
        **{f"r{name}": bound(f"/o/r{name}", f"r{other}", f"r{name}") for name, other in CLEARED.items()},
        **{name: bound(f"/o/{name}", name) for name in PROPAGATION},
        **{f"r{name}": bound(f"/o/r{name}", f"r{name}") for name in PROPAGATION},
        "bind": {**bound("/o/bind"), "options": ["bind"]},
        "rbind": bound("/o/rbind"),
        "idmap": bound("/o/idmap", "idmap"),
        "ridmap": bound("/o/ridmap", "ridmap"),
        "tmpcopyup": tmpfs("/bin", "tmpcopyup"),
        "remount": {"destination": "/o/rbind", "options": ["remount", "ro"]},
    }
    # The table has its opposite only.
    assert set(cases) - {"rnodev"} == set(OF_THE_SPEC.split())
    maps = {name: [{"containerID": 0, "hostID": 7, "size": 1}] for name in ("uidMappings", "gidMappings")}
    for name in ("idmap", "ridmap"):
        cases[name].update(maps)
    containers.converge(**with_mounts(containers, *cases.values()))
    there = mounted(containers)

    def options(name, below=""):
        return there[f"/o/{name}{below}"].options

    for name, shown in SHOWN.items():
        atimes = {"relatime", "noatime"} & set(options(name))
        assert shown in options(name) or (shown == "" and not atimes), name
        for place in ("", "/below"):
            atimes = {"relatime", "noatime"} & set(options(f"r{name}", place))
            assert shown in options(f"r{name}", place) or (shown == "" and not atimes), (name, place)
    for name, cleared in CLEARED.items():
        assert cleared not in options(name), name
        assert not {cleared} & {*options(f"r{name}"), *options(f"r{name}", "/below")}, name
    for name, shown in OF_FILE_SYSTEM.items():
        assert shown in there[f"/o/{name}"].of_file_system, name
    for name, cleared in UNDONE.items():
        assert cleared not in there[f"/o/{name}"].of_file_system, name
    for name, shown in PROPAGATION.items():
        assert re.search(shown or "^$", there[f"/o/{name}"].propagation), name
        for place in ("", "/below"):
            assert re.search(shown or "^$", there[f"/o/r{name}{place}"].propagation), (name, place)
    for name in NOT_SHOWN:
        assert there[f"/o/{name}"].kind == "tmpfs"
    assert "/o/bind/below" not in there
    assert "ro" in options("rbind")
    assert "rw" in options("rbind", "/below")
    assert there["/bin"].kind == "tmpfs"
    owners = "stat -c %u /o/idmap/file /o/idmap/below/file /o/ridmap/file /o/ridmap/below/file"
    assert containers.inside(owners).split() == ["7", "0", "7", "7"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (bound("/x", "sync"), "'sync' of a bind mount"),
        (bound("/x", "size=1m"), "'size=1m' of a bind mount"),
        (bound("/x", "iversion"), "'iversion' of a bind mount"),
        (bound("/x", "tmpcopyup"), "'tmpcopyup'"),
        (tmpfs("/dev/", "tmpcopyup"), "'tmpcopyup'"),
        (tmpfs("/x", "remount", "tmpcopyup"), "'tmpcopyup'"),
        (tmpfs("/x", "remount", "iversion"), "'iversion' of a remount"),
        (tmpfs("/x", "ridmap"), "'ridmap'"),
        (tmpfs("/no-such", "remount", "ro"), "mount of /no-such"),
        (tmpfs("/bin/sh", "remount", "ro"), "nothing is mounted there"),
        ({**tmpfs("/sys/fs/cgroup", "remount", "sync"), "type": "cgroup2"}, "not the container's alone"),
        (tmpfs("/tmp", "remount", "size=x"), "mount of /tmp (size=x)"),
        (tmpfs("/x", "tmpcopyup", "no-such"), "mount of /x (no-such)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_mount_can_not_have_is_refused_by_name(containers, source, entry, words):
    message = containers.converge(**with_mounts(containers, entry), fails=True)["msg"]
    assert words in message
    assert "\n" not in message
    assert containers.state() is None


class TestRemount:
    @pytest.mark.parametrize("options", [{}, {"uidmap": ["0:100000:65536"]}], ids=["host", "users"])
    def test_it_changes_what_is_named(self, containers, source, options):
        containers.converge(
            **with_mounts(
                containers,
                {"destination": "/tmp/", "type": "tmpfs", "options": ["remount", "size=1m", "noexec"]},
                {"destination": "/proc", "type": "proc", "options": ["remount", "hidepid=2"]},
                {"destination": "/dev/shm", "options": ["remount", "bind", "ro"]},
                bound("/tree"),
                {"destination": "/tree", "type": "none", "options": ["remount", "bind", "rro"]},
                **options,
            )
        )
        there = mounted(containers)
        assert "size=1024k" in there["/tmp"].of_file_system
        # What is not named stays as it was.
        assert {"noexec", "nosuid", "nodev"} <= set(there["/tmp"].options)
        assert there["/proc"].of_file_system[-1] in ("hidepid=2", "hidepid=invisible")
        assert "ro" in there["/dev/shm"].options
        assert "ro" not in there["/dev/shm"].of_file_system
        assert "ro" in there["/tree"].options
        assert "ro" in there["/tree/below"].options
        assert containers.machine.shell(f"touch {SOURCE}/still && echo writable") == "writable\n"

    def test_the_host_s_file_systems_stay_as_they_are(self, containers, source):
        before = containers.machine.shell("cat /proc/self/mountinfo")
        refused = {"destination": "/tree", "type": "tmpfs", "options": ["remount", "size=4k"]}
        message = containers.converge(**with_mounts(containers, bound("/tree"), refused), fails=True)["msg"]
        assert "not the container's alone" in message
        assert containers.machine.shell("cat /proc/self/mountinfo") == before


TREE = """
cd {tree}; mkdir -p data/deep/er data/empty; cd data
echo text > file; chmod 4751 file; chown 3:4 file; ln file deep/linked; ln file deep/again
touch -d @1000000000.123456789 file deep; ln -s /etc/passwd away; ln -s file near; mkfifo pipe
truncate -s 50M hole; printf end | dd of=hole bs=1 seek=40M conv=notrunc 2>/dev/null
cp /bin/true able
mknod null c 1 3; mknod loop b 7 200; chown 6:7 deep/er; chmod 1770 deep/er; chmod 700 .; chown 5:6 .
touch -h -d @900000000 away; echo x > "$(printf 'odd\\nname')"
"""

ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(1, 7, 0xFFFFFFFF),
    *(2, 4, 5),
    *(4, 5, 0xFFFFFFFF),
    *(16, 5, 0xFFFFFFFF),
    *(32, 1, 0xFFFFFFFF),
)
"""rwx for the owner, r for the user 5, r-x for the group and at most, x for others (posix_acl_xattr.h)."""

ATTRIBUTES = (
    # CAP_NET_RAW, permitted and effective (linux/capability.h, struct vfs_cap_data).
    ("able", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)),
    ("able", "system.posix_acl_access", ACL),
    ("deep/er", "system.posix_acl_default", ACL),
    ("deep", "trusted.note", b"kept"),
    ("file", "trusted.other", b"kept"),
    ("away", "trusted.note", b"of a link"),
)

SEEN = r"""
cd /data; find . -exec stat -c '%n %F %a %u:%g %h %s %t:%T %N' {} + | sort
find . ! -type d -exec stat -c '%n %Y' {} + | sort; stat -c '%n %Y' deep; cat file deep/linked
md5sum hole able
test file -ef deep/linked && test file -ef deep/again && echo the same; du -k hole | cut -f1
"""


def attributes(containers):
    """The extended attributes below /data, by the path and the name, as the container has them."""
    top = f"/proc/{containers.pid()}/root/data"
    places = [top, *(f"{where}/{name}" for where, *both in os.walk(top) for name in both[0] + both[1])]
    return {
        (place[len(top) :], name): os.getxattr(place, name, follow_symlinks=False)
        for place in places
        for name in os.listxattr(place, follow_symlinks=False)
    }


class TestCopyUp:
    @pytest.mark.parametrize("options", [{}, {"uidmap": ["0:100000:65536"]}], ids=["host", "users"])
    def test_it_begins_as_what_it_covers(self, containers, options):
        containers.machine.shell(TREE.format(tree=containers.tree))
        data = f"/proc/{containers.machine.pid}/root/{containers.tree}/data"
        for name, attribute, value in ATTRIBUTES:
            os.setxattr(f"{data}/{name}", attribute, value, follow_symlinks=False)
        containers.converge(**options)
        expected, kept = containers.inside(SEEN), attributes(containers)
        assert {name for _place, name in kept} == {name for _place, name, _value in ATTRIBUTES}
        containers.converge(tmpfs={"/data": "tmpcopyup,size=60m"}, **options)
        there = mounted(containers)["/data"]
        assert (there.kind, there.of_file_system[1]) == ("tmpfs", "size=61440k")
        assert {"nosuid", "nodev"} <= set(there.options)
        seen = containers.inside(SEEN)
        # Directories have other sizes and numbers of links in every file system.
        plain = re.compile(r"(directory \d+ \S+) \d+ \d+")
        assert plain.sub(r"\1", seen) == plain.sub(r"\1", expected)
        assert attributes(containers) == kept
        # It is a copy: what is below stays what it is.
        containers.inside("echo changed > /data/file; rm /data/near")
        assert containers.machine.shell(f"cat {containers.tree}/data/file; ls {containers.tree}/data/near")

    def test_what_is_declared_of_it_holds(self, containers):
        containers.machine.shell(f"mkdir {containers.tree}/data; chmod 700 {containers.tree}/data")
        containers.write(f"{containers.tree}/data/file", "x\n")
        containers.machine.shell(f"chown 3:4 {containers.tree}/data; ln -s data {containers.tree}/link")
        containers.converge(
            tmpfs={"/link": "tmpcopyup,ro,mode=1751,uid=9,size=1m", "/data2": "tmpcopyup,notmpcopyup"}
        )
        look = "stat -c '%a %u:%g' /data /data2; cat /data/file; (: > /data/file) 2>&1 || echo refused"
        assert containers.inside(look).splitlines()[:3] == ["1751 9:4", "1777 0:0", "x"]
        assert containers.inside(look).endswith("Read-only file system\nrefused\n")
        again = containers.converge(
            tmpfs={"/link": "ro,mode=1751,uid=9,size=1m,tmpcopyup", "/data2": ""}, check=True
        )
        assert not again["changed"]

    def test_more_than_it_can_hold_is_told(self, containers):
        containers.machine.shell(
            f"mkdir {containers.tree}/data; head -c 2M /dev/urandom > {containers.tree}/data/big"
        )
        message = containers.converge(tmpfs={"/data": "tmpcopyup,size=1m"}, fails=True)["msg"]
        assert "tmpcopyup of /data" in message
        assert "No space left on device" in message
        assert containers.state() is None
        containers.machine.shell(f"rm {containers.tree}/data/big; cd {containers.tree}/data; touch $(seq 99)")
        message = containers.converge(tmpfs={"/data": "tmpcopyup,nr_inodes=50"}, fails=True)["msg"]
        assert "tmpcopyup of /data" in message
        assert containers.converge(tmpfs={"/data": "tmpcopyup,nr_inodes=500"})["changed"]

    def test_no_device_node_becomes_one(self, containers):
        containers.machine.shell(f"mkdir {containers.tree}/data; mknod {containers.tree}/data/disk b 254 0")
        message = containers.converge(tmpfs={"/data": "tmpcopyup,dev"}, fails=True)["msg"]
        assert "tmpcopyup of /data (./disk)" in message
        containers.converge(tmpfs={"/data": "tmpcopyup"})
        assert containers.inside("stat -c %F /data/disk") == "block special file\n"
        assert "nodev" in mounted(containers)["/data"].options


LAYERS = "/var/lib/bare-containers/rootfs/layers"


@pytest.fixture
def layered(containers):
    """Declares a root file system of so many layers, as rootfs_fetch does; every layer says which it is."""

    def declare(count, first=0):
        layers = [f"{LAYERS}/sha256:{first + number:064}/contents" for number in range(count)]
        containers.machine.shell(
            f"mkdir -p {' '.join(layers)}; cp -a {containers.tree}/. {layers[0]}\n"
            + "".join(
                f"echo {layer[-13:-9]} | tee {layer}/which > {layer}/of{layer[-13:-9]}\n" for layer in layers
            )
        )
        containers.declare("rootfs", {"layers": layers})
        return layers

    return declare


def stored(containers, **options):
    """Converges a container on what is declared of its root."""
    arguments = {"name": containers.name("one"), "command": ["sleep", "1000"], "stop_timeout": 0, **options}
    check = arguments.pop("check", False)
    result = containers.machine.module("container_process", arguments, check=check)
    return result


def done(result):
    assert not result.get("failed"), result["msg"]
    return result


def kept(containers):
    return set(containers.machine.shell(f"ls -A {containers.directory()}").split())


def host_mounts(containers):
    return containers.machine.shell("cut -d' ' -f5- /proc/self/mountinfo")


@pytest.mark.parametrize("mode", ["overlay", "tmpfs", "read_only", "direct"])
@pytest.mark.parametrize("users", [{}, {"uidmap": ["0:100000:65536"]}], ids=["host", "users"])
def test_a_root_of_120_layers(containers, layered, mode, users):
    layers = layered(120)
    before = host_mounts(containers)
    assert len(":".join(layers)) > 3 * 4096
    result = done(stored(containers, rootfs_mode=mode, **users))
    assert containers.inside("cat /which; ls -d /of* | wc -l; stat -c %u /which").split() == [
        "0119",
        "120",
        "0",
    ]
    assert not done(stored(containers, rootfs_mode=mode, **users))["changed"]
    assert host_mounts(containers) == before
    if not users:
        done(stored(containers, rootfs_mode=mode, state="stopped"))
        recipe = "\n".join(result["recipe"]).replace(" sleep 1000 ", " cat /which ")
        assert recipe.count(" cat /which ") == 1
        assert containers.machine.shell(recipe) == "0119\n"


def test_few_layers_are_told_by_their_paths(containers, layered):
    layers = layered(3)
    done(stored(containers))
    # The backslash that escapes a colon is one that mountinfo escapes.
    told = containers.inside("grep ' / / ' /proc/self/mountinfo").replace("\\134:", ":")
    assert f"lowerdir={':'.join(reversed(layers))}," in told


FILL = "dd if=/dev/zero of={} bs=1024 count=2048"


class TestRootInMemory:
    def test_what_it_writes_is_gone_with_it(self, containers):
        before = host_mounts(containers)
        containers.converge(rootfs_mode="tmpfs", rootfs_size="1M")
        assert kept(containers) == {"config.json", "etc", "process.json", "rootfs", "seccomp.bpf"}
        assert containers.machine.shell(f"ls -A {containers.directory()}/rootfs") == ""
        containers.inside("echo mine > /written; rm /bin/yes; stat -c '%a %u' / | grep -qx '755 0'")
        assert "No space left on device" in containers.inside(f"{FILL.format('/big')} 2>&1 || :")
        there = containers.inside("cut -d' ' -f5 /proc/self/mountinfo").splitlines()
        assert there.count("/") == 1
        assert host_mounts(containers) == before
        assert not containers.converge(rootfs_mode="tmpfs", rootfs_size="1M")["changed"]
        containers.converge(rootfs_mode="tmpfs", rootfs_size="1M", state="restarted")
        assert containers.inside("ls /written /big /bin/yes 2>/dev/null || :") == "/bin/yes\n"
        assert containers.machine.shell(f"ls -A {containers.tree}").split() == ["bin", "etc"]
        changed = containers.converge(rootfs_mode="tmpfs", rootfs_size="3M", check=True)
        assert changed["changed"]
        containers.converge(rootfs_mode="tmpfs", rootfs_size="3M")
        containers.inside(FILL.format("/big"))

    def test_a_crash_leaves_nothing(self, containers, eventually):
        before = host_mounts(containers)
        containers.converge(rootfs_mode="tmpfs")
        os.kill(containers.pid(), 9)
        eventually(lambda: not containers.alive())
        assert host_mounts(containers) == before
        assert containers.machine.shell(f"ls -A {containers.directory()}/rootfs") == ""

    def test_read_only_has_no_layer_on_the_disk(self, containers):
        containers.converge(rootfs_mode="read_only", privileged=True)
        assert "upper" not in kept(containers)
        assert containers.inside("touch /x 2>&1 || :").endswith("Read-only file system\n")
        # Who may mount may write, to no more than there is room for mount points in.
        containers.inside("mount -o remount,rw / && touch /x")
        assert "No space left on device" in containers.inside(f"{FILL.format('/x')} 2>&1 || :")
        assert containers.machine.shell(f"ls -A {containers.tree}").split() == ["bin", "etc"]

    def test_users_have_it_too(self, containers):
        containers.converge(rootfs_mode="tmpfs", uidmap=["0:100000:65536"])
        containers.inside("touch /x; chown 7:8 /x")
        assert containers.inside("stat -c %u:%g / /x /bin/sh").split() == ["0:0", "7:8", "0:0"]


class TestCopiedRoot:
    def test_it_is_made_once_and_written_to(self, containers, layered):
        layered(3)
        sums = f"cd {LAYERS}; find . -type f -exec sha256sum {{}} + | sort"
        before, mounts = containers.machine.shell(sums), host_mounts(containers)
        foretold = done(stored(containers, rootfs_mode="direct", check=True))
        first = done(stored(containers, rootfs_mode="direct"))
        assert foretold["commands"] == first["commands"]
        containers.inside("echo mine > /written; echo mine > /which; rm /bin/yes")
        told = containers.machine.module("container_info", {"name": [containers.name("one")], "size": True})
        described = told["containers"][containers.name("one")]["rootfs"]
        assert described["mode"] == "direct"
        assert containers.machine.shell(f"cat {described['upper']}/written") == "mine\n"
        assert described["upper_size"] > 0
        assert containers.machine.shell(sums) == before
        assert host_mounts(containers) == mounts
        assert not done(stored(containers, rootfs_mode="direct"))["changed"]
        done(stored(containers, rootfs_mode="direct", state="restarted"))
        assert containers.inside("cat /written /which; ls /bin/yes 2>/dev/null || :") == "mine\nmine\n"
        # Other layers are another root.
        layered(2, first=5)
        changed = done(stored(containers, rootfs_mode="direct"))
        assert changed["changed"]
        assert containers.inside("cat /which; ls /written 2>/dev/null || :") == "0006\n"
        assert not done(stored(containers, rootfs_mode="direct"))["changed"]
        done(stored(containers, rootfs_mode="direct", state="absent"))
        assert "rootfs" not in kept(containers)

    @pytest.mark.parametrize("count", [1, 120])
    def test_its_commands_make_it(self, containers, layered, count):
        layered(count)
        foretold = done(stored(containers, rootfs_mode="direct", check=True))
        containers.machine.shell("\n".join(foretold["commands"]))
        assert not done(stored(containers, rootfs_mode="direct"))["changed"]
        assert containers.inside("cat /which; ls -d /of* | wc -l").split() == [f"{count - 1:04}", str(count)]

    def test_whiteouts_and_links_are_as_the_layers_show_them(self, containers, layered):
        low, high = layered(2)
        containers.machine.shell(
            f"cd {low}; mkdir gone opaque; touch gone/x opaque/below which; ln which again; mkfifo pipe\n"
            f"cd {high}; mknod gone c 0 0; mkdir opaque; touch opaque/above; ln -s /etc/passwd link"
        )
        opaque = f"/proc/{containers.machine.pid}/root{high}/opaque"
        os.setxattr(opaque, "trusted.overlay.opaque", b"y")
        done(stored(containers))
        look = "cd /; find . -xdev | sort; stat -c '%n %F %a %u %s' which again pipe link opaque/*"
        expected = containers.inside(look)
        assert "./opaque/above" in expected
        assert "./opaque/below" not in expected
        assert "./gone" not in expected
        done(stored(containers, rootfs_mode="direct"))
        assert containers.inside(look) == expected

    def test_one_that_was_killed_half_made_is_made_anew(self, containers, layered, instants):
        layers = layered(2)
        containers.machine.shell(f"head -c 64M /dev/urandom > {layers[0]}/big")
        arguments = {"name": containers.name("one"), "command": ["sleep", "1000"], "stop_timeout": 0}
        arguments["rootfs_mode"] = "direct"
        for seconds in instants.within(0.2, 1.2, 6):
            containers.machine.module_killed_after(seconds, "container_process", arguments)
            done(stored(containers, rootfs_mode="direct"))
            assert containers.inside("cat /which; stat -c %s /big").split() == ["0001", str(64 << 20)]
            assert not any(name.startswith(".") for name in kept(containers))
            done(stored(containers, state="absent"))

    def test_without_room_it_says_so(self, containers, layered):
        layers = layered(1)
        containers.machine.shell(
            f"head -c 8M /dev/zero | tr '\\0' x > {layers[0]}/big; mkdir -p {containers.directory()}\n"
            f"mount -t tmpfs -o size=4m t {containers.directory()}"
        )
        containers.declare("rootfs", {"layers": layers})
        result = stored(containers, rootfs_mode="direct")
        assert result["failed"]
        assert "No space left on device (./big)" in result["msg"]
        assert not {".rootfs.new", "rootfs", "copied.json"} & kept(containers)
        # What there was before stays.
        small = layered(2, first=3)
        done(stored(containers, rootfs_mode="direct"))
        containers.inside("echo mine > /written")
        containers.declare("rootfs", {"layers": layers})
        assert "No space left" in stored(containers, rootfs_mode="direct")["msg"]
        containers.declare("rootfs", {"layers": small})
        done(stored(containers, rootfs_mode="direct"))
        assert containers.inside("cat /written") == "mine\n"

    def test_blocks_are_shared_where_they_can_be(self, containers, layered):
        containers.machine.shell(
            "truncate -s 400M /run/disk; mkfs.btrfs -q /run/disk\n"
            f"mkdir -p {LAYERS} {containers.directory()}\n"
            "mkdir /run/there; mount -o loop /run/disk /run/there; mkdir /run/there/a /run/there/b\n"
            f"mount --bind /run/there/a {LAYERS}; mount --bind /run/there/b {containers.directory()}"
        )
        layers = layered(2)
        containers.machine.shell(f"head -c 100M /dev/urandom > {layers[0]}/big; sync")
        used = "sync; df --output=used -k /run/there | tail -1"
        before = int(containers.machine.shell(used))
        done(stored(containers, rootfs_mode="direct"))
        assert int(containers.machine.shell(used)) - before < 50 * 1024
        containers.inside("cmp /big /proc/self/root/big; stat -c %s /big")
        done(stored(containers, rootfs_mode="direct", state="absent"))

    def test_a_mode_follows_any_other(self, containers, layered):
        layered(2)
        modes = ["overlay", "direct", "tmpfs", "direct", "read_only", "overlay", "tmpfs", "overlay", "direct"]
        for mode in modes:
            done(stored(containers, rootfs_mode=mode))
            assert containers.inside("cat /which; ls /written 2>/dev/null || :") == "0001\n", mode
            if mode != "read_only":
                containers.inside("touch /written")
            assert not done(stored(containers, rootfs_mode=mode))["changed"], mode
        assert {"upper", "work"}.isdisjoint(kept(containers))


class TestOtherLayers:
    def test_what_was_written_is_dropped_unless_it_is_to_be_kept(self, containers, layered):
        layered(2)
        done(stored(containers, upper="keep"))
        containers.inside("echo mine > /written; rm /bin/yes")
        layered(2, first=3)
        kept_ = done(stored(containers, upper="keep"))
        assert kept_["changed"]
        assert containers.inside("cat /which /written; ls /bin/yes 2>/dev/null || :") == "0004\nmine\n"
        assert not done(stored(containers, upper="keep"))["changed"]
        refused = stored(containers, upper="keep", uidmap=["0:100000:65536"])
        assert refused["failed"]
        assert "upper: 'keep' can't be held" in refused["msg"]
        assert containers.inside("cat /written") == "mine\n"
        # That it is not to be kept any more is nothing by itself.
        done(stored(containers))
        assert containers.inside("cat /written") == "mine\n"
        layered(1, first=7)
        foretold = done(stored(containers, check=True))
        dropped = done(stored(containers))
        assert foretold["commands"] == dropped["commands"]
        assert containers.inside("cat /which; ls /written 2>/dev/null || :") == "0007\n"

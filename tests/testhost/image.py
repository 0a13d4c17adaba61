# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk, kernel and initial RAM disk that a test host boots: what they are made from, and the making."""

from __future__ import annotations

import email.utils
import hashlib
import json
import lzma
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cache
from progress import HostError, follow, run, say
from sources import acquire_options, debian_sources, machine_sources

SUITES = ("bookworm", "trixie")
BASES = ("prepared", "bare")

GUEST_ADDRESS, GUEST_PREFIX, GATEWAY = "10.0.2.15", 24, "10.0.2.2"  # of QEMU's user network
KERNEL_UP = "testhost: kernel is up"  # printed by the initial RAM disk

# A host as Ansible finds it, what the tests look around with, and the smaller choice of what skopeo takes.
PACKAGES = (
    "systemd-sysv", "dbus", "udev", "openssh-server", "python3", "python3-apt", "iproute2", "procps", "kmod",
    "iputils-ping", "ca-certificates", "curl", "strace", "gpg", "netavark", "linux-image-cloud-amd64",
)  # fmt: skip
# What the roles install: there in the base `prepared`, only available in the base `bare`.
ROLE_PACKAGES = ("nftables", "python3-pyroute2", "busybox-static", "logrotate", "skopeo", "dnsmasq-base")

# Periodic work, logins on consoles and first-boot work: seconds under emulation, and noise in every test.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer",
    "getty.target", "getty@tty1.service", "getty-static.service", "serial-getty@ttyS0.service",
    "modprobe@.service", "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-journal-flush.service",
    "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-pstore.service",
    "systemd-update-utmp.service",
)  # fmt: skip

# Loaded by the initial RAM disk, after whatever modules.dep says they need.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")

REPOSITORY = "var/local/apt"

FILES = {
    "etc/hostname": "testhost\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 testhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": "# No name server: a test host has no way out.\n",
    "etc/fstab": "",
    "etc/apt/sources.list": f"deb [trusted=yes] file:///{REPOSITORY} ./\n",
    "etc/apt/apt.conf.d/80testhost": 'Acquire::Languages "none";\n',
    # The host boots with an initial RAM disk from outside.
    "etc/initramfs-tools/update-initramfs.conf": "update_initramfs=no\n",
    # Drivers that udev would load for the emulated processor.
    "etc/modprobe.d/testhost.conf": "blacklist kvm\nblacklist kvm_amd\nblacklist powernow_k8\n",
    "etc/systemd/journald.conf.d/testhost.conf": (
        # What is wrong can be read on the console too, when the host has ceased to answer.
        "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToConsole=yes\nMaxLevelConsole=warning\n"
    ),
    "etc/ssh/sshd_config.d/testhost.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "KexAlgorithms curve25519-sha256\n"  # the post-quantum default costs a second under emulation
        "PasswordAuthentication no\nUsePAM no\nUseDNS no\nPrintMotd no\nPrintLastLog no\n"
        "MaxSessions 64\nMaxStartups 64\n"
    ),
}

INIT = f"""#!/bin/busybox sh
alias b=/bin/busybox
b mount -t devtmpfs dev /dev
b mount -t sysfs sys /sys
b echo '{KERNEL_UP}' >/dev/console
for module in $(b cat /modules/order); do b insmod /modules/$module; done
while [ ! -b /dev/vda ] || [ ! -e /sys/class/net/eth0 ]; do b sleep 0.05; done
b ip link set lo up
b ip addr add {GUEST_ADDRESS}/{GUEST_PREFIX} dev eth0
b ip link set eth0 up
b ip route add default via {GATEWAY}
b mount -t ext4 /dev/vda /root
b umount /sys
b mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True)
class Recipe:
    """Everything an image is made from; the same recipe is the same image."""

    suite: str
    base: str
    user_key: str
    host_key: str
    packages: tuple[str, ...] = PACKAGES
    role_packages: tuple[str, ...] = ROLE_PACKAGES
    builder: str = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

    @property
    def key(self) -> str:
        made_from = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.suite}-{self.base}-{hashlib.sha256(made_from).hexdigest()[:16]}"


@dataclass(frozen=True)
class Image:
    """A finished image: a directory of the cache."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"


def recipe(suite: str, base: str) -> Recipe:
    keys = cache.keys()
    user, host = (key.with_suffix(".pub").read_text() for key in (keys.identity, keys.host_key))
    return Recipe(suite, base, user, host)


def ensure(suite: str, base: str) -> Image:
    """The image for a suite and base, built if the cache has none."""
    wanted = recipe(suite, base)
    finished = cache.root() / "images" / wanted.key
    with cache.locked(finished, f"the image {wanted.key}"):
        if not finished.exists():
            start = time.monotonic()
            say(f"building the image {wanted.key} (about a minute, once)")
            with cache.scratch(f"{finished}.building") as scratch:
                _build(wanted, scratch)
                (scratch / "image").rename(finished)
            say(f"built the image in {time.monotonic() - start:.0f} s")
    return Image(finished)


def prune(in_use: Iterable[str]) -> list[str]:
    """Remove the images that today's recipes do not make, but those `in_use` (directories); their names."""
    keep = {Path(directory).name for directory in in_use}
    keep |= {recipe(suite, base).key for suite in SUITES for base in BASES}
    removed = []
    for directory in sorted((cache.root() / "images").glob("*/")):
        key = directory.name.removesuffix(".building")
        if key not in keep:
            with cache.locked(directory.with_name(key), f"the image {key}"):
                shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory.name)
    return removed


def _build(recipe: Recipe, scratch: Path) -> None:
    """Make `image` in the folder `scratch`."""
    if os.geteuid() != 0:
        raise HostError("building the image of a test host needs root")
    tree, made = scratch / "tree", Image(scratch / "image")
    made.directory.mkdir()
    _bootstrap(recipe, tree, scratch)
    say("  packages are in place, writing the disk")
    _index_repository(tree / REPOSITORY)
    _write_files(tree, recipe)
    run(["chroot", tree, "apt-get", "update"])
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, made.kernel)
    made.initrd.write_bytes(_initrd(tree, scratch))
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", "testhost", "-d", tree, made.disk, "4G"])


def _bootstrap(recipe: Recipe, tree: Path, scratch: Path) -> None:
    """Unpack the packages into `tree`, and the role packages' archives into its repository."""
    sources = scratch / "sources.list"
    sources.write_text("".join(f"{s.line()}\n" for s in debian_sources(recipe.suite, machine_sources())))
    wanted = " ".join(recipe.role_packages)
    hooks = [
        'rm "$1"/var/cache/apt/archives/*.deb',
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --download-only install {wanted}',
        f'mkdir -p "$1/{REPOSITORY}" && cp "$1"/var/cache/apt/archives/*.deb "$1/{REPOSITORY}"',
    ]
    if recipe.base == "prepared":
        hooks.append(f'chroot "$1" apt-get --yes --no-download install {wanted}')
    unwanted = ("man", "doc", "locale", "info", "i18n/locales")
    follow(
        "the packages to be fetched and unpacked",
        [
            # With these namespaces all its processes and mounts go, however this program ends.
            "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child",
            "mmdebstrap", "--variant=apt", f"--include={','.join(recipe.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in unwanted),
            "--dpkgopt=force-unsafe-io",
            *(f"--aptopt={option}" for option in acquire_options()),
            *(f"--customize-hook={hook}" for hook in hooks),
            recipe.suite, tree, sources,
        ],
        log=scratch / "mmdebstrap.log",
        env={**os.environ, "INITRD": "No", "TMPDIR": str(scratch), "DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip


def _index_repository(repository: Path) -> None:
    """Write `Packages` and `Release`, the indices of a flat repository (DebianRepository/Format)."""
    stanzas = []
    for archive in sorted(repository.glob("*.deb")):
        control = run(["dpkg-deb", "--field", archive]).strip()
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        stanzas.append(
            f"{control}\nFilename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"
        )
    packages = "\n".join(stanzas).encode()
    (repository / "Packages").write_bytes(packages)
    (repository / "Release").write_text(
        f"Origin: testhost\nDate: {email.utils.formatdate()}\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    )


def _write_files(tree: Path, recipe: Recipe) -> None:
    (tree / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    shutil.rmtree(tree / "etc/apt/sources.list.d", ignore_errors=True)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for path, content in FILES.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(content)
    for unit in MASKED_UNITS:
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # A machine id that is there keeps systemd from taking every boot for the first one.
    (tree / "etc/machine-id").write_text(f"{hashlib.md5(recipe.key.encode()).hexdigest()}\n")
    shutil.copy(cache.keys().host_key, tree / "etc/ssh/ssh_host_ed25519_key")
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (tree / "root/.ssh/authorized_keys").write_text(recipe.user_key)
    for stamp in ("etc/.updated", "var/.updated"):  # ConditionNeedsUpdate= of systemd.unit(5)
        (tree / stamp).touch()


def _initrd(tree: Path, scratch: Path) -> bytes:
    """An initial RAM disk of busybox and the modules that reach disk and network; init is INIT."""
    (modules,) = (tree / "usr/lib/modules").glob("*")
    ordered = modules_in_order(
        (modules / "modules.dep").read_text(), (modules / "modules.builtin").read_text(), BOOT_MODULES
    )
    (archive,) = (tree / REPOSITORY).glob("busybox-static_*.deb")
    run(["dpkg-deb", "--extract", archive, scratch / "busybox"])
    (busybox,) = (scratch / "busybox").glob("**/bin/busybox")
    names = [Path(name).name.removesuffix(".xz") for name in ordered]
    files = [("bin/busybox", 0o755, busybox.read_bytes()), ("init", 0o755, INIT.encode())]
    files += [
        (f"modules/{name}", 0o644, _module(modules / path)) for name, path in zip(names, ordered, strict=True)
    ]
    files.append(("modules/order", 0o644, "\n".join(names).encode()))
    return cpio(("bin", "dev", "modules", "root", "sys"), files)


def _module(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def modules_in_order(modules_dep: str, modules_builtin: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules, each after those it needs; see modules.dep(5), modules.builtin(5)."""
    needed: dict[str, list[str]] = {path: [] for path in modules_builtin.split()}
    loadable = dict(line.split(":") for line in modules_dep.splitlines())
    needed.update({path: rest.split() for path, rest in loadable.items()})
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needed}
    ordered: dict[str, None] = {}
    for path in (by_name[name] for name in wanted):
        ordered.update(dict.fromkeys([*reversed(needed[path]), path]))  # what it needs stands nearest first
    return [path for path in ordered if path in loadable]


def cpio(directories: Iterable[str], files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive in the `newc` format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst)."""
    entries = [(name, 0o040755, b"") for name in directories]
    entries += [(name, 0o100000 | mode, content) for name, mode, content in files]
    archive = bytearray()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)

#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rootfs_fetch
author: ["bare.containers contributors (@bare-containers)"]
version_added: 0.1.0
short_description: Root file systems of containers, from images, tarballs, Debian packages or busybox
description:
  - Gets the root file system of a container into a store on the managed host, and has the container refer to it.
  - The store, C(/var/lib/bare-containers/store), is content-addressed. An image has the digest of what it came from, and each
    of its layers that of what is in it, so a layer is unpacked once, and shared by all containers. Nothing is ever written
    into a tree of the store again.
  - An archive is unpacked by a process whose root is the new tree, so no path or link in it can lead to the host. An archive
    that is damaged, breaks off or goes beyond the limits changes nothing.
  - What was done and how long it took is returned as RV(progress), which Ansible shows with C(-v) when the task has ended.
    Until then it is in the journal of the managed host, or its syslog, with where it is every ten seconds. Follow it there with
    C(journalctl -f -t bare-rootfs), from a task of its own when this one is run with C(async).
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
  - bare.containers.batch
  - bare.containers.web
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - With V(present), the root file system is in the store and the container refers to it. It takes exactly one of
        O(busybox), O(image), O(path), O(url) and O(bootstrap).
      - With V(absent), the container refers to none. What is in the store stays there unless O(gc) is set.
    type: str
    choices: [present, absent]
    default: present
  busybox:
    description:
      - With V(true), makes a small root file system from the host's own C(/bin/busybox), with all its commands as links and
        the usual directories and files in C(/etc). Nothing is fetched.
      - Busybox must be linked statically, as that of Debian's package C(busybox-static) is. When the package is upgraded, the
        next run makes a new root file system of it.
    type: bool
  image:
    description:
      - An image, by a name that C(skopeo) knows it by, such as C(docker://registry.example/team/web:1.2) or the same with
        C(@sha256:) and the digest of its manifest; C(docker://) may be left out.
      - The other transports of containers-transports(5) are for what is on the managed host already, as C(oci:/srv/layout:tag),
        C(oci-archive:/srv/web.tar), C(docker-archive:/srv/web.tar), which C(docker save) writes, and C(dir:/srv/web). What
        C(docker export) and C(podman export) write is no image, and goes with O(path).
      - The package C(skopeo), 1.6 or later, has to be installed there. Its mirrors, its policy and the credentials of
        C(podman login) hold, see containers-registries.conf(5), containers-policy.json(5) and containers-auth.json(5).
      - Every layer is fetched and unpacked once, whatever number of images has it on the same layers. Its whiteouts are those of
        overlayfs.
        All digests are computed again, and a manifest or configuration that is not as the OCI image specification has it is
        refused.
    type: str
  platform:
    description:
      - Which of the platforms of O(image) to take, as C(OS/ARCH) or C(OS/ARCH/VARIANT), such as V(linux/arm64).
      - The managed host's own by default.
    type: str
  pull:
    description:
      - When to ask what the name of O(image) stands for.
      - With V(missing), only when no container on the host has an image by that name. A second run asks for nothing.
      - With V(always), in every run; a manifest is all that is fetched unless it has changed.
      - An image by its digest is never asked for again, and a file on the managed host is looked at in every run.
    type: str
    choices: [missing, always]
    default: missing
  authfile:
    description: A file with credentials for registries, as C(podman login) writes it, on the managed host.
    type: path
  username:
    description:
      - Who to be for the registry of O(image), in place of what is in an O(authfile).
      - Neither this nor O(password) is kept on the host.
    type: str
  password:
    description: What goes with O(username).
    type: str
  ca_path:
    description:
      - A file on the managed host with the certificates, in PEM format, of those who may vouch for the registry of O(image)
        beside the host's own; or a directory of such, as containers-certs.d(5) has it.
    type: path
  path:
    description:
      - A tar archive on the managed host, plain or compressed with gzip, xz, bzip2 or zstd.
      - Without O(checksum) and O(signature), it is known by what is in it. It is read again only when its inode, size,
        modification or status change time is another one.
      - With a digest as O(checksum) and no O(signature), it is read only when the store does not have that root file system
        yet, and may be gone otherwise.
      - What is compressed is decompressed by the fastest program there is, on several processors where it can; C(pigz),
        C(lbzip2), C(xz) and C(zstd) are worth installing. Only zstd takes its program.
    type: path
  url:
    description:
      - The address of such an archive, with C(https://), or with C(http://) and a O(checksum) or O(signature).
      - With a digest as O(checksum) and no O(signature), it is fetched when the store does not have that root file system yet.
      - Otherwise it is fetched once, with the file of checksums and the signature, and no server is asked again unless O(url),
        O(checksum), O(signature) or O(keyring) change, or O(force) is set, or the store has lost it.
      - A transfer that breaks off goes on from there, where the server can (HTTP range requests).
    type: str
  bootstrap:
    description:
      - Makes a Debian system with C(mmdebstrap), or C(debootstrap) where that is not installed, in namespaces of its own.
      - It is made once for what is declared here, and not again unless that changes, or O(force) is set, or the store has lost
        it. New versions of packages come with O(force).
      - Proxies are taken from the environment of the task, and so is E(SOURCE_DATE_EPOCH), with which mmdebstrap makes the same
        of the same packages.
    type: dict
    suboptions:
      suite:
        description: The release, as V(bookworm).
        type: str
        required: true
      mirror:
        description:
          - Where packages come from, as V(http://deb.debian.org/debian). The tool's own choice by default; mmdebstrap adds
            security updates to it.
          - With mmdebstrap there may be several, also as whole lines of C(sources.list).
        type: list
        elements: str
      variant:
        description: What is installed beside O(bootstrap.include). debootstrap has no V(essential) and V(apt).
        type: str
        choices: [essential, apt, minbase, buildd, important]
        default: minbase
      include:
        description: Packages to install, with what they depend on.
        type: list
        elements: str
      components:
        description: The components of the archive. V(main) by default.
        type: list
        elements: str
      keyring:
        description:
          - A file on the managed host with the keys that O(bootstrap.mirror) may be signed with, which it takes.
          - The keys that the tool has for the release by default.
        type: path
      architecture:
        description: The architecture, as V(arm64). That of the host by default; another one has to be run by emulation there.
        type: str
  checksum:
    description:
      - What the archive must be, as C(sha256:) or C(sha512:) and the digest in hexadecimal digits.
      - Or C(sha256:) or C(sha512:) and where a file of checksums is, an absolute path on the managed host or an address. It has
        lines as of C(sha256sum), with or without C(--tag), and the one of the archive's file name counts; or nothing but one
        digest. An address is to begin with C(https://) unless there is a O(signature).
      - An archive that is another one is not unpacked, and not kept if it was fetched.
    type: str
  signature:
    description:
      - Where a detached OpenPGP signature is, an absolute path on the managed host or an address. It is of the file of checksums
        where O(checksum) names one, and of the archive otherwise.
      - It must be a good one by a key in O(keyring) that has not expired and was not revoked. C(gpgv) checks it.
    type: str
  keyring:
    description: A file on the managed host with the public keys that O(signature) may be made with, ASCII-armoured or not.
    type: path
  force:
    description:
      - Fetches a O(url) anew in this run, or makes a O(bootstrap) anew, and checks a O(signature) and a file of checksums again.
      - Of no effect on what a digest as O(checksum) names, and on O(busybox).
    type: bool
    default: false
  validate_certs:
    description:
      - Whether the certificate of an C(https://) server has to be valid. With V(false), a registry may also be one
        without encryption.
    type: bool
    default: true
  timeout:
    description: How many seconds a server may take to answer, and to send more.
    type: int
    default: 30
  max_size:
    description:
      - The most that an archive may be, compressed and when decompressed, as a number of bytes or with one of the units
        C(K), C(M), C(G), C(T). All layers of an O(image) together count as one.
    type: str
    default: 16G
  max_entries:
    description: The most files, directories and links that an archive may have, or all layers of an O(image) together.
    type: int
    default: 1000000
  max_time:
    description: How many seconds it may take to fetch and unpack an archive, or to make a O(bootstrap).
    type: int
    default: 3600
  verify:
    description:
      - Reads all that the store has of the root file system, and has a layer in which anything was changed since it was unpacked
        be fetched and unpacked again. A run that has found none changes nothing.
      - What can't be fetched again stays as it is, and the run fails. Containers that run on a layer that was replaced should be
        restarted.
    type: bool
    default: false
  gc:
    description:
      - With O(state=absent), also removes everything from the store that no container on the host refers to any more.
      - In a batch, it takes O(state=absent) for every entry.
    type: bool
    default: false
seealso:
  - module: bare.containers.container_process
"""

EXAMPLES = r"""
- name: A root file system of nothing but busybox
  bare.containers.rootfs_fetch:
    name: web
    busybox: true

- name: An archive that is on the managed host
  bare.containers.rootfs_fetch:
    name: worker
    path: /srv/images/minirootfs.tar.gz

- name: An archive from a server, known by its checksum
  bare.containers.rootfs_fetch:
    name: worker
    url: http://127.0.0.1:8000/minirootfs.tar.gz
    checksum: "{{ minirootfs_checksum }}"

- name: An image of a registry, with a certificate and a password of one's own
  bare.containers.rootfs_fetch:
    name: shop
    image: docker://127.0.0.1:5000/test/three:1
    ca_path: /srv/images/ca.crt
    username: user
    password: "{{ registry_password }}"

- name: An archive by its maker's file of checksums, and the signature of that
  bare.containers.rootfs_fetch:
    name: worker
    url: https://127.0.0.1:8443/minirootfs.tar.gz
    checksum: sha256:https://127.0.0.1:8443/SHA256SUMS
    signature: https://127.0.0.1:8443/SHA256SUMS.gpg
    keyring: /srv/images/maker.asc
    ca_path: /srv/images/ca.pem

- name: A small Debian system with a server in it
  bare.containers.rootfs_fetch:
    name: cache
    bootstrap:
      suite: bookworm
      mirror: [http://deb.debian.org/debian]
      include: [redis-server]

- name: The root file systems of several containers in one task
  bare.containers.rootfs_fetch:
    batch:
      - {name: web, busybox: true}
      - {name: worker, path: /srv/images/minirootfs.tar.gz}
      - {name: old, state: absent}

- name: The same, with a look at all that is in the store
  bare.containers.rootfs_fetch:
    name: web
    busybox: true
    verify: true

- name: Nothing is to be left, in the store neither
  bare.containers.rootfs_fetch:
    batch:
      - {name: web, state: absent, gc: true}
      - {name: worker, state: absent, gc: true}
      - {name: cache, state: absent, gc: true}
      - {name: shop, state: absent, gc: true}
"""

RETURN = r"""
commands:
  description: The shell commands that do the same, in order.
  returned: always
  type: list
  elements: str
  sample: ["install -d -m 0700 /var/lib/bare-containers/store"]
diff:
  description: In diff mode the state before and after, for each container that differs; else nothing.
  returned: always
  type: list
  elements: dict
  sample:
    - before_header: web (actual)
      after_header: web (declared)
      before: "state: absent\n"
      after: "state: present\nbusybox: true\nunpacked: true\n"
path:
  description:
    - The directory of the root file system. It is shared, so nothing may be written to it.
    - V(null) where several layers make it up, and as long as it is not unpacked.
  returned: when O(name) is given and O(state=present)
  type: str
  sample: /var/lib/bare-containers/store/layers/sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/tree
digest:
  description: The digest of what it was made from, of an image that of its manifest; V(null) as long as only fetching can tell.
  returned: when O(name) is given and O(state=present)
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
layers:
  description: The directories that make up the root file system, lowest first; none as long as it is not unpacked.
  returned: when O(name) is given and O(state=present)
  type: list
  elements: str
  sample: [/var/lib/bare-containers/store/layers/sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/tree]
size:
  description: The bytes in the files of all its layers; V(null) as long as it is not unpacked.
  returned: when O(name) is given and O(state=present)
  type: int
  sample: 1985000
config:
  description:
    - What the image says of the containers made from it, under the names of the OCI image specification. It has what the image
      has of C(Cmd), C(Entrypoint), C(Env), C(ExposedPorts), C(Healthcheck), C(Labels), C(StopSignal), C(User), C(Volumes) and
      C(WorkingDir).
    - O(bare.containers.container_process#module:image_config) has a container be as it says.
  returned: when O(name) is given and O(state=present)
  type: dict
  sample: {"Cmd": ["nginx"], "Env": ["PATH=/usr/bin:/bin"], "ExposedPorts": ["80/tcp"], "WorkingDir": "/srv"}
progress:
  description:
    - What was fetched and unpacked, and how long each took, one sentence each, with those that have said where it was when it
      took longer than ten seconds. Nothing where nothing was fetched.
    - In a batch, entries with the same source share the work, and it is the first of them that has this.
  returned: when O(name) is given and O(state=present)
  type: list
  elements: str
  sample:
    - "image: docker://registry.example/team/web:1.2: fetched 119.3 MiB (2 of its 3 layers were there) in 4.2 s"
    - "image: docker://registry.example/team/web:1.2: unpacked a layer, 310.2 MiB with 2034 entries, in 3.1 s"
containers:
  description: What became of each entry, by name. Beside what is listed here, it has the values that are returned for one.
  returned: when O(batch) is given
  type: dict
  contains:
    changed:
      description: Whether this one was changed.
      type: bool
    commands:
      description: The shell commands for this one.
      type: list
      elements: str
    failed:
      description: Whether this one failed.
      type: bool
    msg:
      description: Why it failed.
      returned: when it failed
      type: str
"""

from ..module_utils.module import run_module
from ..module_utils.rootfs.options import OPTIONS, validate
from ..module_utils.rootfs.resource import build


def main() -> None:
    run_module(OPTIONS, build, validate=validate)


if __name__ == "__main__":
    main()

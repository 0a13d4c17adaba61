#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_process
version_added: 0.1.0
short_description: A container's process
description:
  - Converges the process of a container, so that it runs as declared. It is PID 1 of a PID namespace of its own, in mount, UTS, IPC,
    cgroup and network namespaces of its own, with the declared directory as its root and nothing of the host's left in it.
  - The declaration is kept as a bundle of the OCI runtime specification (C(config.json)), which a small launcher starts and leaves;
    no process but the container's own remains.
  - Unless declared otherwise it has few capabilities, can't gain privileges, and does not see what tells of the host.
  - A change of what the process was started with starts it again; name servers, a health check and a changed unit do not need that.
author: ["bare.containers contributors (@bare-containers)"]
options:
  state:
    description:
      - V(started) has it running, and started at boot where systemd is PID 1.
      - V(stopped) has it declared but not running, and not started at boot.
      - V(restarted) is V(started), after stopping it if it runs. It always reports a change.
      - V(paused) is V(started), with all its processes standing still in a frozen cgroup. It is started at boot, and not paused then.
      - V(absent) has it stopped and removed with all that it has written to its root file system. Its cgroup, network and root file
        system are the other modules'.
      - With V(stopped) and V(restarted), the declaration that is kept on the host stands in for a missing O(command) and the options
        with it.
    type: str
    choices: [started, stopped, restarted, paused, absent]
    default: started
  command:
    description:
      - The program and its arguments. A program without a C(/) is looked for in the C(PATH) of O(env), in the root file system.
      - Required with O(state=started) and O(state=paused), unless the root file system is of an image that has a command, see
        O(image_config).
    type: list
    elements: str
  entrypoint:
    description:
      - What O(command) is appended to. In place of the image's entrypoint and command; an empty list for none.
    type: list
    elements: str
  image_config:
    description:
      - Whether the image of the root file system, as RV(bare.containers.rootfs_fetch#module:config) tells it, is asked for what
        is not declared. A root file system that is no image's says nothing.
      - That is O(user), O(workdir), O(stop_signal), those variables of O(env) that are not declared, and what to run. The
        image's entrypoint comes before a declared O(command), or else before the image's own command.
      - Nothing is made of its volumes, ports, labels and health check. What it wrote in the places of its volumes is in
        the container's own layer.
    type: bool
    default: true
  env:
    description:
      - Environment variables, besides C(PATH), C(HOME) and C(HOSTNAME), which have defaults. Nothing of the host's environment is
        passed on.
      - Values are text; quote numbers that are to keep their spelling.
    type: dict
  user:
    description:
      - The user, as C(USER) or C(USER:GROUP), each a number or a name in C(/etc/passwd) and C(/etc/group) of the root file system. A
        number is an ID, even where a user is called so. The default is root.
      - Without a group it is the user's own, with the user's supplementary groups.
    type: str
  workdir:
    description: The directory it starts in, made if it is missing. The default is that of the image, else C(/).
    type: str
    aliases: [working_dir]
  hostname:
    description: Its host name. The default is O(name).
    type: str
  rootfs:
    description:
      - A directory on the host that is its root file system.
      - The default is what M(bare.containers.rootfs_fetch) declared for O(name).
    type: path
  rootfs_mode:
    description:
      - V(overlay) keeps what the container writes in a layer of its own on the disk.
      - V(tmpfs) is the same in memory. It is gone when the container ends, and the disk has nothing of it.
      - V(read_only) has the layers alone, and refuses writing. Volumes and O(tmpfs) can be written to all the same. What has to be
        made to mount them on is in memory.
      - V(direct) has the container write into a directory without layers. With O(rootfs) that is the directory itself. What
        M(bare.containers.rootfs_fetch) declared is copied for it, when the container is made or its layers change, with blocks shared
        where the file system can. The copy is the container's own, stays when it is started again, and goes with it.
      - Of another mode, nothing that was written in the one before is there.
    type: str
    choices: [overlay, tmpfs, read_only, direct]
    default: overlay
  rootfs_size:
    description:
      - How much a container may write with O(rootfs_mode=tmpfs), such as V(64M). The default is the kernel's, half of the memory.
      - In any case it counts as the container's memory, for C(memory_max) of M(bare.containers.cgroup_v2) too.
    type: str
  upper:
    description:
      - What becomes of the layer that the container writes to, with O(rootfs_mode=overlay), when the root file system below it changes
        and the container is made again.
      - V(reset) drops it, so that all is as the new root file system has it.
      - V(keep) leaves it above the new one. Files that were changed or removed stay as the container left them, also where the new
        root file system has others of their names.
      - When the container's users get other IDs on the host (O(userns), O(uidmap), O(gidmap)), the layer of those before them is
        dropped, and refused where it is to be kept.
    type: str
    choices: [reset, keep]
    default: reset
  network:
    description:
      - V(auto) joins the network namespace that M(bare.containers.netns_veth) declared for O(name), and is V(none) where there is none.
      - V(none) is a new network namespace that has only a loopback interface, which is up.
      - V(host) is the host's own network.
      - C(container:NAME) joins the network that M(bare.containers.netns_veth) declared for another container, such as
        V(container:web); the two reach each other by C(localhost).
      - C(ns:PATH) joins the network namespace whose file is at that path, such as V(ns:/run/netns/shared).
      - A process that is in another namespace than the one that is joined, because that was made anew, is started again.
    type: str
    default: auto
  pid:
    description: V(private) is a PID namespace of its own, V(host) shows it the host's processes.
    type: str
    choices: [private, host]
    default: private
  ipc:
    description: V(private) has System V IPC objects and POSIX message queues of its own, V(host) the host's.
    type: str
    choices: [private, host]
    default: private
  uts:
    description: V(private) has a host name of its own, V(host) the host's.
    type: str
    choices: [private, host]
    default: private
  cgroupns:
    description: V(private) shows it its own cgroup as the root of all, V(host) where it is among the host's.
    type: str
    choices: [private, host]
    default: private
  userns:
    description:
      - V(host) has the container's users be the host's users of the same number.
      - V(auto) gives it a user namespace with a range of 65536 IDs that no other container has, so that root inside is nobody on the
        host. They come from what C(/etc/subuid) and C(/etc/subgid) give to the user C(containers), and stay the container's.
      - The layers of its root file system are not changed for that, they are mounted with their owners mapped. What it writes belongs
        to the IDs of its range. With O(rootfs_mode=direct) it is mapped back, and on the disk belongs to whom it does inside.
    type: str
    choices: [host, auto]
    default: host
  uidmap:
    description:
      - A user namespace with these ranges of user IDs, each as C(CONTAINER_ID:HOST_ID:SIZE), in place of O(userns=auto).
      - The default is O(gidmap) where that is given.
    type: list
    elements: str
  gidmap:
    description: The same for group IDs. The default is O(uidmap) where that is given.
    type: list
    elements: str
  time_offsets:
    description: A time namespace, in which the clocks V(monotonic) and V(boottime) are ahead of the host's by that many seconds.
    type: dict
  volumes:
    description:
      - Files and directories of the host to be seen inside, as C(SOURCE:DESTINATION[:OPTIONS]). Both are absolute paths, the source
        exists, the destination is made if it is missing.
      - The options are V(ro), V(rw), V(nosuid), V(suid), V(nodev), V(dev), V(noexec), V(exec), V(rbind) (with what is mounted below
        the source, the default, for all of which the other options then hold), V(bind) (without it), V(idmap) (with the owners of
        files mapped as the container's users are, see O(userns)), and the propagation of later mounts, V(private) (the default),
        V(slave), V(shared), V(unbindable) and the same with an V(r) before it for the whole tree.
    type: list
    elements: str
    aliases: [volume]
  tmpfs:
    description:
      - Where file systems in memory are mounted, with their options as in C(size=64m,mode=1777). Unless given otherwise they are
        C(nosuid,nodev,mode=1777).
      - With C(tmpcopyup) it begins as a copy of what the root file system has there, owners, modes and all, as far as C(mode), C(uid)
        and C(gid) do not say otherwise. A device node is only copied where C(nodev) holds. C(notmpcopyup), which is podman's for the
        opposite, is how it is by default here.
      - There is one at C(/tmp), of 64 MiB, unless it is declared otherwise here or by O(volumes).
    type: dict
  shm_size:
    description: The size of C(/dev/shm), as in V(64M), which is the default.
    type: str
  devices:
    description:
      - Devices of the host that it may use, each as C(SOURCE[:DESTINATION][:ACCESS]) such as V(/dev/fuse) or
        V(/dev/ttyS0:/dev/modem:rw). A directory stands for all devices in it.
      - It has C(null), C(zero), C(full), C(random), C(urandom), C(tty) and terminals of its own in any case. Any other can't be opened,
        whatever nodes there are. With O(privileged) all can.
    type: list
    elements: str
    aliases: [device]
  device_cgroup_rules:
    description: Devices that it may use without having them in C(/dev), each as C(TYPE MAJOR:MINOR ACCESS) such as V(c 42:* rwm).
    type: list
    elements: str
  cap_add:
    description:
      - Capabilities to add to the default ones, such as V(NET_ADMIN); V(ALL) is all that the host has.
      - A O(user) other than root has none but those added here.
    type: list
    elements: str
  cap_drop:
    description: Capabilities to take from the default ones; V(ALL) leaves those in O(cap_add).
    type: list
    elements: str
  privileged:
    description:
      - All capabilities that the host has, nothing masked or read-only in C(/proc) and C(/sys), and a cgroup that can be written to.
      - Root inside is then as good as root on the host.
    type: bool
    default: false
  no_new_privileges:
    description:
      - Whether no program inside can have more privileges than who runs it, whatever set-user-ID bits it has.
      - The default is V(true), and V(false) with O(privileged).
    type: bool
  seccomp:
    description:
      - Which system calls it may make. V(default) is the allow-list of this collection, with what its capabilities unlock;
        V(unconfined) is all; a path is a profile on the host, in the JSON of Docker and podman or of the OCI runtime specification.
      - It is compiled when it is declared, by libseccomp, and kept beside C(config.json).
      - The default is V(default), and V(unconfined) with O(privileged).
    type: str
  apparmor:
    description: The AppArmor profile to run under, which is loaded on the host. The default, V(unconfined), is none.
    type: str
  selinux:
    description: The SELinux label to run under. The default, V(unconfined), is what the policy makes of it.
    type: str
  mask:
    description: Paths inside that are hidden, beside those in C(/proc) and C(/sys) that are by default.
    type: list
    elements: str
  unmask:
    description: Paths that are by default hidden or read-only and shall not be; V(ALL) for all of them.
    type: list
    elements: str
  init:
    description:
      - Whether the command is the child of a small init, which passes signals on to it and reaps what is left of other processes.
      - It is the host's C(catatonit) or C(tini), seen inside as C(/dev/init).
    type: bool
    default: false
  init_path:
    description: Another program for O(init), a static one on the host.
    type: path
  systemd:
    description:
      - Whether O(command) is an init system such as systemd. It then may write to its cgroup, which it manages what is inside with, has
        file systems in memory at C(/run), C(/run/lock) and C(/var/log/journal), finds C(container) in its environment, and is asked
        to end by V(SIGRTMIN+3).
    type: bool
    default: false
  group_add:
    description: Supplementary groups, by number or as C(/etc/group) of the root file system names them.
    type: list
    elements: str
  umask:
    description: The mode bits that new files do not get, in octal. The default is V(0022).
    type: str
  annotations:
    description: Names and values to be kept in C(config.json), for whoever reads it.
    type: dict
    aliases: [annotation]
  oci:
    description:
      - What has no option here, by its name in the OCI runtime specification. It is merged over the C(config.json) that the other
        options make, as a JSON merge patch (RFC 7396). Mappings are merged, anything else replaces what is there, null removes it.
      - This is how to declare C(hooks), C(process.scheduler), C(process.ioPriority), C(linux.personality) and the like.
      - What the launcher can't honour is refused by name.
    type: dict
  sysctl:
    description:
      - The kernel's settings of the container's own namespaces, C(net.*), C(fs.mqueue.*) and those of IPC such as C(kernel.shmmax).
      - C(net.ipv4.ping_group_range) lets everybody inside ping(8) unless it is given otherwise.
    type: dict
  ulimit:
    description:
      - Resource limits, as C(NAME=SOFT[:HARD]), such as V(nofile=1024:4096), with the names of setrlimit(2) in small letters. A limit
        may be V(unlimited).
    type: list
    elements: str
    aliases: [ulimits]
  oom_score_adj:
    description: How likely the kernel kills it when the host runs out of memory, from -1000 to 1000.
    type: int
  dns:
    description:
      - Addresses of name servers, for C(/etc/resolv.conf).
      - The default are the host's own, without those that only the host can reach; where C(systemd-resolved) stands in between, those
        it asks. Behind a bridge with a name server, which M(bare.containers.netns_veth) makes with C(dns=dynamic), that one.
    type: list
    elements: str
  dns_search:
    description: Domains to look names up in. The default are the host's.
    type: list
    elements: str
  dns_options:
    description: Options of resolv.conf(5). The default are the host's.
    type: list
    elements: str
    aliases: [dns_option]
  etc_hosts:
    description:
      - Names and their addresses, for C(/etc/hosts). C(localhost) is always there, and so is O(hostname), with the addresses that the
        container's network has when it starts. M(bare.containers.netns_veth) adds the containers behind the same bridge.
    type: dict
    aliases: [add_hosts]
  stop_signal:
    description:
      - The signal that asks it to end, by name or number. The default is V(SIGTERM), with O(systemd) it is V(SIGRTMIN+3).
      - PID 1 of a container ignores a signal that it has no handler for, even from the host. It is then killed after O(stop_timeout).
    type: str
  stop_timeout:
    description: How many seconds it has to end before it is killed, with all the processes in its cgroup.
    type: int
    default: 10
  healthcheck:
    description:
      - A command that tells whether it is healthy, by ending with 0. It is run inside, as M(bare.containers.nsenter_exec) would.
      - A text is for C(/bin/sh) in the container, a list is the program and its arguments. V(CMD), V(CMD-SHELL) and V(NONE) may be the
        first word of a list, as in an image.
      - V(none), like nothing at all, is no check.
      - How it stands is the C(health) that M(bare.containers.container_info) returns. A change of the check leaves the container running.
    type: raw
  healthcheck_interval:
    description:
      - The time from the container's start to the first check, and from the end of each to the next, in seconds or as in V(1m30s). The
        default is V(30s).
      - The clock is a timer of systemd, C(bare-health@NAME.timer). With V(disable) there is none, and
        C(/usr/local/lib/bare-containers/launch check NAME), which ends with 1 where it is unhealthy, is for others to run.
      - Without systemd only V(disable) is accepted.
    type: str
  healthcheck_timeout:
    description: The time after which a check is killed and has failed. The default is V(30s).
    type: str
  healthcheck_retries:
    description: How many checks have to fail in a row for it to be unhealthy. The default is V(3).
    type: int
  healthcheck_start_period:
    description: The time after its start in which failures do not count, until a first check passes. The default is V(0s).
    type: str
  healthcheck_failure_action:
    description:
      - What systemd does of one that is unhealthy. V(restart) and V(stop) are asked for as by O(state), V(kill) leaves the rest to
        O(restart_policy), V(none), the default, is nothing.
      - With O(healthcheck_interval=disable) only V(none) is accepted.
    type: str
    choices: [none, kill, restart, stop]
  log_driver:
    description:
      - Where its output goes. V(journald) is the journal, where C(journalctl CONTAINER_NAME=NAME) finds it; V(file) is a file; V(none)
        is nowhere.
      - The default is V(journald) with systemd. Without it, it is V(file), and V(journald) is not accepted.
    type: str
    choices: [journald, file, none]
  log_opt:
    description:
      - C(path) is the file of O(log_driver=file), by default C(/var/log/bare-containers/NAME.log). With O(state=absent) it is removed.
      - C(max_size), such as V(10M), is from which size on logrotate moves its contents to C(PATH.1), in place of what is there. That
        is when logrotate is run, which is daily on Debian.
      - C(tag) is what O(log_driver=journald) calls it in place of its name, and the field C(CONTAINER_TAG) in the journal.
    type: dict
    aliases: [log_options]
  restart_policy:
    description:
      - What systemd does when it ends by itself. V(on-failure) counts an exit status other than 0, and a signal. V(unless-stopped) is
        V(always).
      - Without systemd nobody watches, and only V(no) is accepted.
    type: str
    choices: ["no", on-failure, always, unless-stopped]
    default: "no"
  restart_sec:
    description: The pause before it is started again for the first time, in seconds. The default is 1.
    type: int
  restart_max_delay_sec:
    description:
      - The longest pause, up to which each is twice the one before. The default is 60 seconds, or O(restart_sec) where that is more.
      - They are counted from when it was last started by hand, by this module, or at boot.
    type: int
  supervisor:
    description:
      - V(systemd) gives it a unit, C(bare-NAME.service), whose main process it is.
      - V(direct) leaves it to itself.
      - V(auto) is V(systemd) where that is PID 1, else V(direct).
    type: str
    choices: [auto, systemd, direct]
    default: auto
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
  - bare.containers.batch
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: With O(state=restarted) it always changes.
requirements:
  - Linux 5.12 or newer
  - the launcher of the same version, which M(bare.containers.launcher) installs
notes:
  - The default capabilities are podman's (containers.conf(5)). Docker has three more, C(AUDIT_WRITE), C(MKNOD) and C(NET_RAW).
seealso:
  - module: bare.containers.launcher
  - module: bare.containers.rootfs_fetch
  - module: bare.containers.netns_veth
  - module: bare.containers.cgroup_v2
  - module: bare.containers.nsenter_exec
  - name: OCI runtime specification
    description: The format of the bundle.
    link: https://github.com/opencontainers/runtime-spec
"""

EXAMPLES = r"""
- name: A web server
  bare.containers.container_process:
    name: web
    command: [httpd, -f, -p, "8080", -h, /srv]
    env:
      LANG: C.UTF-8
    user: "1000:1000"
    volumes:
      - /srv/www:/srv:ro

- name: Several in one task, one of them with a capability more and a bit of space
  bare.containers.container_process:
    batch:
      - name: worker
        command: [sleep, infinity]
        rootfs_mode: read_only
        tmpfs:
          /var/cache: size=16m
          /etc/app: tmpcopyup,size=1m
      - name: clock
        command: [sleep, infinity]
        cap_add: [SYS_TIME]
        stop_timeout: 2

- name: One whose root is nobody on the host, and whose PID 1 is an init
  bare.containers.container_process:
    name: jailed
    command: [sleep, infinity]
    uidmap: ["0:100000:65536"]
    init: true
    oci:
      process:
        ioPriority: {class: IOPRIO_CLASS_IDLE}

- name: One that is looked after, on a host with systemd
  bare.containers.container_process:
    name: shop
    command: [httpd, -f, -p, "8081"]
    healthcheck: wget -q -O /dev/null http://127.0.0.1:8081/
    healthcheck_interval: 10s
    healthcheck_start_period: 1m
    healthcheck_failure_action: restart
    restart_policy: on-failure
    log_driver: file
    log_opt: {max_size: 10M}

- name: One that forgets everything when it ends, and one that keeps what it wrote when its image changes
  bare.containers.container_process:
    batch:
      - name: scratch
        command: [sleep, infinity]
        rootfs_mode: tmpfs
        rootfs_size: 64M
      - name: pet
        command: [sleep, infinity]
        upper: keep

- name: Stop one, with its declaration kept
  bare.containers.container_process:
    name: worker
    state: stopped

- name: Remove it
  bare.containers.container_process:
    name: worker
    state: absent
"""

RETURN = r"""
commands:
  description:
    - The shell commands that do the same, in order.
    - In check mode those of a container whose root file system is still to be fetched lack what is not known of it.
  type: list
  elements: str
  returned: always
state:
  description: Whether it runs, C(started), C(paused), C(stopped) or C(absent).
  type: str
  returned: with O(name)
pid:
  description: The PID of its first process as the host sees it, none where it does not run.
  type: int
  returned: with O(name)
supervisor:
  description: Who watches it, C(systemd) or C(direct).
  type: str
  returned: with O(name), unless absent
unit:
  description: Its unit, none without systemd.
  type: str
  returned: with O(name), unless absent
  sample: bare-web.service
log:
  description: The file with its output, none where that goes to the journal, or nowhere.
  type: str
  returned: with O(name), unless absent
bundle:
  description: The directory of its bundle, with C(config.json) in it.
  type: str
  returned: with O(name), unless absent
  sample: /var/lib/bare-containers/containers/web
recipe:
  description: What the launcher does for this bundle, as a shell script by lines that does the same with C(unshare), C(mount), C(pivot_root)
    and C(setpriv).
  type: list
  elements: str
  returned: with O(name), or a O(batch) of one, unless absent
containers:
  description:
    - What became of each entry of O(batch), by its name.
    - Each has the keys above, C(changed), C(commands), C(failed), and C(msg) with the reason where it failed.
  type: dict
  returned: with O(batch)
"""

from ..module_utils.container.options import OPTIONS
from ..module_utils.container.process import Processes, check
from ..module_utils.module import run_module


def main() -> None:
    processes = Processes()
    run_module(OPTIONS, processes.build, validate=check, refresh=processes.refresh)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_info
version_added: 0.1.0
short_description: What containers are declared to be, what they are, and what differs
description:
  - Tells of each container what is declared, as it is kept on the host; what the kernel has, such as its processes, namespaces, cgroup,
    capabilities, mounts and links; and in what the two differ.
  - What differs is found by comparing as the other modules do, so a container without RV(containers.drift) is one that they would leave
    as it is.
  - The environment of a process is shown with its values, as C(podman inspect) does. Where there are secrets in it, set C(no_log).
    Passwords in addresses are masked.
author: ["bare.containers contributors (@bare-containers)"]
options:
  name:
    description:
      - The containers' names. One that is not on the host has V(absent) as its state.
      - The default is all containers of which there is anything on the host.
    type: list
    elements: str
  size:
    description:
      - Whether to count what each container has written to its root file system. That reads the whole of it.
    type: bool
    default: false
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
attributes:
  check_mode:
    support: full
    details: Nothing is ever changed.
  diff_mode:
    support: N/A
    details: Nothing is ever changed; RV(containers.drift) has what differs.
  idempotent:
    support: full
requirements:
  - python3-pyroute2 >= 0.7.2
  - nftables, for containers with O(bare.containers.netns_veth#module:nat) or O(bare.containers.netns_veth#module:publish)
seealso:
  - module: bare.containers.container_process
  - module: bare.containers.cgroup_v2
  - module: bare.containers.netns_veth
  - module: bare.containers.rootfs_fetch
"""

EXAMPLES = r"""
- name: Look at all containers of the host
  bare.containers.container_info:
  register: found

- name: Fail where one is not as declared
  ansible.builtin.assert:
    that: item.value.drift == [] and item.value.errors == []
    quiet: true
    fail_msg: "{{ item.value.drift | map(attribute='changes') | flatten | join(', ') }}"
  loop: "{{ found.containers | dict2items }}"
  loop_control:
    label: "{{ item.key }}"

- name: Look at two of them, with what they have written
  bare.containers.container_info:
    name: [web, worker]
    size: true
"""

RETURN = r"""
containers:
  description: The containers by name. Where something could not be found out, it is none, and C(errors) says why.
  returned: always
  type: dict
  contains:
    state:
      description:
        - V(started), V(paused) when its cgroup is frozen, V(stopped), or V(absent).
        - V(half-made) when there is something of it, but no process that could be started, as after a run that was interrupted, or
          when only other parts of it are declared.
      returned: always
      type: str
      sample: started
    pid:
      description: The PID of its first process as the host sees it, none where it does not run.
      returned: always
      type: int
      sample: 1234
    supervisor:
      description: Who watches it, V(systemd) or V(direct); none without a declared process.
      returned: always
      type: str
      sample: systemd
    unit:
      description: Its unit, none without systemd.
      returned: always
      type: str
      sample: bare-web.service
    bundle:
      description: The directory of its bundle, with C(config.json) in it.
      returned: always
      type: str
      sample: /var/lib/bare-containers/containers/web
    log:
      description: The file with its output, none where that goes to the journal, or nowhere.
      returned: always
      type: str
      sample: /var/log/bare-containers/web.log
    restarts:
      description: How often systemd has started it again by itself, none without systemd.
      returned: always
      type: int
      sample: 0
    last_exit:
      description:
        - How it ended, while it does not run and systemd remembers; else none.
        - C(status) is its exit status, or C(signal) the signal that ended it; C(result) is systemd's word for it; C(at) is when.
      returned: always
      type: dict
      sample: {status: 1, result: exit-code, at: "2025-01-31T12:00:00Z"}
    health:
      description: What its health check found, none where it has none or does not run.
      returned: always
      type: dict
      contains:
        status:
          description: V(starting), V(healthy) or V(unhealthy).
          returned: always
          type: str
        failing_streak:
          description: How many checks have failed in a row.
          returned: always
          type: int
        last_check:
          description:
            - The last check, none before the first. C(at) is when it ended; C(rc) its exit status, or 128 and the number of the signal
              that ended it; C(output) the end of what it said.
            - C(rc) is none of one that could not be run or took too long, and C(output) then the reason.
          returned: always
          type: dict
          sample: {at: "2025-01-31T12:00:00Z", rc: 1, output: connection refused}
    declared:
      description: The declaration as it is kept on the host, by part; C(rootfs), C(cgroup), C(network) and C(process), as far as declared.
      returned: always
      type: dict
      sample: {cgroup: {manager: systemd, memory_max: 268435456}, process: {command: [httpd, -f], state: started}}
    drift:
      description:
        - What the modules would change to have it as declared again. Empty when it is, and C(errors) is empty too.
        - The firewall, the bridges and the unit for the boot are shared, and differ for all containers that have a network.
      returned: always
      type: list
      elements: dict
      contains:
        part:
          description: The part, and so the module that it is declared with; V(rootfs), V(cgroup), V(network) or V(process).
          returned: always
          type: str
        name:
          description:
            - The container, or what it shares with others; V(_firewall), V(_host) and V(_boot), as M(bare.containers.netns_veth) calls
              them.
          returned: always
          type: str
        changes:
          description: The settings that differ.
          returned: always
          type: list
          elements: str
          sample: [memory.max]
        needs:
          description: What setting them right takes, V(live), V(restart) or V(recreate).
          returned: always
          type: str
        before:
          description: What is, as far as it differs.
          returned: always
          type: dict
          sample: {controls: {memory.max: 536870912}}
        after:
          description: What is declared, as far as it differs.
          returned: always
          type: dict
          sample: {controls: {memory.max: 268435456}}
        commands:
          description: The shell commands that set it right.
          returned: always
          type: list
          elements: str
          sample: [echo 268435456 > /sys/fs/cgroup/bare/web/memory.max]
    errors:
      description: What could not be found out, or can't be as declared, in a sentence each; it begins with the part where it is about one.
      returned: always
      type: list
      elements: str
      sample: ["rootfs: path: there is no file /srv/web.tar on this host; nothing was changed."]
    rootfs:
      description: Its root file system.
      returned: always
      type: dict
      contains:
        layers:
          description: The directories that make it up, lowest first.
          returned: always
          type: list
          elements: str
        mode:
          description: How they are used, V(overlay), V(tmpfs), V(read_only) or V(direct); none without a declared process.
          returned: always
          type: str
        upper:
          description: Where what it writes goes, none where it has no such directory.
          returned: always
          type: str
          sample: /var/lib/bare-containers/containers/web/upper
        upper_size:
          description: The bytes on the disk of all that is there, none without O(size).
          returned: always
          type: int
    cgroup:
      description: The cgroup that it is in, or will be in and that exists; else none.
      returned: always
      type: dict
      contains:
        path:
          description: Its directory.
          returned: always
          type: str
          sample: /sys/fs/cgroup/system.slice/bare-web.service
        frozen:
          description: Whether all that is in it is frozen.
          returned: always
          type: bool
        controls:
          description:
            - What the control files that have an option, and those declared by name, are set to, by their kernel names.
            - Sizes are in bytes, times in microseconds. Without a limit the value is V(max). Block devices are given as V(MAJOR:MINOR).
            - Files of a controller that is not enabled do not exist.
          returned: always
          type: dict
          sample:
            cgroup.type: domain
            cpu.max: {quota: 100000, period: 100000}
            io.max: {"254:0": {rbps: 10485760, wiops: 100}}
            memory.max: 268435456
            memory.oom.group: false
            pids.max: 128
        cgroup_events:
          description: Whether processes are in it or below, and whether all of them are frozen (C(cgroup.events)).
          returned: always
          type: dict
          sample: {populated: 1, frozen: 0}
        cgroup_stat:
          description: Number of cgroups below it, and of those that were removed and still hold memory (C(cgroup.stat)).
          returned: always
          type: dict
          sample: {nr_descendants: 0, nr_dying_descendants: 0}
        cpu_stat:
          description: CPU time used, and time throttled, in microseconds (C(cpu.stat)).
          returned: always
          type: dict
          sample: {usage_usec: 104, user_usec: 64, system_usec: 40, nr_periods: 1, nr_throttled: 0, throttled_usec: 0}
        io_stat:
          description: Bytes and operations read, written and discarded, by block device (C(io.stat)).
          returned: when the io controller is enabled
          type: dict
          sample: {"254:0": {rbytes: 90112, wbytes: 0, rios: 4, wios: 0, dbytes: 0, dios: 0}}
        memory_current:
          description: Memory in use, in bytes (C(memory.current)).
          returned: when the memory controller is enabled
          type: int
          sample: 1048576
        memory_peak:
          description: The most memory that was ever in use, in bytes (C(memory.peak)).
          returned: when the memory controller is enabled, since Linux 5.19
          type: int
          sample: 4194304
        memory_stat:
          description: What memory is used for, in bytes, and page faults (the main rows of C(memory.stat)).
          returned: when the memory controller is enabled
          type: dict
          sample: {anon: 524288, file: 262144, kernel: 131072, sock: 0, shmem: 0, pgfault: 412, pgmajfault: 0}
        memory_events:
          description: How often memory limits were met here and below (C(memory.events)).
          returned: when the memory controller is enabled
          type: dict
          sample: {low: 0, high: 0, max: 12, oom: 1, oom_kill: 1, oom_group_kill: 0}
        memory_events_local:
          description: How often memory limits were met here alone (C(memory.events.local)).
          returned: when the memory controller is enabled
          type: dict
          sample: {low: 0, high: 0, max: 12, oom: 1, oom_kill: 1, oom_group_kill: 0}
        memory_swap_current:
          description: Swap space in use, in bytes (C(memory.swap.current)).
          returned: when the memory controller is enabled
          type: int
          sample: 0
        memory_swap_events:
          description: How often swap limits were met (C(memory.swap.events)).
          returned: when the memory controller is enabled
          type: dict
          sample: {high: 0, max: 0, fail: 0}
        pids_current:
          description: Number of tasks (C(pids.current)).
          returned: when the pids controller is enabled
          type: int
          sample: 3
        pids_peak:
          description: The most tasks that there ever were (C(pids.peak)).
          returned: when the pids controller is enabled, since Linux 6.1
          type: int
          sample: 5
        pids_events:
          description: How often the limit of tasks was met (C(pids.events)).
          returned: when the pids controller is enabled
          type: dict
          sample: {max: 0}
        pressure:
          description:
            - Time lost waiting for C(cpu), C(io), C(irq) and C(memory), as far as the kernel tells (C(cpu.pressure) and so on). By C(some)
              and C(full) of the processes, as percent of the last 10, 60 and 300 seconds, and as microseconds in all.
          returned: always
          type: dict
          sample:
            memory:
              some: {avg10: 0.0, avg60: 0.0, avg300: 0.0, total: 0}
              full: {avg10: 0.0, avg60: 0.0, avg300: 0.0, total: 0}
    network:
      description: Its network.
      returned: always
      type: dict
      contains:
        netns:
          description: The network namespace with its name, none without one.
          returned: always
          type: str
          sample: /run/netns/web
        links:
          description:
            - The links by name, of the namespace that its process is in, or else of C(netns). None are told of the host's own namespace.
            - Each has C(kind), C(up), C(mac), C(mtu), C(master), the C(peer) on the host, or the C(parent) there that it shares and the
              C(mode) in which, C(bandwidth) in bits per second as far as it is limited, the C(vlans) of its bridge in the words of
              C(bridge vlan) where that tells them apart, and C(addresses) without those that the kernel gives by itself.
          returned: always
          type: dict
          sample:
            eth0:
              kind: veth
              up: true
              mac: "02:50:38:d1:10:4e"
              mtu: 1500
              master: null
              peer: bare-web
              parent: null
              mode: null
              bandwidth: {egress: null, ingress: 10000000}
              vlans: [10 pvid untagged, 20-30]
              addresses: [10.200.0.2/24]
        routes:
          description: Its main routing table.
          returned: always
          type: list
          elements: str
          sample: [10.200.0.0/24 dev eth0, default via 10.200.0.1 dev eth0]
        neighbours:
          description: Whom it has spoken to on its links, in the words of C(ip neighbour).
          returned: always
          type: list
          elements: str
          sample: [10.200.0.1 dev eth0 lladdr 02:9a:04:5c:33:1e REACHABLE]
        dns:
          description:
            - The name servers of its bridges, each with the C(bridge), the C(addresses) at which it answers, its C(domain) or none, and
              its C(pid) or none where it does not run.
          returned: always
          type: list
          elements: dict
          sample: [{bridge: bare5, addresses: [10.206.0.1], domain: apps.internal, pid: 1234}]
        rules:
          description:
            - The rules that are for it, of the host's firewall and then of its own namespace, each with its C(chain), and the C(packets)
              and C(bytes) counted.
          returned: always
          type: list
          elements: dict
          sample:
            - {chain: input, rule: "ip saddr 10.200.0.0/24 tcp dport 80 counter accept comment \"web\"", packets: 12, bytes: 1008}
    process:
      description: Its first process, none where it does not run.
      returned: always
      type: dict
      contains:
        pid:
          description: Its PID as the host sees it.
          returned: always
          type: int
        started_at:
          description: When it was started, in UTC.
          returned: always
          type: str
          sample: "2025-01-31T12:00:00Z"
        command:
          description: The words it was started with, or what it has made of them.
          returned: always
          type: list
          elements: str
          sample: [httpd, -f, -p, "80"]
        processes:
          description:
            - All processes in its cgroup, each with its C(pid), its C(container_pid), which is the PID it has inside, its effective
              C(uid), and its C(command).
          returned: when it has a cgroup
          type: list
          elements: dict
          sample: [{pid: 1234, container_pid: 1, uid: 0, command: [httpd, -f, -p, "80"]}]
        cgroup:
          description: Its cgroup, below the root of all.
          returned: always
          type: str
          sample: /system.slice/bare-web.service
        namespaces:
          description: The inode of each namespace that it is in, by type.
          returned: always
          type: dict
          sample: {cgroup: 4026532398, ipc: 4026532397, mnt: 4026532395, net: 4026532184, pid: 4026532179, uts: 4026532396}
        shared_namespaces:
          description: The types of those that are the host's own.
          returned: always
          type: list
          elements: str
          sample: [time, user]
        uid:
          description: Its effective user as the host sees it.
          returned: always
          type: int
        gid:
          description: Its effective group as the host sees it.
          returned: always
          type: int
        groups:
          description: Its supplementary groups as the host sees them.
          returned: always
          type: list
          elements: int
        uid_map:
          description: Which users inside are which users of the host.
          returned: always
          type: list
          elements: dict
          sample: [{container_id: 0, host_id: 100000, size: 65536}]
        gid_map:
          description: The same of groups.
          returned: always
          type: list
          elements: dict
          sample: [{container_id: 0, host_id: 100000, size: 65536}]
        capabilities:
          description: The five sets of its capabilities, by their names.
          returned: always
          type: dict
          sample: {bounding: [CAP_CHOWN], effective: [CAP_CHOWN], permitted: [CAP_CHOWN], inheritable: [], ambient: []}
        seccomp:
          description: The C(mode), V(disabled), V(strict) or V(filter), and the number of C(filters).
          returned: always
          type: dict
          sample: {mode: filter, filters: 1}
        no_new_privileges:
          description: Whether no program can give it more privileges than it has.
          returned: always
          type: bool
        label:
          description: Its AppArmor profile or SELinux context, none without one.
          returned: always
          type: str
        oom_score_adj:
          description: How much likelier than others it is to be killed when memory runs out, -1000 to 1000.
          returned: always
          type: int
        rlimits:
          description: Its resource limits, each a number or V(unlimited).
          returned: always
          type: dict
          sample: {nofile: {soft: 1024, hard: 524288}}
        mounts:
          description:
            - What is mounted where it can see it. C(root) is which part of the file system; C(options) are those of the mount and
              C(filesystem_options) those of what is mounted.
          returned: always
          type: list
          elements: dict
          sample:
            - destination: /proc
              type: proc
              source: proc
              root: /
              options: [rw, nosuid, nodev, noexec, relatime]
              filesystem_options: [rw]
              propagation: private
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.info import OPTIONS, gather
from ..module_utils.module import failing, require_root


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS.argument_spec(), supports_check_mode=True)
    with failing(module):
        require_root()
        options = OPTIONS.normalise(module.params)
        containers = gather(options.get("name"), size=options["size"])
    module.exit_json(changed=False, containers=containers)


if __name__ == "__main__":
    main()

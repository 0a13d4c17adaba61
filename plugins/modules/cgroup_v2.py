#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cgroup_v2
version_added: 0.1.0
short_description: A container's cgroup and its limits
description:
  - Converges the cgroup (version 2) of a container, so that the values in the kernel's control files are exactly those declared.
  - An option that is not declared is expected at the kernel's default. So an option taken out of the playbook lifts its limit, and
    a value changed by hand is put back.
  - Limits change in place, without a restart.
author: ["bare.containers contributors (@bare-containers)"]
options:
  state:
    description:
      - V(present) has the cgroup with its limits. It does not care whether the processes are frozen.
      - V(frozen) has all processes in it stopped as well, V(thawed) has them running. Under systemd V(frozen) takes a unit that runs.
      - V(absent) has it removed, with cgroups below it. While processes are in it this is an error that names them, unless
        O(force) is set. Under systemd what goes are the limits and, with O(force), the running unit is stopped.
    type: str
    choices: [present, absent, frozen, thawed]
    default: present
  manager:
    description:
      - V(cgroupfs) makes the cgroup and writes its files.
      - V(systemd) declares properties of the unit C(bare-NAME.service) in the drop-in file
        C(/etc/systemd/system/bare-NAME.service.d/10-cgroup.conf), which may be there before the unit is. systemd applies them to
        the unit while it runs, and whenever it starts.
      - V(auto) is V(systemd) where that is PID 1, else V(cgroupfs).
    type: str
    choices: [auto, systemd, cgroupfs]
    default: auto
  parent:
    description:
      - With O(manager=cgroupfs) the cgroup above this one, relative to where cgroup2 is mounted; V(/) is the root. V(bare) and what
        is below it is made when it is missing, and removed with the last cgroup in it. Any other must exist.
      - With O(manager=systemd) the slice of the unit. Another slice takes effect when the unit starts the next time.
      - The default is V(bare) with O(manager=cgroupfs), V(system.slice) with O(manager=systemd).
      - A container moves to another parent, or to another manager, only while no processes are in its cgroup, unless O(force) is set.
    type: str
  delegate:
    description:
      - A user of the host, by name or uid, who may make cgroups of its own below this one and move processes among them. It is
        given the directory and the control files that the kernel names for that in C(/sys/kernel/cgroup/delegate). The limits stay
        root's.
      - With O(manager=cgroupfs) the cgroup then has all controllers, for the user to hand on, which are enabled from the root down.
        Under systemd it has those that C(Delegate=yes) gives.
      - A cgroup hands no controller on while processes are in it, so the user moves them down first.
      - Without it, the owner is left alone, but goes back to root where it was declared before.
    type: str
  type:
    description:
      - V(threaded) has the cgroup share its resources with its parent, so that the threads of a process can be spread over several
        cgroups (C(cgroup.type)). It can have the controllers cpu, cpuset, perf_event and pids only, and so can all below its parent.
      - The kernel makes none a domain again. So a cgroup that is to be V(domain) is made anew, as when it moves.
      - Under systemd every cgroup is a V(domain).
    type: str
    choices: [domain, threaded]
  cpu_max:
    description:
      - Time on CPUs (C(cpu.max)), as a number of CPUs such as V(1.5), or V(max), or in the kernel's notation as quota and period in
        microseconds, such as V(50000 100000). The period is V(100000) unless given.
      - Under systemd, the quota is a whole number of hundredths of a percent of the period.
    type: str
  cpu_max_burst:
    description:
      - Time that may be saved up and used beyond the quota (C(cpu.max.burst)), in microseconds or as V(5ms), up to the quota.
    type: str
  cpu_weight:
    description: Share of CPU time against other cgroups (C(cpu.weight)), from 1 to 10000. The kernel's default is 100.
    type: int
  cpu_idle:
    description: Whether it gets CPU time only when no other cgroup wants it (C(cpu.idle)). It takes the place of O(cpu_weight).
    type: bool
  cpu_uclamp_min:
    description:
      - Utilization below which the scheduler does not rate it when it chooses CPUs and frequencies (C(cpu.uclamp.min)), as a
        percentage such as V(12.5), or V(max).
    type: str
  cpu_uclamp_max:
    description: Utilization above which the scheduler does not rate it (C(cpu.uclamp.max)), as a percentage, or V(max).
    type: str
  cpuset_cpus:
    description: CPUs to run on (C(cpuset.cpus)), such as V(0-2,7). Without it, those of the parent.
    type: str
  cpuset_mems:
    description: Memory nodes to allocate from (C(cpuset.mems)), such as V(0-1). Without it, those of the parent.
    type: str
  cpuset_cpus_exclusive:
    description: CPUs that no cgroup beside it may use in a partition (C(cpuset.cpus.exclusive)), such as V(2-3).
    type: str
  cpuset_cpus_partition:
    description:
      - V(root) has its CPUs to itself, V(isolated) also without load balancing among them (C(cpuset.cpus.partition)). V(member) is
        the kernel's default.
      - Where the kernel finds the partition invalid, the error says why.
    type: str
    choices: [member, root, isolated]
  memory_min:
    description: Memory that is never reclaimed (C(memory.min)), as a size such as V(64M), in bytes, or V(max).
    type: str
  memory_low:
    description: Memory that is reclaimed only when others have none to spare (C(memory.low)), as a size, in bytes, or V(max).
    type: str
  memory_high:
    description: Memory above which processes are slowed down and made to reclaim (C(memory.high)), as a size, in bytes, or V(max).
    type: str
  memory_max:
    description:
      - Memory above which the kernel kills a process (C(memory.max)), as a size such as V(256M), in bytes, or V(max).
      - All sizes are rounded down to whole pages, as the kernel does.
      - The kernel takes a value below what is in use, and then reclaims and kills until the rest fits. Such a value is refused before
        it is written, when what is in use less what can be reclaimed (page cache and reclaimable slab, by C(memory.stat)) exceeds it.
    type: str
  memory_swap_high:
    description: Swap space above which processes are slowed down (C(memory.swap.high)), as a size, in bytes, or V(max).
    type: str
  memory_swap_max:
    description: Swap space (C(memory.swap.max)), as a size, in bytes, or V(max).
    type: str
  memory_zswap_max:
    description: Memory that compressed swap pages may take (C(memory.zswap.max)), as a size, in bytes, or V(max).
    type: str
  memory_zswap_writeback:
    description: Whether compressed swap pages may go on to the swap device (C(memory.zswap.writeback)). The kernel's default is true.
    type: bool
  memory_oom_group:
    description:
      - Whether running out of memory kills all processes in the cgroup together (C(memory.oom.group)).
      - Under systemd this is C(OOMPolicy=kill) or C(OOMPolicy=continue) of the unit.
    type: bool
  pids_max:
    description: Number of tasks, processes and threads together (C(pids.max)), or V(max).
    type: str
  io_weight:
    description:
      - Share of disk time against other cgroups (C(io.weight)), from 1 to 10000. The kernel's default is 100.
      - Or a mapping of such weights by block device, with V(default) for all others. A disk has weights of its own where its cost
        model is switched on (C(io.cost.qos) of the root).
      - Block devices are given by path, such as V(/dev/vda), or as V(MAJOR:MINOR). A partition stands for its disk, and so does
        a mapped device (LUKS, LVM) that lies on one disk.
    type: raw
  io_max:
    description:
      - Limits by block device (C(io.max)). Each is a mapping with C(rbps) and C(wbps), bytes read and written per second, as a
        size such as V(10M), and C(riops) and C(wiops), operations per second.
    type: dict
  io_latency:
    description:
      - Latency by block device that this cgroup is to see, others giving way (C(io.latency)), in microseconds or as V(75ms).
    type: dict
  io_prio_class:
    description: What becomes of the I/O priority of its processes (C(io.prio.class)). The kernel's default is V(no-change).
    type: str
    choices: [no-change, promote-to-rt, restrict-to-be, idle, none-to-rt]
  hugetlb_max:
    description:
      - "Memory in huge pages by page size (C(hugetlb.2MB.max) and so on), such as V({2MB: 64M}), in bytes, or V(max)."
      - O(manager=cgroupfs) only, as all options for the controllers hugetlb, rdma, misc and dmem, which systemd does not have.
    type: dict
  hugetlb_rsvd_max:
    description: Reservations of huge pages by page size (C(hugetlb.2MB.rsvd.max) and so on), in bytes, or V(max).
    type: dict
  rdma_max:
    description:
      - Limits by RDMA device (C(rdma.max)). Each is a mapping with C(hca_handle) and C(hca_object), the numbers of those.
    type: dict
  misc_max:
    description: "Limits of resources by their names in C(misc.capacity) of the root (C(misc.max)), such as V({sev: 10})."
    type: dict
  dmem_min:
    description: Device memory by region that is never taken away (C(dmem.min)), as a size, in bytes, or V(max).
    type: dict
  dmem_low:
    description: Device memory by region that is taken away only when others have none to spare (C(dmem.low)), likewise.
    type: dict
  dmem_max:
    description: "Device memory by region (C(dmem.max)), such as V({drm/0000:03:00.0/vram0: 1G}), likewise."
    type: dict
  cpu_weight_nice:
    description:
      - The same as a nice value from -20 to 19 (C(cpu.weight.nice)). It is written as the O(cpu_weight) that stands for it.
    type: int
  controls:
    description:
      - Any other control file by its kernel name, with its value as the kernel shows it, such as C(cgroup.max.depth) with V(3).
      - For values that systemd has no property for, of these and of the options above, its drop-in writes them whenever the unit
        starts, and the module to the unit that runs.
    type: dict
  force:
    description: With O(state=absent), or where the cgroup has to move, kills the processes that are in the way.
    type: bool
    default: false
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
    support: full
notes:
  - A controller that a limit needs is enabled in every cgroup from the root down to the parent. It stays enabled there when the
    cgroup is removed, except in C(bare), which is removed itself.
seealso:
  - name: Control Group v2
    description: The kernel's documentation of all control files.
    link: https://docs.kernel.org/admin-guide/cgroup-v2.html
  - name: systemd.resource-control
    description: The unit properties that stand for them.
    link: https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html
"""

EXAMPLES = r"""
- name: One CPU, 256 MiB and 128 tasks
  bare.containers.cgroup_v2:
    name: web
    cpu_max: 1
    memory_max: 256M
    pids_max: 128

- name: The limits of several containers in one task
  bare.containers.cgroup_v2:
    batch:
      - name: web
        cpu_max: 50000 100000
        memory_high: 192M
        memory_max: 256M
      - name: worker
        cpu_weight: 50
        memory_oom_group: true
        controls:
          cgroup.max.depth: 4

- name: A latency-tolerant job that leaves the disk to others
  bare.containers.cgroup_v2:
    name: worker
    cpu_idle: true
    io_max:
      /dev/vda: {rbps: 10M, wbps: 10M, wiops: 100}

- name: A tree that the user www-data may divide further
  bare.containers.cgroup_v2:
    name: web
    memory_max: 256M
    delegate: www-data

- name: No limits any longer
  bare.containers.cgroup_v2:
    name: worker

- name: No cgroup any longer, whatever runs in it
  bare.containers.cgroup_v2:
    batch:
      - name: web
        state: absent
        force: true
      - name: worker
        state: absent
        force: true
"""

RETURN = r"""
commands:
  description: The shell commands that do what was done, in order.
  returned: always
  type: list
  elements: str
  sample:
    - mkdir -p /sys/fs/cgroup/bare
    - echo +memory > /sys/fs/cgroup/bare/cgroup.subtree_control
    - mkdir -p /sys/fs/cgroup/bare/web
    - echo 268435456 > /sys/fs/cgroup/bare/web/memory.max
containers:
  description:
    - What became of each entry, by name, with C(changed), C(commands), C(failed), C(msg) where it failed, and the values
      that are returned at the top for a single one.
  returned: with O(batch)
  type: dict
manager:
  description: The manager that the cgroup has, V(systemd) or V(cgroupfs).
  returned: unless the cgroup is absent
  type: str
  sample: cgroupfs
cgroup_path:
  description: The cgroup's directory. Under systemd it exists while the unit runs.
  returned: unless the cgroup is absent
  type: str
  sample: /sys/fs/cgroup/bare/web
controls:
  description:
    - What the control files that have an option, and those in O(controls), are set to, by their kernel names.
    - Sizes are in bytes, times in microseconds. Without a limit the value is V(max). Block devices are given as V(MAJOR:MINOR).
    - Files of a controller that is not enabled do not exist.
  returned: when the directory exists
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
  returned: when the directory exists
  type: dict
  sample: {populated: 1, frozen: 0}
cgroup_stat:
  description: Number of cgroups below it, and of those that were removed and still hold memory (C(cgroup.stat)).
  returned: when the directory exists
  type: dict
  sample: {nr_descendants: 0, nr_dying_descendants: 0}
cpu_stat:
  description: CPU time used, and time throttled, in microseconds (C(cpu.stat)).
  returned: when the directory exists
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
  returned: when the directory exists
  type: dict
  sample:
    memory:
      some: {avg10: 0.0, avg60: 0.0, avg300: 0.0, total: 0}
      full: {avg10: 0.0, avg60: 0.0, avg300: 0.0, total: 0}
"""

import functools

from ..module_utils.cgroup.options import OPTIONS
from ..module_utils.cgroup.resource import build, validate
from ..module_utils.cgroup.systemd import Units
from ..module_utils.module import run_module


def main() -> None:
    units = Units()
    run_module(OPTIONS, functools.partial(build, units=units), validate=validate, refresh=units.refresh)


if __name__ == "__main__":
    main()

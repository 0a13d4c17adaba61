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
  cpu_max:
    description:
      - Time on CPUs (C(cpu.max)), as a number of CPUs such as V(1.5), or V(max), or in the kernel's notation as quota and period in
        microseconds, such as V(50000 100000). The period is V(100000) unless given.
      - Under systemd, the quota is a whole number of hundredths of a percent of the period.
    type: str
  cpu_weight:
    description: Share of CPU time against other cgroups (C(cpu.weight)), from 1 to 10000. The kernel's default is 100.
    type: int
  cpuset_cpus:
    description: CPUs to run on (C(cpuset.cpus)), such as V(0-2,7). Without it, those of the parent.
    type: str
  cpuset_mems:
    description: Memory nodes to allocate from (C(cpuset.mems)), such as V(0-1). Without it, those of the parent.
    type: str
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
  memory_swap_max:
    description: Swap space (C(memory.swap.max)), as a size, in bytes, or V(max).
    type: str
  memory_oom_group:
    description:
      - Whether running out of memory kills all processes in the cgroup together (C(memory.oom.group)).
      - Under systemd this is C(OOMPolicy=kill) or C(OOMPolicy=continue) of the unit.
    type: bool
  pids_max:
    description: Number of tasks, processes and threads together (C(pids.max)), or V(max).
    type: str
  io_weight:
    description: Share of disk time against other cgroups (C(io.weight)), from 1 to 10000. The kernel's default is 100.
    type: int
  controls:
    description:
      - Any other control file by its kernel name, with its value as the kernel shows it, such as C(cgroup.max.depth) with V(3).
      - Under systemd, where no property exists for these, they are written to the running unit, and by its drop-in whenever it starts.
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
    - The values read back from the control files that have an option, and from those in O(controls), by their kernel names.
    - Sizes are in bytes.
    - Files of a controller that is not enabled do not exist.
  returned: when the directory exists
  type: dict
  sample:
    cpu.max: 100000 100000
    memory.max: 268435456
    memory.oom.group: false
    pids.max: 128
memory_events:
  description: How often memory limits were met (C(memory.events)).
  returned: when the memory controller is enabled
  type: dict
  sample: {low: 0, high: 0, max: 12, oom: 1, oom_kill: 1, oom_group_kill: 0}
cpu_stat:
  description: CPU time used, and time throttled, in microseconds (C(cpu.stat)).
  returned: when the directory exists
  type: dict
  sample: {usage_usec: 104, user_usec: 64, system_usec: 40, nr_periods: 1, nr_throttled: 0, throttled_usec: 0}
pressure:
  description:
    - Time lost waiting for C(cpu), C(io) and C(memory), as far as the kernel tells (C(cpu.pressure) and so on). By C(some) and C(full)
      of the processes, as percent of the last 10, 60 and 300 seconds, and as microseconds in all.
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

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks that a person runs first: the lesson, the samples, and a look at them."""

from __future__ import annotations

PLAYBOOKS = "../../playbooks/"
TRACES = "find /etc/systemd/system /run/netns /sys/fs/cgroup /var/lib/bare-containers -name '*lesson*'"


def test_the_lesson_builds_a_container_says_how_and_leaves_nothing(host, play):
    before = host.check_output("ls /sys/class/net; nft --stateless list ruleset")
    lesson = play(PLAYBOOKS + "lesson.yml")
    steps = [result for result in lesson.ours if "commands" in result and result["changed"]]
    assert all(result["commands"] for result in steps)
    spoken = "\n".join(command for result in steps for command in result["commands"])
    for primitive in ("memory.max", "ip netns add", "masquerade", "pivot_root"):
        assert primitive in spoken + lesson.output, primitive
    assert host.check_output(TRACES) == ""
    assert host.check_output("ls /sys/class/net; nft --stateless list ruleset") == before


def test_the_samples_run_beside_others_and_are_shown(host, play, container):
    assert play(PLAYBOOKS + "site.yml").changed
    pid = container("web").pid
    assert host.check_output("curl --silent --fail --max-time 20 http://203.0.113.1:8080/").startswith(
        "hello from web"
    )
    assert container("tight").control("memory.max") == "16777216"
    assert play(PLAYBOOKS + "site.yml").changed == []
    seen = play(PLAYBOOKS + "inspect.yml")
    assert seen.changed == []
    for line in (f"web is started as PID {pid}", "worker is started as PID", "tight is started as PID"):
        assert line in seen.output

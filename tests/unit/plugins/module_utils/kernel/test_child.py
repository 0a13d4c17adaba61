# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a child process gives back, and that none is left."""

from __future__ import annotations

import os
import signal
import time

import pytest
from ansible_collections.bare.containers.plugins.module_utils.kernel import child


@pytest.fixture(autouse=True)
def none_is_left():
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_its_result_is_plain_data():
    result = child.result(lambda: {"pid": os.getpid(), "text": "\udce4\u00e4", "none": None})
    assert result.pop("pid") != os.getpid()
    assert result == {"text": "?\u00e4", "none": None}
    assert child.result(lambda: "x" * 1_000_000) == "x" * 1_000_000


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("act", "status"), [(die, -9), (lambda: 1 / 0, 1), (lambda: os._exit(0), 0)])
def test_one_that_has_no_result(act, status, capfd):
    with pytest.raises(child.Ended, match=f"^ended with status {status}$"):
        child.result(act)
    assert capfd.readouterr() == ("", "")


def test_it_ends_when_nobody_waits_any_more():
    def wait(stream):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        child.result(lambda: time.sleep(1000), wait)

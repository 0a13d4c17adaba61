# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where output goes: what is accepted, what the launcher and logrotate are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.bare.containers.plugins.module_utils.container import bundle, launch, log, spec
from ansible_collections.bare.containers.plugins.module_utils.container.options import OPTIONS
from ansible_collections.bare.containers.plugins.module_utils.converge import Failure

DEFAULTS = {option.name: option.default for option in OPTIONS.options}


def declare(**options):
    return OPTIONS.normalise({**DEFAULTS, "name": "web", "command": ["true"], **options})


def test_unless_declared_it_is_the_supervisor_s():
    assert log.driver(declare(), "systemd") == "journald"
    assert log.driver(declare(), "direct") == "file"
    assert log.path(declare(), "systemd") is None
    assert log.path(declare(), "direct") == Path("/var/log/bare-containers/web.log")
    assert log.path(declare(log_opt={"path": "/srv/log/x"}), "direct") == Path("/srv/log/x")
    assert log.path(declare(log_driver="none"), "direct") is None


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"log_driver": "journald"}, "direct", "log_driver: 'journald'"),
        ({"log_opt": {"path": "/x"}}, "systemd", "log_opt: 'path' .* 'file', and web has 'journald'"),
        ({"log_opt": {"tag": "x"}}, "direct", "log_opt: 'tag' .* 'journald', and web has 'file'"),
        ({"log_driver": "none", "log_opt": {"max_size": 1}}, "direct", "log_opt: 'max_size' .* has 'none'"),
    ],
)
def test_what_its_supervisor_can_not_do_is_told(options, kind, told):
    with pytest.raises(Failure, match=f"^{told}.*; nothing was changed\\.$"):
        log.check(declare(**options), kind)


@pytest.mark.parametrize(
    "options",
    [{"size": 1}, {"path": "x"}, {"path": "/a b"}, {"path": "/a/*"}, {"path": "/"}, {"max_size": "much"},
     {"max_size": 0}, {"tag": "two words"}, {"tag": "%i"}, {"tag": ""}],
)  # fmt: skip
def test_what_is_not_accepted_is_told(options):
    with pytest.raises(Failure, match=r"^log_opt: .* is not accepted, it takes .*; nothing was changed\.$"):
        declare(log_opt=options)


def test_a_size_takes_who_keeps_it(monkeypatch, tmp_path):
    declared = declare(log_opt={"max_size": "10M"})
    monkeypatch.setattr(log, "LOGROTATE", str(tmp_path / "none"))
    with pytest.raises(Failure, match=r"^log_opt: 'max_size' takes .* the package logrotate"):
        log.check(declared, "direct")
    assert log.rotation(declare(), "direct") is None
    assert log.rotation(declare(log_driver="none"), "direct") is None


def test_the_launcher_opens_what_config_json_says(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "LOGS", str(tmp_path / "logs"))

    def opened(own, **options):
        configured = spec.config(declare(**options), spec.Host(layers=("/x",)))
        descriptor = launch._open_log("web", configured, own=own)
        return None if descriptor is None else str(Path(f"/proc/self/fd/{descriptor}").readlink())

    own = str(tmp_path / "logs/web.log")
    assert opened(own=True) == own
    assert opened(own=False) is None
    for each in (True, False):
        assert opened(own=each, log_driver="file") == own
        assert opened(own=each, log_driver="none") == "/dev/null"
        path = str(tmp_path / "elsewhere/x.log")
        assert opened(own=each, log_driver="file", log_opt={"path": path}) == path


def test_all_that_it_may_be_in_is_known():
    own = {"/var/log/bare-containers/web.log", "/var/log/bare-containers/web.log.1"}
    assert {str(path) for path in log.files("web", None)} == own
    declared = declare(log_opt={"path": "/srv/x"})
    for kept in (declared, {**declared, "log_driver": "none"}):
        assert {str(path) for path in log.files("web", kept)} == own | {"/srv/x", "/srv/x.1"}

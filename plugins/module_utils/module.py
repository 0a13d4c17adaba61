# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules share between Ansible and the engine: entries in, outcomes out."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import host
from .converge import Failure, Outcome, Resource, commands, converge, sentence
from .options import Option, Options, unique

Entry = Mapping[str, Any]
"""One declaration in normal form."""

NAME = Option("name", required=False, normalise=host.container_name)

_BATCH: dict[str, Any] = {"batch": {"type": "list", "elements": "dict"}}


def run_module(
    options: Options,
    build: Callable[[Sequence[Entry]], Sequence[Resource]],
    *,
    validate: Callable[[Sequence[Entry]], None] = lambda entries: None,
    workers: int = 1,
    refresh: Callable[[], None] = lambda: None,
) -> None:
    """Runs a converging module: all entries are checked before anything is changed, then converged together.

    ``validate`` raises Failure for entries that can't stand beside each other. ``build`` gives the resources,
    those of an entry under its name.
    """
    module = _module_of(options)(
        argument_spec={**options.argument_spec(), **_BATCH},
        mutually_exclusive=[("name", "batch")],
        required_one_of=[("name", "batch")],
        supports_check_mode=True,
    )
    # Ansible takes "path" for a file that the module manages, and adds its mode and size to the result.
    module.add_path_info = lambda result: result
    with failing(module):
        require_root()
        entries = read_entries(module, options)
        unique(entries, "name")
        validate(entries)
        outcomes = converge(
            build(entries), check=module.check_mode, workers=workers, refresh=refresh, lock=host.lock
        )
        if not module.check_mode and any(outcome.changed for outcome in outcomes):
            host.sweep_locks()
    result = describe(outcomes, batch=module.params["batch"] is not None, diff=module._diff)
    finish = module.fail_json if "msg" in result else module.exit_json
    finish(**result)


def _module_of(options: Options) -> type[AnsibleModule]:
    """AnsibleModule with the secrets in a batch, too, hidden in what it logs and returns."""
    secret = [name for option in options.options if option.no_log for name in (option.name, *option.aliases)]

    class Module(AnsibleModule):  # type: ignore[misc]
        def _log_invocation(self) -> None:
            for entry in self.params.get("batch") or []:
                for name in secret:
                    self.no_log_values.update(_texts(entry.get(name)))
            super()._log_invocation()

    return Module


def _texts(value: Any) -> Iterator[str]:
    """The values in plain data that are not empty, as texts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif value not in (None, ""):
        yield str(value)


@contextlib.contextmanager
def failing(module: AnsibleModule) -> Iterator[None]:
    """Has the module fail with the one sentence of what is raised meanwhile, a Failure or an OSError."""
    try:
        yield
    except Failure as failure:
        module.fail_json(msg=str(failure))
    except OSError as error:
        module.fail_json(msg=sentence(error))


def require_root() -> None:
    """Raises Failure unless the effective user is root."""
    if os.geteuid() != 0:
        raise Failure(
            f"This needs root and runs as user {os.geteuid()}: set become: true; nothing was changed."
        )


def read_entries(module: AnsibleModule, options: Options) -> list[dict[str, Any]]:
    """The module's own options as one entry, or its batch, in normal form. Raises Failure."""
    if module.params["batch"] is None:
        return [options.normalise({name: module.params[name] for name in options.argument_spec()})]
    validator = ArgumentSpecValidator(options.argument_spec())
    return [
        _read_entry(validator, options, number, raw) for number, raw in enumerate(module.params["batch"], 1)
    ]


def _read_entry(
    validator: ArgumentSpecValidator, options: Options, number: int, raw: Entry
) -> dict[str, Any]:
    label = f"batch entry {number} ({raw.get('name', 'without a name')})"
    checked = validator.validate(dict(raw))
    unknown = ", ".join(sorted(checked.unsupported_parameters))
    if unknown:
        accepted = ", ".join(sorted(options.argument_spec()))
        raise Failure(f"{label}: {unknown} is no option, an entry takes {accepted}; nothing was changed.")
    if checked.error_messages:
        raise Failure(f"{label}: {checked.error_messages[0]}; nothing was changed.")
    if checked.validated_parameters.get("name") is None:
        raise Failure(f"{label}: name is missing, every entry has one; nothing was changed.")
    try:
        return options.normalise(checked.validated_parameters)
    except Failure as failure:
        raise Failure(f"{label}: {failure}") from None


def describe(outcomes: Sequence[Outcome], *, batch: bool, diff: bool) -> dict[str, Any]:
    """The module's result: ``changed``, ``diff`` where it is asked for, ``commands``, and what became of each
    entry by name."""
    result: dict[str, Any] = {
        "changed": any(outcome.changed for outcome in outcomes),
        "diff": [_diff(outcome) for outcome in outcomes if diff and outcome.before != outcome.after],
        "commands": commands(outcomes),
    }
    errors = [outcome for outcome in outcomes if outcome.error]
    if errors:
        result["msg"] = " ".join(f"{outcome.name}: {outcome.error}" for outcome in errors)
    if batch:
        result["containers"] = {outcome.name: _entry_result(outcome) for outcome in outcomes}
    else:
        for outcome in reversed(outcomes):
            result.update(outcome.facts)
    return result


def _entry_result(outcome: Outcome) -> dict[str, Any]:
    result = {
        **outcome.facts,
        "changed": outcome.changed,
        "commands": outcome.commands,
        "failed": bool(outcome.error),
    }
    if outcome.error:
        result["msg"] = outcome.error
    return result


def _diff(outcome: Outcome) -> dict[str, str]:
    return {
        "before_header": f"{outcome.name} (actual)",
        "after_header": f"{outcome.name} (declared)",
        "before": as_yaml(outcome.before),
        "after": as_yaml(outcome.after),
    }


_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.@-]*")
_JSON = json.JSONEncoder(ensure_ascii=False)
_NOT_ASCII = re.compile(r"[^ -~]")
_WORDS_WITH_MEANING = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def as_yaml(value: Any, indent: str = "") -> str:
    """Plain data as block YAML, for diffs: the managed host need not have a YAML library."""
    if isinstance(value, Mapping) and value:
        return "".join(f"{indent}{_scalar(key)}:{_nested(item, indent)}" for key, item in value.items())
    if isinstance(value, (list, tuple)) and value:
        return "".join(f"{indent}-{_nested(item, indent)}" for item in value)
    return f"{indent}{_scalar(value)}\n"


def _nested(value: Any, indent: str) -> str:
    if isinstance(value, (Mapping, list, tuple)) and value:
        return "\n" + as_yaml(value, indent + "  ")
    return f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS_WITH_MEANING:
        return value
    return _NOT_ASCII.sub(_escape, _JSON.encode(value))


def _escape(character: re.Match[str]) -> str:
    """Printable as it is, else as YAML's escape: it does not accept all that JSON does."""
    return character[0] if character[0].isprintable() else f"\\U{ord(character[0]):08x}"

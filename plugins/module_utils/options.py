# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options: each is declared once, and argument spec, normal form and comparison all come from that
declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .converge import Failure


@dataclass(frozen=True)
class Option:
    """One option of a module.

    ``normalise`` takes a value as Ansible's type check left it and returns the one plain form that all its
    spellings share (``256M`` and ``268435456`` give 268435456); it raises ValueError saying what is accepted,
    as in ``a number of bytes such as 256M``. ``compare`` says what makes two values equal: ``list`` minds the
    order, ``set`` neither order nor repetition. What steers a single run only is not ``declared``: no part of
    the declaration that is kept. A mapping, or each one of a list, may have ``options`` of its own, which are
    in normal form when ``normalise`` gets it.
    """

    name: str
    type: str = "str"
    default: Any = None
    choices: tuple[str, ...] = ()
    elements: str | None = None
    required: bool = False
    aliases: tuple[str, ...] = ()
    no_log: bool = False
    compare: str = "value"
    normalise: Callable[[Any], Any] = lambda value: value
    declared: bool = True
    options: Options | None = None

    def spec(self) -> dict[str, Any]:
        """This option in the form of AnsibleModule's argument_spec."""
        spec: dict[str, Any] = {"type": self.type}
        for key in ("default", "elements"):
            if getattr(self, key) is not None:
                spec[key] = getattr(self, key)
        for key in ("choices", "aliases"):
            if getattr(self, key):
                spec[key] = list(getattr(self, key))
        for key in ("required", "no_log"):
            if getattr(self, key):
                spec[key] = True
        if self.options is not None:
            spec["options"] = self.options.argument_spec()
        return spec

    def normal(self, value: Any) -> Any:
        """``value`` in normal form. Raises Failure."""
        if self.options is not None:
            value = self._with_normal_options(self.options, value)
        try:
            normal = self.normalise(value)
        except ValueError as error:
            raise Failure(
                f"{self.name}: {value!r} is not accepted, it takes {error}; nothing was changed."
            ) from None
        if self.compare == "set":
            return sorted(set(normal))
        return normal

    def _with_normal_options(self, options: Options, value: Any) -> Any:
        try:
            return (
                [options.normalise(each) for each in value]
                if self.type == "list"
                else options.normalise(value)
            )
        except Failure as failure:
            raise Failure(f"{self.name}: {failure}") from None


@dataclass(frozen=True)
class Options:
    """The options of one module, in the order in which they are documented."""

    options: tuple[Option, ...]

    def argument_spec(self) -> dict[str, Any]:
        """All of them in the form of AnsibleModule's argument_spec."""
        return {option.name: option.spec() for option in self.options}

    def normalise(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The declaration in normal form: every option that has a value. Raises Failure for the first bad
        one."""
        return {
            option.name: option.normal(parameters[option.name])
            for option in self.options
            if parameters.get(option.name) is not None
        }

    def entry(self, name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
        """The entry that a declaration was kept of, with the defaults for the options of a single run."""
        defaults = self.normalise({option.name: option.default for option in self.options})
        known = {option.name for option in self.options}
        return {**defaults, **{key: value for key, value in kept.items() if key in known}, "name": name}

    def declaration(self, normal: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a normalised declaration that is kept on the host: all but the options of a single
        run."""
        kept = {option.name for option in self.options if option.declared}
        return {name: value for name, value in normal.items() if name in kept}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two plain mappings, by name; what is missing on one side counts as None there."""
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP])(?:I?B)?|(\d+)\s*B?", re.IGNORECASE | re.ASCII)
_UNITS = "KMGTP"


def size(value: Any) -> int:
    """Bytes from ``256M``, ``1.5G``, ``64KiB`` or a plain number; units are powers of 1024, as the kernel and
    podman count."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("a number of bytes such as 268435456, 256M or 1.5G")
    number, unit, plain = match.groups()
    return int(plain) if plain else int(Fraction(number) * 1024 ** (_UNITS.index(unit.upper()) + 1))


def unique(entries: Sequence[Mapping[str, Any]], option: str) -> None:
    """Raises Failure when a value of ``option``, or an item of it where it is a list, is declared twice."""
    seen: dict[Any, str] = {}
    for entry in entries:
        value = entry.get(option)
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if item in seen:
                who = f" by {seen[item]} and {entry['name']}" if seen[item] != entry["name"] else ""
                raise Failure(
                    f"{option}: {item!r} is declared twice{who}, each takes its own; nothing was changed."
                )
            seen[item] = entry["name"]

# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VLANs that a port of a bridge is in, in the words of bridge(8).

Each line is ``IDS [pvid] [untagged] [self]``, with IDS one id or ``FIRST-LAST``: what comes without a tag is
of the VLAN that is ``pvid``, what is of an ``untagged`` one leaves without a tag, and ``self`` is said of the
bridge's own link, by which the host itself takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DEFAULT = 1
"""The VLAN of every port of a bridge, and of the bridge itself, unless told otherwise (ip-link(8),
"vlan_default_pvid")."""

LAST = 4094
"""The greatest id (IEEE 802.1Q); 0 and 4095 are no VLANs."""


def ids(line: str) -> range:
    """Those that a line is about, which may be ``IDS`` alone. Raises ValueError."""
    first, _dash, last = line.partition(" ")[0].partition("-")
    return range(int(first), int(last or first) + 1)


def ranges(numbers: Iterable[int]) -> list[str]:
    """``IDS`` for all of these, as few and in order."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ["-".join(map(str, each)) for each in found]


def lines(flags: Mapping[int, str]) -> list[str]:
    """Those of a port that is in these VLANs, each with its flags."""
    found = [
        f"{each} {words}".rstrip()
        for words in set(flags.values())
        for each in ranges(number for number, own in flags.items() if own == words)
    ]
    return sorted(found, key=lambda line: ids(line)[0])


def port(untagged: int | None, tagged: Iterable[str] = ()) -> list[str]:
    """The lines of a port that sends and takes one VLAN without a tag, if any, and these ``IDS`` with one."""
    flags = {number: "" for each in tagged for number in ids(each)}
    return lines({**flags, **({untagged: "pvid untagged"} if untagged else {})})


def own(tagged: Iterable[int] = ()) -> list[str]:
    """The lines of a bridge's own link, which takes part in these VLANs too."""
    return lines({**dict.fromkeys(tagged, "self"), DEFAULT: "pvid untagged self"})


def surplus(now: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """The ``IDS`` that a port is in now and is not to be in."""
    has, keeps = ({number for line in each for number in ids(line)} for each in (now, wanted))
    return ranges(has - keeps)

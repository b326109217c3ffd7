"""The settings that a running program has read: their fingerprint, and whether their files are younger than that."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class InForceState:
    """The settings of a running program."""

    fingerprint: str
    """Their fingerprint; empty if the program does not answer."""
    fresh: bool
    """None of its files changed since it was last started or reloaded."""


def script(fingerprint: str, unit: str, files: Iterable[str]) -> str:
    """A script for `state`; ``fingerprint``: a command that prints what the program shows."""
    return f"""
echo "Fingerprint=$({fingerprint})"
echo "Newest=$(stat -c %.Z {shlex.join(files)} 2>/dev/null | sort -n | tail -n 1)"
systemctl show --property=StateChangeTimestampMonotonic {unit}
echo "Uptime=$(cut -d" " -f1 /proc/uptime)"; echo "Now=$(date +%s.%N)"
"""


def state(output: list[str]) -> InForceState:
    """The script's output as a value."""
    values = dict(line.split("=", 1) for line in output)
    # The monotonic clock is immune to clock jumps; so for every other unit.
    changed = float(values["Now"]) - float(values["Uptime"]) + int(values["StateChangeTimestampMonotonic"]) / 1e6
    return InForceState(values["Fingerprint"], fresh=float(values["Newest"] or 0) <= changed)

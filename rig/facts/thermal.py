"""Facts of the thermal monitor on a machine, in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rig.monitoring.thermal import APPLIED, LINK


@dataclass(frozen=True)
class ThermalState:
    """The monitor's files, and what systemd has not read again yet."""

    units: frozenset[str]
    """Units with a file."""
    outdated: frozenset[str]
    """Units whose file changed since systemd read it."""
    link: str
    """Target of the link to the metrics; empty without one."""
    applied: bool
    """An action against heat is in force."""


class Thermal(FactBase[ThermalState]):
    """State of the thermal monitor's possible units."""

    def command(self, units: Iterable[str], files: Iterable[str]) -> str:
        return (
            f"systemctl show --property=Id,NeedDaemonReload {shlex.join(units)}\n"
            f"ls -1 {shlex.join(files)} 2>/dev/null\n"
            f'echo "Link=$(readlink {LINK})"\n'
            f'[ ! -e {APPLIED} ] || echo "Applied=$(cat {APPLIED})"\ntrue\n'
        )

    def process(self, output: list[str]) -> ThermalState:
        name, outdated = "", set()
        for line in output:
            name = line.removeprefix("Id=") if line.startswith("Id=") else name
            if line == "NeedDaemonReload=yes":
                outdated.add(name)
        values = dict(line.split("=", 1) for line in output if line.startswith(("Link=", "Applied=")))
        return ThermalState(
            units=frozenset(line.rpartition("/")[2] for line in output if line.startswith("/")),
            outdated=frozenset(outdated),
            link=values["Link"],
            applied="Applied" in values,
        )

"""systemd's state of a unit, next to the age of the files that it reads."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class UnitState:
    """One unit; times are seconds since the epoch with microseconds."""

    load: str
    active: str
    enabled: str
    reload_needed: bool
    """The unit's file changed since systemd read it."""
    started: float | None
    newest_file: float | None
    """Last change of the youngest of the given files; None if none of them exists."""


class Unit(FactBase[UnitState]):
    """State of one systemd unit and the age of its files."""

    def command(self, unit: str, files: Iterable[str], starts: Iterable[str] = ()) -> str:
        """`starts`: units that it starts; systemd must know their current files, too."""
        # %Z, the time of the last status change: a copy that preserves times cannot set it back.
        ages = f"stat -c %.Z {shlex.join(files)} 2>/dev/null | sort -n | tail -n 1" if files else "true"
        show = "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload,ActiveEnterTimestampMonotonic"
        # The monotonic clock is immune to clock jumps; /proc/uptime relates it to the epoch.
        others = "".join(
            f"; systemctl show --property=LoadState,NeedDaemonReload {shlex.quote(other)} | sed s/^/Other/"
            for other in starts
        )
        return (
            f"systemctl show {show} {shlex.quote(unit)}{others}; "
            f'echo "Newest=$({ages})"; echo "Uptime=$(cut -d" " -f1 /proc/uptime)"; echo "Now=$(date +%s.%N)"'
        )

    def process(self, output: list[str]) -> UnitState:
        values = dict(line.split("=", 1) for line in output if "=" in line)
        outdated = {"OtherNeedDaemonReload=yes", "OtherLoadState=not-found"} & set(output)
        entered = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        booted = float(values["Now"]) - float(values["Uptime"])
        return UnitState(
            load=values["LoadState"],
            active=values["ActiveState"],
            enabled=values["UnitFileState"],
            reload_needed=values["NeedDaemonReload"] == "yes" or bool(outdated),
            started=booted + entered if entered else None,
            newest_file=float(values["Newest"]) if values["Newest"] else None,
        )

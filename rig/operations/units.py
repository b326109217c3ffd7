"""systemd units that are enabled, running, and restarted only when a file they read is younger than they are."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import operation

from rig.facts.units import Unit
from rig.operations import Commands
from rig.systemd import units


@operation()
def running(unit: str, files: list[str] | None = None) -> Commands:
    """``unit`` is enabled and active, and was started after the last change of ``files``."""
    for step in units.steps(host.get_fact(Unit, unit=unit, files=tuple(files or ()))):
        yield ("systemctl daemon-reload" if step == "daemon-reload" else f"systemctl {step} {shlex.quote(unit)}")

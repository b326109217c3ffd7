"""systemd units that are enabled, running, and restarted only when a file they read is younger than they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import operation

from rig import units
from rig.facts.units import Unit


@operation()
def running(unit: str, files: list[str] | None = None) -> Iterator[str]:
    """``unit`` is enabled and active, and was started after the last change of ``files``."""
    for step in units.steps(host.get_fact(Unit, unit=unit, files=tuple(files or ()))):
        yield (
            "systemctl daemon-reload" if step == "daemon-reload" else f"systemctl {step} {shlex.quote(unit)}"
        )

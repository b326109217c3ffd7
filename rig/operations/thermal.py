"""The thermal monitor's units, and the link to its metrics, according to the settings."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import operation

from rig.facts.models import LINKS
from rig.facts.thermal import Thermal, ThermalState
from rig.monitoring.thermal import LINK, TARGET, UNITS, unit_path
from rig.operations import Commands


@operation()
def settled(wanted: list[str], linked: bool) -> Commands:
    """systemd has read the units ``wanted``, and no other exists; ``linked``: node_exporter finds the metrics.

    An action against heat is undone before the unit that could undo it is removed.
    """
    files = tuple(unit_path(unit) for unit in UNITS)
    seen: ThermalState = host.get_fact(Thermal, units=UNITS, files=files)
    surplus = [unit for unit in UNITS if unit in seen.units and unit not in wanted]
    if surplus:
        names = shlex.join(surplus)
        yield f"systemctl disable --now {names} 2>/dev/null || systemctl stop {names}"
        if seen.applied and "rig-thermal-cool.service" in surplus:
            yield f"{LINKS}/rig-thermal restore"
        yield f"rm -f {shlex.join(map(unit_path, surplus))} && systemctl daemon-reload"
        yield f"systemctl reset-failed {names} 2>/dev/null || true"
    elif seen.outdated:
        yield "systemctl daemon-reload"
    if linked and seen.link != TARGET:
        yield f"ln -sfn {TARGET} {LINK}"
    elif not linked and seen.link:
        yield f"rm -f {LINK}"

"""Concern monitoring: the machine's figures, measured by the distribution's own programs, on loopback only."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig import monitoring as wanted
from rig.operations import monitoring, units
from rig.operations.files import written_together
from rig.render import render
from rig.settings import Settings
from tasks import thermal


@concern("monitoring")
def prepare(settings: Settings) -> None:
    """Before the packages: they start their programs as soon as they are installed, and on every address."""
    if settings.monitoring.enabled:
        texts = {
            wanted.drop_in(unit): render(wanted.drop_in(unit), **values)
            for unit, values in wanted.drop_ins(settings).items()
        }
        written_together(name="Keep what monitors on loopback", texts=texts)


@concern("monitoring")
def deploy(settings: Settings) -> None:
    """Every program of the monitoring runs as set; or none is there, when the owner says so."""
    thermal.deploy(settings)
    if not settings.monitoring.enabled:
        names = [unit.removesuffix(".service") for unit in wanted.UNITS]
        drop_ins = [wanted.drop_in(unit) for unit in wanted.UNITS]
        monitoring.retired(name="Remove the monitoring", names=names, drop_ins=drop_ins)
        return
    units.running(
        name="Run node_exporter", unit=wanted.NODE_EXPORTER, files=[wanted.drop_in(wanted.NODE_EXPORTER)]
    )

"""Concern monitoring, its part thermal: the watch over the GPU's temperature."""

from __future__ import annotations

from rig.facts.models import LINKS
from rig.monitoring import thermal as wanted
from rig.operations import thermal, units
from rig.operations.files import written_together
from rig.render import own_file
from rig.settings import Settings
from rigd.thermal.config import PATH, dump


def deploy(settings: Settings) -> None:
    """Run the monitor with its settings, and the units that act for it when an action is configured."""
    names = wanted.units(settings)
    if names:
        texts = {wanted.unit_path(unit): own_file(wanted.unit_path(unit)) for unit in names}
        texts[PATH] = dump(wanted.config(settings))
        written_together(name="Write the thermal monitor's units and settings", texts=texts)
    thermal.settled(name="Enable the thermal monitor's units", wanted=list(names), linked=wanted.linked(settings))
    for unit in names:
        if unit == wanted.MONITOR:
            # Each version of the program makes its link again.
            files = [PATH, wanted.unit_path(unit), f"{LINKS}/rig-thermal"]
            units.running(name="Run the thermal monitor", unit=unit, files=files)
        elif unit.endswith(".path"):
            units.running(name=f"Run {unit}", unit=unit, files=[wanted.unit_path(unit)])

"""Concern monitoring, its part thermal: the watch over the graphics card's temperature."""

from __future__ import annotations

from rig.facts.models import LINKS
from rig.monitoring import thermal as wanted
from rig.operations import thermal, units
from rig.operations.files import written_together
from rig.render import own_file
from rig.settings import Settings
from rigd.thermal.config import PATH, dump


def deploy(settings: Settings) -> None:
    """The monitor with its settings, and what acts for it, as far as there is something to act upon."""
    names = wanted.units(settings)
    if names:
        texts = {wanted.unit_path(unit): own_file(wanted.unit_path(unit)) for unit in names}
        texts[PATH] = dump(wanted.config(settings))
        written_together(name="Write the thermal monitor's units and settings", texts=texts)
    thermal.settled(name="Enable the thermal monitor's units", wanted=list(names), linked=wanted.linked(settings))
    for unit in names:
        if unit == wanted.MONITOR:
            # The program's link is made anew with each version of it.
            files = [PATH, wanted.unit_path(unit), f"{LINKS}/rig-thermal"]
            units.running(name="Run the thermal monitor", unit=unit, files=files)
        elif unit.endswith(".path"):
            units.running(name=f"Run {unit}", unit=unit, files=[wanted.unit_path(unit)])

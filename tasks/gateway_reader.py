"""Concern gateway, its part reader: what each client used, counted from the gateway's log."""

from __future__ import annotations

from rig.facts.models import LINKS
from rig.gateway import reader as wanted
from rig.operations import gateway_reader, units
from rig.operations.files import written
from rig.render import own_file
from rig.settings import Settings
from rigd.gateway.config import PATH


def deploy(settings: Settings) -> None:
    """Run the reader where there is a gateway, after the settings that both read were written."""
    if settings.gateway_wanted:
        written(name="Write the unit of rig-gateway-reader", path=wanted.FILE, text=own_file(wanted.FILE))
        # Each version of the program makes its link again.
        files = [PATH, wanted.FILE, f"{LINKS}/rig-gateway-reader"]
        units.running(name="Run rig-gateway-reader", unit=wanted.UNIT, files=files)
    gateway_reader.settled(
        name="Link the metrics of the gateway's clients",
        wanted=settings.gateway_wanted,
        linked=wanted.linked(settings),
    )

"""Concern firewall: a table of our own in the kernel's packet filter; all other tables stay as they are."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.facts.firewall import DROP_IN, RULES
from rig.firewall import exposures, values
from rig.operations import firewall
from rig.operations.files import written
from rig.render import own_file, render
from rig.settings import Settings

SERVICE = "rig-firewall.service"
UNIT = f"/etc/systemd/system/{SERVICE}"


@concern("firewall")
def deploy(settings: Settings) -> None:
    """Drop everything that the settings do not open; or, with the firewall disabled, have no table at all."""
    if not settings.firewall.enabled:
        firewall.unloaded(name="Remove the packet filter", unit=SERVICE)
        return
    text = render(RULES, **values(settings.firewall, exposures(settings)))
    written(name=f"Write {UNIT}", path=UNIT, text=own_file(UNIT))
    written(name=f"Write {DROP_IN}", path=DROP_IN, text=own_file(DROP_IN))
    firewall.loaded(name="Load the packet filter", unit=SERVICE, text=text)

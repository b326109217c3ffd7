"""Concern firewall: a table of our own in the kernel's packet filter, and nobody else's touched."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig.facts.firewall import DROP_IN, RULES
from rig.firewall import BRIDGES, openings
from rig.operations import firewall
from rig.render import ROOTS, own_file, render, upload
from rig.settings import Settings

SERVICE = "rig-firewall.service"
UNIT = f"/etc/systemd/system/{SERVICE}"


@concern("firewall")
def deploy(settings: Settings) -> None:
    """Everything that the settings do not open is dropped; or, when the owner says so, no table of ours at all."""
    if not settings.firewall.enabled:
        firewall.unloaded(name="Remove the packet filter", unit=SERVICE)
        return
    text = render(RULES, openings=openings(settings.firewall), bridges=BRIDGES)
    files.put(name=f"Write {RULES}", src=upload(text), dest=RULES, **ROOTS)
    files.put(name=f"Write {UNIT}", src=own_file(UNIT), dest=UNIT, **ROOTS)
    files.put(name=f"Write {DROP_IN}", src=own_file(DROP_IN), dest=DROP_IN, **ROOTS, create_remote_dir=True)
    firewall.loaded(name="Load the packet filter", unit=SERVICE)

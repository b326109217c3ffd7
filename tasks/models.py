"""Concern models: the files that enabled engines serve, fetched while the rest is deployed, and verified."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig import models as wanted
from rig import wheel
from rig.operations import models, units
from rig.render import ROOTS, own_file, render, upload
from rig.settings import Settings
from rigd.models.manifest import PATH, dump

SCRUB = "/etc/systemd/system/rig-models-scrub.service"
TIMER = "/etc/systemd/system/rig-models-scrub.timer"


@concern("models")
def start(settings: Settings) -> None:
    """The program, what it is told, and a fetch that goes on while the other concerns are deployed."""
    manifest = wanted.manifest(settings)
    models.program(name="Install rig-models", wheel=wheel.build())
    files.put(name=f"Write {PATH}", src=upload(dump(manifest)), dest=PATH, **ROOTS)
    models.started(name="Start to fetch the models", manifest=manifest)


@concern("models")
def deploy(settings: Settings) -> None:
    """Every needed model. A wrong one ends the run here, before an engine could serve it."""
    models.fetched(name="Fetch the models", manifest=wanted.manifest(settings))
    files.put(name=f"Write {SCRUB}", src=own_file(SCRUB), dest=SCRUB, **ROOTS)
    text = render(TIMER, scrub=settings.models.scrub)
    files.put(name=f"Write {TIMER}", src=upload(text), dest=TIMER, **ROOTS)
    units.running(name="Read the models again from time to time", unit="rig-models-scrub.timer", files=[TIMER])

"""Concern models: the enabled engines' files, fetched while the rest is deployed, and verified."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig import wheel
from rig.models import fetch as wanted
from rig.operations import models, units
from rig.operations.files import written
from rig.render import render
from rig.settings import Settings
from rigd.models.manifest import PATH, dump

SCRUB = "/etc/systemd/system/rig-models-scrub.service"
TIMER = "/etc/systemd/system/rig-models-scrub.timer"


@concern("models")
def install() -> None:
    """Install Rig's programs, rig-models among them."""
    models.programs(name="Install Rig's programs", wheel=wheel.build())


@concern("models")
def begin(settings: Settings) -> None:
    """Write rig-models' settings and start the fetch, which runs while the other concerns are deployed."""
    manifest = wanted.manifest(settings)
    written(name=f"Write {PATH}", path=PATH, text=dump(manifest))
    models.started(name="Start fetching the models", manifest=manifest)


@concern("models")
def finish(settings: Settings) -> None:
    """Wait for every needed model. A wrong one ends the run here, before an engine could serve it."""
    models.fetched(name="Fetch the models", manifest=wanted.manifest(settings))
    written(name=f"Write {SCRUB}", path=SCRUB, text=render(SCRUB, models=settings.storage.models.path))
    written(name=f"Write {TIMER}", path=TIMER, text=render(TIMER, scrub=settings.models.scrub))
    units.running(
        name="Schedule the model scrub",
        unit="rig-models-scrub.timer",
        files=[TIMER],
        starts=["rig-models-scrub.service"],
    )

"""Concern backup: cron runs rig-backup, which copies keys, settings and models to another disk when a copy is due."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig import backup as wanted
from rig.operations import backup, units
from rig.operations.files import written_together
from rig.render import render
from rig.settings import Settings
from rigd.backup.config import PASSWORD, PATH, dump


@concern("backup")
def guard(settings: Settings) -> None:
    """Bring back the keys and models of an earlier installation, before new keys are made and models are fetched."""
    if not settings.backup.enabled:
        backup.retired(name="Remove the backup job", files=list(wanted.NEEDLESS))
        return
    texts = {
        PATH: dump(wanted.config(settings)),
        wanted.CRON: render(wanted.CRON, **wanted.cron_values(settings)),
    }
    written_together(name="Write rig-backup's settings and its cron job", texts=texts)
    backup.password(name=f"Write {PASSWORD}", repository=wanted.repository(settings))


@concern("backup")
def deploy(settings: Settings) -> None:
    """Install the backup and its cron job."""
    if settings.backup.enabled:
        units.running(name="Run cron", unit=wanted.CRON_UNIT)

"""The settings of rig-backup, and the packages it needs: plain functions of the settings."""

from __future__ import annotations

from rig.settings import Settings
from rigd.backup.config import PATH, Config, Keep
from rigd.backup.metrics import NAME
from rigd.backup.schedule import Schedule, crontab_minutes
from rigd.backup.target import REPOSITORY
from rigd.gateway.config import RECORDS
from rigd.metrics.config import TEXTFILES

CRON = "/etc/cron.d/rig-backup"
CRON_UNIT = "cron.service"
METRICS = f"{TEXTFILES}/{NAME}"
NEEDLESS = (CRON, PATH, METRICS)
"""Files to remove where no backups are made: metrics that nobody updates would keep their last values for ever."""


def packages(settings: Settings) -> tuple[str, ...]:
    """The distribution's packages that the settings need."""
    return ("cron", "restic", "rsync", "tzdata") if settings.backup.enabled else ()


def config(settings: Settings) -> Config:
    """The contents of /etc/rig/backup.json."""
    wanted, folder = settings.backup, settings.storage.backup
    return Config(
        target=folder.path,
        must_be_mount=folder.is_disk,
        timezone=settings.machine.timezone,
        metrics=TEXTFILES,
        schedule=_schedule(settings),
        models=wanted.models,
        # The records of the clients' keys are nowhere else, and stay where the gateway is disabled.
        paths=tuple(dict.fromkeys((RECORDS, *wanted.paths))),
        keep=Keep(**wanted.keep.model_dump()),
        check_parts=wanted.check_parts,
    )


def cron_values(settings: Settings) -> dict[str, object]:
    """Values for the template of cron's file."""
    schedule = settings.backup.schedule
    return {"days": schedule.days, "time": schedule.time, "minutes": crontab_minutes(_schedule(settings))}


def repository(settings: Settings) -> str:
    """The path of the encrypted part."""
    return f"{settings.storage.backup.path}/{REPOSITORY}"


def _schedule(settings: Settings) -> Schedule:
    schedule = settings.backup.schedule
    hour, minute = schedule.hour_and_minute
    return Schedule(schedule.weekdays, hour, minute)

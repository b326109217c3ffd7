"""When a backup is due: plain functions of the schedule, of past runs, and of a clock that may jump.

Cron starts the check every quarter of an hour. The answer follows from past runs, not from the minute of the check: a
backup that was missed while the machine was off is made up for as soon as it is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVERY = 15
"""Minutes between two checks by cron."""
FIRST_RETRY = EVERY * 60.0
LAST_RETRY = 86400.0
"""Seconds until a failed backup is tried again: at first, and at most."""
PATIENCE = 86400.0
"""Seconds that a backup may be late before the owner is notified."""


@dataclass(frozen=True)
class Schedule:
    """A time of day on some days of the week, in the machine's own time zone."""

    days: tuple[int, ...] = (6,)
    """Days of the week, Monday is 0."""
    hour: int = 3
    minute: int = 0


@dataclass(frozen=True)
class Past:
    """Past runs; times are seconds since the epoch, by a clock that may have been wrong."""

    since: float
    """Time at which the machine got its backup; nothing that was due before that is missed."""
    success: float | None = None
    """Start of the last successful backup."""
    attempt: float | None = None
    """Start of the last backup."""
    failures: int = 0
    """Number of failed or interrupted backups since the last success."""


def latest(schedule: Schedule, zone: ZoneInfo, now: float) -> float:
    """The last scheduled time that is not after now."""
    today = datetime.fromtimestamp(now, zone).date()
    # Eight days back: the schedule may name today, with a time that is still to come.
    times = (_at(schedule, zone, today - timedelta(days=back)) for back in range(9))
    return next(found for found in times if found is not None and found <= now)


def following(schedule: Schedule, zone: ZoneInfo, now: float) -> float:
    """The first scheduled time after now."""
    today = datetime.fromtimestamp(now, zone).date()
    times = (_at(schedule, zone, today + timedelta(days=ahead)) for ahead in range(9))
    return next(found for found in times if found is not None and found > now)


def due(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    """True if a backup must start now."""
    return _owed(schedule, zone, now, past) and _retry(now, past) <= now


def upcoming(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> float:
    """Time of the next backup; now or earlier if one is overdue."""
    if _owed(schedule, zone, now, past):
        return _retry(now, past)
    return following(schedule, zone, now)


def overdue(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    """True if a scheduled time passed more than a day ago without a success since."""
    scheduled = latest(schedule, zone, now)
    return _done(past) < scheduled and now - scheduled > PATIENCE


def crontab_minutes(schedule: Schedule) -> str:
    """The minutes of cron's checks: the scheduled minute, and every quarter of an hour from it."""
    return ",".join(str(minute) for minute in range(schedule.minute % EVERY, 60, EVERY))


def _owed(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    # A success in the future was dated by a wrong clock. Trusting it would mean waiting until then; ignoring it costs
    # one extra backup, with the right date.
    return _done(past) > now or _done(past) < latest(schedule, zone, now)


def _done(past: Past) -> float:
    return past.since if past.success is None else past.success


def _retry(now: float, past: Past) -> float:
    """Earliest time of another attempt; the interval grows, so that a missing disk does not fill the journal."""
    if past.failures == 0 or past.attempt is None or past.attempt > now:
        return now
    return past.attempt + min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(past.failures - 1, 10))


def _at(schedule: Schedule, zone: ZoneInfo, day: date) -> float | None:
    """The scheduled time on a day; None if the schedule does not name the day.

    A time that the clocks skip in spring moves by as much as they are put forward; of a time that comes twice in
    autumn, the first counts.
    """
    if day.weekday() not in schedule.days:
        return None
    return datetime.combine(day, time(schedule.hour, schedule.minute), zone).timestamp()

"""When a backup is due: plain functions of the schedule, of what was done, and of a clock that may jump.

Cron asks every quarter of an hour, and the answer follows from what was done, not from the minute in which cron asks.
So a backup that was missed while the machine was off is made up for as soon as it is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVERY = 15
"""Minutes between two questions of cron."""
FIRST_RETRY = EVERY * 60.0
LAST_RETRY = 86400.0
"""Seconds after which a backup that failed is tried again: at first, and at most."""
PATIENCE = 86400.0
"""Seconds that a backup may be late before somebody should look."""


@dataclass(frozen=True)
class Schedule:
    """A time of day on some days of the week, in the machine's own time zone."""

    days: tuple[int, ...] = (6,)
    """Days of the week, Monday is 0."""
    hour: int = 3
    minute: int = 0


@dataclass(frozen=True)
class Past:
    """What was done; times are seconds since the epoch, as a clock showed them that may have been wrong."""

    since: float
    """When the machine got its backup: nothing that was due before that was missed."""
    success: float | None = None
    """When the last backup began that succeeded."""
    attempt: float | None = None
    """When the last one began."""
    failures: int = 0
    """How many have failed, or were cut off, since then."""


def latest(schedule: Schedule, zone: ZoneInfo, now: float) -> float:
    """The last scheduled time that is not after now."""
    today = datetime.fromtimestamp(now, zone).date()
    # Eight days back: today may be the day, and the time not come yet.
    times = (_at(schedule, zone, today - timedelta(days=back)) for back in range(9))
    return next(found for found in times if found is not None and found <= now)


def following(schedule: Schedule, zone: ZoneInfo, now: float) -> float:
    """The first scheduled time after now."""
    today = datetime.fromtimestamp(now, zone).date()
    times = (_at(schedule, zone, today + timedelta(days=ahead)) for ahead in range(9))
    return next(found for found in times if found is not None and found > now)


def due(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    """Whether a backup is to begin now."""
    return _owed(schedule, zone, now, past) and _retry(now, past) <= now


def upcoming(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> float:
    """When the next backup is due; now or before, where one is owed already."""
    if _owed(schedule, zone, now, past):
        return _retry(now, past)
    return following(schedule, zone, now)


def overdue(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    """Whether a scheduled time went by more than a day ago, and there was no success since."""
    scheduled = latest(schedule, zone, now)
    return _done(past) < scheduled and now - scheduled > PATIENCE


def crontab_minutes(schedule: Schedule) -> str:
    """The minutes in which cron asks: the scheduled one, and the same every quarter of an hour."""
    return ",".join(str(minute) for minute in range(schedule.minute % EVERY, 60, EVERY))


def _owed(schedule: Schedule, zone: ZoneInfo, now: float, past: Past) -> bool:
    # A success that lies ahead was dated by a clock that was wrong. To believe it would mean to wait until then; not to
    # believe it costs one backup too many, which is dated right.
    return _done(past) > now or _done(past) < latest(schedule, zone, now)


def _done(past: Past) -> float:
    return past.since if past.success is None else past.success


def _retry(now: float, past: Past) -> float:
    """From when on another attempt makes sense: later and later, so that a missing disk does not fill the journal."""
    if past.failures == 0 or past.attempt is None or past.attempt > now:
        return now
    return past.attempt + min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(past.failures - 1, 10))


def _at(schedule: Schedule, zone: ZoneInfo, day: date) -> float | None:
    """The scheduled time of a day; None when it is not one of the days.

    A time that the clocks skip in spring comes as much later as they are put forward; of one that comes twice in
    autumn, the first is meant.
    """
    if day.weekday() not in schedule.days:
        return None
    return datetime.combine(day, time(schedule.hour, schedule.minute), zone).timestamp()

"""When a backup is due: once for each scheduled time, whatever the clocks do, and whenever cron happens to ask."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigd.backup import schedule
from rigd.backup.schedule import Past, Schedule, due, following, latest, overdue, upcoming
from rigd.backup.state import Run, State, begun, ended, past
from tests.unit.sample import examples

BERLIN = ZoneInfo("Europe/Berlin")
WEEKLY = Schedule()
DAY = 86400.0
QUARTER = 900.0

schedules = st.builds(
    Schedule,
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
)
# Clocks that are put forward and back by an hour, by half an hour, never, and across the date line.
zones = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Etc/UTC", "Pacific/Apia"]
).map(ZoneInfo)
moments = st.floats(min_value=1.3e9, max_value=2.2e9)


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def local(moment: float, zone: ZoneInfo = BERLIN) -> str:
    return datetime.fromtimestamp(moment, zone).strftime("%a %Y-%m-%d %H:%M")


# The schedule


def test_the_default_is_sunday_at_three() -> None:
    now = at("2026-11-18 12:00")
    assert local(latest(WEEKLY, BERLIN, now)) == "Sun 2026-11-15 03:00"
    assert local(following(WEEKLY, BERLIN, now)) == "Sun 2026-11-22 03:00"


def test_a_scheduled_time_belongs_to_the_past_from_its_first_moment() -> None:
    sunday = at("2026-11-22 03:00")
    assert latest(WEEKLY, BERLIN, sunday) == sunday
    assert latest(WEEKLY, BERLIN, sunday - 1) == sunday - 7 * DAY
    assert following(WEEKLY, BERLIN, sunday) == sunday + 7 * DAY


@examples
@given(schedules, zones, moments)
def test_now_lies_between_two_scheduled_times_that_are_a_week_apart_at_most(
    wanted: Schedule, zone: ZoneInfo, now: float
) -> None:
    before, after = latest(wanted, zone, now), following(wanted, zone, now)
    assert before <= now < after
    # An hour more, or a whole day where the date line was moved.
    assert after - before <= 8 * DAY
    assert latest(wanted, zone, after - 0.001) == before
    assert following(wanted, zone, before) == after


@examples
@given(schedules, st.integers(2012, 2036))
def test_there_is_one_scheduled_time_for_each_of_the_days_of_a_year(wanted: Schedule, year: int) -> None:
    now, end = at(f"{year}-01-01 00:00") - 1, at(f"{year + 1}-01-01 00:00")
    days = []
    while (now := following(wanted, BERLIN, now)) < end:
        days.append(datetime.fromtimestamp(now, BERLIN).date())
    assert len(set(days)) == len(days)
    first = datetime(year, 1, 1)
    length = (datetime(year + 1, 1, 1) - first).days
    assert len(days) == sum((first.weekday() + day) % 7 in wanted.days for day in range(length))


@pytest.mark.parametrize(
    ("time", "day", "found"),
    [
        ((2, 30), "2026-03-29", ["Sun 2026-03-29 03:30"]),
        ((2, 30), "2026-10-25", ["Sun 2026-10-25 02:30"]),
        ((3, 0), "2026-03-29", ["Sun 2026-03-29 03:00"]),
        ((3, 0), "2026-10-25", ["Sun 2026-10-25 03:00"]),
    ],
)
def test_a_time_that_is_skipped_or_comes_twice_comes_once(
    time: tuple[int, int], day: str, found: list[str]
) -> None:
    wanted = Schedule((6,), *time)
    now, seen = at(f"{day} 00:00"), []
    while (now := following(wanted, BERLIN, now)) < at(f"{day} 23:59"):
        seen.append(local(now))
    assert seen == found


# What is due


def asked(
    wanted: Schedule, zone: ZoneInfo, begin: float, end: float, done: Past, every: float = QUARTER
) -> list[float]:
    """Times at which backups begin if cron checks from begin to end, and each succeeds at once."""
    runs, now = [], begin
    while now < end:
        if due(wanted, zone, now, done):
            runs.append(now)
            done = replace(done, success=now, attempt=now, failures=0)
        now += every
    return runs


@examples
@given(schedules, zones, moments, st.integers(0, 899))
def test_each_scheduled_time_gets_one_backup_within_a_quarter_of_an_hour(
    wanted: Schedule, zone: ZoneInfo, begin: float, phase: int
) -> None:
    end = begin + 15 * DAY
    expected, now = [], begin
    while (now := following(wanted, zone, now)) < end - QUARTER:
        expected.append(now)
    runs = asked(wanted, zone, begin + phase, end, Past(since=begin))
    assert len(runs) - len(expected) in (0, 1)
    assert all(0 <= run - time < QUARTER + 900 for run, time in zip(runs, expected, strict=False))


def test_a_machine_that_was_off_at_that_time_makes_up_for_it_when_it_is_on() -> None:
    done = Past(since=0, success=at("2026-11-15 03:00"), attempt=at("2026-11-15 03:00"))
    runs = asked(WEEKLY, BERLIN, at("2026-11-24 08:07"), at("2026-11-28 08:00"), done)
    assert [local(run) for run in runs] == ["Tue 2026-11-24 08:07"]


def test_however_long_it_was_off_one_backup_makes_up_for_all() -> None:
    done = Past(since=0, success=at("2025-01-05 03:00"), attempt=at("2025-01-05 03:00"))
    assert len(asked(WEEKLY, BERLIN, at("2026-11-23 08:07"), at("2026-11-28 08:00"), done)) == 1


def test_a_new_machine_waits_for_its_first_scheduled_time() -> None:
    new = Past(since=at("2026-11-18 12:00"))
    assert not due(WEEKLY, BERLIN, at("2026-11-22 02:59"), new)
    assert due(WEEKLY, BERLIN, at("2026-11-22 03:00"), new)


def test_a_backup_that_began_before_the_scheduled_time_is_not_the_one_of_that_time() -> None:
    early = Past(since=0, success=at("2026-11-22 02:59"), attempt=at("2026-11-22 02:59"))
    assert due(WEEKLY, BERLIN, at("2026-11-22 03:00"), early)


# Clocks that jump


@examples
@given(schedules, zones, moments, st.floats(min_value=-20 * 365 * DAY, max_value=20 * 365 * DAY))
def test_a_jump_of_the_clock_costs_one_backup_too_many_at_most_and_never_one_too_few(
    wanted: Schedule, zone: ZoneInfo, now: float, jump: float
) -> None:
    """A backup was made at the right time; the clock jumps; from then on it goes right."""
    done = Past(since=now - DAY, success=now, attempt=now)
    there = now + jump
    extra = due(wanted, zone, there, done)
    after = replace(done, success=there, attempt=there) if extra else done
    assert not due(wanted, zone, there, after)
    # Whatever was believed, the next scheduled time after the jump is kept.
    assert due(wanted, zone, following(wanted, zone, there), after)
    # And when the clock jumps back, the same holds.
    back = replace(after, success=now, attempt=now) if due(wanted, zone, now, after) else after
    assert due(wanted, zone, following(wanted, zone, now), back)


def test_a_backup_dated_by_a_clock_that_was_years_ahead_is_not_believed() -> None:
    ahead = Past(since=0, success=at("2099-01-01 00:00"), attempt=at("2099-01-01 00:00"))
    assert due(WEEKLY, BERLIN, at("2026-11-18 12:00"), ahead)


# Failures


def test_what_failed_is_tried_again_soon_at_first_and_once_a_day_in_the_end() -> None:
    begin = at("2026-11-22 03:00")
    failing = Past(since=0, success=begin - 7 * DAY, attempt=begin - 7 * DAY)
    tries, now = [], begin
    while now < begin + 6 * DAY:
        if due(WEEKLY, BERLIN, now, failing):
            tries.append(now - begin)
            failing = replace(failing, attempt=now, failures=failing.failures + 1)
        now += QUARTER
    assert [round(moment / QUARTER) for moment in tries[:5]] == [0, 1, 3, 7, 15]
    gaps = [later - sooner for sooner, later in pairwise(tries)]
    assert max(gaps) == DAY
    assert gaps[-1] == DAY
    assert len(tries) < 15


@examples
@given(moments, moments, st.integers(0, 10**6))
def test_a_failure_never_puts_the_next_try_off_for_more_than_a_day(now: float, attempt: float, failures: int) -> None:
    known = Past(since=0, success=None, attempt=attempt, failures=failures)
    assert now - 1 <= upcoming(WEEKLY, BERLIN, now, known) or attempt < now
    assert upcoming(WEEKLY, BERLIN, now, known) <= now + DAY


def test_a_backup_is_overdue_a_day_after_its_time() -> None:
    sunday = at("2026-11-22 03:00")
    known = Past(since=0, success=sunday - 7 * DAY)
    assert not overdue(WEEKLY, BERLIN, sunday + DAY, known)
    assert overdue(WEEKLY, BERLIN, sunday + DAY + 1, known)
    assert not overdue(WEEKLY, BERLIN, sunday + 3 * DAY, replace(known, success=sunday + DAY))


# Cron


@pytest.mark.parametrize(
    ("minute", "minutes"), [(0, "0,15,30,45"), (15, "0,15,30,45"), (7, "7,22,37,52"), (59, "14,29,44,59")]
)
def test_cron_asks_in_the_scheduled_minute_and_every_quarter_of_an_hour(minute: int, minutes: str) -> None:
    assert schedule.crontab_minutes(Schedule(minute=minute)) == minutes


# What is written down


def test_a_run_that_is_killed_counts_as_a_failure_until_one_succeeds() -> None:
    killed = begun(State(), 100.0)
    assert past(killed, 0).failures == 1
    again = begun(killed, 200.0)
    assert past(again, 0) == Past(since=0, success=None, attempt=200.0, failures=2)
    done = ended(again, Run(200.0, 210.0, "done"))
    assert past(done, 0) == Past(since=0, success=200.0, attempt=200.0, failures=0)
    failed = ended(begun(done, 300.0), Run(300.0, 301.0, "failed", ("no disk",)))
    assert past(failed, 0) == Past(since=0, success=200.0, attempt=300.0, failures=1)
    assert failed.success == done.last

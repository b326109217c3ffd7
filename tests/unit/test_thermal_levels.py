"""A card's level: it rises when it must, in order, and does not tremble with its readings."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigd.thermal.levels import Heat, Level, Limits, State, Warm, step
from tests.unit.sample import examples

LIMITS = Limits()
MINUTE = 60.0
OK, WARNING, CRITICAL = Level

margins = st.one_of(st.none(), st.floats(-10, 60))
heats = st.builds(Heat, temperature=st.one_of(st.none(), st.floats(20, 110)), margin=margins, slowed=st.booleans())
times = st.floats(0.1, 1000)


def margin(value: float) -> Heat:
    """The heat of a card with a limit of 88 degrees."""
    return Heat(88 - value, value)


def course(*heats: Heat, every: float = MINUTE, limits: Limits = LIMITS, begin: State | None = None) -> list[Level]:
    """The levels entered on the way, one reading after another."""
    state = begin or State()
    found: list[Level] = []
    for number, heat in enumerate(heats):
        state, entered = step(state, heat, number * every, limits)
        found += entered
    return found


def test_a_warning_is_due_after_five_warm_minutes() -> None:
    assert course(*[margin(5)] * 5) == []
    assert course(*[margin(5)] * 6) == [WARNING]


def test_a_short_peak_is_forgotten() -> None:
    assert course(*[margin(4)] * 4, margin(20), *[margin(4)] * 4) == []


def test_a_value_that_trembles_around_the_threshold_is_warned_of() -> None:
    assert course(*[margin(4), margin(6)] * 10) == [WARNING]


def test_critical_is_told_at_once_and_past_the_warning() -> None:
    assert course(margin(2)) == [WARNING, CRITICAL]
    assert course(margin(30), Heat(60, 30, slowed=True)) == [WARNING, CRITICAL]


def test_a_card_that_cooled_down_falls_by_one_level_at_a_time() -> None:
    assert course(margin(1), *[margin(30)] * 3) == [WARNING, CRITICAL, WARNING]
    assert course(margin(1), *[margin(30)] * 6) == [WARNING, CRITICAL, WARNING, OK]


def test_a_card_that_is_still_warm_keeps_its_warning() -> None:
    assert course(margin(1), *[margin(6)] * 60) == [WARNING, CRITICAL, WARNING]


def test_it_has_to_be_cool_for_a_while_without_a_break() -> None:
    assert course(margin(1), *[margin(30), margin(30), margin(4)] * 5) == [WARNING, CRITICAL]


@pytest.mark.parametrize(("temperature", "levels"), [(84, []), (85, [WARNING]), (90, [WARNING, CRITICAL])])
def test_without_a_margin_the_temperature_itself_decides(temperature: float, levels: list[Level]) -> None:
    assert course(*[Heat(temperature, None)] * 10) == levels


def test_a_margin_beats_the_temperature() -> None:
    assert course(*[Heat(95, 30)] * 10) == []


def test_a_card_that_slows_itself_down_is_critical_whatever_else_it_reports() -> None:
    assert course(Heat(None, None, slowed=True)) == [WARNING, CRITICAL]


def test_without_a_wait_a_warning_is_immediate() -> None:
    assert course(margin(5), limits=Limits(warning=Warm(after=0))) == [WARNING]


@examples
@given(st.lists(st.tuples(heats, times), max_size=60))
def test_no_level_is_ever_skipped(readings: list[tuple[Heat, float]]) -> None:
    state, now, seen = State(), 0.0, [OK]
    for heat, passed in readings:
        now += passed
        state, entered = step(state, heat, now, LIMITS)
        seen += entered
        assert state.level == seen[-1]
    assert all(abs(one - other) == 1 for one, other in pairwise(seen))


@examples
@given(
    begin=st.sampled_from(Level),
    inside=st.lists(st.floats(0.01, LIMITS.band - 0.01), min_size=1, max_size=60),
    which=st.sampled_from(["warning", "critical"]),
)
def test_within_a_band_nothing_ever_changes(begin: Level, inside: list[float], which: str) -> None:
    """`inside`: degrees by which each reading is cooler than the threshold whose band is looked at."""
    threshold = LIMITS.warning.margin if which == "warning" else LIMITS.critical.margin
    limits = Limits(warning=Warm(margin=30)) if which == "critical" else LIMITS
    state = State(begin)
    entered = course(*(margin(threshold + value) for value in inside), limits=limits, begin=state)
    if which == "warning":
        # Far from critical: that level may be left, and nothing else may happen.
        assert entered in ([], [WARNING]) if begin == CRITICAL else entered == []
    else:
        # Warm all the time: the warning may come, and nothing else may happen.
        assert entered in ([], [WARNING]) if begin == OK else entered == []


@examples
@given(
    readings=st.lists(st.floats(-5, 40), min_size=2, max_size=200),
    every=st.floats(1, 200),
)
def test_between_a_rise_and_a_fall_the_card_cooled_by_a_band_and_stayed_so(
    readings: list[float], every: float
) -> None:
    state = State()
    for number, value in enumerate(readings):
        before = state.level
        state, entered = step(state, margin(value), number * every, LIMITS)
        if entered and entered[0] < before:
            threshold = LIMITS.critical.margin if before == CRITICAL else LIMITS.warning.margin
            calm = readings[: number + 1][::-1][: int(LIMITS.settle // every) + 1]
            assert min(calm) >= threshold + LIMITS.band
            assert len(entered) == 1


@examples
@given(heats, st.builds(State, st.sampled_from(Level)), st.floats(0, 1e9))
def test_a_reading_that_says_nothing_changes_nothing(heat: Heat, state: State, now: float) -> None:
    assert step(state, Heat(None, None), now, LIMITS) == (state, ())
    assert step(state, heat, now, LIMITS)[0].level in Level


@examples
@given(st.lists(heats.filter(lambda heat: heat.known), max_size=40), times)
def test_whatever_was_before_a_critical_card_is_critical(before: list[Heat], every: float) -> None:
    state = State()
    for number, heat in enumerate([*before, margin(LIMITS.critical.margin)]):
        state, _ = step(state, heat, number * every, LIMITS)
    assert state.level == CRITICAL

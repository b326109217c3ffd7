"""How hot is too hot: a level for each card, from one reading to the next; plain functions without a clock.

A level rises when a threshold is reached, and falls only when the card has been cooler than it by a band, for a while:
within the band nothing changes, so that a value that trembles around a threshold is told once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class Level(IntEnum):
    """How hot a card is."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Warm:
    """When a warning is due: degrees Celsius, seconds."""

    margin: int = 5
    temperature: int = 85
    after: int = 300
    """How long it must be so warm."""


@dataclass(frozen=True)
class Hot:
    """When it is critical, at once: degrees Celsius."""

    margin: int = 2
    temperature: int = 90


@dataclass(frozen=True)
class Limits:
    """Thresholds in degrees Celsius, times in seconds.

    Cards since Ada report their distance to the temperature at which they slow down, the margin; for others absolute
    temperatures stand in, which are late.
    """

    warning: Warm = Warm()
    critical: Hot = Hot()
    band: int = 3
    """How much cooler than a threshold it must be before the level falls."""
    settle: int = 120
    """How long it must be so cool before the level falls."""


@dataclass(frozen=True)
class Heat:
    """What a reading says about one card, in degrees Celsius; None: not reported."""

    temperature: float | None
    margin: float | None
    """Degrees up to the temperature at which the card slows down."""
    slowed: bool = False
    """The hardware slows itself down because of heat."""

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return self.slowed or self.temperature is not None or self.margin is not None


@dataclass(frozen=True)
class State:
    """Where a card stands; times are those that `step` was called with."""

    level: Level = Level.OK
    hot_since: float | None = None
    """Since when it is warm enough for a warning that is not due yet."""
    calm_since: float | None = None
    """Since when it is cool enough for the level below."""


def step(state: State, heat: Heat, now: float, limits: Limits) -> tuple[State, tuple[Level, ...]]:
    """The next state, and the levels that were entered on the way to it, each a neighbour of the one before.

    A reading that says nothing changes nothing.
    """
    if not heat.known:
        return state, ()
    warm, critical = _excess(heat, limits)
    if critical >= 0 and state.level < Level.CRITICAL:
        return State(Level.CRITICAL), tuple(Level(level) for level in range(state.level + 1, Level.CRITICAL + 1))
    if state.level == Level.OK:
        return _rise(state, warm, now, limits)
    return _fall(state, critical if state.level == Level.CRITICAL else warm, now, limits)


def _rise(state: State, warm: float, now: float, limits: Limits) -> tuple[State, tuple[Level, ...]]:
    if warm <= -limits.band:
        return State(), ()
    if warm < 0:
        return state, ()
    since = now if state.hot_since is None else state.hot_since
    if now - since >= limits.warning.after:
        return State(Level.WARNING), (Level.WARNING,)
    return replace(state, hot_since=since), ()


def _fall(state: State, excess: float, now: float, limits: Limits) -> tuple[State, tuple[Level, ...]]:
    if excess > -limits.band:
        return replace(state, calm_since=None), ()
    since = now if state.calm_since is None else state.calm_since
    if now - since >= limits.settle:
        below = Level(state.level - 1)
        return State(below), (below,)
    return replace(state, calm_since=since), ()


def _excess(heat: Heat, limits: Limits) -> tuple[float, float]:
    """By how many degrees a warning's and the critical threshold are exceeded; negative below them."""
    if heat.margin is not None:
        warm, critical = limits.warning.margin - heat.margin, limits.critical.margin - heat.margin
    elif heat.temperature is not None:
        warm, critical = heat.temperature - limits.warning.temperature, heat.temperature - limits.critical.temperature
    else:
        warm = critical = 0.0
    return (max(warm, 0.0), max(critical, 0.0)) if heat.slowed else (warm, critical)

"""Levels of heat: a level for each card, from one reading to the next; plain functions without a clock.

A level rises at its threshold, and falls only after the card has been cooler by a band for a while: a value that
trembles around a threshold is reported once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class Level(IntEnum):
    """The level of a card's heat."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Warm:
    """Conditions of a warning: degrees Celsius, seconds."""

    margin: int = 5
    temperature: int = 85
    after: int = 300
    """How long the card must be so warm."""


@dataclass(frozen=True)
class Hot:
    """Conditions of the critical level, which has no delay: degrees Celsius."""

    margin: int = 2
    temperature: int = 90


@dataclass(frozen=True)
class Limits:
    """Thresholds in degrees Celsius, times in seconds.

    Cards since Ada report the margin: their distance to the temperature at which they slow down. Others use absolute
    temperatures, which react late.
    """

    warning: Warm = Warm()
    critical: Hot = Hot()
    band: int = 3
    """How far below a threshold the card must be before the level falls."""
    settle: int = 120
    """How long the card must be so cool before the level falls."""


@dataclass(frozen=True)
class Heat:
    """One card's heat in a reading, in degrees Celsius; None: not reported."""

    temperature: float | None
    margin: float | None
    """Degrees up to the temperature at which the card slows down."""
    slowed: bool = False
    """The hardware slows itself down because of heat."""

    @property
    def known(self) -> bool:
        """True if there is any value."""
        return self.slowed or self.temperature is not None or self.margin is not None


@dataclass(frozen=True)
class State:
    """A card's level and its timers; times are arguments of earlier calls of `step`."""

    level: Level = Level.OK
    hot_since: float | None = None
    """Start of the warmth for a warning that is not due yet."""
    calm_since: float | None = None
    """Start of the coolness for the level below."""


def step(state: State, heat: Heat, now: float, limits: Limits) -> tuple[State, tuple[Level, ...]]:
    """The next state, and the levels entered on the way to it, each a neighbour of the one before.

    An empty reading changes nothing.
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
    """Degrees above the warning's and the critical threshold; negative below them."""
    if heat.margin is not None:
        warm, critical = limits.warning.margin - heat.margin, limits.critical.margin - heat.margin
    elif heat.temperature is not None:
        warm, critical = heat.temperature - limits.warning.temperature, heat.temperature - limits.critical.temperature
    else:
        warm = critical = 0.0
    return (max(warm, 0.0), max(critical, 0.0)) if heat.slowed else (warm, critical)

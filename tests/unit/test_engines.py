"""An engine is restarted exactly when it runs with something else than it should, and waited for otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Literal

import pytest

from rig.engines import EngineState, Step, steps

WANTED = "f" * 64
CURRENT = EngineState(
    enabled=True,
    reload_needed=False,
    active=True,
    running=True,
    settings=WANTED,
    intact=True,
    health="healthy",
)
ABSENT = EngineState(
    enabled=False,
    reload_needed=False,
    active=False,
    running=False,
    settings="",
    intact=False,
    health="starting",
)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (CURRENT, []),
        (ABSENT, ["enable", "restart", "wait"]),
        (replace(CURRENT, health="starting"), ["wait"]),
        (replace(CURRENT, health="unhealthy"), ["restart", "wait"]),
        (replace(CURRENT, settings="e" * 64), ["restart", "wait"]),
        (replace(CURRENT, settings=""), ["restart", "wait"]),
        (replace(CURRENT, intact=False), ["restart", "wait"]),
        (replace(CURRENT, running=False), ["restart", "wait"]),
        (replace(CURRENT, active=False), ["restart", "wait"]),
        (replace(CURRENT, enabled=False), ["enable"]),
        (replace(CURRENT, reload_needed=True), ["daemon-reload"]),
        (
            replace(CURRENT, reload_needed=True, enabled=False, settings=""),
            ["daemon-reload", "enable", "restart", "wait"],
        ),
    ],
)
def test_steps_are_those_that_the_state_asks_for(state: EngineState, expected: list[Step]) -> None:
    assert steps(state, WANTED) == expected


def _every_state() -> list[EngineState]:
    either = (True, False)
    health: tuple[Literal["healthy", "starting", "unhealthy"], ...] = ("healthy", "starting", "unhealthy")
    return [
        EngineState(enabled, reload_needed, active, running, settings, intact, found)
        for enabled, reload_needed, active, running, intact in product(either, repeat=5)
        for settings, found in product((WANTED, "e" * 64, ""), health)
    ]


def test_nothing_is_done_in_the_one_state_that_is_right() -> None:
    assert [state for state in _every_state() if not steps(state, WANTED)] == [CURRENT]


def test_a_restart_follows_a_reload_and_is_always_waited_for() -> None:
    for state in _every_state():
        done = steps(state, WANTED)
        assert done == sorted(done, key=["daemon-reload", "enable", "restart", "wait"].index)
        assert "restart" not in done or done[-1] == "wait"


def test_an_engine_that_is_current_and_loading_is_never_restarted() -> None:
    assert "restart" not in steps(replace(CURRENT, health="starting", reload_needed=True), WANTED)

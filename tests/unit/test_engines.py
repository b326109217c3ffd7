"""An engine is restarted exactly when it runs with something else than it should, and waited for otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Literal

import pytest

from rig.engines.steps import EngineState, Step, in_the_way, steps

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
        (ABSENT, ["enable", "serve"]),
        (replace(CURRENT, health="starting"), ["wait"]),
        (replace(CURRENT, health="unhealthy"), ["serve"]),
        (replace(CURRENT, settings="e" * 64), ["serve"]),
        (replace(CURRENT, settings=""), ["serve"]),
        (replace(CURRENT, intact=False), ["serve"]),
        (replace(CURRENT, running=False), ["serve"]),
        (replace(CURRENT, active=False), ["serve"]),
        (replace(CURRENT, enabled=False), ["enable"]),
        (replace(CURRENT, reload_needed=True), ["daemon-reload"]),
        (
            replace(CURRENT, reload_needed=True, enabled=False, settings=""),
            ["daemon-reload", "enable", "serve"],
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


def test_an_engine_is_started_after_a_reload_and_waited_for_last_and_once() -> None:
    for state in _every_state():
        done = steps(state, WANTED)
        assert done == sorted(done, key=["daemon-reload", "enable", "serve", "wait"].index)
        assert len({"serve", "wait"} & set(done)) < 2


def test_an_engine_that_is_current_and_loading_is_never_restarted() -> None:
    assert "serve" not in steps(replace(CURRENT, health="starting", reload_needed=True), WANTED)


MINE, OTHER = "rig-container@one.service", "rig-native@two.service"


@pytest.mark.parametrize(
    ("holders", "alternatives", "expected"),
    [
        ([], (), []),
        ([MINE], (), []),
        ([OTHER], (), [OTHER]),
        ([MINE, OTHER], (), [OTHER]),
        ([OTHER], (MINE, OTHER), []),
    ],
)
def test_another_engine_that_holds_the_port_from_before_makes_way(
    holders: list[str], alternatives: tuple[str, ...], expected: list[str]
) -> None:
    assert in_the_way(holders, MINE, alternatives) == expected

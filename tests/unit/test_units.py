"""A unit is touched only when it is not as it should be, and a lost restart is made up for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from rig.systemd.units import Step, steps


@dataclass(frozen=True)
class State:
    """A unit that is as it should be, until a test spoils it."""

    active: str = "active"
    enabled: str = "enabled"
    reload_needed: bool = False
    started: float | None = 100.0
    newest_file: float | None = 50.0


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State(), []),
        (State(newest_file=None), []),
        (State(newest_file=100.0), []),
        (State(enabled="static"), []),
        (State(active="activating"), []),
        (State(newest_file=100.001), ["restart"]),
        (State(active="inactive"), ["start"]),
        (State(active="failed"), ["start"]),
        (State(active="failed", newest_file=200.0), ["start"]),
        (State(enabled="disabled"), ["enable"]),
        (State(enabled="", active="inactive", started=None), ["enable", "start"]),
        (State(reload_needed=True), ["daemon-reload"]),
        (
            State(reload_needed=True, enabled="disabled", newest_file=200.0),
            ["daemon-reload", "enable", "restart"],
        ),
    ],
)
def test_steps_are_those_that_the_state_asks_for(state: State, expected: list[Step]) -> None:
    assert steps(state) == expected


def test_a_restart_that_a_killed_run_owed_is_due_until_it_happened() -> None:
    owed = State(newest_file=150.0)
    assert steps(owed) == steps(owed) == ["restart"]
    assert steps(replace(owed, started=151.0)) == []

"""A unit is touched only when it is not as it should be, and a lost restart is made up for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from rig.systemd.units import Step, refusal, steps


@dataclass(frozen=True)
class State:
    """A unit in its correct state, until a test breaks it."""

    load: str = "loaded"
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
        (State(enabled="enabled-runtime"), ["enable"]),
        (State(enabled="", active="inactive", started=None), ["enable", "start"]),
        (State(reload_needed=True), ["daemon-reload"]),
        (State(load="not-found", enabled="", active="inactive"), ["daemon-reload", "enable", "start"]),
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


def test_a_unit_that_nothing_may_start_is_refused_with_the_remedy() -> None:
    assert refusal("x.service", State()) is None
    masked = refusal("x.service", State(load="masked", enabled="masked"))
    assert masked is not None
    assert masked.endswith("sudo systemctl unmask x.service")
    until_boot = refusal("x.service", State(load="masked", enabled="masked-runtime"))
    assert until_boot is not None
    assert until_boot.endswith("sudo systemctl unmask --runtime x.service")
    unreadable = refusal("x.service", State(load="bad-setting"))
    assert unreadable is not None
    assert "systemctl cat x.service" in unreadable

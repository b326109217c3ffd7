"""The outcome of the last backups: a small file, the source of status and metrics."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rigd.backup.schedule import Past
from rigd.base import files

NAME = "state.json"
CHECKED = "password-checked"
"""Marks when the owner's copy of the password was verified."""


@dataclass(frozen=True)
class Run:
    """One backup; times are seconds since the epoch."""

    started: float
    ended: float | None = None
    result: Literal["running", "done", "failed"] = "running"
    problems: tuple[str, ...] = ()
    """A sentence for each problem."""
    snapshot: str | None = None
    """Id of the new snapshot of the encrypted part; None without one."""
    copied: int = 0
    """Number of copied model files."""
    files: int = 0
    """Number of model files in the backup that are known to be good."""
    bytes: int = 0


@dataclass(frozen=True)
class State:
    """The last run, and a summary of those before it."""

    last: Run | None = None
    success: Run | None = None
    """The last run without a problem."""
    failures: int = 0
    """Number of runs without success since then. A run in progress counts: if it is killed, nothing else counts it."""
    verified: Run | None = None
    """The last complete verification that found a problem; None after a good one."""
    runs: int = 0
    """Number of runs that found nothing wrong. It selects the part that the next run reads: a damaged part is read
    until it is repaired."""


def begun(state: State, now: float) -> State:
    """The state at the start of a run."""
    return replace(state, last=Run(now), failures=state.failures + 1)


def ended(state: State, run: Run) -> State:
    """The state at the end of a run."""
    if run.result == "done":
        # A backup reads one part and copies missing files: only a complete verification clears a verdict.
        return State(run, run, 0, state.verified, state.runs + 1)
    return replace(state, last=run)


def past(state: State, since: float) -> Past:
    """The part of the state that the schedule needs."""
    return Past(
        since=since,
        success=None if state.success is None else state.success.started,
        attempt=None if state.last is None else state.last.started,
        failures=state.failures,
    )


def read(folder: Path) -> State:
    """The state. A missing or damaged file counts as no backup, so that the next one is made soon."""
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        # An earlier version did not write a verdict.
        found.setdefault("verified", None)
        runs = {name: None if found[name] is None else _run(found[name]) for name in ("last", "success", "verified")}
        return State(**{**found, **runs})
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return State()


def _run(values: dict[str, Any]) -> Run:
    return Run(**{**values, "problems": tuple(values["problems"])})


def write(folder: Path, state: State) -> None:
    """Write the state atomically."""
    files.replace(folder / NAME, json.dumps(asdict(state), indent=1) + "\n")

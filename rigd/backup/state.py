"""What the last backups came to: a small file, from which status and metrics are made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rigd.backup.schedule import Past
from rigd.base import files

NAME = "state.json"
CHECKED = "password-checked"
"""When the owner's copy of the password was found to be right."""


@dataclass(frozen=True)
class Run:
    """One backup; times are seconds since the epoch."""

    started: float
    ended: float | None = None
    result: Literal["running", "done", "failed"] = "running"
    problems: tuple[str, ...] = ()
    """What is wrong, a sentence each."""
    snapshot: str | None = None
    """Of the encrypted part, where there is a new one."""
    copied: int = 0
    """Model files that were copied."""
    files: int = 0
    """Model files that are in the backup, and known to be right."""
    bytes: int = 0


@dataclass(frozen=True)
class State:
    """The last run, and what is left of those before it."""

    last: Run | None = None
    success: Run | None = None
    """The last one without a problem."""
    failures: int = 0
    """Runs without success since then. One that is at work counts: if it is killed, nobody else will count it."""
    verified: Run | None = None
    """The last time that somebody had all of it read, where that found something wrong; gone with a good one."""
    runs: int = 0
    """Those that found nothing wrong, so that each reads another part of everything again: a part in which something is
    wrong is read until it is mended."""


def begun(state: State, now: float) -> State:
    """A run begins."""
    return replace(state, last=Run(now), failures=state.failures + 1)


def ended(state: State, run: Run) -> State:
    """It is over."""
    if run.result == "done":
        # A backup reads a part of what is there, and copies what it misses: only reading all of it clears a verdict.
        return State(run, run, 0, state.verified, state.runs + 1)
    return replace(state, last=run)


def past(state: State, since: float) -> Past:
    """What the schedule has to know."""
    return Past(
        since=since,
        success=None if state.success is None else state.success.started,
        attempt=None if state.last is None else state.last.started,
        failures=state.failures,
    )


def read(folder: Path) -> State:
    """The state; one that is missing or damaged says that there was no backup, so that the next one is made soon."""
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        # An earlier version knew no verdict.
        found.setdefault("verified", None)
        runs = {name: None if found[name] is None else _run(found[name]) for name in ("last", "success", "verified")}
        return State(**{**found, **runs})
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return State()


def _run(values: dict[str, Any]) -> Run:
    return Run(**{**values, "problems": tuple(values["problems"])})


def write(folder: Path, state: State) -> None:
    """Whole or not at all."""
    files.replace(folder / NAME, json.dumps(asdict(state), indent=1) + "\n")

"""What an engine needs to be as it should, decided from its state on the machine alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

Step = Literal["daemon-reload", "enable", "serve", "wait", "disable", "stop"]
"""`serve` starts an engine anew and waits until it is healthy; `wait` only waits."""


@dataclass(frozen=True)
class EngineState:
    """An engine as it is, whichever way it runs."""

    enabled: bool
    """Its unit starts it at boot."""
    reload_needed: bool
    """Its unit's files changed since systemd read them."""
    active: bool
    """Its unit is active."""
    running: bool
    """Its process, or its container, is there."""
    settings: str
    """The fingerprint that the running process was started with; empty when there is none."""
    intact: bool
    """It was started from what its files and its key are now, and not from an edited version of them."""
    health: Literal["healthy", "starting", "unhealthy"]
    """Its own word, that it lists its model, and that it is on the graphics card where it should be."""
    crashes: int = field(default=0, compare=False)
    """How often systemd or Docker started it again after it had ended by itself."""
    served: str = field(default="", compare=False)
    """SHA-256 of the record of what it served with last; empty when there is none."""
    evidence: str = field(default="", compare=False)
    """What its health was judged by, for people."""


def steps(state: EngineState, fingerprint: str) -> list[Step]:
    """What to do, in order, for an engine that must run with ``fingerprint``, unaltered, and be healthy.

    Nothing here remembers what a run changed, so that a run that died before a restart is completed by the next one. An
    engine that is current and still loading is waited for, as a restart would only begin its loading anew.
    """
    wanted: list[Step] = []
    if state.reload_needed:
        wanted.append("daemon-reload")
    if not state.enabled:
        wanted.append("enable")
    current = state.active and state.running and state.settings == fingerprint and state.intact
    if not current or state.health == "unhealthy":
        wanted.append("serve")
    elif state.health != "healthy":
        wanted.append("wait")
    return wanted


def in_the_way(holders: Iterable[str], unit: str, alternatives: Collection[str]) -> list[str]:
    """Units to stop before `unit` can be started on its port, of those engines' that hold the port now.

    They hold it from before the settings gave it to this engine, and get their own new one when it is their turn. The
    alternatives to it are stopped by its start.
    """
    return [holder for holder in holders if holder != unit and holder not in alternatives]


def idle_steps(state: EngineState) -> list[Step]:
    """What to do, in order, for an engine that is not to run, because an alternative to it does.

    Its files are kept up to date, so that it can be switched to at any time.
    """
    wanted: list[Step] = []
    if state.reload_needed:
        wanted.append("daemon-reload")
    if state.enabled:
        wanted.append("disable")
    if state.active or state.running:
        wanted.append("stop")
    return wanted

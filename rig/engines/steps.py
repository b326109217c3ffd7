"""The steps that an engine needs, decided from its state on the machine alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

Step = Literal["daemon-reload", "enable", "serve", "wait", "disable", "stop"]
"""`serve` restarts an engine and waits until it is healthy; `wait` only waits."""


@dataclass(frozen=True)
class EngineState:
    """The state of an engine, in a container or native."""

    enabled: bool
    """Its unit starts it at boot."""
    reload_needed: bool
    """Its unit's files changed since systemd read them."""
    active: bool
    """Its unit is active."""
    running: bool
    """Its process, or its container, is running."""
    settings: str
    """The fingerprint of the running process; empty without one."""
    intact: bool
    """It was started from its current files and key, not from an edited version of them."""
    health: Literal["healthy", "starting", "unhealthy"]
    """Its health endpoint, that it lists its model, and that it is on the graphics card if it should be."""
    crashes: int = field(default=0, compare=False)
    """Restarts by systemd or Docker after it had ended by itself."""
    served: str = field(default="", compare=False)
    """SHA-256 of the record of its last good definition; empty without one."""
    evidence: str = field(default="", compare=False)
    """The observations behind `health`, for people."""


def steps(state: EngineState, fingerprint: str) -> list[Step]:
    """The steps, in order, for an engine that must run with ``fingerprint``, unaltered, and be healthy.

    A run's changes are not remembered, so the next run completes a run that died before a restart. An engine that is
    current and still loading is only waited for, as a restart would begin its loading again.
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
    """Units to stop before `unit` can start on its port; `holders`: units of our engines that listen on it now.

    They have it from earlier settings, and get their new port when it is their turn. Its alternatives need no stop
    here: its start stops them.
    """
    return [holder for holder in holders if holder != unit and holder not in alternatives]


def idle_steps(state: EngineState) -> list[Step]:
    """The steps, in order, for an engine that must not run, because its alternative does.

    Its files are kept up to date, so that rig-mode can switch to it at any time.
    """
    wanted: list[Step] = []
    if state.reload_needed:
        wanted.append("daemon-reload")
    if state.enabled:
        wanted.append("disable")
    if state.active or state.running:
        wanted.append("stop")
    return wanted

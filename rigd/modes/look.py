"""The present state of an engine, by systemd, Docker, the GPU and the engine's own answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from rigd.base import card
from rigd.base.command import NoAnswer, Programs
from rigd.base.errors import Failed
from rigd.modes.choice import Unit
from rigd.modes.config import Engine

ANSWER = 5.0
"""Seconds that an engine may take to answer; a busy one takes long."""
TIMEOUT = 60.0
"""Seconds that a program may take to answer."""


@dataclass(frozen=True)
class Seen:
    """The state of an engine."""

    unit: Unit
    running: bool
    """Its process, or its container, exists."""
    crashes: int
    """How often systemd or Docker restarted it after it had ended by itself."""
    lost: bool
    """systemd gave up on it, or would not start it."""
    trouble: str | None
    """Why it does not serve; None when it does."""


def look(engine: Engine, keys: Path, ask: Programs) -> Seen:
    """Check everything; takes as long as the engine takes to answer. Raises Failed if a check is impossible."""
    shown = _properties(engine, ask)
    active = shown["ActiveState"] in ("active", "activating", "reloading")
    running, crashes = _process(engine, shown, ask)
    return Seen(
        unit=Unit(enabled=shown["UnitFileState"] == "enabled", active=active),
        running=running,
        crashes=crashes,
        lost=shown["ActiveState"] == "failed",
        trouble=_trouble(engine, keys, ask) if active and running else "is stopped",
    )


def _properties(engine: Engine, ask: Programs) -> dict[str, str]:
    names = "ActiveState,UnitFileState,NRestarts,MainPID"
    shown = _output(ask, "systemctl", "show", f"--property={names}", engine.unit)
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if not found.keys() >= set(names.split(",")):
        raise Failed(f"systemd does not say how {engine.unit} is; look at it: systemctl status {engine.unit}")
    return found


def _process(engine: Engine, shown: Mapping[str, str], ask: Programs) -> tuple[bool, int]:
    """Whether the process exists, and its number of crashes."""
    if engine.container is None:
        return shown["MainPID"] != "0", int(shown["NRestarts"] or 0)
    asked = ("docker", "inspect", "--format", "{{.State.Status}} {{.RestartCount}}", engine.container)
    state = _output(ask, *asked).split()
    return (state[0] == "running", int(state[1])) if len(state) == 2 else (False, 0)


def _trouble(engine: Engine, keys: Path, ask: Programs) -> str | None:
    """Why it does not serve: a healthy answer alone proves neither the model nor the graphics card."""
    try:
        if (code := requests.get(f"{engine.url}/health", timeout=ANSWER).status_code) != 200:
            return "is loading" if code == 503 else f"answers {code} when asked for its health"
        listed = requests.get(f"{engine.url}/v1/models", headers=_authorization(engine, keys), timeout=ANSWER)
        if listed.status_code != 200:
            return f"answers {listed.status_code} to its own key"
        names = [str(model["id"]) for model in listed.json()["data"]]
    except requests.Timeout:
        return f"does not answer within {ANSWER:.0f} s"
    except requests.RequestException:
        return "does not answer yet"
    except (ValueError, KeyError, TypeError):
        return "does not list its models as an OpenAI-compatible server does"
    if engine.model not in names:
        return f"serves {', '.join(names) or 'nothing'} instead of {engine.model}"
    try:
        if engine.gpu and not card.computes(engine.unit, engine.container, card.groups(ask), ask):
            return "has no process on the graphics card"
    except NoAnswer as error:
        return f"may have no process on the graphics card ({error})"
    return None


def _authorization(engine: Engine, keys: Path) -> dict[str, str]:
    try:
        text = keys.read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(f"{keys} cannot be read: {error.strerror}; a deploy writes it") from None
    found = re.search(rf"(?m)^{re.escape(engine.variable)}=(\S+)$", text)
    return {"Authorization": f"Bearer {found[1]}"} if found else {}


def _output(ask: Programs, *command: str) -> str:
    """The output of a command; empty if it fails or is missing."""
    try:
        return ask.output(*command)
    except NoAnswer:
        return ""

"""The steps that a systemd unit needs, decided from its state alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

Step = Literal["daemon-reload", "enable", "start", "restart"]


class UnitLike(Protocol):
    """The part of a unit's state that the decision needs; times in seconds since the epoch."""

    @property
    def load(self) -> str: ...
    @property
    def active(self) -> str: ...
    @property
    def enabled(self) -> str: ...
    @property
    def reload_needed(self) -> bool: ...
    @property
    def started(self) -> float | None: ...
    @property
    def newest_file(self) -> float | None: ...


def steps(unit: UnitLike) -> list[Step]:
    """The steps, in order, for a unit that must be enabled, running, and younger than the files it reads.

    Times are compared, and this run's changes are not remembered: a run that dies between a change and the restart
    loses nothing.
    """
    wanted: list[Step] = []
    # systemd does not look by itself for a file that was deleted and written again.
    if unit.reload_needed or unit.load == "not-found":
        wanted.append("daemon-reload")
    # A unit that is enabled at run time only does not start at the next boot.
    if unit.enabled not in ("enabled", "static", "alias", "generated", "indirect"):
        wanted.append("enable")
    if unit.active not in ("active", "reloading", "activating"):
        wanted.append("start")
    elif unit.started is not None and unit.newest_file is not None and unit.newest_file > unit.started:
        wanted.append("restart")
    return wanted


def refusal(name: str, unit: UnitLike) -> str | None:
    """Why a unit cannot run, with the remedy; None when it can."""
    if unit.load == "masked" or unit.enabled in ("masked", "masked-runtime"):
        runtime = "--runtime " if unit.enabled == "masked-runtime" else ""
        return f"{name} is masked, so that nothing starts it; to let Rig run it: sudo systemctl unmask {runtime}{name}"
    if unit.load in ("error", "bad-setting"):
        return f"systemd cannot read {name} ({unit.load}); look at its drop-ins: systemctl cat {name}"
    return None


def command_line(words: Iterable[str]) -> str:
    """An ExecStart= value with exactly these words: systemd's own quoting (systemd.service(5), COMMAND LINES)."""
    return " ".join(map(_quote, words))


def _quote(word: str) -> str:
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$"), ("\n", "\\n")):
        word = word.replace(character, escaped)
    return f'"{word}"'

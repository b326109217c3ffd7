"""Which engines compute on the graphics card: nvidia-smi knows its processes, and the kernel whose they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rigd.base.command import FAILED, NoAnswer, Programs

ANSWERED = (0, 14)
"""Exit codes with which nvidia-smi has answered (its manual page); 14: a part of the card's memory for settings, the
infoROM, is damaged, and all figures are right."""


def groups(ask: Programs) -> list[str]:
    """Control group of each process on the cards that answer. Raises NoAnswer where none does."""
    answer = ask.answer("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
    # Other lines are remarks: about this card, or about another one that is lost.
    pids = [line.strip() for line in answer.text.splitlines() if line.strip().isdecimal()]
    if answer.code not in ANSWERED and not pids:
        raise answer.failure("nvidia-smi")
    return [control_group(pid) for pid in pids]


def control_group(pid: str) -> str:
    """It has the name of the unit, or of the container, that a process belongs to; empty when that is gone."""
    try:
        return Path("/proc", pid, "cgroup").read_text()
    except OSError:
        return ""


def computes(unit: str, container: str | None, groups: Iterable[str], ask: Programs) -> bool:
    """Whether a process of this unit, or of this container if it runs in one, is in `groups`. Raises NoAnswer."""
    mark = unit if container is None else _identity(container, ask)
    return mark != "" and any(mark in group for group in groups)


def _identity(container: str, ask: Programs) -> str:
    """Empty when there is no such container. Raises NoAnswer."""
    try:
        return ask.output("docker", "inspect", "--format", "{{.Id}}", container).strip()
    except NoAnswer as error:
        if error.cause != FAILED:
            raise
        return ""

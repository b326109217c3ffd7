"""The engines on the GPU: nvidia-smi lists its processes, and the kernel names their units."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rigd.base.command import FAILED, NoAnswer, Programs

ANSWERED = (0, 14)
"""Exit codes of nvidia-smi with a usable answer (its manual page); 14: the infoROM, a part of the card's memory for
settings, is damaged, and all figures are right."""


def groups(ask: Programs) -> list[str]:
    """Control group of each process on the cards that answer. Raises NoAnswer if none does."""
    answer = ask.answer("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
    # Other lines are remarks: about this card, or about one that is lost.
    pids = [line.strip() for line in answer.text.splitlines() if line.strip().isdecimal()]
    if answer.code not in ANSWERED and not pids:
        raise answer.failure("nvidia-smi")
    return [control_group(pid) for pid in pids]


def control_group(pid: str) -> str:
    """A process's control group, which contains the name of its unit or container; empty if the process is gone."""
    try:
        return Path("/proc", pid, "cgroup").read_text()
    except OSError:
        return ""


def computes(unit: str, container: str | None, groups: Iterable[str], ask: Programs) -> bool:
    """True if `groups` has a process of this unit, or of this container. Raises NoAnswer."""
    mark = unit if container is None else _identity(container, ask)
    return mark != "" and any(mark in group for group in groups)


def _identity(container: str, ask: Programs) -> str:
    """Id of a container; empty without one. Raises NoAnswer."""
    try:
        return ask.output("docker", "inspect", "--format", "{{.Id}}", container).strip()
    except NoAnswer as error:
        if error.cause != FAILED:
            raise
        return ""

"""Folders that are another disk's: while that disk is missing, the folder under its mount point is not meant."""

from __future__ import annotations

from pathlib import Path


def missing(path: str, setting: str, mounts: str | None = None) -> str | None:
    """What to say when nothing is mounted there; None when it is. `mounts`: what /proc/self/mountinfo says.

    `setting`: the key that asks for a disk.
    """
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8") if mounts is None else mounts
    if path in {line.split()[4] for line in text.splitlines()}:
        return None
    return f"{path} is not mounted, and {setting} asks for a disk; connect it, and: systemctl start {path}"

"""Folders that are another disk's: while that disk is missing, the folder under its mount point is not meant."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


def missing(path: str, setting: str, mounts: str | None = None) -> str | None:
    """What to say when nothing is mounted there; None when it is. `mounts`: what /proc/self/mountinfo says.

    `setting`: the key that asks for a disk.
    """
    if mounts is None:
        # An automount point mounts its disk when somebody looks below it.
        with contextlib.suppress(OSError):
            any(Path(path).iterdir())
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    if any(_point(line) == path for line in mounts.splitlines() if " - autofs " not in line):
        return None
    return f"{path} is not mounted, and {setting} asks for a disk; connect it, and: systemctl start {path}"


def _point(line: str) -> str:
    """The mount point of a line, whose blanks are written as octal numbers (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])

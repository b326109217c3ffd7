"""Folders on another disk: while that disk is missing, the folder under its mount point must not be used."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


def missing(path: str, setting: str, mounts: str | None = None) -> str | None:
    """The report for a missing mount; None if the folder is mounted. `mounts`: the text of /proc/self/mountinfo.

    `setting`: the key that requires the disk.
    """
    if mounts is None:
        # An automount point mounts its disk on the first access below it.
        with contextlib.suppress(OSError):
            any(Path(path).iterdir())
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    if any(_point(line) == path for line in mounts.splitlines() if " - autofs " not in line):
        return None
    return f"{path} is not mounted, and {setting} asks for a disk; connect it, and: systemctl start {path}"


def _point(line: str) -> str:
    """The mount point of a line, with its octal escapes decoded (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])

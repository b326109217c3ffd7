"""Commands that change the lab, and the error for a failed one."""

from __future__ import annotations

import subprocess


class LabError(Exception):
    """The lab cannot continue; the message is shown to the owner."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"'{' '.join(command)}' failed: {done.stderr.strip()}")

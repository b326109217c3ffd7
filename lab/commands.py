"""Commands that change the lab, and what is said when one of them fails."""

from __future__ import annotations

import subprocess


class LabError(Exception):
    """The lab cannot go on; the message is for a person."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"'{' '.join(command)}' failed: {done.stderr.strip()}")

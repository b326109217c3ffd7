"""Ctrl-C ends a run with 130: pyinfra itself exits with 0, as if every operation were done."""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""128 and the number of SIGINT, the shells' convention."""


def install() -> None:
    """Replace pyinfra's own handler."""
    signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # A second Ctrl-C must work while the first one's cleanup runs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print("stopped; what was begun on the machine may go on, and the next run completes it", file=sys.stderr)
    sys.exit(INTERRUPTED)

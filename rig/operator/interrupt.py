"""Ctrl-C ends a run with 130: pyinfra itself ends with 0, as if every operation had been done."""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def install() -> None:
    """From here on, in place of pyinfra's own handler."""
    signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # A second one must not be lost while the first ends what is under way.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print("stopped; what was begun on the machine may go on, and the next run completes it", file=sys.stderr)
    sys.exit(INTERRUPTED)

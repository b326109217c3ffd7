"""The pace of downloads: a shared rate limit, and the wait before another attempt."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from rigd.base.errors import Trouble

LONGEST_WAIT = 3600.0
"""Seconds; a longer wait that a server demands ends the attempts."""


class Stopped(Exception):
    """The program was interrupted."""


class Throttle:
    """A limit in bytes a second for all downloads together; None for no limit."""

    def __init__(self, bytes_per_second: int | None, stop: threading.Event) -> None:
        self._rate = bytes_per_second
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def pass_through(self, size: int) -> None:
        """Wait until `size` bytes are allowed. Raises Stopped."""
        if self._rate is None:
            if self._stop.is_set():
                raise Stopped
            return
        with self._lock:
            # Unused time is not saved up for a burst.
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            wait = self._free_at - time.monotonic()
        if self._stop.wait(max(0, wait)):
            raise Stopped

    @property
    def piece(self) -> int:
        """Bytes per read; small enough to keep a slow rate even."""
        return 1 << 20 if self._rate is None else max(1024, min(1 << 20, self._rate // 10))


@dataclass
class Patience:
    """Attempts at one file: the fruitless ones in a row, and the wait between two."""

    attempts: int
    stop: threading.Event = field(default_factory=threading.Event)
    first: float = 1.0
    """Seconds before the second attempt; doubled for every further one."""
    most: float = 60.0
    fruitless: int = 0

    def after(self, trouble: Trouble, fruitful: bool) -> None:
        """Wait before the next attempt. Raises the trouble itself after the last attempt, and Stopped.

        Half of the wait is random, so that many machines do not come back at the same moment.
        """
        self.fruitless = 0 if fruitful else self.fruitless + 1
        if self.fruitless >= self.attempts or trouble.wait > LONGEST_WAIT:
            raise trouble
        backoff = min(self.most, self.first * 2 ** max(0, self.fruitless - 1))
        if self.stop.wait(max(trouble.wait, backoff * random.uniform(0.5, 1))):
            raise Stopped

"""How fast and how often: a rate that all downloads share, and the wait before another attempt."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from rigd.base.errors import Trouble

LONGEST_WAIT = 3600.0
"""Seconds; a server that asks for more is not waited for."""


class Stopped(Exception):
    """The program was asked to end."""


class Throttle:
    """A number of bytes a second, for everybody together; None lets all through."""

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
            # Time that nobody used is not saved up for a burst.
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            wait = self._free_at - time.monotonic()
        if self._stop.wait(max(0, wait)):
            raise Stopped

    @property
    def piece(self) -> int:
        """Bytes to ask for at once, so that a slow rate is kept evenly."""
        return 1 << 20 if self._rate is None else max(1024, min(1 << 20, self._rate // 10))


@dataclass
class Patience:
    """Attempts at one file: how many fruitless ones in a row, and how long to wait between two."""

    attempts: int
    stop: threading.Event = field(default_factory=threading.Event)
    first: float = 1.0
    """Seconds before the second attempt; doubled for every further one."""
    most: float = 60.0
    fruitless: int = 0

    def after(self, trouble: Trouble, fruitful: bool) -> None:
        """Wait before the next attempt. Raises the trouble itself when there is to be none, and Stopped.

        Half of the wait is left to chance, so that many machines do not come back at the same moment.
        """
        self.fruitless = 0 if fruitful else self.fruitless + 1
        if self.fruitless >= self.attempts or trouble.wait > LONGEST_WAIT:
            raise trouble
        backoff = min(self.most, self.first * 2 ** max(0, self.fruitless - 1))
        if self.stop.wait(max(trouble.wait, backoff * random.uniform(0.5, 1))):
            raise Stopped

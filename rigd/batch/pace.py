"""How many requests an engine gets at a time: one more after a round of successes, half after an overload."""

from __future__ import annotations

LONGEST = 30.0
"""Most seconds of a pause after an overload."""


class Pace:
    """The limit of one engine, and its pauses."""

    def __init__(self, most: int, first_pause: float) -> None:
        self._most, self._first, self._next = most, first_pause, first_pause
        self._limit = float(most)

    @property
    def limit(self) -> int:
        """Most requests at this time, at least 1."""
        return int(self._limit)

    def success(self) -> None:
        """A line was answered."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
        self._next = self._first

    def overload(self) -> float:
        """The engine has too much: halve the limit. Returns the seconds of the pause, each twice as long."""
        self._limit = max(1.0, self._limit / 2)
        return self.failure()

    def failure(self) -> float:
        """The engine fails: the seconds of the pause, each twice as long as the last until a line is answered."""
        pause, self._next = self._next, min(LONGEST, self._next * 2)
        return pause

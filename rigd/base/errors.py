"""What can go wrong in a way that a person is told about: always one sentence."""

from __future__ import annotations


class Failed(Exception):
    """It cannot be done; the message says why and what to do."""


class BadInput(Failed):
    """What was asked for makes no sense; nothing was done."""


class Trouble(Exception):
    """It did not work now, and may work in a while."""

    def __init__(self, cause: str, wait: float = 0, afresh: bool = False) -> None:
        super().__init__(cause)
        self.wait = wait
        """Seconds that the server asks to be left alone."""
        self.afresh = afresh
        """The server cannot go on from where it was asked to: only from the beginning."""

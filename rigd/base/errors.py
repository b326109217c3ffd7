"""Errors that are reported to the owner, always in one sentence."""

from __future__ import annotations


class Failed(Exception):
    """The work failed; the message gives the cause and the remedy."""


class BadInput(Failed):
    """The request is unusable; nothing was done."""


class Trouble(Exception):
    """The work failed now, and may succeed later."""

    def __init__(self, cause: str, wait: float = 0, afresh: bool = False) -> None:
        super().__init__(cause)
        self.wait = wait
        """Seconds that the server wants to be left alone."""
        self.afresh = afresh
        """The server cannot continue at the requested byte: only from the beginning."""

"""Prompt a person at a terminal."""

from __future__ import annotations


def yes(question: str) -> bool:
    """True for a yes; Ctrl-D is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        # The cursor is still behind the prompt.
        print()
        return False

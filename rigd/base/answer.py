"""What a person at a terminal answers."""

from __future__ import annotations


def yes(question: str) -> bool:
    """Whether it is a yes; Ctrl-D is none."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        # The cursor still stands behind the question.
        print()
        return False

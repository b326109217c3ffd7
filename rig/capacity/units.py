"""Sizes in bytes, written and read by people: settings use powers of 1024, makers of memory powers of 1000."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
GB = 10**9
TERA = 10**12

UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}
"""Letters of sizes in the settings, and their bytes."""


def size_bytes(size: str) -> int:
    """Bytes of a size such as "64G": powers of 1024."""
    return int(size[:-1]) * UNITS[size[-1]]


def size_text(count: int) -> str:
    """The size that is exactly `count` bytes, in the largest unit without a fraction.

    Raises ValueError unless it is a positive multiple of 1024: a size can express nothing else.
    """
    for letter in ("T", "G", "M", "K"):
        if count > 0 and count % UNITS[letter] == 0:
            return f"{count // UNITS[letter]}{letter}"
    raise ValueError(f"{count} is no positive multiple of {KIB}")


def size_at_least(count: int) -> str:
    """The nearest size of `count` bytes or more: whole G from 1 GiB on, whole M below."""
    letter = "G" if count >= GIB else "M"
    return f"{max(1, -(-count // UNITS[letter]))}{letter}"


def in_words(count: int) -> str:
    """Bytes for people: GiB, or MiB below a tenth of one, with one decimal."""
    return f"{count / GIB:,.1f} GiB" if abs(count) >= GIB // 10 or count == 0 else f"{count / MIB:,.1f} MiB"

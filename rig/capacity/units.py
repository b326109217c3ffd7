"""Bytes as people write and read them: settings count in powers of 1024, makers of memory in powers of 1000."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
GB = 10**9
TERA = 10**12

UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}
"""Letters of a size in the settings, and the bytes each stands for."""


def size_bytes(size: str) -> int:
    """Bytes of a size such as "64G": powers of 1024."""
    return int(size[:-1]) * UNITS[size[-1]]


def size_text(count: int) -> str:
    """The size that is exactly so many bytes, in the largest unit that needs no fraction.

    Raises ValueError when it is no positive multiple of 1024, which is all that a size can say.
    """
    for letter in ("T", "G", "M", "K"):
        if count > 0 and count % UNITS[letter] == 0:
            return f"{count // UNITS[letter]}{letter}"
    raise ValueError(f"{count} is no positive multiple of {KIB}")


def size_at_least(count: int) -> str:
    """The nearest size of so many bytes or more: whole G from 1 GiB on, whole M below."""
    letter = "G" if count >= GIB else "M"
    return f"{max(1, -(-count // UNITS[letter]))}{letter}"


def in_words(count: int) -> str:
    """Bytes as a person reads them: GiB, or MiB below a tenth of one, with one decimal."""
    return f"{count / GIB:,.1f} GiB" if abs(count) >= GIB // 10 or count == 0 else f"{count / MIB:,.1f} MiB"

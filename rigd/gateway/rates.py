"""Rates that the gateway can enforce. It counts tenths of a second, so the time between two requests is a whole number
of them."""

from __future__ import annotations

MINUTE = 600
"""Tenths of a second."""
HOUR = 60 * MINUTE
"""Most tenths of a second that a burst may save up. A client's counter must outlive this, or its limit ends with it."""
RATES = tuple(rate for rate in range(1, MINUTE + 1) if MINUTE % rate == 0)
"""All possible rates, in requests a minute."""


def interval(rate: int) -> int:
    """Tenths of a second between two requests at this rate, in requests a minute. Raises ValueError with a sentence
    that names the nearest possible rates."""
    if rate in RATES:
        return MINUTE // rate
    below = [possible for possible in RATES if possible < rate][-1:]
    above = [possible for possible in RATES if possible > rate][:1]
    nearest = " or ".join(map(str, below + above))
    raise ValueError(
        f"{rate} requests a minute cannot be counted in whole tenths of a second; the nearest possible: {nearest}"
    )


def window(rate: int, burst: int) -> int:
    """Tenths of a second by which a client may be ahead of its rate: the burst's requests after the first one.

    `burst`: requests that may come at once. Raises ValueError with a sentence.
    """
    most = HOUR // interval(rate)
    if not 1 <= burst <= most:
        raise ValueError(
            f"a burst of {burst} is not possible at {rate} requests a minute; "
            f"use 1 to {most}, which are the requests of an hour"
        )
    return interval(rate) * (burst - 1)

"""The map from which HAProxy knows the clients: a key's hash, and in one value all that the gateway has to know of it.

One value, so that a change of it is one change. HAProxy reads its parts by `field(N,|)`, from 1:

    name | interval | window | concurrency | end | batches | engines

Interval and window are tenths of a second (rates.py), the end is in seconds since the epoch with 0 for none, batches is
0 or 1, and engines is `*` for all or `,one,two,`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rigd.gateway import rates
from rigd.gateway.config import Limits
from rigd.gateway.records import Key, seconds

Entries = dict[str, str]
"""Values by the hash of a key."""


def entries(keys: Iterable[Key], limits: Limits) -> Entries:
    """The whole map. Raises ValueError for a rate that is not possible."""
    return {key.sha256: value(key, limits) for key in keys}


def effective(key: Key, limits: Limits) -> Limits:
    """The limits of a key: its own, and those of the settings. Raises ValueError for a rate that is not possible."""
    rate = limits.rate if key.rate is None else key.rate
    # The settings' burst may be more than a key's own low rate allows: it then gets what an hour gives.
    burst = min(limits.burst if key.burst is None else key.burst, rates.HOUR // rates.interval(rate))
    return Limits(rate, burst, limits.concurrency if key.concurrency is None else key.concurrency)


def value(key: Key, limits: Limits) -> str:
    """All that the gateway has to know of a key. Raises ValueError for a rate that is not possible."""
    own = effective(key, limits)
    parts = (
        key.name,
        rates.interval(own.rate),
        rates.window(own.rate, own.burst),
        own.concurrency,
        0 if key.ends is None else seconds(key.ends),
        int(key.batches),
        "*" if key.engines is None else f",{','.join(key.engines)},",
    )
    return "|".join(map(str, parts))


def dump(wanted: Entries) -> str:
    """The map as the file's text."""
    return "".join(f"{sha256} {value}\n" for sha256, value in wanted.items())


def parse(text: str) -> Entries:
    """The map in a file's text."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {line[0]: line[1] if len(line) > 1 else "" for line in lines}

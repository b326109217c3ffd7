"""What each client used, counted from the lines of the gateway's log: plain values, and their file."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rigd.base import configuration, files
from rigd.gateway.journal import Place
from rigd.gateway.records import NAME

CLIENTS = 256
"""Most clients that are counted by name; the one that has been away for longest is forgotten for a new one."""
UNKNOWN = "unknown"
"""Client of a request without a valid key."""
NONE = "none"
"""Engine of a request that reached none; status of one whose client left before the answer."""
LIMITS = ("rate", "concurrency", "address")
MOST = 1e9
"""Largest believable number of tokens or milliseconds of one request."""

REQUESTS, LIMITED, TOKENLESS = "requests", "limited", "tokenless"
INPUT, OUTPUT, DURATION, FIRST_BYTE = "input", "output", "duration", "first_byte"
SUMMED = (INPUT, OUTPUT, DURATION, FIRST_BYTE)
"""Quantities of which number and sum are counted."""


class Series(NamedTuple):
    """One counter: what it counts, for whom and where, and a further distinction of its own."""

    what: str
    client: str
    engine: str = NONE
    kind: str = ""


class Unusable(ValueError):
    """The line is no record of a request."""


@dataclass
class Counters:
    """All counters, and the place in the journal up to which they count. Saved together, so they always agree."""

    values: dict[Series, float] = field(default_factory=lambda: defaultdict(float))
    last: dict[str, float] = field(default_factory=dict)
    """Time of each client's last request, seconds since the epoch."""
    unusable: int = 0
    """Lines that look like records of requests and are none."""
    gaps: int = 0
    """Times that the journal no longer had the place up to which it was read: lines may have gone unread."""
    place: Place | None = None

    def count(self, message: str, when: float, engines: Collection[str]) -> None:
        """Count one line of the log. HAProxy's own remarks are no records, and are passed over."""
        if not message.startswith("{"):
            return
        try:
            added = increments(message, engines)
        except Unusable:
            self.unusable += 1
            return
        for series, value in added:
            self.values[series] = self.values.get(series, 0) + value
        client = added[0][0].client
        self.last[client] = max(when, self.last.get(client, 0))
        if len(self.last) > CLIENTS:
            self._forget(min(self.last, key=lambda name: self.last[name]))

    def _forget(self, client: str) -> None:
        del self.last[client]
        for series in [series for series in self.values if series.client == client]:
            del self.values[series]


def increments(message: str, engines: Collection[str]) -> list[tuple[Series, float]]:
    """What a record of a request adds to the counters. Raises Unusable."""
    try:
        line = json.loads(message)
    except (ValueError, RecursionError):
        raise Unusable from None
    if not isinstance(line, dict):
        raise Unusable
    return list(_of(line, engines))


def _of(line: Mapping[str, Any], engines: Collection[str]) -> Iterator[tuple[Series, float]]:
    name, target = line.get("client"), line.get("engine")
    # The gateway writes only names that it has from us. Whatever else gets in must not become a label.
    client = name if isinstance(name, str) and re.fullmatch(NAME, name) else UNKNOWN
    engine = target if isinstance(target, str) and target in engines else NONE
    status = _number(line.get("status"))
    kind = f"{status // 100:.0f}xx" if status is not None and 100 <= status < 600 else NONE
    yield Series(REQUESTS, client, engine, kind), 1
    limit = line.get("limit")
    if limit in LIMITS:
        yield Series(LIMITED, client, kind=limit), 1
        return
    if engine == NONE:
        return
    for what, key, unit in (
        (INPUT, "prompt_tokens", 1.0),
        (OUTPUT, "completion_tokens", 1.0),
        (DURATION, "total_ms", 1000.0),
        (FIRST_BYTE, "first_byte_ms", 1000.0),
    ):
        number = _number(line.get(key))
        if number is not None:
            yield Series(what, client, engine, "count"), 1
            yield Series(what, client, engine, "sum"), number / unit
    if kind == "2xx" and line.get("tokens") != "counted":
        yield Series(TOKENLESS, client, engine), 1


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        return None
    return float(value)


@dataclass(frozen=True)
class _Row:
    what: str
    client: str
    engine: str
    kind: str
    value: float


@dataclass(frozen=True)
class _Document:
    place: Place | None
    rows: tuple[_Row, ...]
    last: Mapping[str, float]
    unusable: int = 0
    gaps: int = 0


def dump(counters: Counters) -> str:
    """The counters as the file's text."""
    return json.dumps(
        {
            "place": None if counters.place is None else asdict(counters.place),
            "unusable": counters.unusable,
            "gaps": counters.gaps,
            "last": counters.last,
            "rows": [series._asdict() | {"value": value} for series, value in sorted(counters.values.items())],
        },
        indent=0,
    )


def parse(text: str) -> Counters:
    """The counters in a text. Raises ValueError."""
    saved = configuration.parse(_Document, text)
    values = {Series(row.what, row.client, row.engine, row.kind): row.value for row in saved.rows}
    return Counters(values, dict(saved.last), saved.unusable, saved.gaps, saved.place)


def read(path: Path) -> Counters:
    """The saved counters; new ones without a file. Raises OSError, or ValueError for a damaged file."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Counters()


def write(path: Path, counters: Counters) -> None:
    """Save the counters. Raises OSError."""
    # Counters that a power cut sets back look to Prometheus like a restart from zero.
    files.replace(path, dump(counters), mode=0o600)


def last_uses(path: Path) -> dict[str, float]:
    """Time of each client's last request, as far as it is known."""
    try:
        return read(path).last
    except (OSError, ValueError):
        return {}

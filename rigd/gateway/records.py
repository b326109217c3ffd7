"""The records of the clients' keys: all that is known of each, but the key itself."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from rigd.base import configuration, files
from rigd.base.configuration import AtLeast, Shape, Unusable
from rigd.base.errors import BadInput, Failed
from rigd.gateway import rates
from rigd.gateway.config import Limits

NAME = r"[a-z0-9][a-z0-9-]{0,31}"
TIME = "%Y-%m-%dT%H:%M:%SZ"
"""UTC, as the records write it."""
RESTORE = "sudo rig-backup restore brings it back"

Moment = Annotated[str, Shape(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time such as 2026-12-31T00:00:00Z")]
Positive = Annotated[int, AtLeast(1)]


@dataclass(frozen=True)
class Key:
    """One client's key. A limit that is None is that of the settings."""

    name: Annotated[str, Shape(NAME, "a client's name")]
    sha256: Annotated[str, Shape("[0-9a-f]{64}", "a SHA-256 in hexadecimal digits")]
    made: Moment
    ends: Moment | None = None
    """The first moment at which it is no longer accepted; None for never."""
    rate: Positive | None = None
    """Requests a minute."""
    burst: Positive | None = None
    concurrency: Positive | None = None
    engines: tuple[str, ...] | None = None
    """Names of the engines that it may use by path; None for all."""
    batches: bool = False
    """Whether it may use files and batches."""


@dataclass(frozen=True)
class _Document:
    keys: tuple[Key, ...]


def parse(text: str) -> tuple[Key, ...]:
    """The records in a text. Raises ValueError."""
    keys = configuration.parse(_Document, text).keys
    for what, values in (("name", [key.name for key in keys]), ("sha256", [key.sha256 for key in keys])):
        if len(set(values)) < len(values):
            raise Unusable(f"two records have the same {what}")
    for key in keys:
        for moment in (key.made, key.ends):
            if moment is not None:
                seconds(moment)
        if key.rate is not None:
            rates.interval(key.rate)
    return keys


def dump(keys: Iterable[Key]) -> str:
    """The records as the file's text, in the order of their names."""
    listed = [asdict(key) for key in sorted(keys, key=lambda key: key.name)]
    return json.dumps({"keys": listed}, indent=1) + "\n"


def read(path: Path) -> tuple[Key, ...] | None:
    """The records; None if there is no file. Raises Failed for one that cannot be used: it is never taken for empty."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Failed(f"the records of the keys, {path}, cannot be used ({cause}); {RESTORE}") from None


def write(path: Path, keys: Iterable[Key]) -> None:
    """Replace the records, which root alone may read. Raises Failed; they are then unchanged."""
    try:
        files.replace(path, dump(keys), mode=0o600)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}; nothing was changed{room(error)}") from None


def room(error: OSError) -> str:
    """The remedy for a full disk, to append to a message; empty for another error."""
    return "; make room: sudo rig-models prune" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def check(key: Key, engines: Iterable[str], limits: Limits) -> None:
    """Raises BadInput if a new key has a name, a limit or an engine that is not possible."""
    if not re.fullmatch(NAME, key.name):
        raise BadInput(
            f"{key.name!r} cannot be a client's name: use up to 32 small letters, digits and '-', and no '-' in front"
        )
    known = tuple(engines)
    for engine in key.engines or ():
        if engine not in known:
            raise BadInput(f"there is no engine {engine} behind the gateway; it has {', '.join(known) or 'none'}")
    rate = limits.rate if key.rate is None else key.rate
    try:
        rates.interval(rate)
        if key.burst is not None:
            rates.window(rate, key.burst)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if key.concurrency is not None and key.concurrency < 1:
        raise BadInput(f"a concurrency of {key.concurrency} lets nothing through; use 1 or more")


def end_of(day: str, now: datetime) -> str:
    """The end of a day (UTC), which is the last on which a key is accepted. Raises BadInput for a day that is over."""
    try:
        last = date.fromisoformat(day)
        end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise BadInput(f"{day!r} is no date; write it as {now + timedelta(days=90):%Y-%m-%d}") from None
    if end <= now:
        raise BadInput(f"{day} is over; name the last day on which the key is to be accepted")
    return end.strftime(TIME)


def seconds(moment: str) -> int:
    """A record's time in seconds since the epoch. Raises Unusable for one that does not exist."""
    try:
        return int(datetime.strptime(moment, TIME).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise Unusable(f"{moment!r} is no time") from None

"""The journal of one unit, followed from a place on: every entry once, also over restarts of whoever reads it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rigd.base.errors import Failed

MOST = 1 << 20
"""Most bytes of an entry; journald cuts a unit's lines at 48 KiB."""
PATIENCE = 60.0
"""Seconds within which journalctl must have found a place, or be gone."""


@dataclass(frozen=True)
class Place:
    """An entry of the journal."""

    cursor: str
    time: int
    """Microseconds since the epoch."""


@dataclass(frozen=True)
class Entry:
    """An entry, and its text."""

    place: Place
    message: str


class Follower:
    """Reads entries as they come, by a journalctl that keeps running."""

    def __init__(self, unit: str, place: Place | None) -> None:
        """`place`: the last entry that was read already; None to begin with the oldest. Raises Failed."""
        # The unit's own lines alone: what others say about it has other fields.
        self._match = f"_SYSTEMD_UNIT={unit}"
        self._rest, self._skip = b"", False
        self.gap = place is not None and not self._has(place)
        """The journal no longer has the place, by age or by a power cut; what is younger is read instead."""
        # Without its own entry, a cursor leads to any neighbour.
        self._after = place.time if place is not None and self.gap else None
        if place is None:
            where = []
        elif self.gap:
            where = [f"--since=@{place.time // 1_000_000}"]
        else:
            where = [f"--after-cursor={place.cursor}"]
        self._process = self._start("--follow", "--no-tail", *where)

    def entries(self, seconds: float) -> Iterator[Entry]:
        """The entries that come within a time. Raises Failed when journalctl ends."""
        end = time.monotonic() + seconds
        assert self._process.stdout is not None
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready:
                return
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(f"journalctl ended with {self._process.wait(PATIENCE)}")
            for line in self._lines(data):
                entry = parse(line)
                if entry is not None and self._is_new(entry):
                    yield entry

    def close(self) -> None:
        """Stop journalctl."""
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _has(self, place: Place) -> bool:
        process = self._start(f"--cursor={place.cursor}", "--lines=1")
        try:
            found = parse(process.communicate(timeout=PATIENCE)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed(f"journalctl did not answer within {PATIENCE:g} s") from None
        return found is not None and found.place == place

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        words = ["journalctl", "--quiet", "--all", "--output=json", "--output-fields=MESSAGE", *options, self._match]
        try:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            raise Failed(f"journalctl cannot be run: {error.strerror}") from None

    def _lines(self, data: bytes) -> Iterator[bytes]:
        """Whole lines; those that are too long are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._skip:
                yield line
            self._skip = False
        if len(self._rest) > MOST:
            self._rest, self._skip = b"", True

    def _is_new(self, entry: Entry) -> bool:
        """False for what was read already, where that is known by its time alone."""
        if self._after is not None and entry.place.time <= self._after:
            return False
        self._after = None
        return True


def parse(line: bytes) -> Entry | None:
    """An entry in journalctl's JSON; None for anything else."""
    try:
        fields = json.loads(line)
        place = Place(str(fields["__CURSOR"]), int(fields["__REALTIME_TIMESTAMP"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Entry(place, _text(fields.get("MESSAGE")))


def _text(value: Any) -> str:
    """A message; journalctl writes one that is not UTF-8 as a list of bytes."""
    if isinstance(value, list):
        return bytes(byte for byte in value if isinstance(byte, int) and 0 <= byte < 256).decode(errors="replace")
    return value if isinstance(value, str) else ""

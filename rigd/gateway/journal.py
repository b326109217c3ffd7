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
STOPS = 5.0
"""Seconds until a stopped journalctl must be gone."""


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
        """`place`: the last entry that was read already; None to begin with the oldest."""
        self._unit, self._place = unit, place
        self._rest, self._skip = b"", False
        self.gap = False
        """The journal no longer has the place, and what follows it in time was read instead."""
        self._process = self._start([] if place is None else [f"--cursor={place.cursor}"])
        self._verified = place is None

    def entries(self, seconds: float) -> Iterator[Entry]:
        """The entries that come within a time. Raises Failed when journalctl ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            process = self._process
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], left)
            if not ready:
                return
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(f"journalctl ended with {process.wait(STOPS)}")
            for line in self._lines(data):
                entry = parse(line)
                if entry is not None and self._is_new(entry):
                    yield entry
                if self._process is not process:
                    # Begun again: the new one will read the rest.
                    break

    def close(self) -> None:
        """Stop journalctl."""
        self._process.kill()
        self._process.wait(STOPS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _start(self, where: list[str]) -> subprocess.Popen[bytes]:
        words = ["journalctl", "--quiet", "--follow", "--no-tail", "--all", "--output=json", "--output-fields=MESSAGE"]
        try:
            # The unit's own lines alone: what others say about it has other fields.
            return subprocess.Popen(
                [*words, *where, f"_SYSTEMD_UNIT={self._unit}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
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
        """False for the entry that was read already, with which journalctl begins."""
        place = self._place
        if place is None or self._verified:
            self._place = entry.place
            return True
        if self.gap:
            # Read by time. A clock that was set back makes the rest look old, until it is past the place.
            self._verified = entry.place.time > place.time
            return self._verified
        if entry.place.cursor == place.cursor:
            self._verified = True
            return False
        self._begin_after(place)
        return False

    def _begin_after(self, place: Place) -> None:
        """The place was deleted from the journal, or lost in a power cut: its neighbours by number may be anything."""
        self.gap = True
        self.close()
        self._rest, self._skip = b"", False
        self._process = self._start([f"--since=@{place.time // 1_000_000}"])


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

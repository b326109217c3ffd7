"""Progress of the work, for the state file and the terminal."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO

from rigd.base import state
from rigd.base.state import FetchState, FileState, Stage

WINDOW = 10.0
"""Seconds over which a rate is measured."""
TICK = 0.5
"""Seconds between two updates."""
LINE_EVERY = 60.0
"""Seconds between two lines without a terminal."""


class Item:
    """One file and its progress."""

    def __init__(self, model: str, path: str, total: int) -> None:
        self.model, self.path, self.total = model, path, total
        self.stage: Stage = "waiting"
        self.bytes = 0
        self.error: str | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def begin(self, stage: Stage, done: int = 0) -> None:
        """Begin a stage, with the bytes that are already done."""
        self.stage, self.bytes = stage, done
        self._seen.clear()

    def advance(self, count: int) -> None:
        """Count further bytes as done."""
        self.bytes += count

    def look(self, now: float) -> FileState:
        """The file's state now; the rate follows from earlier calls."""
        self._seen.append((now, self.bytes))
        while len(self._seen) > 1 and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        (since, before), busy = self._seen[0], self.stage not in ("waiting", "done", "failed")
        rate = (self.bytes - before) / (now - since) if busy and now > since else 0.0
        eta = (self.total - self.bytes) / rate if rate > 0 else None
        return FileState(self.model, self.path, self.stage, self.bytes, self.total, max(0.0, rate), eta, self.error)


class Progress:
    """Writes the state file twice a second; shows a line on a terminal, or one a minute without a terminal."""

    def __init__(self, items: list[Item], records: Path | None = None, manifest: str = "") -> None:
        """`records`: the folder of the state file, which contains the manifest's digest; None for no file."""
        self.items = items
        self._to: TextIO = sys.stderr
        self._terminal = self._to.isatty()
        self._file = None if records is None else records / state.NAME
        self._manifest = manifest
        self._began = time.time()
        self._said = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._write("running", None)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        files = self._write("failed" if error else "done", str(error) if error else None)
        if self._terminal:
            self._to.write(f"\r\x1b[K{state.line(files)}\n")

    def say(self, sentence: str) -> None:
        """Print a line that stays."""
        self._to.write(f"\r\x1b[K{sentence}\n" if self._terminal else f"{sentence}\n")
        self._to.flush()

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            files = self._write("running", None)
            if self._terminal:
                self._to.write(f"\r\x1b[K{_fitting(state.line(files), self._to)}")
                self._to.flush()
            elif time.monotonic() - self._said >= LINE_EVERY:
                self._said = time.monotonic()
                self.say(state.line(files))

    def _write(self, result: Literal["running", "done", "failed"], error: str | None) -> tuple[FileState, ...]:
        now = time.monotonic()
        files = tuple(item.look(now) for item in self.items)
        if self._file is not None:
            new = self._file.with_name(f".{self._file.name}.new")
            whole = FetchState(self._manifest, os.getpid(), self._began, time.time(), result, error, files)
            # No sync: the file is not worth the wait. A full disk must not stop a fetch that still fits.
            try:
                new.write_text(json.dumps(state.as_dict(whole)) + "\n", encoding="utf-8")
                new.rename(self._file)
            except OSError:
                new.unlink(missing_ok=True)
        return files


def _fitting(text: str, terminal: TextIO) -> str:
    """The part of the text that fits on one row."""
    return text[: os.get_terminal_size(terminal.fileno()).columns - 1]

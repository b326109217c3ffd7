"""Slow steps, as events between processes and as lines on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Event = dict[str, Any]
Emit = Callable[[Event], object]

ALIVE_EVERY = 10.0


class Reporter:
    """Turns work into events; the receiver decides how to show them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], object]]:
        """Announce `name`, provide a function for remarks on the way, and report the duration."""
        began = time.monotonic()
        self._emit({"event": "start", "step": name})
        yield lambda note: self._emit({"event": "note", "step": name, "note": note})
        self._emit({"event": "done", "step": name, "seconds": time.monotonic() - began})

    def miss(self, message: str) -> None:
        """Report that the running step failed, and that the work goes on without it."""
        self._emit({"event": "missing", "message": message})

    def fail(self, message: str) -> None:
        self._emit({"event": "failed", "message": message})


class Display:
    """Shows events on a stream: a line that moves on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._step = ""
        self._note = ""
        self._began = 0.0
        self._said = 0.0

    def show(self, event: Event) -> None:
        kind = event["event"]
        if kind == "start":
            self._step, self._note = event["step"], ""
            self._began = self._said = time.monotonic()
            if self._terminal:
                self._draw()
            else:
                self._line(f"  {self._step} ...")
        elif kind == "note":
            self._note = event["note"]
            self.tick()
        elif kind == "done":
            self._finish(self._paint("32", "ok"), event["step"], event["seconds"])
        elif kind == "tick":
            self.tick()
        elif kind == "missing":
            if self._step:
                self._finish(self._paint("33", "skipped"), self._step, time.monotonic() - self._began)
            self._line(f"    {event['message']}")
        elif kind == "failed" and self._step:
            self._finish(self._paint("31", "failed"), self._step, time.monotonic() - self._began)

    def tick(self) -> None:
        """Show that the running step is alive; cheap enough to be called every second."""
        if not self._step:
            return
        if self._terminal:
            self._draw()
        elif time.monotonic() - self._said >= ALIVE_EVERY:
            self._said = time.monotonic()
            self._line(f"    {self._step}: {self._elapsed()}{self._remark()}")

    def _finish(self, verdict: str, step: str, seconds: float) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")
        self._line(f"  {verdict} {step} ({seconds:.1f} s)")
        self._step = ""

    def _draw(self) -> None:
        text = f"  .. {self._step} {self._elapsed()}{self._remark()}"
        self._stream.write(f"\r\x1b[K{text[:110]}")
        self._stream.flush()

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"

    def _remark(self) -> str:
        return f", {self._note}" if self._note else ""

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._terminal else text

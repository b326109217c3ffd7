"""One run of rig-batch: upload, wait, download. Interrupted anywhere, the next run goes on with the same batch."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rigd.base.errors import Failed, Trouble
from rigd.base.files import replace, sync_directory
from rigd.base.state import duration
from rigd.batch.client import Client

T = TypeVar("T")

TERMINAL = ("completed", "failed", "expired", "cancelled")
POLL = 1.0
LINE_EVERY = 60.0
"""Seconds between two lines without a terminal."""
LONGEST = 30.0
"""Most seconds between two attempts at a server that is away."""


class Run:
    """The run of one input file; `note` is a file beside it that names its batch."""

    def __init__(self, client: Client, source: Path, endpoint: str, window: str) -> None:
        self._client, self._source, self._endpoint, self._window = client, source, endpoint, window
        self._note = source.with_name(f"{source.name}.rig-batch")
        self._samples: list[tuple[float, int]] = []
        self._said = 0.0

    def batch(self) -> str:
        """The batch's id: that of the interrupted run, or a new one."""
        with self._source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        wanted = {"sha256": digest, "url": self._client.url, "endpoint": self._endpoint, "window": self._window}
        note = self._read()
        if note is None or {name: note.get(name) for name in wanted} != wanted:
            note = {**wanted, "key": secrets.token_hex(16), "file": None, "batch": None}
            self._write(note)
        if note["file"] is None:
            note["file"] = self._patiently(lambda: self._client.upload(self._source, f"{self._source.stem}.jsonl"))
            self._write(note)
        if note["batch"] is None:
            create = self._client.create
            made = self._patiently(lambda: create(note["file"], self._endpoint, self._window, note["key"]))
            note["batch"] = made["id"]
            self._write(note)
        return str(note["batch"])

    def wait(self, identity: str) -> dict[str, Any]:
        """Wait for the batch's end, with progress."""
        terminal = sys.stderr.isatty()
        while (found := self._patiently(lambda: self._client.batch(identity)))["status"] not in TERMINAL:
            self._show(found, terminal)
            time.sleep(POLL)
        if terminal:
            sys.stderr.write("\r\x1b[K")
        return found

    def download(self, identity: str, to: Path) -> None:
        """Download a file beside its place, then rename it."""
        new = to.with_name(f".{to.name}.new")

        def fetch() -> None:
            with new.open("wb") as file:
                for piece in self._client.content(identity):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

        self._patiently(fetch)
        new.rename(to)
        sync_directory(to.parent)

    def end(self) -> None:
        """Everything is downloaded: the next run makes a new batch."""
        self._note.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, note: dict[str, Any]) -> None:
        replace(self._note, json.dumps(note) + "\n")

    def _patiently(self, step: Callable[[], T]) -> T:
        """Repeat a step while the server is in trouble."""
        pause, said = 0.5, False
        while True:
            try:
                return step()
            except Trouble as trouble:
                if not said:
                    print(f"rig-batch: {trouble}; waiting for it", file=sys.stderr)
                said = True
                time.sleep(max(pause, trouble.wait))
                pause = min(LONGEST, pause * 2)

    def _show(self, batch: dict[str, Any], terminal: bool) -> None:
        counts, now = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}, time.monotonic()
        done = counts["completed"] + counts["failed"]
        self._samples = [*self._samples[-60:], (now, done)]
        text = line(batch["status"], done, counts["total"], counts["failed"], self._samples)
        if terminal:
            sys.stderr.write(f"\r\x1b[K{text[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]}")
            sys.stderr.flush()
        elif now - self._said >= LINE_EVERY or not self._said:
            self._said = now
            print(text, file=sys.stderr)


def line(status: str, done: int, total: int, failed: int, samples: list[tuple[float, int]]) -> str:
    """Progress in one line: a bar, counts, rate, time left."""
    (since, before), (now, _) = samples[0], samples[-1]
    rate = (done - before) / (now - since) if now > since else 0.0
    filled = 20 * done // total if total else 0
    parts = [f"{status} [{'#' * filled}{'.' * (20 - filled)}] {done} of {total}"]
    if failed:
        parts.append(f"{failed} failed")
    if rate > 0:
        parts += [f"{rate:.1f}/s", f"{duration((total - done) / rate)} left"]
    return ", ".join(parts)


def verdict(batch: dict[str, Any]) -> None:
    """Raises Failed if the batch did not answer every line, with the reason."""
    counts = batch["request_counts"]
    if batch["status"] == "failed":
        errors = (batch["errors"] or {}).get("data") or []
        listed = [f"line {each['line']}: {each['message']}" if each.get("line") else each["message"] for each in errors]
        raise Failed("the input file cannot be used:\n  " + "\n  ".join(listed))
    if batch["status"] != "completed":
        raise Failed(f"the batch is {batch['status']}: {counts['failed']} of {counts['total']} lines have no answer")
    if counts["failed"]:
        raise Failed(f"{counts['failed']} of {counts['total']} lines failed; rig-batch retry makes a file of them")

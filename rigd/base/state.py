"""The progress of a fetch: a small file that rig-models writes and other programs read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Stage = Literal["waiting", "checking", "copying", "fetching", "done", "failed"]
BUSY: tuple[Stage, ...] = ("checking", "copying", "fetching")
NAME = "fetch.json"
"""The file's name in the folder of records."""


@dataclass(frozen=True)
class FileState:
    """One file; bytes are those already there, rate is bytes a second, eta is seconds."""

    model: str
    path: str
    stage: Stage
    bytes: int
    total: int
    rate: float = 0
    eta: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class FetchState:
    """A fetch; times are seconds since the epoch."""

    manifest: str
    """Digest of the manifest of the fetch."""
    pid: int
    started: float
    updated: float
    result: Literal["running", "done", "failed"]
    error: str | None = None
    files: tuple[FileState, ...] = ()


def as_dict(state: FetchState) -> dict[str, Any]:
    """The state as a JSON object."""
    return asdict(state)


def from_dict(values: Any) -> FetchState | None:
    """The state in a JSON object; None if it is not one."""
    try:
        return FetchState(**{**values, "files": tuple(FileState(**file) for file in values["files"])})
    except (TypeError, KeyError):
        return None


def read(records: Path) -> FetchState | None:
    """The state of the running fetch, or of the last one; None without one."""
    try:
        return from_dict(json.loads((records / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def size(count: float) -> str:
    """Bytes in powers of 1000, as the hub and disks count them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def line(files: Iterable[FileState]) -> str:
    """All files in one line: number, bytes, rate, time left, and the current file."""
    listed = list(files)
    done, total = sum(file.bytes for file in listed), sum(file.total for file in listed)
    rate = sum(file.rate for file in listed)
    percent = f"{100 * done // total} %" if total else "100 %"
    finished = sum(file.stage == "done" for file in listed)
    parts = [f"{finished} of {len(listed)} files", f"{size(done)} of {size(total)} ({percent})"]
    if rate > 0:
        parts += [f"{size(rate)}/s", f"{duration((total - done) / rate)} left"]
    busy = [f"{file.stage} {file.model}/{file.path}" for file in listed if file.stage in BUSY]
    return ", ".join(parts) + (f"; {', '.join(busy)}" if busy else "")

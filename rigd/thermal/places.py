"""The files in /run that connect the parts of rig-thermal; a boot deletes them, and ends the heat."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rigd.base import files


@dataclass(frozen=True)
class Places:
    """Two folders: the monitor's, which has no privileges, and root's, which accepts a single word from the monitor."""

    monitor: Path = Path("/run/rig-thermal")
    root: Path = Path("/run/rig-cooling")

    @property
    def metrics(self) -> Path:
        """The file for node_exporter, linked from node_exporter's own folder."""
        return self.monitor / "rig_gpu.prom"

    @property
    def last(self) -> Path:
        """The last reading, for `status`."""
        return self.monitor / "last.json"

    @property
    def wanted(self) -> Path:
        """`hot` or `cool`: the wanted state of the configured measures."""
        return self.monitor / "wanted"

    @property
    def level(self) -> Path:
        """The level of the hottest card, written when it changes."""
        return self.monitor / "level"

    @property
    def applied(self) -> Path:
        """The measures in force, and the state before them."""
        return self.root / "applied.json"


@dataclass(frozen=True)
class Applied:
    """Measures in force; written before they are taken, so that an interrupted one is undone, too."""

    power: dict[str, float] = field(default_factory=dict)
    """Earlier limit in watts, by card."""
    unit: str | None = None
    """The unit that was stopped."""

    @property
    def any(self) -> bool:
        """True if there is a measure to undo."""
        return bool(self.power) or self.unit is not None


def read_applied(places: Places) -> Applied:
    """The measures in force; none if the file is missing or unreadable."""
    try:
        found: dict[str, Any] = json.loads(places.applied.read_text(encoding="utf-8"))
        return Applied({str(key): float(value) for key, value in found["power"].items()}, found["unit"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Applied()


def write_applied(places: Places, applied: Applied) -> None:
    files.replace(places.applied, json.dumps(asdict(applied)) + "\n", lasting=False)


def read_word(path: Path, words: tuple[str, ...]) -> str | None:
    """Read a word from a file that a process without privileges writes: a regular file, no link, one of `words`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = os.read(descriptor, 32).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    return text if text in words else None

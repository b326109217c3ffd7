"""The backup's manifest: each model file with its pinned hash and the stamp that recognises its copy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rigd.base import files
from rigd.models.manifest import File, Model
from rigd.models.records import Stamp


@dataclass(frozen=True)
class Entry:
    """One copy, read back and verified."""

    sha256: str
    """The pinned hash, equal to the hash of the copy."""
    stamp: Stamp
    when: str
    """Time of the reading, ISO 8601 in UTC."""
    repository: str
    revision: str


class Ledger:
    """Entries by the file's path in the folder; each change is written at once, as a run may die at any moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # No model's name can begin with a dot or a capital letter.
        self._path = folder / ".manifest.json"
        self._sums = folder / "SHA256SUMS"
        self.entries: dict[str, Entry] = {}
        try:
            for path, values in json.loads(self._path.read_text(encoding="utf-8")).items():
                self.entries[path] = Entry(**{**values, "stamp": Stamp(**values["stamp"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            # Copies without a record are read once more.
            self.entries = {}

    def holds(self, path: str, file: File) -> bool:
        """True if the copy is known to have the wanted bytes. Does not read it."""
        entry = self.entries.get(path)
        return (
            entry is not None
            and entry.sha256 == file.sha256
            and entry.stamp.size == file.size
            and entry.stamp == Stamp.of(self.folder / path)
        )

    def write(self, path: str, model: Model, file: File) -> None:
        """Record that the copy is good."""
        stamp = Stamp.of(self.folder / path)
        assert stamp is not None
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.entries[path] = Entry(file.sha256, stamp, when, model.repository, model.revision)
        self._save()

    def forget(self, *paths: str) -> None:
        """Delete the records of these copies."""
        for path in paths:
            self.entries.pop(path, None)
        self._save()

    def settle(self) -> None:
        """Write SHA256SUMS, for people and for sha256sum: every copy that is unchanged since it was read, and no
        other."""
        lines = [
            f"{entry.sha256}  {path}\n"
            for path, entry in sorted(self.entries.items())
            if Stamp.of(self.folder / path) == entry.stamp
        ]
        text = "".join(lines)
        if not self._sums.exists() or self._sums.read_text(encoding="utf-8") != text:
            files.replace(self._sums, text)

    def others(self, named: set[str]) -> list[Path]:
        """Files of the folder that are neither in `named` nor the ledger's own."""
        own = {self._path, self._sums, *(self.folder / path for path in named)}
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path not in own)

    def _save(self) -> None:
        values = {path: asdict(entry) for path, entry in sorted(self.entries.items())}
        files.replace(self._path, json.dumps(values, indent=1) + "\n")

"""Records of verified files: a file that has not changed since is accepted without reading it."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rigd.base.files import replace, sync_directory
from rigd.models.manifest import File, Manifest, Model


@dataclass(frozen=True)
class Stamp:
    """The identity of an unchanged file. Only the kernel sets ctime: a copy that keeps times cannot set it back."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @staticmethod
    def of(path: Path) -> Stamp | None:
        """The stamp of a regular file; None for anything else. Links are refused: containers cannot follow them."""
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def touched_only(self, before: Stamp) -> bool:
        """True if only the kernel's notes of names and owners changed."""
        return (self.size, self.mtime_ns, self.inode) == (before.size, before.mtime_ns, before.inode)


@dataclass(frozen=True)
class Verified:
    """One file, hashed once."""

    stamp: Stamp
    sha256: str
    when: str
    """Time of the hashing, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Record:
    """The verified files of one model."""

    repository: str = ""
    revision: str = ""
    directory: str = ""
    """The folder of the recorded version."""
    files: dict[str, Verified] = field(default_factory=dict)
    before: str = ""
    """The folder of the last complete version before; empty without one."""
    whole: bool = True
    """True if all files of the version were good at some time: only such a version can have been served."""


class Records:
    """The folder of records: NAME.verified for a model's good files, NAME.failed for a model that must not be
    served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Models with a record."""
        return sorted(path.name.removesuffix(".verified") for path in self.directory.glob("*.verified"))

    def read(self, name: str) -> Record:
        """The record of a model. A missing or damaged one is empty: the files are hashed again."""
        try:
            values = json.loads(self._verified(name).read_text(encoding="utf-8"))
            files = {
                path: Verified(Stamp(**entry.pop("stamp")), **entry) for path, entry in values.pop("files").items()
            }
            return Record(**values, files=files)
        except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
            return Record()

    def write(self, manifest: Manifest, model: Model, file: File, stamp: Stamp) -> None:
        """Record that the file with this stamp has the manifest's hash."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            old = self.read(model.name)
            folder = str(manifest.folder(model))
            files = old.files if old.directory == folder else {}
            files |= {file.path: Verified(stamp, file.sha256, now)}
            record = Record(
                model.repository,
                model.revision,
                folder,
                files,
                before=old.directory if old.whole and old.directory not in ("", folder) else old.before,
                whole=files.keys() >= {entry.path for entry in model.files} or (old.whole and old.directory == folder),
            )
            replace(self._verified(model.name), json.dumps(asdict(record), indent=1) + "\n")

    def forget(self, name: str, path: str | None = None) -> None:
        """Delete the record of one file, or of the whole model."""
        with self._lock:
            if path is None:
                self._verified(name).unlink(missing_ok=True)
                self.clear(name)
                return
            record = asdict(self.read(name))
            if record["files"].pop(path, None) is not None:
                replace(self._verified(name), json.dumps(record, indent=1) + "\n")

    def unlink(self, paths: Iterable[Path]) -> None:
        """Delete names of files. A file with another name stays verified, although the kernel changes its ctime.

        If the program is killed halfway, such a file is read again.
        """
        with self._lock:
            linked = {name: _linked(self.read(name)) for name in self.names()}
            for path in paths:
                path.unlink(missing_ok=True)
            for name, files in linked.items():
                record = self.read(name)
                touched = {
                    path: Verified(stamp, known.sha256, known.when)
                    for path in files
                    for known, stamp in [(record.files[path], Stamp.of(Path(record.directory) / path))]
                    if stamp is not None and stamp != known.stamp and stamp.touched_only(known.stamp)
                }
                if touched:
                    record.files.update(touched)
                    replace(self._verified(name), json.dumps(asdict(record), indent=1) + "\n")

    def failure(self, name: str) -> str | None:
        """Why a model must not be served, or None."""
        try:
            return self._failed(name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def fail(self, name: str, reason: str) -> None:
        """Mark a model: units that serve it check for the mark, and do not start."""
        replace(self._failed(name), reason + "\n")

    def clear(self, name: str) -> None:
        """Delete the mark, also beyond a power cut: with it, no engine starts at the next boot."""
        self._failed(name).unlink(missing_ok=True)
        sync_directory(self.directory)

    def _verified(self, name: str) -> Path:
        return self.directory / f"{name}.verified"

    def _failed(self, name: str) -> Path:
        return self.directory / f"{name}.failed"


def holds(record: Record, file: File, stamp: Stamp | None) -> bool:
    """True if the record is about this file and the wanted bytes. Does not read the file."""
    known = record.files.get(file.path)
    return known is not None and known.stamp == stamp and known.stamp.size == file.size and known.sha256 == file.sha256


def _linked(record: Record) -> list[str]:
    """Files that are unchanged since they were verified, and have more than one name."""
    finals = {path: Path(record.directory) / path for path in record.files}
    return [
        path
        for path, final in finals.items()
        if record.files[path].stamp == Stamp.of(final) and final.stat().st_nlink > 1
    ]


def make(directory: Path) -> Records:
    """The folder of records; create it if it is missing."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    return Records(directory)

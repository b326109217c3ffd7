"""The backup's model files: find the good, the missing and the damaged ones, on the machine and in the backup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rigd.backup import target, transfer
from rigd.backup.ledger import Ledger
from rigd.base import files, state
from rigd.base.errors import Failed
from rigd.base.progress import Item, Progress
from rigd.models.manifest import File, Manifest, Model
from rigd.models.records import Record, Records, Stamp, holds


@dataclass(frozen=True)
class Copy:
    """One file and its copy."""

    model: Model
    file: File
    source: Path
    """Path on the machine."""
    place: str
    """Path in the backup's folder of models."""
    item: Item

    @property
    def final(self) -> Path:
        """Path in the backup, relative to the working directory."""
        return target.MODELS / self.place


@dataclass
class Outcome:
    """The outcome for the model files."""

    copied: int = 0
    files: int = 0
    """Number of files in the backup that are known to be good."""
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shelf:
    """The models of a manifest, with the records of both sides."""

    manifest: Manifest
    records: dict[str, Record]
    """Record of rig-models by model."""
    marked: dict[str, str]
    """Reason for which a model must not be served, by model."""
    ledger: Ledger

    def copies(self) -> list[Copy]:
        """Every file that belongs in the backup."""
        found = []
        for model in self.manifest.models:
            folder = self.manifest.folder(model)
            inside = folder.relative_to(self.manifest.directory)
            for file in model.files:
                item = Item(model.name, file.path, file.size)
                found.append(Copy(model, file, Path(folder, file.path), f"{inside}/{file.path}", item))
        return found

    def kept(self, copy: Copy) -> bool:
        """True if the copy is in the backup and unchanged since it was read back. Does not read it."""
        return self.ledger.holds(copy.place, copy.file)

    def verified(self, copy: Copy) -> bool:
        """True if the machine's file is unchanged since rig-models verified it. Does not read it."""
        return holds(self.records[copy.model.name], copy.file, Stamp.of(copy.source))

    def keep(self, copy: Copy) -> None:
        """Record that the copy in the backup is good."""
        self.ledger.write(copy.place, copy.model, copy.file)


def place(manifest: Manifest, model: Model, file: File) -> str:
    """A file's path in a folder of models; the machine and the backup use the same layout."""
    return str(manifest.path(model, file).relative_to(manifest.directory))


def shelf(manifest: Manifest) -> Shelf:
    """The shelf of a manifest, with all records; the working directory is the target."""
    known = Records(Path(manifest.records))
    names = [model.name for model in manifest.models]
    return Shelf(
        manifest=manifest,
        records={name: known.read(name) for name in names},
        marked={name: reason for name in names if (reason := known.failure(name)) is not None},
        ledger=Ledger(target.MODELS),
    )


def run(shelf: Shelf, copies: list[Copy], turn: Callable[[File], bool], progress: Progress) -> Outcome:
    """Copy every good file of the machine into the backup, and verify it there.

    `turn` selects the existing copies to read again. A copy is replaced only after the new one was read back and
    verified.
    """
    outcome = Outcome()
    missing = []
    for copy in copies:
        try:
            if _there(shelf, copy, turn, outcome):
                _doubt(shelf, copy, outcome)
                copy.item.begin("done", copy.file.size)
            elif _fits(copy.source, copy.file):
                missing.append(copy)
            else:
                raise Failed(f"{copy.source} {_lack(copy)}, and the backup has no right one; {_REMEDY}")
        except (Failed, OSError) as error:
            _fail(copy, error, outcome, progress)
    lacking = _lacking(missing)
    for copy in missing:
        try:
            if lacking:
                raise Failed(lacking)
            transfer.bring(copy.source, copy.final, copy.file, copy.item)
            shelf.keep(copy)
            outcome.copied += 1
        except (Failed, OSError) as error:
            _fail(copy, error, outcome, progress)
    outcome.problems = list(dict.fromkeys(outcome.problems))
    right = [copy for copy in copies if shelf.kept(copy)]
    outcome.files, outcome.bytes = len(right), sum(copy.file.size for copy in right)
    shelf.ledger.settle()
    return outcome


_REMEDY = "fetch it again: rig-models fetch"


def _there(shelf: Shelf, copy: Copy, turn: Callable[[File], bool], outcome: Outcome) -> bool:
    """True if the backup has the file. Reads a copy that has no record, or whose turn it is."""
    known = shelf.kept(copy)
    if known and not turn(copy.file):
        return True
    if not _fits(copy.final, copy.file):
        return False
    copy.item.begin("checking")
    try:
        if files.digest(copy.final, copy.item.advance) == copy.file.sha256:
            shelf.keep(copy)
            return True
        problem = "has rotted in the backup" if known else None
    except OSError as error:
        problem = f"cannot be read in the backup ({error.strerror})"
    if known:
        shelf.ledger.forget(copy.place)
    if problem is not None:
        outcome.problems.append(f"{copy.final} {problem} and is copied again; check the backup disk")
    return False


def _doubt(shelf: Shelf, copy: Copy, outcome: Outcome) -> None:
    """Report damage on the machine to a file that the backup has. Only a changed file is read."""
    marked = shelf.marked.get(copy.model.name)
    if marked is not None:
        outcome.problems.append(f"{marked}; the backup keeps the right one")
        return
    if shelf.verified(copy):
        return
    if _fits(copy.source, copy.file):
        copy.item.begin("checking")
        if files.digest(copy.source, copy.item.advance) == copy.file.sha256:
            return
        raise Failed(f"{copy.source} has changed since it was verified; the backup keeps the right one; {_REMEDY}")
    raise Failed(f"{copy.source} {_lack(copy)}; the backup keeps the right one; {_REMEDY}")


def _fits(path: Path, file: File) -> bool:
    """True if the file exists with the expected size."""
    stamp = Stamp.of(path)
    return stamp is not None and stamp.size == file.size


def _lack(copy: Copy) -> str:
    if not copy.source.exists():
        return "is missing"
    return f"has {transfer.size(copy.source)} bytes, and {copy.file.size} are pinned"


def _lacking(missing: list[Copy]) -> str:
    """The report for a lack of space; no copy starts that cannot finish."""
    needed = sum(copy.file.size - transfer.size(transfer.part_of(copy.final)) for copy in missing)
    if not missing or needed <= (free := target.free()):
        return ""
    return (
        f"models need {state.size(needed)} more in the backup, and {state.size(free)} are free; free "
        f"{state.size(needed - free)} (rig-backup prune names what no manifest names any more)"
    )


def _fail(copy: Copy, error: Exception, outcome: Outcome, progress: Progress) -> None:
    sentence = str(error) if isinstance(error, Failed) else sentence_of(error)
    copy.item.stage, copy.item.error = "failed", sentence
    if sentence not in outcome.problems:
        outcome.problems.append(sentence)
        progress.say(sentence)


def sentence_of(error: Exception) -> str:
    """An error of the operating system as a sentence for the owner."""
    if isinstance(error, OSError):
        return f"{error.filename or 'the backup'}: {error.strerror}"
    return str(error)


def verify(ledger: Ledger, progress_of: Callable[[list[Item]], Progress]) -> list[str]:
    """Read every recorded copy; return a sentence for each bad one, and forget its record."""
    entries = sorted(ledger.entries.items())
    items = [Item("backup", path, entry.stamp.size) for path, entry in entries]
    problems = []
    with progress_of(items) as shown:
        for (path, entry), item in zip(entries, items, strict=True):
            final = ledger.folder / path
            item.begin("checking")
            try:
                found = files.digest(final, item.advance)
                problem = None if found == entry.sha256 else f"{final} has SHA-256 {found}, not {entry.sha256}"
            except OSError as error:
                problem = f"{final}: {error.strerror}"
            if problem is None:
                item.begin("done", item.total)
                continue
            ledger.forget(path)
            item.stage = "failed"
            problems.append(f"{problem}; the next run copies it again")
            shown.say(problems[-1])
    if problems:
        ledger.settle()
    return problems


def leftovers(manifest: Manifest, ledger: Ledger) -> list[Path]:
    """Files of the backup that the manifest does not name. A part of a file that it names is no leftover."""
    named = {place(manifest, model, file) for model in manifest.models for file in model.files}
    return ledger.others(named | {str(transfer.part_of(Path(path))) for path in named})


def delete(paths: list[Path], ledger: Ledger) -> None:
    """Delete files of the backup, the folders that this leaves empty, and their records."""
    for path in paths:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == ledger.folder or any(folder.iterdir()):
                break
            folder.rmdir()
    ledger.forget(*(str(path.relative_to(ledger.folder)) for path in paths))
    ledger.settle()

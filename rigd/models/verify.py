"""Verifying: read every file again, and mark a changed model so that nothing serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rigd.base import files
from rigd.base.errors import Failed
from rigd.base.progress import Item, Progress
from rigd.models.manifest import File, Manifest, Model
from rigd.models.records import Records, Stamp


@dataclass(frozen=True)
class Check:
    """One file to read."""

    model: Model
    file: File
    path: Path
    item: Item


def checks(manifest: Manifest, models: list[Model]) -> list[Check]:
    """All files of the models."""
    return [
        Check(model, file, Path(manifest.path(model, file)), Item(model.name, file.path, file.size))
        for model in models
        for file in model.files
    ]


def run(manifest: Manifest, records: Records, wanted: list[Check], progress: Progress) -> None:
    """Read all files. Raises Failed with a sentence for each wrong file, which is left in its place."""
    manifest.require_disk()
    wrong: dict[str, list[str]] = {check.model.name: [] for check in wanted}
    for check in wanted:
        awaited = _awaited(manifest, records, check)
        found = _verdict(manifest, records, check)
        if found is not None:
            wrong[check.model.name].append(found)
            progress.say(found)
            if not awaited:
                # Mark it at once: a damaged model must not be started while the rest is read.
                records.fail(check.model.name, "; ".join(wrong[check.model.name]))
    for name, sentences in wrong.items():
        if not sentences:
            records.clear(name)
    if any(wrong.values()):
        raise Failed("; ".join(sentence for sentences in wrong.values() for sentence in sentences))


def _awaited(manifest: Manifest, records: Records, check: Check) -> bool:
    """True if a file is merely not fetched yet: until then, the previous version may well be served."""
    record = records.read(check.model.name)
    was_there = record.whole and record.directory == str(manifest.folder(check.model))
    return not was_there and Stamp.of(check.path) is None


def _verdict(manifest: Manifest, records: Records, check: Check) -> str | None:
    """The problem of a file, or None; both are recorded."""
    check.item.begin("checking")
    try:
        problem = _problem(manifest, records, check)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if problem is None:
        check.item.begin("done", check.file.size)
        return None
    records.forget(check.model.name, check.file.path)
    check.item.stage, check.item.error = "failed", f"{check.path} {problem}; fetch it again with: rig-models fetch"
    return check.item.error


def _problem(manifest: Manifest, records: Records, check: Check) -> str | None:
    before = Stamp.of(check.path)
    if before is None:
        # A missing disk is no evidence about its models.
        manifest.require_disk()
        return "is a link and not a file, which an engine cannot follow" if check.path.is_symlink() else "is missing"
    if before.size != check.file.size:
        return f"has {before.size} bytes, and {check.file.size} are pinned"
    found = files.digest(check.path, check.item.advance)
    if found != check.file.sha256:
        return f"has SHA-256 {found}, and {check.file.sha256} is pinned"
    if Stamp.of(check.path) != before:
        return "was changed while it was read"
    records.write(manifest, check.model, check.file, before)
    return None

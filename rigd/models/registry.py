"""Which models are on the machine: a row for each, and what may be deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigd.models import lock, state
from rigd.models.gguf import quantization
from rigd.models.manifest import Manifest, Model
from rigd.models.records import Record, Records, Stamp, holds

VERSION = re.compile(r"[0-9a-f]{12}")
"""What a folder of a version is called; others in a model's folder are not ours."""


@dataclass(frozen=True)
class Row:
    """One model of the manifest, or one that is left from an earlier manifest."""

    model: str
    revision: str
    quantization: str
    size: int
    verified: str | None
    """When all of its files were last hashed (the oldest of them); None when one is not known to be right."""
    engines: tuple[str, ...]
    failure: str | None
    others: tuple[str, ...] = ()
    """Folders of other versions that are still there, the one before this first."""


@dataclass(frozen=True)
class Leftover:
    """Files that no engine uses."""

    what: str
    files: tuple[Path, ...]
    size: int
    model: str | None = None
    """The model whose record goes with the files; None when they are none of a model's own."""


def rows(manifest: Manifest, records: Records) -> list[Row]:
    """Every model; nothing is read but headers."""
    found = []
    for model in manifest.models:
        record = records.read(model.name)
        times = [
            record.files[file.path].when
            for file in model.files
            if holds(record, file, Stamp.of(Path(manifest.path(model, file))))
        ]
        when = min(times) if len(times) == len(model.files) else None
        kind = quantization(model, Path(manifest.folder(model)))
        failure = records.failure(model.name)
        others = tuple(path.name for path in _others(manifest, model, record))
        found.append(Row(model.name, model.revision, kind, model.size, when, model.engines, failure, others))
    return found + [_unused(name, records.read(name)) for name in _forgotten(manifest, records)]


def status(manifest: Manifest, records: Records) -> dict[str, Any]:
    """Everything that a deploy decides on, in constant time."""
    last = state.read(records.directory)
    return {
        "holder": lock.holder(records.directory),
        "manifest": manifest.digest,
        "fetch": None if last is None else state.as_dict(last),
        "models": {
            model.name: {
                "verified": all(
                    holds(record, file, Stamp.of(Path(manifest.path(model, file)))) for file in model.files
                ),
                "failure": records.failure(model.name),
            }
            for model in manifest.models
            for record in [records.read(model.name)]
        },
    }


def leftovers(manifest: Manifest, records: Records, previous: bool = False) -> list[Leftover]:
    """What rig-models itself put down and no engine uses; files of others are none of its business.

    ``previous``: the version of a model before the present one, too, without which there is no going back.
    """
    return [
        *_unused_models(manifest, records),
        *_unused_versions(manifest, records, previous),
        *_set_aside(manifest, records),
    ]


def delete(leftover: Leftover, records: Records) -> None:
    """Delete the files, then the folders that are empty without them, then the record."""
    for path in leftover.files:
        path.unlink(missing_ok=True)
    folders = {folder for path in leftover.files for folder in (path.parent, path.parent.parent)}
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if leftover.model is not None:
        records.forget(leftover.model)


def _unused_models(manifest: Manifest, records: Records) -> Iterator[Leftover]:
    unused = {model.name for model in manifest.models if not model.engines}
    for name in sorted(unused | set(_forgotten(manifest, records))):
        record = records.read(name)
        files = tuple(path for path in _files(record) if path.exists())
        yield Leftover(f"the model {name}, which no engine serves", files, _sum(files), name)


def _unused_versions(manifest: Manifest, records: Records, previous: bool) -> Iterator[Leftover]:
    started = "".join(_text(Path(path)) for path in manifest.starters)
    for model in manifest.models:
        record = records.read(model.name)
        for folder in _others(manifest, model, record):
            if str(folder) in started or (str(folder) == record.before and not previous):
                continue
            files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
            yield Leftover(f"the version {folder.name} of {model.name}, which no engine serves", files, _sum(files))


def _others(manifest: Manifest, model: Model, record: Record) -> list[Path]:
    """Folders of other versions of a model, the one before the present first."""
    own = Path(manifest.folder(model))
    found = [path for path in own.parent.glob("*/") if path != own and VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda path: (str(path) != record.before, path.name))


def _set_aside(manifest: Manifest, records: Records) -> Iterator[Leftover]:
    for model in manifest.models:
        folder = Path(manifest.folder(model))
        known = {f"{file.path}.part" for file in model.files}
        for path in sorted([*folder.rglob("*.aside"), *folder.rglob("*.part")]):
            if str(path.relative_to(folder)) not in known:
                yield Leftover(f"{path.name} of {model.name}, which nothing names any more", (path,), _sum((path,)))


def _forgotten(manifest: Manifest, records: Records) -> list[str]:
    """Models that have a record and are not in the manifest."""
    named = {model.name for model in manifest.models}
    return [name for name in records.names() if name not in named]


def _unused(name: str, record: Record) -> Row:
    times = [entry.when for entry in record.files.values()]
    size = sum(entry.stamp.size for entry in record.files.values())
    return Row(name, record.revision, "unknown", size, min(times) if times else None, (), None)


def _files(record: Record) -> Iterator[Path]:
    """A model's files, and what they left beside them."""
    for path in record.files:
        final = Path(record.directory) / path
        yield from (final, final.with_name(f"{final.name}.part"), *final.parent.glob(f"{final.name}.*.aside"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _sum(files: tuple[Path, ...]) -> int:
    return sum(path.stat().st_size for path in files)

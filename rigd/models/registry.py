"""The models on the machine: a row for each, and the files that may be deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigd.base import lock, state
from rigd.models.gguf import quantization
from rigd.models.manifest import Manifest, Model
from rigd.models.records import Record, Records, Stamp, holds

VERSION = re.compile(r"[0-9a-f]{12}")
"""The names of version folders; other folders in a model's folder are left alone."""


@dataclass(frozen=True)
class Row:
    """One model of the manifest, or one that an earlier manifest left behind."""

    model: str
    revision: str
    quantization: str
    size: int
    verified: str | None
    """Time at which all its files were last hashed (the oldest of them); None if one is not known to be good."""
    engines: tuple[str, ...]
    failure: str | None
    others: tuple[str, ...] = ()
    """Folders of other versions that still exist, the previous one first."""


@dataclass(frozen=True)
class Leftover:
    """Files that no engine uses."""

    what: str
    home: Path
    """The model's own folder; empty folders are deleted up to it."""
    files: tuple[Path, ...]
    model: str | None = None
    """The model whose record is deleted with the files; None if they belong to no model."""

    @property
    def size(self) -> int:
        """Bytes that its deletion frees: none for a file that has another name."""
        found = [path.stat() for path in self.files if path.exists()]
        return sum(stat.st_size for stat in found if stat.st_nlink == 1)


def rows(manifest: Manifest, records: Records) -> list[Row]:
    """Every model; reads only headers."""
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
    """Everything that a deploy needs for its decisions, in constant time."""
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
    """The files of rig-models that no engine uses; files of others are left alone.

    ``previous``: include the version before the present one, without which a rollback is impossible.
    """
    return [
        *_unused_models(manifest, records),
        *_unused_versions(manifest, records, previous),
        *_set_aside(manifest, records),
    ]


def started(manifest: Manifest) -> str:
    """The text of all files that start engines."""
    return "\n".join(_text(Path(path)) for pattern in manifest.starters for path in _matching(pattern))


def delete(leftover: Leftover, records: Records) -> None:
    """Delete the files, then the folders that this leaves empty, then the record."""
    records.unlink(leftover.files)
    for folder in sorted({folder for path in leftover.files for folder in path.parents}, reverse=True):
        if folder.is_relative_to(leftover.home) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if leftover.model is not None:
        records.forget(leftover.model)


def _unused_models(manifest: Manifest, records: Records) -> Iterator[Leftover]:
    unused = {model.name for model in manifest.models if not model.engines}
    named = started(manifest)
    for name in sorted(unused | set(_forgotten(manifest, records))):
        home = Path(manifest.directory) / name
        # A deploy that died may have removed the model from the manifest while its engine still runs.
        if f"{home}/" not in named:
            record = records.read(name)
            own = Path(record.directory)
            others = (path for folder in _versions(home) if folder != own for path in _below(folder))
            files = (*_files(record), *_unfinished(home), *others)
            there = tuple(path for path in dict.fromkeys(files) if path.exists())
            yield Leftover(f"the model {name}, which no engine serves", home, there, name)


def _unused_versions(manifest: Manifest, records: Records, previous: bool) -> Iterator[Leftover]:
    named = started(manifest)
    for model in manifest.models:
        record = records.read(model.name)
        for folder in _others(manifest, model, record) if model.engines else ():
            if str(folder) in named or (str(folder) == record.before and not previous):
                continue
            what = f"the version {folder.name} of {model.name}, which no engine serves"
            yield Leftover(what, folder.parent, tuple(_below(folder)))


def _matching(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.lstrip("/")))


def _others(manifest: Manifest, model: Model, record: Record) -> list[Path]:
    """Folders of other versions of a model, the previous one first."""
    own = Path(manifest.folder(model))
    found = [path for path in _versions(own.parent) if path != own]
    return sorted(found, key=lambda path: (str(path) != record.before, path.name))


def _versions(home: Path) -> list[Path]:
    return sorted(path for path in home.glob("*/") if VERSION.fullmatch(path.name))


def _unfinished(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("*.aside"), *folder.rglob("*.part")])


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _set_aside(manifest: Manifest, records: Records) -> Iterator[Leftover]:
    """Unfinished files, files that were moved aside, and second names: of files that people put there, and of an
    earlier layout."""
    named = started(manifest)
    for model in manifest.models:
        folder = Path(manifest.folder(model))
        known = {f"{file.path}.part" for file in model.files}
        for path in _unfinished(folder):
            if str(path.relative_to(folder)) not in known:
                yield Leftover(f"{path.name} of {model.name}, which nothing names any more", folder.parent, (path,))
        for file in model.files:
            first, own = folder.parent / file.path, Path(manifest.path(model, file))
            if str(first) not in named and first.is_file() and own.is_file() and first.samefile(own):
                yield Leftover(f"a second name of {file.path} of {model.name}", folder.parent, (first,))


def _forgotten(manifest: Manifest, records: Records) -> list[str]:
    """Models with a record that are not in the manifest."""
    named = {model.name for model in manifest.models}
    return [name for name in records.names() if name not in named]


def _unused(name: str, record: Record) -> Row:
    times = [entry.when for entry in record.files.values()]
    size = sum(entry.stamp.size for entry in record.files.values())
    return Row(name, record.revision, "unknown", size, min(times) if times else None, (), None)


def _files(record: Record) -> Iterator[Path]:
    """A model's files, and the leftovers beside them."""
    for path in record.files:
        final = Path(record.directory) / path
        yield from (final, final.with_name(f"{final.name}.part"), *final.parent.glob(f"{final.name}.*.aside"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""



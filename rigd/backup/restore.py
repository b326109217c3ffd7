"""Restore a backup: the encrypted files, then the models, and the password last.

The password marks a complete restore: without it the deploy stops, and the next restore starts from the beginning.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from rigd.backup import copies, transfer
from rigd.backup.config import Config
from rigd.backup.vault import Snapshot, Vault
from rigd.base import files
from rigd.base.errors import Failed
from rigd.base.progress import Progress
from rigd.models import records
from rigd.models.manifest import Manifest
from rigd.models.records import Records, Stamp, holds

STAGING = "restoring"
"""Below the state: root's folder in which restored files are collected first."""


def chosen(snapshots: list[Snapshot], wanted: str) -> Snapshot:
    """The wanted snapshot: the latest, or the one with this id. Raises Failed."""
    found = [snapshot for snapshot in snapshots if wanted == "latest" or snapshot.id.startswith(wanted)]
    if not found:
        there = ", ".join(f"{snapshot.id} of {snapshot.time[:16]}" for snapshot in snapshots)
        raise Failed(f"the backup has no snapshot {wanted}; it has {there or 'none'}")
    return found[-1]


def encrypted(config: Config, box: Vault, snapshot: Snapshot) -> int:
    """Restore every file of a snapshot to its place; return their number.

    restic overwrites existing files in place: a run that died would leave half a file of keys. So restic writes into a
    staging folder, and each file is renamed into its place when it is whole.
    """
    staging = Path(config.state) / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700, parents=True)
    try:
        box.extract(snapshot, staging)
        return sum(place(staging, path) for path in found(staging))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def found(staging: Path) -> Iterator[Path]:
    """Everything below a folder, each folder before its contents."""
    for folder, names, others in os.walk(staging):
        for name in sorted([*names, *others]):
            yield Path(folder) / name


def place(staging: Path, source: Path, root: Path = Path("/")) -> int:
    """Move one entry to its place; return 1 for a file. An existing folder stays as it is."""
    final = root / source.relative_to(staging)
    status = source.lstat()
    if stat.S_ISDIR(status.st_mode):
        if not final.is_dir():
            final.mkdir(mode=0o700)
            os.chown(final, status.st_uid, status.st_gid)
            final.chmod(stat.S_IMODE(status.st_mode))
        return 0
    new = final.with_name(f".{final.name}.rig-new")
    new.unlink(missing_ok=True)
    if stat.S_ISLNK(status.st_mode):
        new.symlink_to(source.readlink())
        os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy(source, new, status)
    else:
        # Services make their own sockets and pipes.
        return 0
    new.rename(final)
    files.sync_directory(final.parent)
    return 1


def _copy(source: Path, new: Path, status: os.stat_result) -> None:
    """Copy a file, with the fewest permissions from its first byte."""
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as into, source.open("rb") as out:
        shutil.copyfileobj(out, into, files.CHUNK)
        into.flush()
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        os.fsync(descriptor)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


def models(manifest: Manifest) -> int:
    """Restore and record every model of the manifest that the backup has; return the number of files.

    rig-models fetches models that the backup lacks from the hub. Raises Failed for a damaged one.
    """
    manifest.require_disk()
    machine = records.make(Path(manifest.records))
    shelf = copies.shelf(manifest)
    wanted = [copy for copy in shelf.copies() if not shelf.verified(copy) and copy.final.exists()]
    problems: list[str] = []
    count = 0
    with Progress([copy.item for copy in wanted]) as shown:
        for copy in wanted:
            try:
                transfer.bring(copy.final, copy.source, copy.file, copy.item)
                stamp = Stamp.of(copy.source)
                assert stamp is not None
                machine.write(manifest, copy.model, copy.file, stamp)
                count += 1
            except (Failed, OSError) as error:
                copy.item.stage = "failed"
                problems.append(copies.sentence_of(error))
                shown.say(problems[-1])
    _clear(machine, manifest)
    if problems:
        raise Failed("; ".join(problems))
    return count


def _clear(machine: Records, manifest: Manifest) -> None:
    """Delete a scrub's marks from models that are good now."""
    for model in manifest.models:
        record = machine.read(model.name)
        if all(holds(record, file, Stamp.of(Path(manifest.path(model, file)))) for file in model.files):
            machine.clear(model.name)

"""Copy one model file to another disk with rsync; the copy gets its name only after it was read back and verified."""

from __future__ import annotations

import os
from pathlib import Path

from rigd.backup import command
from rigd.base import files, state
from rigd.base.errors import Failed
from rigd.base.progress import Item
from rigd.models.manifest import File
from rigd.models.records import Stamp

UNREADABLE = ""
"""Stands for the hash of an unreadable file."""


def words(source: Path, part: Path) -> list[str]:
    """The rsync command: compare and keep the existing bytes, and append the rest."""
    return ["rsync", "--append-verify", "--copy-links", "--", str(source), str(part)]


def part_of(final: Path) -> Path:
    """The name of an unfinished file, the same as in rig-models, which can continue it."""
    return final.with_name(f"{final.name}.part")


def bring(source: Path, final: Path, file: File, item: Item) -> None:
    """Copy a file to `final` and verify its pinned hash. Raises Failed and changes nothing if that fails.

    Only the copy counts, read from the disk: the source may have rotted since it was verified, and the transfer may
    fail. A killed run's part is kept; if it turns out wrong, everything is copied again, once.
    """
    part = part_of(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    if size(part) > file.size:
        part.unlink()
    begun = size(part)
    found = _copied(source, part, file, item)
    if found != file.sha256 and begun > 0:
        part.unlink()
        found = _copied(source, part, file, item)
    if found != file.sha256:
        part.unlink()
        raise Failed(_blame(source, file, item))
    part.chmod(0o644)
    part.rename(final)
    files.sync_directory(final.parent)
    item.begin("done", file.size)


def size(path: Path) -> int:
    """Size of a file in bytes; 0 without a file."""
    stamp = Stamp.of(path)
    return 0 if stamp is None else stamp.size


def _copied(source: Path, part: Path, file: File, item: Item) -> str:
    """Copy; return the hash of the copy on the disk."""
    item.begin("copying", size(part))

    def look() -> None:
        item.bytes = size(part)

    done = command.run(words(source, part), meanwhile=look)
    if done.code != 0:
        raise Failed(_failure(done, source, part, file))
    item.begin("checking")
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        # Hash from the disk, not from memory.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    try:
        return files.digest(part, item.advance)
    except OSError:
        # Unreadable blocks stay unreadable: a new file gets other blocks.
        return UNREADABLE


def _failure(done: command.Done, source: Path, part: Path, file: File) -> str:
    if done.disk_is_full:
        missing = state.size(file.size - size(part))
        return f"{part.parent}: the disk is full; free {missing}, and it goes on from where it is"
    return f"{source} could not be copied: {done.cause}"


def _blame(source: Path, file: File, item: Item) -> str:
    """Find the side with the wrong bytes. The source comes last, because that takes another reading."""
    item.begin("checking")
    found = files.digest(source, item.advance)
    if found != file.sha256:
        return (
            f"{source} has changed since it was verified: it has SHA-256 {found}, and {file.sha256} is pinned; "
            "its copy was thrown away"
        )
    return f"{source} is right, and its copy cannot be read back as such; it was thrown away: check the other disk"

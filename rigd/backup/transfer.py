"""One model file copied to another disk, by rsync: it gets its name only after it was read back and found right."""

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
"""In the place of a hash."""


def words(source: Path, part: Path) -> list[str]:
    """What rsync is asked: what is there of the file is compared and kept, and the rest is appended."""
    return ["rsync", "--append-verify", "--copy-links", "--", str(source), str(part)]


def part_of(final: Path) -> Path:
    """The name of a file that is not finished: the same as rig-models has, which goes on with it."""
    return final.with_name(f"{final.name}.part")


def bring(source: Path, final: Path, file: File, item: Item) -> None:
    """The file lies at `final` with the bytes that are pinned. Raises Failed with a sentence; then it is as before.

    What is trusted is the copy alone, read from the disk: neither the source, which may have rotted since it was
    verified, nor the way. What a killed run left is not copied again; if it was wrong, all is, once.
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
    """Bytes of a file; 0 when there is none."""
    stamp = Stamp.of(path)
    return 0 if stamp is None else stamp.size


def _copied(source: Path, part: Path, file: File, item: Item) -> str:
    """Copy, and the hash of what is on the disk then."""
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
        # What is hashed is to come from the disk, not from memory.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    try:
        return files.digest(part, item.advance)
    except OSError:
        # Blocks that cannot be read do not become readable: a file of their own gets others.
        return UNREADABLE


def _failure(done: command.Done, source: Path, part: Path, file: File) -> str:
    if done.disk_is_full:
        missing = state.size(file.size - size(part))
        return f"{part.parent}: the disk is full; free {missing}, and it goes on from where it is"
    return f"{source} could not be copied: {done.cause}"


def _blame(source: Path, file: File, item: Item) -> str:
    """Whose bytes were wrong: the source is asked last, as it is read once more for that."""
    item.begin("checking")
    found = files.digest(source, item.advance)
    if found != file.sha256:
        return (
            f"{source} has changed since it was verified: it has SHA-256 {found}, and {file.sha256} is pinned; "
            "its copy was thrown away"
        )
    return f"{source} is right, and its copy cannot be read back as such; it was thrown away: check the other disk"

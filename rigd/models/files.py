"""Files that are written whole or not at all, and copied without moving bytes where the file system can."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

CHUNK = 1 << 20
FICLONE = 0x40049409
"""_IOW(0x94, 9, int) of linux/fs.h: share the blocks of another file."""


def replace(path: Path, text: str) -> None:
    """Write a small file, so that a reader sees the old one or the new one, after a power cut too."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clone(source: Path, descriptor: int) -> bool:
    """Let an empty file share the blocks of `source`; False where the file system cannot."""
    with source.open("rb") as file:
        try:
            fcntl.ioctl(descriptor, FICLONE, file.fileno())
        except OSError:
            return False
    return True


def digest(path: Path, advance: Callable[[int], None]) -> str:
    """SHA-256 of a file; `advance` is told of every piece that is done.

    What was read is dropped from the page cache, as hashing 42 GB would push out what the engines need. Pages that an
    engine has mapped stay.
    """
    sha256 = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        done = 0
        while data := file.read(CHUNK):
            sha256.update(data)
            os.posix_fadvise(file.fileno(), done, len(data), os.POSIX_FADV_DONTNEED)
            done += len(data)
            advance(len(data))
    return sha256.hexdigest()

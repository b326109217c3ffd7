"""Files that are written atomically, and copied without moving bytes if the file system can."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

CHUNK = 1 << 20
DIRECT = 4 << 20
"""Bytes per read past the page cache."""
FICLONE = 0x40049409
"""_IOW(0x94, 9, int) of linux/fs.h: share the blocks of another file."""


def replace(path: Path, text: str, *, lasting: bool = True, mode: int = 0o644, group: int | None = None) -> None:
    """Write a small file; a reader sees the old file or the new one.

    If `lasting`, also after a power cut. `mode` and the number of a `group` hold from the first byte on; by default,
    everybody may read it. One writer at a time. Raises OSError; the file is then unchanged.
    """
    # One fixed name: the next writer overwrites the leftover of a killed one.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            if lasting:
                os.fsync(descriptor)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    if lasting:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clone(source: Path, descriptor: int) -> bool:
    """Make an empty file share the blocks of `source`; False if the file system cannot."""
    with source.open("rb") as file:
        try:
            fcntl.ioctl(descriptor, FICLONE, file.fileno())
        except OSError:
            return False
    return True


def digest(path: Path, advance: Callable[[int], None]) -> str:
    """SHA-256 of a file as it is on the disk; `advance` gets the number of bytes after every piece.

    The page cache is bypassed: an engine's mapping stays good there while the file on the disk rots. And hashing 42 GB
    does not push out the memory that the engines need.
    """
    sha256 = hashlib.sha256()
    # Anonymous memory, because the buffer must begin at a page boundary.
    filled, spare = mmap.mmap(-1, DIRECT), mmap.mmap(-1, DIRECT)
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(max_workers=1) as reader:
        _pass_memory_by(file.fileno(), True)
        done = 0
        # Read one piece while the previous one is hashed: past the page cache, the kernel does not read ahead.
        ahead = reader.submit(_read, file.fileno(), filled, done)
        while count := ahead.result():
            done += count
            ahead = reader.submit(_read, file.fileno(), spare, done)
            sha256.update(memoryview(filled)[:count])
            filled, spare = spare, filled
            advance(count)
    return sha256.hexdigest()


def _read(descriptor: int, buffer: mmap.mmap, offset: int) -> int:
    """Fill the buffer from this offset; return the number of bytes, 0 at the end."""
    try:
        count = os.preadv(descriptor, [buffer], offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # No direct reads on this file system, or at this offset.
        _pass_memory_by(descriptor, False)
        count = os.preadv(descriptor, [buffer], offset)
    os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)
    return count


def _pass_memory_by(descriptor: int, yes: bool) -> None:
    """Read from the disk itself, if the file system can (O_DIRECT)."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if yes else flags & ~os.O_DIRECT)

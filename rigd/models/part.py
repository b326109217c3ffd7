"""An unfinished file: NAME.part, with the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigd.base.files import CHUNK, sync_directory

AHEAD = 16
"""Pieces, of 1 MiB at most, that may wait for hashing."""
BLOCK = 64 << 10
"""Bytes in the largest block of ext4."""


@dataclass(frozen=True)
class Mark:
    """A position in a part, for going back."""

    size: int
    sha256: Any


class Part:
    """An unfinished file; bytes are hashed as they are written, so that the finished file need not be read again.

    Hashing has a thread of its own: it is the slowest step, and the next bytes arrive meanwhile.
    """

    def __init__(self, path: Path, descriptor: int, hasher: Executor) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        self.restarts = 0
        """Number of restarts from the first byte."""
        self._sha256 = hashlib.sha256()
        self._hasher = hasher
        self._pending: deque[Future[None]] = deque()

    @property
    def sha256(self) -> str:
        """Hash of all bytes so far."""
        self._settle()
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        """Append bytes. Raises OSError, for example for a full disk; the bytes that fit stay."""
        view = memoryview(data)
        while view:
            written = os.write(self.descriptor, view)
            self._hash(view[:written])
            self.size += written
            view = view[written:]

    def mark(self) -> Mark:
        """The current end."""
        self._settle()
        return Mark(self.size, self._sha256.copy())

    def rewind(self, mark: Mark) -> None:
        """Drop everything after the mark."""
        self._settle()
        os.ftruncate(self.descriptor, mark.size)
        os.lseek(self.descriptor, mark.size, os.SEEK_SET)
        self.size, self._sha256 = mark.size, mark.sha256.copy()

    def restart(self) -> None:
        """Drop everything."""
        self.restarts += 1
        self.rewind(Mark(0, hashlib.sha256()))

    def read_in(self, advance: Callable[[int], None]) -> None:
        """Hash the file's bytes that are not hashed yet: the remains of an earlier run, or a clone."""
        while data := os.read(self.descriptor, CHUNK):
            self._hash(data)
            self.size += len(data)
            advance(len(data))

    def finish(self, final: Path) -> None:
        """Give the file its name; after a power cut it is whole or missing."""
        os.fsync(self.descriptor)
        self.path.rename(final)
        sync_directory(final.parent)

    def _hash(self, data: bytes | memoryview) -> None:
        self._pending.append(self._hasher.submit(self._sha256.update, data))
        if len(self._pending) > AHEAD:
            self._pending.popleft().result()

    def _settle(self) -> None:
        """Wait until all bytes are hashed."""
        while self._pending:
            self._pending.popleft().result()


@contextmanager
def opened(final: Path, most: int, advance: Callable[[int], None]) -> Iterator[Part]:
    """Open the part of a file, with the remains of an earlier run; more than `most` bytes cannot be of this file."""
    path = final.with_name(f"{final.name}.part")
    if path.is_symlink():
        # Never write through a link into a file elsewhere.
        path.unlink()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with ThreadPoolExecutor(max_workers=1) as hasher:
            part = Part(path, descriptor, hasher)
            if (size := os.fstat(descriptor).st_size) > most:
                part.restart()
            elif size < most:
                _drop_zeros(descriptor, size)
            part.read_in(advance)
            yield part
    finally:
        # Keep nothing of a request that was refused before its first byte.
        if os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _drop_zeros(descriptor: int, size: int) -> None:
    """Shorten a file by the zeros at its end.

    After a power cut, ext4's last block can hold zeros in place of the newest bytes (seen): the file's size waits for
    the bytes of new blocks, and not for those that a later write adds to a block. The whole file would be fetched again
    for them, as its hash would be wrong.
    """
    begin = max(0, size - BLOCK)
    tail = os.pread(descriptor, BLOCK, begin)
    os.ftruncate(descriptor, begin + len(tail.rstrip(b"\0")))

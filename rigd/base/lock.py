"""One program of a kind at a time, by a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigd.base.errors import Failed

NAME = "lock"
_FLOCK = "hhqqi0q"
"""struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid."""


class Held(Failed):
    """Another program holds the lock."""


@contextmanager
def held(
    records: Path,
    wait: bool,
    program: str = "rig-models",
    look: str = "wait for it with --wait, or look: rig-models status",
) -> Iterator[None]:
    """Hold the lock in this folder. Raises Held with the holder's PID if the lock is taken and `wait` is false.

    `program` and `look` fill the message: the holder, and the remedy.
    """
    descriptor = os.open(records / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            holder = _holder(descriptor)
            raise Held(f"another {program} is at work (PID {holder}); {look}") from None
        yield
    finally:
        os.close(descriptor)


def holder(records: Path) -> int | None:
    """PID of the running program, or None."""
    try:
        descriptor = os.open(records / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    """The holder by the kernel's record: a PID written into a file could be that of a dead process."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid

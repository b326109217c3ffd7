"""The contents of files, in a folder on the data disk: a name exists there only once its content is synced."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from rigd.base.files import sync_directory


class Part:
    """A file in the making, beside the finished ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file: BinaryIO = path.open("xb")
        self._sha256 = hashlib.sha256()

    def write(self, content: bytes) -> None:
        """Append bytes. Raises OSError."""
        self._file.write(content)
        self._sha256.update(content)
        self.size += len(content)

    @property
    def sha256(self) -> str:
        """Of all bytes so far."""
        return self._sha256.hexdigest()

    def finish(self, final: Path) -> None:
        """Sync the content and give it its name. Raises OSError; there is nothing then."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self.path.rename(final)
            sync_directory(final.parent)
        except OSError:
            self.drop()
            raise

    def drop(self) -> None:
        """Remove it."""
        # Closing writes the rest of the buffer, which a full disk refuses.
        try:
            self._file.close()
        except OSError:
            self._file.close()
        self.path.unlink(missing_ok=True)


class Content:
    """The folders of one server; the caller holds the lock."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._files, self._inputs, self._parts = data / "files", data / "inputs", data / "parts"
        for folder in (self._files, self._inputs, self._parts):
            folder.mkdir(mode=0o700, exist_ok=True)
        sync_directory(data)

    def part(self) -> Part:
        """Begin a file."""
        return Part(self._parts / secrets.token_hex(8))

    def path(self, identity: str) -> Path:
        """The place of a file's content."""
        return self._files / identity

    def input(self, batch: str) -> Path:
        """The batch's own name for its input, which outlasts the file object."""
        return self._inputs / batch

    def keep_input(self, identity: str, batch: str) -> None:
        """Keep a file's content for a batch, whatever happens to the file. Raises FileNotFoundError."""
        os.link(self.path(identity), self.input(batch))
        sync_directory(self._inputs)

    def free(self) -> int:
        """Bytes that are free on this disk."""
        found = os.statvfs(self.data)
        return found.f_bavail * found.f_frsize

    def remove(self, path: Path) -> None:
        """Remove a content or an input."""
        path.unlink(missing_ok=True)

    def sweep(self, stored: Iterable[str], inputs: Iterable[str]) -> None:
        """Remove what a killed server left: parts, and whatever the database does not know."""
        known: list[tuple[Path, Callable[[str], bool]]] = [
            (self._parts, frozenset[str]().__contains__),
            (self._files, frozenset(stored).__contains__),
            (self._inputs, frozenset(inputs).__contains__),
        ]
        for folder, keep in known:
            for path in list(folder.iterdir()):
                if not keep(path.name):
                    path.unlink()

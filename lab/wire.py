"""JSON lines over Unix sockets: the protocol of starter, guard and supervisor."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Message = dict[str, Any]


class Line:
    """One end of a conversation: whole messages in, whole messages out, None if the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = b""

    def send(self, message: Message) -> bool:
        """False if the other end is gone; the sender decides if that matters."""
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None at the end; TimeoutError if `timeout` seconds pass without one."""
        self.connection.settimeout(timeout)
        while b"\n" not in self._buffer:
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: Message = json.loads(line)
        return message

    @property
    def pending(self) -> bool:
        """True if a whole message is here already, which select() cannot see."""
        return b"\n" in self._buffer

    def close(self) -> None:
        self.connection.close()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A short name under /proc for a path: socket addresses end at 108 bytes, and a checkout may lie deeper."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path, owner: int = -1) -> socket.socket:
    """A listening socket at `path` that only its owner may use."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with _short(path) as address:
            listener.bind(address)
    finally:
        os.umask(before)
    with suppress(PermissionError):
        os.chown(path, owner, -1)
    listener.listen(8)
    return listener


def connect(path: Path) -> Line:
    """Connect to `path`. Raises OSError if nobody listens there."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return Line(connection)

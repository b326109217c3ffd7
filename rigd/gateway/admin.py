"""HAProxy's admin socket: replace a map in the running process, in one step for all requests.

The commands are those of HAProxy's management guide, 9.3: a new version of the map is prepared, filled, and made the
one in use. Until then, and if anything fails before, the old one is in use.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from rigd.base.errors import Failed
from rigd.gateway.keymap import Entries

TIMEOUT = 10.0
"""Seconds that HAProxy may take for a command."""
PAYLOAD = 8000
"""Most bytes of entries in one command: HAProxy refuses a command that does not fit into its buffer, 16 KiB."""
MOST = 1 << 24
"""Most bytes of an answer."""


class NotRunning(Failed):
    """Nobody listens on the socket."""


def load(path: str, name: str, wanted: Entries) -> None:
    """Make these the entries of a map. Raises NotRunning, or Failed with the old entries in use."""
    answer = command(path, f"prepare map {name}")
    version = re.search(r"New version created: (\d+)", answer)
    if version is None:
        raise _refused(name, answer)
    for payload in payloads(wanted):
        _quiet(path, name, f"add map @{version[1]} {name} <<\n{payload}")
    _quiet(path, name, f"commit map @{version[1]} {name}")


def loaded(path: str, name: str) -> Entries:
    """The entries of a map that are in use. Raises NotRunning or Failed."""
    answer = command(path, f"show map {name}")
    lines = [line.split(" ", 2) for line in answer.splitlines() if line]
    if any(len(line) != 3 or not line[0].startswith("0x") for line in lines):
        raise _refused(name, answer)
    return {key: value for _, key, value in lines}


def payloads(wanted: Entries) -> Iterator[str]:
    """The entries as lines, in pieces that HAProxy takes."""
    piece = ""
    for key, value in wanted.items():
        line = f"{key} {value}\n"
        if piece and len(piece) + len(line) > PAYLOAD:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def command(path: str, text: str) -> str:
    """HAProxy's answer to one command. Raises NotRunning, or Failed if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(TIMEOUT)
            try:
                line.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotRunning("the gateway does not run") from None
            # An empty line ends a payload.
            line.sendall(f"{text}\n".encode())
            answer = bytearray()
            while data := line.recv(1 << 16):
                answer += data
                if len(answer) > MOST:
                    raise Failed(f"the gateway's admin socket {path} does not stop talking")
    except OSError as error:
        cause = error.strerror or f"no answer within {TIMEOUT:g} s"
        raise Failed(f"the gateway's admin socket {path} does not work: {cause}") from None
    return answer.decode(errors="replace").strip()


def _quiet(path: str, name: str, text: str) -> None:
    """A command that says nothing when it succeeds."""
    answer = command(path, text)
    if answer:
        raise _refused(name, answer)


def _refused(name: str, answer: str) -> Failed:
    reason = answer.splitlines()[0][:160] if answer else "no answer"
    return Failed(f"the running gateway does not take {name}: {reason}")

"""Entries of the system journal with fields of their own: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
NAME = "rig-thermal"
CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6


def send(priority: int, message: str, fields: Mapping[str, object] | None = None, path: str = SOCKET) -> None:
    """Send one entry; each field gets the prefix RIG_, and fields with None are left out.

    Without a journal, the message goes to standard error: the monitor must not end because nobody listens.
    """
    named = {f"RIG_{name.upper()}": value for name, value in (fields or {}).items() if value is not None}
    packed = pack({"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": NAME, **named})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            # Do not wait for a journal that is restarting.
            journal.settimeout(1)
            journal.sendto(packed, path)
    except OSError:
        print(f"<{priority}>{message}", file=sys.stderr)


def pack(fields: Mapping[str, object]) -> bytes:
    """NAME=value and a newline each; a value with newlines has its length before it instead."""
    packed = bytearray()
    for name, value in fields.items():
        data = str(value).encode(errors="replace")
        if b"\n" in data:
            packed += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            packed += name.encode() + b"=" + data + b"\n"
    return bytes(packed)

"""Xid lines: the driver's messages in the kernel log about faults of the card."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rigd.base.command import Command, NoAnswer
from rigd.thermal.reading import bus
from rigd.thermal.smi import first_line

LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)[^)]*\): (\d{1,5}),? *(.*)")
MOST = 20000
"""Kernel messages per reading; a boot has some thousands."""


@dataclass(frozen=True)
class Xid:
    """One Xid line. NVIDIA's list of numbers: https://docs.nvidia.com/deploy/xid-errors/"""

    bus: str
    number: int
    text: str


def parse(message: str) -> Xid | None:
    """The Xid of a kernel message; None for any other message."""
    found = LINE.search(message)
    if found is None:
        return None
    return Xid(bus(found[1]) or "unknown", int(found[2]), first_line(found[3]))


@dataclass
class KernelLog:
    """The kernel's messages of this boot, from the journal; each is read once."""

    timeout: float
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Number of messages since the machine booted, by bus and Xid number."""
    _cursor: str | None = None
    _command: Command = field(init=False)

    def __post_init__(self) -> None:
        self._command = Command(self.timeout)

    def news(self) -> list[Xid]:
        """New Xids since the last call; at the first call, since the boot. Raises NoAnswer."""
        # By time and not by --boot: Debian 12's journalctl reads the boot from /proc, and there a sandboxed service in
        # a container sees the boot of the surrounding machine.
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        after = [f"--after-cursor={self._cursor}"] if self._cursor else [f"--since=@{booted:.0f}", f"--lines={MOST}"]
        words = ["journalctl", "--quiet", "--output=json", "--output-fields=MESSAGE", *after]
        answer = self._command.run([*words, "_TRANSPORT=kernel"])
        if answer.code != 0:
            # The cursor's entries may be gone: count all remaining entries from zero.
            self._cursor = None
            raise NoAnswer("journal", f"the kernel's log cannot be read: {first_line(answer.text)}")
        found, cursor = parse_entries(answer.text.splitlines())
        if self._cursor is None:
            self.counts.clear()
        self.counts.update((xid.bus, xid.number) for xid in found)
        self._cursor = cursor or self._cursor
        return found


def parse_entries(lines: Iterable[str]) -> tuple[list[Xid], str | None]:
    """The Xids of journalctl's JSON lines, and the cursor of the last one."""
    found, cursor = [], None
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            cursor = entry.get("__CURSOR", cursor)
            xid = parse(_text(entry.get("MESSAGE")))
            found += [xid] if xid else []
    return found, cursor


def _text(value: Any) -> str:
    """A message; journalctl writes one that is not UTF-8 as a list of bytes."""
    if isinstance(value, list):
        return bytes(byte for byte in value if isinstance(byte, int) and 0 <= byte < 256).decode(errors="replace")
    return value if isinstance(value, str) else ""

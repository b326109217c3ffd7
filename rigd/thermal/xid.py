"""Xid lines: what the driver says in the kernel's log when something is wrong with the card."""

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
"""Kernel messages that are read at once; those of a boot are some thousands."""


@dataclass(frozen=True)
class Xid:
    """One such line. NVIDIA's list of numbers: https://docs.nvidia.com/deploy/xid-errors/"""

    bus: str
    number: int
    text: str


def parse(message: str) -> Xid | None:
    """The Xid of a kernel message; None when it is another message."""
    found = LINE.search(message)
    if found is None:
        return None
    return Xid(bus(found[1]) or "unknown", int(found[2]), first_line(found[3]))


@dataclass
class KernelLog:
    """The kernel's messages of this boot, from the journal; each is read once."""

    timeout: float
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each number came, by bus, since the machine booted."""
    _cursor: str | None = None
    _command: Command = field(init=False)

    def __post_init__(self) -> None:
        self._command = Command(self.timeout)

    def news(self) -> list[Xid]:
        """What came since the last call; at the first call, what came since the boot. Raises NoAnswer."""
        # By time and not by --boot: Debian 12's journalctl asks /proc for the boot, and there a sandboxed service of a
        # container is told that of the machine around it.
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        after = [f"--after-cursor={self._cursor}"] if self._cursor else [f"--since=@{booted:.0f}", f"--lines={MOST}"]
        words = ["journalctl", "--quiet", "--output=json", "--output-fields=MESSAGE", *after]
        answer = self._command.run([*words, "_TRANSPORT=kernel"])
        if answer.code != 0:
            # Entries that it pointed to may be gone: everything that is left is counted anew.
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

"""State of the reader of the gateway's log on a machine, in one round trip."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase

from rig.gateway.reader import FILE, LINK


@dataclass(frozen=True)
class ReaderState:
    """What is there of the reader."""

    unit: bool
    """Its unit has a file."""
    link: str
    """Target of the link to the metrics; empty without one."""


class Reader(FactBase[ReaderState]):
    """State of the reader."""

    def command(self) -> str:
        return f'[ ! -e {FILE} ] || echo unit\necho "Link=$(readlink {LINK})"\n'

    def process(self, output: list[str]) -> ReaderState:
        links = [line.removeprefix("Link=") for line in output if line.startswith("Link=")]
        return ReaderState("unit" in output, links[0])

"""NVIDIA's cards by their PCI device number: the architecture, and with it the kernel modules that drive them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Modules = Literal["open", "proprietary"]

NVIDIA = "10de"


@dataclass(frozen=True)
class Architecture:
    """A generation of cards, and the driver branches that support it."""

    name: str
    devices: tuple[tuple[int, int], ...]
    """First and last device number of each of its blocks."""
    modules: tuple[Modules, ...]
    """Kernel modules that drive it, in order of preference."""
    first: int
    """Lowest branch that supports any of its cards."""
    last: int | None = None
    """Highest branch that supports it; None until one drops it."""


ARCHITECTURES = (
    Architecture("Maxwell", ((0x1340, 0x15EF), (0x1600, 0x17FF)), ("proprietary",), 343, 580),
    Architecture("Pascal", ((0x15F0, 0x15FF), (0x1B00, 0x1D7F)), ("proprietary",), 367, 580),
    Architecture("Volta", ((0x1D80, 0x1DFF),), ("proprietary",), 384, 580),
    Architecture("Turing", ((0x1E00, 0x1FFF), (0x2180, 0x21FF)), ("open", "proprietary"), 410),
    Architecture("Ampere", ((0x2000, 0x20FF), (0x2200, 0x22FF), (0x2400, 0x25FF)), ("open", "proprietary"), 450),
    Architecture("Hopper", ((0x2300, 0x23FF),), ("open", "proprietary"), 520),
    Architecture("Ada", ((0x2600, 0x28FF),), ("open", "proprietary"), 520),
    Architecture("Blackwell", ((0x2900, 0x2FFF), (0x3180, 0x31FF)), ("open",), 570),
)
"""Blocks of device numbers as in the PCI ID database. For Blackwell, the first branch, and that only the open modules
drive it: NVIDIA's driver documentation, the chapter on open kernel modules. Branch 580 is the last one for Maxwell,
Pascal and Volta. A number outside all blocks counts as a newer card than these."""

NEWER = Architecture("newer than Blackwell", (), ("open",), 570)
OLDER = Architecture("older than Maxwell", (), (), 0, 0)

OPEN_SINCE = 515
"""First branch whose open modules drive GeForce cards."""
PROPRIETARY_UNTIL = 610
"""Last branch with proprietary modules: 620 dropped them."""


@dataclass(frozen=True)
class Card:
    """One card on the bus."""

    address: str
    """PCI address, such as 0000:01:00.0."""
    device: int
    bar1: int = 0
    """Bytes of its memory that the processor can address at a time; 0 if the kernel does not report it."""

    @property
    def id(self) -> str:
        """Vendor and device number in the form of `lspci -nn`."""
        return f"{NVIDIA}:{self.device:04x}"

    @property
    def architecture(self) -> Architecture:
        """The card's generation."""
        for architecture in ARCHITECTURES:
            if any(first <= self.device <= last for first, last in architecture.devices):
                return architecture
        return OLDER if self.device < ARCHITECTURES[0].devices[0][0] else NEWER


def branch(version: str) -> int:
    """The branch of a driver version: 595 of "595" and of "595.91.07"."""
    return int(version.partition(".")[0])


def modules(cards: Iterable[Card], wanted: str, version: str) -> Modules:
    """The kernel modules that drive all cards with the driver ``version``; ``wanted``: gpu.driver.modules.

    Raises CannotDrive with the reason and the remedy if none do.
    """
    number = branch(version)
    drivable: list[Modules] = ["open", "proprietary"]
    for card in cards:
        architecture = card.architecture
        if not architecture.modules:
            raise CannotDrive(
                f"the card {card.id} at {card.address} is {architecture.name}, which no driver here knows; "
                "write 'gpu.enabled: false'"
            )
        if number < architecture.first:
            raise CannotDrive(
                f"the card {card.id} at {card.address} is {architecture.name}, and the driver's branch {number} does "
                f'not know it; write gpu.driver.version: "{architecture.first}" or a later one'
            )
        if architecture.last is not None and number > architecture.last:
            raise CannotDrive(
                f"the card {card.id} at {card.address} is {architecture.name}, which the driver's branch {number} has "
                f'dropped; write gpu.driver.version: "{architecture.last}"'
            )
        drivable = [kind for kind in architecture.modules if kind in drivable]
        if wanted != "auto" and wanted not in architecture.modules:
            raise CannotDrive(
                f"the card {card.id} at {card.address} is {architecture.name}, which the {wanted} kernel modules do "
                "not drive; write 'gpu.driver.modules: auto'"
            )
    if not drivable:
        raise CannotDrive("no kernel modules drive all of this machine's cards together; take one of them out")
    chosen: Modules = drivable[0] if wanted == "auto" else "open" if wanted == "open" else "proprietary"
    if chosen == "proprietary" and number > PROPRIETARY_UNTIL:
        raise CannotDrive(
            f"the driver's branch {number} has no proprietary kernel modules; "
            f"write 'gpu.driver.modules: auto', or gpu.driver.version: \"{PROPRIETARY_UNTIL}\" at most"
        )
    if chosen == "open" and number < OPEN_SINCE:
        raise CannotDrive(
            f"the driver's branch {number} has no open kernel modules for this card; "
            f"write 'gpu.driver.modules: auto', or gpu.driver.version: \"{OPEN_SINCE}\" at least"
        )
    return chosen


class CannotDrive(ValueError):
    """Settings and cards that do not fit together; the text has the reason and the correction."""

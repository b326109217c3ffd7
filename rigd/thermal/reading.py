"""nvidia-smi's answer as values: a plain function of its text, which trusts nothing in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rigd.thermal.levels import Heat

FIELDS = (
    "uuid",
    "name",
    "pci.bus_id",
    "pstate",
    "temperature.gpu",
    "temperature.gpu.tlimit",
    "temperature.memory",
    "power.draw",
    "power.limit",
    "clocks.sm",
    "clocks.mem",
    "fan.speed",
    "memory.used",
    "memory.total",
    "utilization.gpu",
    "clocks_event_reasons.active",
)

REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
"""Reasons for lower clocks: bits of clocks_event_reasons.active, under the names of the fields for each."""

NAMES = ("uuid", "name", "pci.bus_id")
"""Fields that identify the card; they come first in FIELDS."""
IDENTITY = re.compile(r"(GPU|MIG)-[0-9A-Za-z./-]+|\[.*\]|\(N/A\)")
"""A card's own name, or the words for an unknown one."""

DEGREES = (-60.0, 250.0)
PERCENT = (0.0, 100.0)
FAN = (0.0, 255.0)
"""Per cent of the speed at which a fan makes its nominal noise; its manual page lets a driver report more than 100."""
MUCH = (0.0, 1e7)


class Unreadable(ValueError):
    """The answer is unusable; the message gives the cause."""


@dataclass(frozen=True)
class Card:
    """One card at one moment; None: the card reports no value, or an incredible one."""

    uuid: str
    name: str
    bus: str
    """Such as 0000:01:00, the form of the kernel's messages."""
    performance_state: int | None = None
    """0, the fastest, to 15."""
    temperature: float | None = None
    """Degrees Celsius; so are the next two."""
    margin: float | None = None
    memory_temperature: float | None = None
    power: float | None = None
    """Watts; so is the next."""
    power_limit: float | None = None
    sm_clock: float | None = None
    """MHz; so is the next."""
    memory_clock: float | None = None
    fan: float | None = None
    """Per cent."""
    memory_used: float | None = None
    """MiB; so is the next."""
    memory_total: float | None = None
    utilization: float | None = None
    """Per cent of the time during which it computed."""
    reasons: tuple[str, ...] | None = None
    """A subset of REASONS."""

    @property
    def heat(self) -> Heat:
        """The values that decide its level."""
        return Heat(self.temperature, self.margin, "hw_thermal_slowdown" in (self.reasons or ()))


@dataclass(frozen=True)
class Reading:
    """The cards that answered, and the lines beside them."""

    cards: tuple[Card, ...]
    remarks: tuple[str, ...] = ()
    """Lines that describe no card: warnings of the driver, such as the loss of another card."""


def parse(fields: Sequence[str], text: str) -> Reading:
    """Parse the answer to --query-gpu=`fields` --format=csv,noheader,nounits. Raises Unreadable if it shows no card."""
    cards: list[Card] = []
    remarks: list[str] = []
    for line in (line for line in text.splitlines() if line.strip()):
        cells = _cells(fields, line)
        if cells is None:
            remarks.append("".join(filter(str.isprintable, line)).strip()[:160])
        else:
            cards.append(_card(cells))
    if not cards:
        raise Unreadable(f"it shows no card, and says '{remarks[0]}'" if remarks else "it says nothing")
    if len({card.uuid for card in cards}) != len(cards):
        raise Unreadable("two cards have the same name")
    return Reading(tuple(cards), tuple(remarks))


def _cells(fields: Sequence[str], line: str) -> dict[str, str] | None:
    """A card's values by field; only its names if the number of values is wrong; None for a line about no card."""
    # With its space, because some locales write a fraction with a comma.
    cells = [cell.strip() for cell in line.split(", ")]
    # A name may hold a comma.
    surplus = len(cells) - len(fields)
    if surplus > 0 and "name" in fields:
        at = fields.index("name")
        cells[at : at + surplus + 1] = [", ".join(cells[at : at + surplus + 1])]
    found = dict(zip(fields, cells, strict=False))
    if IDENTITY.fullmatch(found.get("uuid", "")) is None and bus(found.get("pci.bus_id", "")) is None:
        return None
    # The order of the values would be a guess.
    return found if len(cells) == len(fields) else {name: found[name] for name in NAMES if name in found}


def _card(found: Mapping[str, str]) -> Card:
    def value(field: str, bounds: tuple[float, float]) -> float | None:
        return number_in(found.get(field, ""), bounds)

    state = re.fullmatch(r"P(\d{1,2})", found.get("pstate", ""))
    place = bus(found.get("pci.bus_id", ""))
    return Card(
        # Named by its PCI address, which stays the same when another card is lost.
        uuid=_word(found.get("uuid", "")) or f"GPU-{place or 'unknown'}",
        name=_word(found.get("name", "")) or "unknown",
        bus=place or "unknown",
        performance_state=int(state[1]) if state else None,
        temperature=value("temperature.gpu", DEGREES),
        margin=value("temperature.gpu.tlimit", DEGREES),
        memory_temperature=value("temperature.memory", DEGREES),
        power=value("power.draw", MUCH),
        power_limit=value("power.limit", MUCH),
        sm_clock=value("clocks.sm", MUCH),
        memory_clock=value("clocks.mem", MUCH),
        fan=value("fan.speed", FAN),
        memory_used=value("memory.used", MUCH),
        memory_total=value("memory.total", MUCH),
        utilization=value("utilization.gpu", PERCENT),
        reasons=_reasons(found.get("clocks_event_reasons.active", "")),
    )


def number_in(text: str, bounds: tuple[float, float]) -> float | None:
    """The number; None for [N/A], [Not Supported], and anything that is no number or out of bounds."""
    if re.fullmatch(r"-?[0-9]{1,12}([.,][0-9]{1,6})?", text) is None:
        return None
    found = float(text.replace(",", "."))
    return found if bounds[0] <= found <= bounds[1] else None


def bus(text: str) -> str | None:
    """A PCI address in one spelling: nvidia-smi says 00000000:01:00.0, the kernel 0000:01:00."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-9a-fA-F])?", text)
    if match is None:
        return None
    return f"{int(match[1] or '0', 16):04x}:{match[2].lower()}:{match[3].lower()}"


def _word(text: str) -> str:
    """A name without characters that upset a journal, a metric or a terminal; empty for [N/A]."""
    return "" if text.startswith(("[", "(")) else re.sub(r"[^A-Za-z0-9 ._:/()+-]", "", text)[:80]


def _reasons(text: str) -> tuple[str, ...] | None:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text) is None:
        return None
    bits = int(text, 16)
    return tuple(name for name, bit in REASONS.items() if bits & bit)

"""What nvidia-smi answered, as values: a plain function of its text, which trusts nothing in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
"""Why the clocks are not higher: bits of clocks_event_reasons.active, under the names of the fields for each."""

DEGREES = (-60.0, 250.0)
PERCENT = (0.0, 100.0)
MUCH = (0.0, 1e7)


class Unreadable(ValueError):
    """The answer is not one; the message says why."""


@dataclass(frozen=True)
class Card:
    """One card at one moment; None: it does not report this, or nothing that can be believed."""

    uuid: str
    name: str
    bus: str
    """Such as 0000:01:00, as the kernel's messages name it too."""
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
    """Per cent of the time in which it computed."""
    reasons: tuple[str, ...] | None = None
    """Of REASONS."""

    @property
    def heat(self) -> Heat:
        """What its level is judged by."""
        return Heat(self.temperature, self.margin, "hw_thermal_slowdown" in (self.reasons or ()))


def parse(fields: Sequence[str], text: str) -> list[Card]:
    """The cards of an answer to --query-gpu=`fields` --format=csv,noheader,nounits. Raises Unreadable."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise Unreadable("it said nothing")
    cards = [_card(fields, line, number) for number, line in enumerate(lines)]
    if len({card.uuid for card in cards}) != len(cards):
        raise Unreadable("two cards have the same name")
    return cards


def _card(fields: Sequence[str], line: str, number: int) -> Card:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(fields):
        raise Unreadable(f"it said {len(cells)} values where {len(fields)} were asked for")
    found = dict(zip(fields, cells, strict=True))

    def value(field: str, bounds: tuple[float, float]) -> float | None:
        return number_in(found.get(field, ""), bounds)

    state = re.fullmatch(r"P(\d{1,2})", found.get("pstate", ""))
    return Card(
        uuid=_word(found.get("uuid", "")) or f"GPU-{number}",
        name=_word(found.get("name", "")) or "unknown",
        bus=bus(found.get("pci.bus_id", "")) or "unknown",
        performance_state=int(state[1]) if state else None,
        temperature=value("temperature.gpu", DEGREES),
        margin=value("temperature.gpu.tlimit", DEGREES),
        memory_temperature=value("temperature.memory", DEGREES),
        power=value("power.draw", MUCH),
        power_limit=value("power.limit", MUCH),
        sm_clock=value("clocks.sm", MUCH),
        memory_clock=value("clocks.mem", MUCH),
        fan=value("fan.speed", PERCENT),
        memory_used=value("memory.used", MUCH),
        memory_total=value("memory.total", MUCH),
        utilization=value("utilization.gpu", PERCENT),
        reasons=_reasons(found.get("clocks_event_reasons.active", "")),
    )


def number_in(text: str, bounds: tuple[float, float]) -> float | None:
    """The number, or None for [N/A], [Not Supported] and anything that is none or cannot be."""
    if re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,6})?", text) is None:
        return None
    found = float(text)
    return found if bounds[0] <= found <= bounds[1] else None


def bus(text: str) -> str | None:
    """A PCI address in one spelling: nvidia-smi says 00000000:01:00.0, the kernel 0000:01:00."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-9a-fA-F])?", text)
    if match is None:
        return None
    return f"{int(match[1] or '0', 16):04x}:{match[2].lower()}:{match[3].lower()}"


def _word(text: str) -> str:
    """A name without anything that a journal, a metric or a terminal could stumble over; empty for [N/A]."""
    return "" if text.startswith("[") else re.sub(r"[^A-Za-z0-9 ._:/()+-]", "", text)[:80]


def _reasons(text: str) -> tuple[str, ...] | None:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text) is None:
        return None
    bits = int(text, 16)
    return tuple(name for name, bit in REASONS.items() if bits & bit)

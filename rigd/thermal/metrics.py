"""A reading as Prometheus metrics for node_exporter; docs/thermal.md describes each name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rigd.base import exposition
from rigd.base.exposition import Kind, Metric, Sample
from rigd.thermal.levels import Level
from rigd.thermal.reading import REASONS, Card

MIB = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """The state after a reading, successful or not; times in seconds since the epoch."""

    time: float
    cards: tuple[Card, ...]
    """The cards of this reading alone: a failed one has none, because old values would look like new ones."""
    levels: Mapping[str, Level]
    """By card."""
    failure: str | None
    """The cause, a word."""
    succeeded: float | None
    """Time of the last successful reading."""
    failures: Mapping[str, int]
    """Number of failed readings by cause."""
    xids: Mapping[tuple[str, int], int]
    """Number of messages since the boot, by bus and Xid number."""
    cooling_wanted: Mapping[str, bool]
    """By configured measure: True if it should be in force."""
    cooling_applied: Mapping[str, bool]


METRICS: dict[str, tuple[Kind, str]] = {
    "rig_gpu_reading_success": ("gauge", "Whether the last reading of the graphics card succeeded"),
    "rig_gpu_reading_timestamp_seconds": ("gauge", "When the last reading was tried"),
    "rig_gpu_reading_success_timestamp_seconds": ("gauge", "When a reading last succeeded"),
    "rig_gpu_reading_failures_total": ("counter", "Readings that failed since the monitor started, by cause"),
    "rig_gpu_cards": ("gauge", "Cards that the last reading saw"),
    "rig_gpu_info": ("gauge", "A card's name and place"),
    "rig_gpu_thermal_level": ("gauge", "How hot it is: 0 ok, 1 warning, 2 critical"),
    "rig_gpu_temperature_celsius": ("gauge", "Temperature of the chip"),
    "rig_gpu_temperature_margin_celsius": ("gauge", "Degrees up to the temperature at which it slows down"),
    "rig_gpu_memory_temperature_celsius": ("gauge", "Temperature of its memory"),
    "rig_gpu_power_watts": ("gauge", "Power that it draws"),
    "rig_gpu_power_limit_watts": ("gauge", "Power that it may draw"),
    "rig_gpu_clock_hertz": ("gauge", "Clock of its processors (sm) and of its memory (memory)"),
    "rig_gpu_fan_ratio": ("gauge", "Speed of its fans, 0 to 1"),
    "rig_gpu_memory_used_bytes": ("gauge", "Memory in use"),
    "rig_gpu_memory_total_bytes": ("gauge", "Memory that it has"),
    "rig_gpu_utilization_ratio": ("gauge", "Part of the time in which it computed, 0 to 1"),
    "rig_gpu_performance_state": ("gauge", "Performance state, 0 (fastest) to 15"),
    "rig_gpu_throttling": ("gauge", "Whether its clocks are held down, by reason"),
    "rig_gpu_xid_errors_total": ("counter", "Xid lines in the kernel's log since the boot, by number and bus"),
    "rig_gpu_cooling_wanted": ("gauge", "Whether a measure against heat should be in force"),
    "rig_gpu_cooling": ("gauge", "Whether a measure against heat is in force"),
}

Labels = Mapping[str, object]


def render(snapshot: Snapshot) -> str:
    """The metrics as the file's text, each with its help, in the order of METRICS."""
    by_name: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for name, labels, value in samples(snapshot):
        by_name[name].append(Sample(value, labels))
    return exposition.text(Metric(name, help, tuple(by_name[name]), kind) for name, (kind, help) in METRICS.items())


def samples(snapshot: Snapshot) -> Iterable[tuple[str, Labels, float]]:
    """The samples of this moment; values that a card does not report are left out."""
    yield "rig_gpu_reading_success", {}, float(snapshot.failure is None)
    yield "rig_gpu_reading_timestamp_seconds", {}, snapshot.time
    if snapshot.succeeded is not None:
        yield "rig_gpu_reading_success_timestamp_seconds", {}, snapshot.succeeded
    for cause, count in sorted(snapshot.failures.items()):
        yield "rig_gpu_reading_failures_total", {"cause": cause}, float(count)
    yield "rig_gpu_cards", {}, float(len(snapshot.cards))
    for card in snapshot.cards:
        yield "rig_gpu_info", {"gpu": card.uuid, "name": card.name, "bus": card.bus}, 1.0
        yield "rig_gpu_thermal_level", {"gpu": card.uuid}, float(snapshot.levels.get(card.uuid, Level.OK))
        for name, labels, value in _of(card):
            if value is not None:
                yield name, {"gpu": card.uuid, **labels}, value
    for (bus, number), count in sorted(snapshot.xids.items()):
        yield "rig_gpu_xid_errors_total", {"bus": bus, "xid": number}, float(count)
    for name, measures in (
        ("rig_gpu_cooling_wanted", snapshot.cooling_wanted),
        ("rig_gpu_cooling", snapshot.cooling_applied),
    ):
        for measure, holds in measures.items():
            yield name, {"measure": measure}, float(holds)


def _of(card: Card) -> Iterable[tuple[str, Labels, float | None]]:
    yield "rig_gpu_temperature_celsius", {}, card.temperature
    yield "rig_gpu_temperature_margin_celsius", {}, card.margin
    yield "rig_gpu_memory_temperature_celsius", {}, card.memory_temperature
    yield "rig_gpu_power_watts", {}, card.power
    yield "rig_gpu_power_limit_watts", {}, card.power_limit
    yield "rig_gpu_clock_hertz", {"clock": "sm"}, _times(card.sm_clock, 1e6)
    yield "rig_gpu_clock_hertz", {"clock": "memory"}, _times(card.memory_clock, 1e6)
    yield "rig_gpu_fan_ratio", {}, _times(card.fan, 0.01)
    yield "rig_gpu_memory_used_bytes", {}, _times(card.memory_used, MIB)
    yield "rig_gpu_memory_total_bytes", {}, _times(card.memory_total, MIB)
    yield "rig_gpu_utilization_ratio", {}, _times(card.utilization, 0.01)
    yield "rig_gpu_performance_state", {}, _times(card.performance_state, 1)
    for reason in REASONS if card.reasons is not None else ():
        yield "rig_gpu_throttling", {"reason": reason}, float(reason in (card.reasons or ()))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 6)

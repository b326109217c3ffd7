"""The text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One figure now."""

    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Gauge:
    """Figures of one name."""

    name: str
    help: str
    samples: tuple[Sample, ...]


def text(gauges: Iterable[Gauge]) -> str:
    """All gauges that have a sample."""
    return "".join(
        f"# HELP {gauge.name} {gauge.help}\n# TYPE {gauge.name} gauge\n"
        + "".join(f"{gauge.name}{_labels(sample.labels)} {sample.value:.17g}\n" for sample in gauge.samples)
        for gauge in gauges
        if gauge.samples
    )


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

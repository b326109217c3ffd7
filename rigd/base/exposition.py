"""The text that Prometheus reads (exposition format 0.0.4), as node_exporter takes it from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True)
class Sample:
    """One figure now."""

    value: float
    labels: Mapping[str, object]


@dataclass(frozen=True)
class Metric:
    """Figures of one name."""

    name: str
    help: str
    samples: tuple[Sample, ...]
    kind: Kind = "gauge"


def text(metrics: Iterable[Metric]) -> str:
    """All that have a sample."""
    return "".join(
        f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
        + "".join(f"{metric.name}{_labels(sample.labels)} {float(sample.value)!r}\n" for sample in metric.samples)
        for metric in metrics
        if metric.samples
    )


def _labels(labels: Mapping[str, object]) -> str:
    pairs = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

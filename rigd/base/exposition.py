"""Metrics in the text format that node_exporter reads from files, written by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest

Kind = Literal["gauge", "counter", "summary"]


@dataclass(frozen=True)
class Sample:
    """One value now."""

    value: float
    labels: Mapping[str, object]
    suffix: str = ""
    """Behind the metric's name: _count and _sum of a summary."""


@dataclass(frozen=True)
class Metric:
    """Samples of one name; a counter's name ends in _total."""

    name: str
    help: str
    samples: tuple[Sample, ...]
    kind: Kind = "gauge"


@dataclass(frozen=True)
class _Collector:
    """Metrics as prometheus_client collects them."""

    metrics: tuple[Metric, ...]

    def collect(self) -> Iterator[Family]:
        for metric in self.metrics:
            # A counter's family has the name without the suffix, which the writer adds.
            family = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
            for sample in metric.samples:
                labels = {name: str(value) for name, value in sample.labels.items()}
                family.add_sample(metric.name + sample.suffix, labels, float(sample.value))
            yield family


def text(metrics: Iterable[Metric]) -> str:
    """The metrics that have a sample, as the text of a file."""
    return generate_latest(_Collector(tuple(metric for metric in metrics if metric.samples))).decode()

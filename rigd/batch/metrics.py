"""The server's metrics for Prometheus, on a port of 127.0.0.1; no label holds anything that a client wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rigd.batch.store import TOKENS

if TYPE_CHECKING:
    from rigd.batch.dispatch import Dispatcher


class Batches(Collector):
    """Read at each scrape from the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterable[Metric]:
        """All metrics now."""
        state = self._dispatcher
        batches = GaugeMetricFamily("rig_batch_batches", "Batches that have not ended", labels=["status"])
        for status, count in state.statuses.items():
            batches.add_metric([status], count)
        full = GaugeMetricFamily("rig_batch_disk_full", "Whether dispatch is paused because the data disk is full")
        full.add_metric([], state.full)
        lines = CounterMetricFamily("rig_batch_lines", "Lines whose result is stored", labels=["engine", "result"])
        tokens = CounterMetricFamily("rig_batch_tokens", "Tokens of stored answers", labels=["engine", "kind"])
        for lane in state.lanes:
            name = lane.engine.name
            for result, count in (("completed", lane.completed), ("failed", lane.failed)):
                lines.add_metric([name, result], count)
            for kind, count in zip(TOKENS, lane.tokens, strict=True):
                tokens.add_metric([name, kind.removesuffix("_tokens")], count)
        yield from (batches, full, lines, tokens, *self._engines())

    def _engines(self) -> Iterable[Metric]:
        paused = GaugeMetricFamily("rig_batch_engine_paused", "Whether an engine gets no lines", labels=["engine"])
        flight = GaugeMetricFamily("rig_batch_engine_requests", "Requests at an engine", labels=["engine"])
        limit = GaugeMetricFamily("rig_batch_engine_requests_limit", "Most requests at a time", labels=["engine"])
        troubles = CounterMetricFamily(
            "rig_batch_engine_troubles", "Requests without a usable answer", labels=["engine", "cause"]
        )
        for lane in self._dispatcher.lanes:
            name = lane.engine.name
            # An engine without work has not been probed yet.
            paused.add_metric([name], lane.paused is not None and lane.busy)
            flight.add_metric([name], lane.flight)
            limit.add_metric([name], lane.limit)
            causes: Counter[str] = lane.troubles.copy()
            for cause, count in sorted(causes.items()):
                troubles.add_metric([name, cause], count)
        return paused, flight, limit, troubles


def serve(dispatcher: Dispatcher, port: int) -> None:
    """Answer scrapes in a thread of its own. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(Batches(dispatcher))
    start_http_server(port, addr="127.0.0.1", registry=registry)

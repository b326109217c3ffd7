"""The counters as Prometheus metrics for node_exporter; docs/gateway.md describes each name.

Names and labels that begin with gen_ai are those of OpenTelemetry's semantic conventions for generative AI, written as
OpenTelemetry's exporter for Prometheus writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rigd.base import exposition
from rigd.base.exposition import Kind, Metric, Sample
from rigd.gateway import counters
from rigd.gateway.counters import Counters

METRICS: dict[str, tuple[Kind, str]] = {
    "rig_gateway_requests_total": ("counter", "Requests, by client, engine and class of the answer's status"),
    "rig_gateway_limited_requests_total": ("counter", "Requests that a limit refused, by client and limit"),
    "rig_gateway_tokenless_answers_total": ("counter", "Good answers of an engine whose tokens could not be counted"),
    "gen_ai_client_token_usage": ("summary", "Tokens of the answers in which they could be counted"),
    "gen_ai_server_request_duration_seconds": ("summary", "Time from a request to the end of its answer"),
    "rig_gateway_first_byte_seconds": ("summary", "Time from a request to the first byte of its answer"),
    "rig_gateway_last_request_timestamp_seconds": ("gauge", "When a client last sent a request"),
    "rig_gateway_log_unusable_total": ("counter", "Lines of the gateway's log that should be JSON and are not"),
    "rig_gateway_log_gaps_total": ("counter", "Times that lines of the log may have gone unread"),
}

_SUMMARIES = {
    counters.INPUT: ("gen_ai_client_token_usage", {"gen_ai_token_type": "input"}),
    counters.OUTPUT: ("gen_ai_client_token_usage", {"gen_ai_token_type": "output"}),
    counters.DURATION: ("gen_ai_server_request_duration_seconds", {}),
    counters.FIRST_BYTE: ("rig_gateway_first_byte_seconds", {}),
}


def render(counted: Counters) -> str:
    """The metrics as the file's text, each with its help, in the order of METRICS."""
    by_name: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for name, sample in _samples(counted):
        by_name[name].append(sample)
    return exposition.text(Metric(name, help, tuple(by_name[name]), kind) for name, (kind, help) in METRICS.items())


def _samples(counted: Counters) -> Iterator[tuple[str, Sample]]:
    for series, value in sorted(counted.values.items()):
        labels: Mapping[str, object] = {"client": series.client, "engine": series.engine}
        if series.what == counters.REQUESTS:
            yield "rig_gateway_requests_total", Sample(value, {**labels, "status": series.kind})
        elif series.what == counters.LIMITED:
            yield (
                "rig_gateway_limited_requests_total",
                Sample(value, {"client": series.client, "limit": series.kind}),
            )
        elif series.what == counters.TOKENLESS:
            yield "rig_gateway_tokenless_answers_total", Sample(value, labels)
        else:
            name, further = _SUMMARIES[series.what]
            yield name, Sample(value, {**labels, **further}, f"_{series.kind}")
    for client, when in sorted(counted.last.items()):
        yield "rig_gateway_last_request_timestamp_seconds", Sample(when, {"client": client})
    yield "rig_gateway_log_unusable_total", Sample(counted.unusable, {})
    yield "rig_gateway_log_gaps_total", Sample(counted.gaps, {})

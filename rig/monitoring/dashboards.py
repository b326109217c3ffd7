"""Grafana's dashboards: each one as a plain value, from which its JSON is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rig.monitoring.alerts import DISKS, QUEUE

SOURCE = "prometheus"
"""Grafana's name for Prometheus as a data source."""
WIDTH, HEIGHT = 12, 8
"""Size of one panel, on Grafana's grid of 24 columns."""
RATE = "$__rate_interval"
"""Grafana's variable for a time span with enough samples."""
UNIT_NAMES = 'name=~"rig-.+|docker.service|prometheus.*"'


@dataclass(frozen=True)
class Line:
    """One query, and the legend of its results."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A graph of some lines over time."""

    title: str
    unit: str
    """Grafana's name of the unit: bytes, percentunit, s, short, watt, celsius and so on."""
    lines: tuple[Line, ...]
    at_most: float | None = None
    """Top of the scale, if it is fixed."""


@dataclass(frozen=True)
class Dashboard:
    """A page of panels."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def _panel(title: str, unit: str, *lines: tuple[str, str], at_most: float | None = None) -> Panel:
    return Panel(title, unit, tuple(Line(*line) for line in lines), at_most)


def _pace(tokens: str, seconds: str) -> str:
    """Tokens a second, from two counters of vLLM."""
    return f"rate(vllm:{tokens}[{RATE}]) / rate(vllm:{seconds}[{RATE}])"


MACHINE = Dashboard(
    "machine",
    "Machine",
    (
        _panel(
            "Processors",
            "percentunit",
            (f'1 - avg(rate(node_cpu_seconds_total{{mode="idle"}}[{RATE}]))', "busy"),
            (f'avg(rate(node_cpu_seconds_total{{mode="iowait"}}[{RATE}]))', "waiting for disks"),
            at_most=1,
        ),
        _panel(
            "Memory",
            "bytes",
            ("node_memory_MemTotal_bytes", "all"),
            ("node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes", "in use"),
            ("node_memory_Cached_bytes", "cached files"),
        ),
        _panel(
            "Free part of each disk",
            "percentunit",
            (
                f"node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes{{{DISKS}}}",
                "{{mountpoint}}",
            ),
            at_most=1,
        ),
        _panel(
            "Disks",
            "Bps",
            (f"sum by (device) (rate(node_disk_read_bytes_total[{RATE}]))", "{{device}} read"),
            (f"sum by (device) (rate(node_disk_written_bytes_total[{RATE}]))", "{{device}} written"),
        ),
        _panel(
            "Network",
            "Bps",
            (f'rate(node_network_receive_bytes_total{{device!="lo"}}[{RATE}])', "{{device}} in"),
            (f'rate(node_network_transmit_bytes_total{{device!="lo"}}[{RATE}])', "{{device}} out"),
        ),
        _panel("Load", "short", ("node_load1", "1 minute"), ("node_load15", "15 minutes")),
        _panel(
            "Units that do not work",
            "short",
            (f'sum by (name) (node_systemd_unit_state{{{UNIT_NAMES},state="failed"}})', "{{name}}"),
        ),
        _panel("A reboot is due", "short", ("rig_reboot_pending", "due"), at_most=1),
    ),
)

ENGINES = Dashboard(
    "engines",
    "Engines",
    (
        _panel("Ready", "short", ('up{job="engine"}', "{{engine}}"), at_most=1),
        _panel(
            "Tokens made",
            "short",
            (f"rate(llamacpp:tokens_predicted_total[{RATE}])", "{{engine}} tokens/s"),
            (f"rate(vllm:generation_tokens_total[{RATE}])", "{{engine}} tokens/s"),
        ),
        _panel(
            "Tokens read",
            "short",
            (f"rate(llamacpp:prompt_tokens_total[{RATE}])", "{{engine}} tokens/s"),
            (f"rate(llamacpp:prompt_tokens_cached_total[{RATE}])", "{{engine}} of these from its cache"),
            (f"rate(vllm:prompt_tokens_total[{RATE}])", "{{engine}} tokens/s"),
            (f"rate(vllm:prompt_tokens_cached_total[{RATE}])", "{{engine}} of these from its cache"),
        ),
        _panel(
            "Speed of one stream",
            "short",
            ("llamacpp:predicted_tokens_seconds", "{{engine}} made, tokens/s"),
            ("llamacpp:prompt_tokens_seconds", "{{engine}} read, tokens/s"),
            # vLLM has no such metrics. It counts tokens, and the seconds that each stream waited for them.
            (
                _pace("inter_token_latency_seconds_count", "inter_token_latency_seconds_sum"),
                "{{engine}} made, tokens/s",
            ),
            (
                _pace("request_prefill_kv_computed_tokens_sum", "request_prefill_time_seconds_sum"),
                "{{engine}} read, tokens/s",
            ),
        ),
        _panel(
            "Requests",
            "short",
            ("llamacpp:requests_processing", "{{engine}} at work"),
            ("vllm:num_requests_running", "{{engine}} at work"),
            (QUEUE.name, "{{engine}} waiting"),
        ),
        _panel("Loading", "short", ("rig_engine_loading", "{{engine}}"), at_most=1),
    ),
)

GPU = Dashboard(
    "gpu",
    "Graphics card",
    (
        _panel(
            "Temperature",
            "celsius",
            ("rig_gpu_temperature_celsius", "chip"),
            ("rig_gpu_temperature_margin_celsius", "left to its limit"),
        ),
        _panel("Power", "watt", ("rig_gpu_power_watts", "drawn"), ("rig_gpu_power_limit_watts", "allowed")),
        _panel(
            "Memory",
            "bytes",
            ("rig_gpu_memory_total_bytes", "all"),
            ("rig_gpu_memory_used_bytes", "in use"),
        ),
        _panel("Busy", "percentunit", ("rig_gpu_utilization_ratio", "computing"), at_most=1),
        _panel("Clocks", "hertz", ("rig_gpu_clock_hertz", "{{clock}}")),
        _panel("Fan", "percentunit", ("rig_gpu_fan_ratio", "speed"), at_most=1),
        _panel("Why its clocks are lower", "short", ("rig_gpu_throttling", "{{reason}}"), at_most=1),
        _panel("Heat: 1 warning, 2 critical", "short", ("rig_gpu_thermal_level", "level"), at_most=2),
    ),
)

USAGE, TIME = "gen_ai_client_token_usage", "gen_ai_server_request_duration_seconds"

GATEWAY = Dashboard(
    "gateway",
    "Gateway",
    (
        _panel(
            "Requests, by client",
            "reqps",
            (f"sum by (client) (rate(rig_gateway_requests_total[{RATE}]))", "{{client}}"),
        ),
        _panel(
            "Answers, by status",
            "reqps",
            (f"sum by (status) (rate(rig_gateway_requests_total[{RATE}]))", "{{status}}"),
        ),
        _panel(
            "Tokens made, by client",
            "short",
            (f'sum by (client) (rate({USAGE}_sum{{gen_ai_token_type="output"}}[{RATE}]))', "{{client}} tokens/s"),
        ),
        _panel(
            "Tokens read, by client",
            "short",
            (f'sum by (client) (rate({USAGE}_sum{{gen_ai_token_type="input"}}[{RATE}]))', "{{client}} tokens/s"),
        ),
        _panel(
            "Mean time of an answer",
            "s",
            (
                f"sum by (engine) (rate({TIME}_sum[{RATE}])) / sum by (engine) (rate({TIME}_count[{RATE}]))",
                "{{engine}} whole",
            ),
            (
                f"sum by (engine) (rate(rig_gateway_first_byte_seconds_sum[{RATE}])) "
                f"/ sum by (engine) (rate(rig_gateway_first_byte_seconds_count[{RATE}]))",
                "{{engine}} to the first byte",
            ),
        ),
        _panel(
            "Refused by a limit",
            "reqps",
            (f"sum by (client, limit) (rate(rig_gateway_limited_requests_total[{RATE}]))", "{{client}} {{limit}}"),
        ),
        _panel("Requests in progress", "short", ("haproxy_backend_current_sessions", "{{proxy}}")),
        _panel("Engines reached", "short", ('haproxy_backend_status{state="UP"}', "{{proxy}}"), at_most=1),
    ),
)

ALL = (MACHINE, ENGINES, GATEWAY, GPU)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard in the JSON that Grafana reads from a file (schemaVersion 39 of Grafana 11)."""
    return {
        "uid": f"rig-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["rig"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": [_drawn(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _drawn(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": SOURCE}
    scale = {"min": 0} | ({} if panel.at_most is None else {"max": panel.at_most})
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": source,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, **scale}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": source, "expr": line.expression, "legendFormat": line.legend}
            for at, line in enumerate(panel.lines)
        ],
    }

"""The reader of the gateway's log: its unit, and the way of its metrics to node_exporter."""

from __future__ import annotations

from rig.settings import Settings
from rigd.gateway.config import METRICS
from rigd.metrics.config import TEXTFILES

UNIT = "rig-gateway-reader.service"
FILE = f"/etc/systemd/system/{UNIT}"
LINK = f"{TEXTFILES}/rig_gateway.prom"
"""Link from node_exporter's folder to the reader's own, so that the reader needs no write access to the former."""
TARGET = METRICS


def linked(settings: Settings) -> bool:
    """Whether node_exporter is there to read the metrics."""
    return settings.monitoring.enabled and settings.gateway_wanted

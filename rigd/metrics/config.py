"""The settings of rig-metrics and rig-alert; the deploy writes the JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rigd.base import configuration

PATH = "/etc/rig/metrics.json"
TEXTFILES = "/var/lib/prometheus/node-exporter"
"""The folder from which the distribution's node_exporter reads others' metrics: files NAME.prom, renamed into place
when whole."""
FILE = "rig_machine.prom"
"""The file of rig-metrics."""


@dataclass(frozen=True)
class Engine:
    """A model server. Its unit tells if it is wanted: a unit that does not start at boot is off on purpose."""

    name: str
    unit: str
    address: str
    port: int
    container: str | None = None
    """Name of its container; None for a native service."""
    gpu: bool = False
    """True if one of its processes must be on the GPU."""


@dataclass(frozen=True)
class Config:
    """The measured parts of the machine, and the output folder."""

    output: str
    """Folder from which node_exporter reads."""
    records: str
    """Folder in which rig-models marks changed models."""
    engines: tuple[Engine, ...]
    models: tuple[str, ...]
    certificates: tuple[str, ...]
    """Paths of PEM files."""
    alertmanager: int
    """Port of Alertmanager, for rig-alert."""


def dump(config: Config) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(config), indent=1) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)

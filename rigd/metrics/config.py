"""The settings of rig-metrics and rig-alert: a JSON file that a deploy writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rigd.base import configuration

PATH = "/etc/rig/metrics.json"
TEXTFILES = "/var/lib/prometheus/node-exporter"
"""Where the distribution's node_exporter reads what others measured: files NAME.prom, renamed into place when whole."""
FILE = "rig_machine.prom"
"""The one of rig-metrics."""


@dataclass(frozen=True)
class Engine:
    """A model server; whether it is wanted is what its unit says: one that does not start at boot is off on purpose."""

    name: str
    unit: str
    address: str
    port: int
    container: str | None = None
    """Name of its container; None where it is a service of the machine."""
    gpu: bool = False
    """Whether a process of it has to be on the graphics card."""


@dataclass(frozen=True)
class Config:
    """What is looked at, and where the figures go."""

    output: str
    """Folder that node_exporter reads."""
    records: str
    """Folder in which rig-models marks models that changed."""
    engines: tuple[Engine, ...]
    models: tuple[str, ...]
    certificates: tuple[str, ...]
    """Paths of PEM files."""
    alertmanager: int
    """Its port, for rig-alert."""


def dump(config: Config) -> str:
    """The file's text."""
    return json.dumps(asdict(config), indent=1) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)

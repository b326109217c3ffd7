"""The settings of rig-thermal, with the keys of `monitoring.thermal`; the deploy writes the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from rigd.base import configuration
from rigd.thermal.levels import Limits

PATH = "/etc/rig/thermal.json"


@dataclass(frozen=True)
class OnCritical:
    """Measures against a critically hot card; none by default."""

    power_limit: int | None = None
    """Watts to which the power limit is lowered."""
    unit: str | None = None
    """systemd unit of an engine that is stopped."""
    restore: bool = True
    """Undo both once the card has cooled down."""

    @property
    def wanted(self) -> bool:
        """True if there is any measure."""
        return self.power_limit is not None or self.unit is not None


@dataclass(frozen=True)
class Config(Limits):
    """All settings; times in seconds."""

    interval: int = 60
    timeout: int = 10
    """Seconds that nvidia-smi may take to answer."""
    on_critical: OnCritical = field(default_factory=OnCritical)
    smi: str = "/usr/bin/nvidia-smi"


def dump(config: Config) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)

"""The settings of rig-thermal: a file that a deploy writes, with the keys of `monitoring.thermal`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from rigd.base import configuration
from rigd.thermal.levels import Limits

PATH = "/etc/rig/thermal.json"


@dataclass(frozen=True)
class OnCritical:
    """What is done about a card that is critically hot; nothing by default."""

    power_limit: int | None = None
    """Watts to which the power limit is lowered."""
    unit: str | None = None
    """systemd unit of an engine that is stopped."""
    restore: bool = True
    """Whether both are taken back once it has cooled down."""

    @property
    def wanted(self) -> bool:
        """Whether anything is done at all."""
        return self.power_limit is not None or self.unit is not None


@dataclass(frozen=True)
class Config(Limits):
    """Everything that can be set; times in seconds."""

    interval: int = 60
    timeout: int = 10
    """How long nvidia-smi may take to answer."""
    on_critical: OnCritical = field(default_factory=OnCritical)
    smi: str = "/usr/bin/nvidia-smi"


def dump(config: Config) -> str:
    """The file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)

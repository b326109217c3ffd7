"""What rig-thermal is told: a file that the deploy writes, and nobody else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from rigd.thermal.levels import Limits

PATH = "/etc/rig/thermal.json"


@dataclass(frozen=True)
class Cooling:
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
class Config:
    """Everything that can be set; times in seconds."""

    interval: int = 60
    timeout: int = 10
    """How long nvidia-smi may take to answer."""
    limits: Limits = field(default_factory=Limits)
    cooling: Cooling = field(default_factory=Cooling)
    smi: str = "/usr/bin/nvidia-smi"


def dump(config: Config) -> str:
    """The file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """What `dump` wrote. Raises ValueError, TypeError or KeyError where it is something else."""
    found: dict[str, Any] = json.loads(text)
    return Config(**{**found, "limits": Limits(**found["limits"]), "cooling": Cooling(**found["cooling"])})

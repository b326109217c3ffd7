"""The settings of rig-mode: the groups of engines of which one runs at a time. The deploy writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rigd.base import configuration
from rigd.base.errors import BadInput

PATH = "/etc/rig/modes.json"
KEYS = "/etc/rig/keys.env"
LOCK = "/run/rig-mode"
"""Folder of the lock that a switch holds."""


@dataclass(frozen=True)
class Engine:
    """One engine, and the signs that it is serving."""

    name: str
    unit: str
    container: str | None
    """Name of its container; None for a native service."""
    address: str
    port: int
    model: str
    """The model that /v1/models must list."""
    gpu: bool
    """True if one of its processes must be on the GPU."""
    variable: str
    """Variable of the file of keys that holds its key."""
    timeout: int
    """Seconds that it may take from start to healthy."""
    record: str
    """Path of the file with the definition that it served last."""
    definition: str
    """The text for that file once it serves with the present definition."""

    @property
    def url(self) -> str:
        """Address of its HTTP server."""
        return f"http://{self.address}:{self.port}"


@dataclass(frozen=True)
class Modes:
    """All groups by name; the first engine of a group runs until another is chosen."""

    keys: str
    """Path of the file of keys."""
    groups: Mapping[str, tuple[Engine, ...]]

    def group_of(self, engine: str) -> tuple[Engine, ...]:
        """The group that an engine belongs to. Raises BadInput."""
        for group in self.groups.values():
            if engine in [member.name for member in group]:
                return group
        names = [member.name for group in self.groups.values() for member in group]
        raise BadInput(f"there is no alternative {engine}; choose one of {', '.join(names)}" if names else NONE)


NONE = "no engine here is an alternative to another; engines.<name>.alternatives in the settings makes it one"


def dump(modes: Modes) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(modes), indent=2) + "\n"


def parse(text: str) -> Modes:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Modes, text)

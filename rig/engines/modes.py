"""Alternatives: engines of which one runs at a time; the exclusions in their units, and rig-mode's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rig.engines.served import Served, path
from rig.settings import Settings
from rig.settings.engines import NativeEngine
from rig.settings.secrets import key_variable
from rigd.modes.config import KEYS, Engine, Modes


@dataclass(frozen=True)
class Exclusion:
    """What an alternative's unit declares about the other alternatives."""

    units: tuple[str, ...]
    """Units that stop when it starts."""
    earlier: tuple[str, ...]
    """The units before it in the group: an order in one direction only, as both directions would be a cycle."""
    containers: tuple[str, ...]
    """Containers of the others: Docker may have started one by itself, unknown to its unit."""


def exclusion(settings: Settings, name: str) -> Exclusion:
    """The exclusion of one enabled engine; empty if it has no alternatives."""
    group = settings.rivals(name)
    others = [other for other in group if other != name]
    return Exclusion(
        units=tuple(settings.unit(other) for other in others),
        earlier=tuple(settings.unit(other) for other in group[: group.index(name)]) if group else (),
        containers=tuple(
            f"rig-{other}" for other in others if not isinstance(settings.engines[other], NativeEngine)
        ),
    )


def modes(settings: Settings, records: Mapping[str, Served]) -> Modes:
    """rig-mode's settings on the machine. `records`: the definition of each engine, by name."""
    return Modes(
        keys=KEYS,
        groups={
            group: tuple(_engine(settings, name, records[name]) for name in names)
            for group, names in settings.alternatives.items()
        },
    )


def _engine(settings: Settings, name: str, record: Served) -> Engine:
    engine = settings.engines[name]
    return Engine(
        name=name,
        unit=settings.unit(name),
        container=None if isinstance(engine, NativeEngine) else f"rig-{name}",
        address=str(engine.address),
        port=engine.port,
        model=engine.model,
        gpu=engine.on_card,
        variable=key_variable(name),
        timeout=engine.health_timeout,
        record=path(name),
        definition=record.text,
    )

"""Alternatives: engines of which one runs at a time, as their units and rig-mode are told of them."""

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
    """What the unit of an alternative says of the others."""

    units: tuple[str, ...]
    """Units that its start stops."""
    earlier: tuple[str, ...]
    """Those of them that come before it in the group: an order in one direction only, as two would be a circle."""
    containers: tuple[str, ...]
    """Containers of the others: Docker may have started one by itself, which no unit knows of."""


def exclusion(settings: Settings, name: str) -> Exclusion:
    """For one enabled engine; empty where it is no alternative to any."""
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
    """What rig-mode reads on the machine. `records`: the definition of each engine, by name."""
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

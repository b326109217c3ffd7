"""What engines ask of the machine, from the settings' own figures: the values that capacity calculates with."""

from __future__ import annotations

from collections.abc import Mapping

from rig.capacity import Architecture, Demand, Model, cache_bits, kv_bytes_per_token
from rig.capacity.units import size_bytes
from rig.settings.engines import CommonEngine
from rig.settings.machine import Hardware


def cache_per_token(engine: CommonEngine, architecture: Architecture | None) -> int | None:
    """Bytes of KV cache for a token of this engine, None where the model's architecture is unknown."""
    return None if architecture is None else kv_bytes_per_token(architecture, *cache_bits(engine.arguments))


def demand(engine: CommonEngine, models: Mapping[str, Model]) -> Demand:
    """Bytes of memory that an engine needs, wherever its parts lie. `models`: those it names, by catalogue name."""
    model = models[engine.model]
    projector = 0 if engine.projector is None else models[engine.projector].weights.total
    per_token = cache_per_token(engine, model.architecture)
    return Demand(
        weights=model.weights.total + projector,
        kv_cache=None if per_token is None else per_token * engine.total_context,
        overhead=size_bytes(engine.overhead),
    )


def ram_for_engines(hardware: Hardware) -> int:
    """Bytes of RAM that all engines may take together, 0 at least."""
    return max(0, size_bytes(hardware.ram) - size_bytes(hardware.ram_reserve))

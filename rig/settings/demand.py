"""What engines ask of the machine, from the settings' own figures: the values that capacity calculates with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rig.capacity import (
    VLLM_HOST,
    Architecture,
    Demand,
    Model,
    Share,
    all_in_ram,
    blocks_on_card,
    cache_bits,
    kv_bytes_per_token,
    room_for_cache,
    split,
)
from rig.capacity.units import size_bytes
from rig.settings.engines import Engine, LlamaEngine, VllmEngine
from rig.settings.machine import Hardware

NOWHERE = Share(Demand(0, 0, 0), 0, 0)
"""The share of a side that has no part of the model."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An engine where its settings put it. Sizes are bytes."""

    ram: Share
    card: Share
    ram_limit: int
    """RAM that it may take: its setting `memory`."""
    card_limit: int
    """Memory of the graphics card that it may take; 0 where it computes without one."""
    per_token: int | None
    """KV cache of a token, None where the model's architecture is unknown."""
    layers: int | None
    """Layers of the model, None where unknown."""
    on_card: int
    """Those of them on the graphics card, as the settings count them."""

    @property
    def tokens_that_fit(self) -> int | None:
        """Tokens whose KV cache fits on both sides, over all sequences together; None where that is unknown."""
        if self.per_token is None or self.layers is None:
            return None
        blocks = blocks_on_card(self.layers, self.on_card)
        sides = ((self.ram_limit, self.ram, self.layers - blocks), (self.card_limit, self.card, blocks))
        return min(
            room_for_cache(limit, share.memory.weights, share.memory.overhead) * self.layers // (self.per_token * part)
            for limit, share, part in sides
            if part
        )


def cache_per_token(engine: LlamaEngine | VllmEngine, architecture: Architecture | None) -> int | None:
    """Bytes of KV cache for a token of this engine, None where the model's architecture is unknown."""
    return None if architecture is None else kv_bytes_per_token(architecture, cache_bits(engine.kv_cache))


def placed(engine: Engine, models: Mapping[str, Model], hardware: Hardware) -> Placed:
    """Where the parts of an engine lie, and how much may lie there. `models`: those it names, by catalogue name.

    No more layers are on the card than the model has, and none without one.
    """
    card = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    if isinstance(engine, VllmEngine):
        return _vllm(engine, models[engine.model], card)
    return _llama(engine, models, card)


def _vllm(engine: VllmEngine, model: Model, card: int) -> Placed:
    """vLLM takes its part of the card at once, and all that weights and overhead leave of it becomes KV cache."""
    granted = int(card * engine.gpu_utilization)
    weights, overhead = model.weights.total, size_bytes(engine.overhead)
    per_token = cache_per_token(engine, model.architecture)
    cache = None if per_token is None else room_for_cache(granted, weights, overhead)
    layers = None if model.architecture is None else model.architecture.layers
    return Placed(
        ram=Share(Demand(0, 0, VLLM_HOST), 0, 0),
        card=Share(Demand(weights, cache, overhead), model.weights.read_per_token, 1),
        ram_limit=size_bytes(engine.memory),
        card_limit=granted,
        per_token=per_token,
        layers=layers,
        on_card=layers or 0,
    )


def _llama(engine: LlamaEngine, models: Mapping[str, Model], card: int) -> Placed:
    """llama.cpp sets the cache of all sequences aside; a projector goes where layers of its model are."""
    model = models[engine.model]
    projector = 0 if engine.projector is None else models[engine.projector].weights.total
    architecture = model.architecture
    per_token = cache_per_token(engine, architecture)
    need = Demand(
        weights=model.weights.total,
        kv_cache=None if per_token is None else per_token * engine.total_context,
        overhead=size_bytes(engine.overhead),
    )
    layers = None if architecture is None else architecture.layers
    on_card = min(engine.layers_on_card, layers or 0) if card else 0
    if layers is None or on_card == 0:
        ram, there = all_in_ram(model.weights, _with(need, projector)), NOWHERE
    else:
        there, ram = split(model.weights, need, layers, on_card)
        there = Share(_with(there.memory, projector), there.read_per_token, there.computing)
    return Placed(ram, there, size_bytes(engine.memory), card if on_card else 0, per_token, layers, on_card)


def _with(demand: Demand, weights: int) -> Demand:
    return Demand(demand.weights + weights, demand.kv_cache, demand.overhead)


def ram_for_engines(hardware: Hardware) -> int:
    """Bytes of RAM that all engines may take together, 0 at least."""
    return max(0, size_bytes(hardware.ram) - size_bytes(hardware.ram_reserve))

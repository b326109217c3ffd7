"""The engines' demand on the machine, from the settings' figures: the values for capacity's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rig.capacity import (
    CHECKPOINTS,
    VLLM_HOST,
    Architecture,
    Cache,
    Demand,
    Model,
    Share,
    all_in_ram,
    blocks_on_card,
    cache,
    cache_bits,
    room_for_cache,
    split,
)
from rig.capacity.units import size_bytes
from rig.settings.engines import Engine, LlamaEngine, VllmEngine
from rig.settings.machine import Hardware

LONGEST_CONTEXT = 100_000_000
"""Tokens: the longest context that can be written. A model with windows only fits any context."""

NOWHERE = Share(Demand(0, 0, 0), 0, 0)
"""The share of a side without any part of the model."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An engine in its placement. Sizes are bytes."""

    ram: Share
    card: Share
    ram_limit: int
    """Limit of its RAM: its setting `memory`."""
    card_limit: int
    """Limit of its memory on the graphics card; 0 if it does not use one."""
    cache: Cache | None
    """KV cache of a sequence, None if the model's architecture is unknown."""
    layers: int | None
    """Layers of the model, None if unknown."""
    on_card: int
    """Layers on the graphics card, in the settings' count."""

    def sequences_that_fit(self, context: int) -> int | None:
        """Sequences of `context` tokens whose KV cache fits on both sides; None if unknown."""
        return None if self.cache is None or self.room is None else self.room // max(1, self.cache.of(context))

    def context_that_fits(self, sequences: int) -> int | None:
        """Tokens of each of `sequences` sequences whose KV cache fits on both sides; None if unknown."""
        if self.cache is None or self.room is None:
            return None
        return self.cache.tokens_in(self.room // sequences, LONGEST_CONTEXT)

    @property
    def room(self) -> int | None:
        """Bytes of KV cache that fit when both sides have their parts of it; None if the layers are unknown."""
        if self.layers is None:
            return None
        blocks = blocks_on_card(self.layers, self.on_card)
        sides = ((self.ram_limit, self.ram, self.layers - blocks), (self.card_limit, self.card, blocks))
        return min(
            room_for_cache(limit, share.memory.fixed) * self.layers // part for limit, share, part in sides if part
        )


def cache_of(engine: LlamaEngine | VllmEngine, architecture: Architecture | None) -> Cache | None:
    """The KV cache of one of this engine's sequences, None if the model's architecture is unknown."""
    return None if architecture is None else cache(architecture, cache_bits(engine.kv_cache))


def llama_demand(engine: LlamaEngine, model: Model) -> Demand:
    """llama-server's whole demand without a projector: it allocates the cache of all sequences at its start."""
    kept = cache_of(engine, model.architecture)
    return Demand(
        weights=model.weights.total,
        kv_cache=None if kept is None else kept.of(engine.context) * engine.sequences,
        overhead=size_bytes(engine.overhead),
        prompts=engine.prompt_cache_bytes + (0 if kept is None else kept.checkpoint * CHECKPOINTS * engine.sequences),
    )


def placed(engine: Engine, models: Mapping[str, Model], hardware: Hardware) -> Placed:
    """The placement of an engine's parts, with limits. `models`: its models, by catalogue name.

    No more layers are on the card than the model has, and none without one.
    """
    card = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    if isinstance(engine, VllmEngine):
        return _vllm(engine, models[engine.model], card)
    return _llama(engine, models, card)


def _vllm(engine: VllmEngine, model: Model, card: int) -> Placed:
    """vLLM takes its part of the card at once; the rest of it after weights and overhead becomes KV cache."""
    granted = int(card * engine.gpu_utilization)
    weights, overhead = model.weights.total, size_bytes(engine.overhead)
    kept = cache_of(engine, model.architecture)
    left = None if kept is None else room_for_cache(granted, weights + overhead)
    layers = None if model.architecture is None else model.architecture.layers
    return Placed(
        ram=Share(Demand(0, 0, VLLM_HOST), 0, 0),
        card=Share(Demand(weights, left, overhead), model.weights.read_per_token, 1),
        ram_limit=size_bytes(engine.memory),
        card_limit=granted,
        cache=kept,
        layers=layers,
        on_card=layers or 0,
    )


def _llama(engine: LlamaEngine, models: Mapping[str, Model], card: int) -> Placed:
    """llama.cpp allocates the cache of all sequences; a projector goes to the side of its model's layers."""
    model = models[engine.model]
    projector = 0 if engine.projector is None else models[engine.projector].weights.total
    architecture = model.architecture
    need = llama_demand(engine, model)
    layers = None if architecture is None else architecture.layers
    on_card = min(engine.layers_on_card, layers or 0) if card else 0
    if layers is None or on_card == 0:
        ram, there = all_in_ram(model.weights, _with(need, projector)), NOWHERE
    else:
        there, ram = split(model.weights, need, layers, on_card)
        there = Share(_with(there.memory, projector), there.read_per_token, there.computing)
    kept = cache_of(engine, architecture)
    return Placed(ram, there, size_bytes(engine.memory), card if on_card else 0, kept, layers, on_card)


def _with(demand: Demand, weights: int) -> Demand:
    return replace(demand, weights=demand.weights + weights)


def ram_for_engines(hardware: Hardware) -> int:
    """Bytes of RAM for all engines together, 0 at least."""
    return max(0, size_bytes(hardware.ram) - size_bytes(hardware.ram_reserve))

"""What engines ask of the machine, from the settings' own figures: the values that capacity calculates with."""

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
"""Tokens. Where a model keeps a window only, any context fits, and this is the longest that can be written."""

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
    cache: Cache | None
    """KV cache of a sequence, None where the model's architecture is unknown."""
    layers: int | None
    """Layers of the model, None where unknown."""
    on_card: int
    """Those of them on the graphics card, as the settings count them."""

    def sequences_that_fit(self, context: int) -> int | None:
        """Sequences of so many tokens whose KV cache fits on both sides; None where that is unknown."""
        return None if self.cache is None or self.room is None else self.room // max(1, self.cache.of(context))

    def context_that_fits(self, sequences: int) -> int | None:
        """Tokens of each of so many sequences whose KV cache fits on both sides; None where that is unknown."""
        if self.cache is None or self.room is None:
            return None
        return self.cache.tokens_in(self.room // sequences, LONGEST_CONTEXT)

    @property
    def room(self) -> int | None:
        """Bytes of KV cache that fit when both sides have their parts of it; None where the layers are unknown."""
        if self.layers is None:
            return None
        blocks = blocks_on_card(self.layers, self.on_card)
        sides = ((self.ram_limit, self.ram, self.layers - blocks), (self.card_limit, self.card, blocks))
        return min(
            room_for_cache(limit, share.memory.fixed) * self.layers // part for limit, share, part in sides if part
        )


def cache_of(engine: LlamaEngine | VllmEngine, architecture: Architecture | None) -> Cache | None:
    """The KV cache of a sequence of this engine, None where the model's architecture is unknown."""
    return None if architecture is None else cache(architecture, cache_bits(engine.kv_cache))


def llama_demand(engine: LlamaEngine, model: Model) -> Demand:
    """What llama-server takes in all, but for a projector: the cache of all sequences is set aside at its start."""
    kept = cache_of(engine, model.architecture)
    return Demand(
        weights=model.weights.total,
        kv_cache=None if kept is None else kept.of(engine.context) * engine.sequences,
        overhead=size_bytes(engine.overhead),
        prompts=engine.prompt_cache_bytes + (0 if kept is None else kept.checkpoint * CHECKPOINTS * engine.sequences),
    )


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
    """llama.cpp sets the cache of all sequences aside; a projector goes where layers of its model are."""
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
    """Bytes of RAM that all engines may take together, 0 at least."""
    return max(0, size_bytes(hardware.ram) - size_bytes(hardware.ram_reserve))

"""The division of a model between GPU and RAM when some of its layers are on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

from rig.capacity.memory import Demand
from rig.capacity.model import Weights


@dataclass(frozen=True, slots=True)
class Share:
    """One side's part: memory in bytes, bytes read for each token, and its fraction (0 to 1) of the computing."""

    memory: Demand
    read_per_token: int
    computing: float


def blocks_on_card(layers: int, gpu_layers: int) -> int:
    """Repeated blocks on the card with `gpu_layers` of `layers` there.

    llama.cpp counts the output head as one layer more, behind the last block, and fills the card from the end (its
    src/llama-model.cpp: load_tensors begins at n_layer + 1 - n_gpu_layers; so since December 2025): the head comes
    first, and 25 layers are the head and 24 blocks. All layers are all blocks and the head.
    """
    return layers if gpu_layers == layers else max(gpu_layers - 1, 0)


def split(weights: Weights, demand: Demand, layers: int, gpu_layers: int) -> tuple[Share, Share]:
    """The shares of GPU and RAM with `gpu_layers` of `layers` on the GPU, llama.cpp's --n-gpu-layers.

    A block takes its weights and its KV cache along. The output head is the first layer on the card
    (`blocks_on_card`); the input embedding stays in RAM, where one row is looked up. Each side has its own compute
    buffers; the card needs none without layers. The cache of earlier prompts is in RAM. Raises ValueError for a
    number of layers that the model does not have.
    """
    if not 0 <= gpu_layers <= layers:
        raise ValueError(f"{gpu_layers} of {layers} layers cannot be on the card")
    blocks = blocks_on_card(layers, gpu_layers)
    on_card = weights.layers * blocks // layers + (weights.head if gpu_layers else 0)
    cache = demand.kv_cache
    cache_on_card = None if cache is None else cache * blocks // layers
    card = Demand(on_card, cache_on_card, demand.overhead if gpu_layers else 0)
    ram = Demand(
        weights=demand.weights - on_card,
        kv_cache=None if cache is None or cache_on_card is None else cache - cache_on_card,
        overhead=demand.overhead,
        prompts=demand.prompts,
    )
    computing = blocks / layers
    read = on_card - weights.idle * blocks // layers
    return (
        Share(card, read, computing),
        Share(ram, weights.read_per_token - read, 1 - computing),
    )


def all_in_ram(weights: Weights, demand: Demand) -> Share:
    """RAM's share with nothing on the card: all of it. Needs no architecture."""
    return Share(demand, weights.read_per_token, 1)


def largest_split(weights: Weights, demand: Demand, layers: int, gpu_memory: int) -> int:
    """The largest number of layers whose share of the card fits into `gpu_memory` bytes; 0 always does."""
    fitting = (n for n in range(layers, 0, -1) if split(weights, demand, layers, n)[0].memory.known <= gpu_memory)
    return next(fitting, 0)

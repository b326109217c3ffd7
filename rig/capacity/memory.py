"""Memory that serving a model takes: weights, the cache of keys and values, and what computing needs besides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rig.capacity.model import Architecture

HALF = 16.0
"""Bits of a number in the KV cache unless an engine is told otherwise."""

CACHE_BITS = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
"""Bits of a number by llama.cpp's name of the type; blocks of 32 carry a scale, hence the fractions (ggml's sizes)."""


KEY_OPTIONS, VALUE_OPTIONS = ("-ctk", "--cache-type-k"), ("-ctv", "--cache-type-v")


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes of one kind of memory that an engine needs; ``kv_cache`` is None where the architecture is unknown."""

    weights: int
    kv_cache: int | None
    overhead: int

    @property
    def known(self) -> int:
        """Bytes that it takes for certain: all of it, or all but a KV cache of unknown size."""
        return self.weights + (self.kv_cache or 0) + self.overhead

    @property
    def total(self) -> int | None:
        """Bytes in all, None when a part of them is unknown."""
        return None if self.kv_cache is None else self.known


def kv_bytes_per_token(architecture: Architecture, key_bits: float = HALF, value_bits: float = HALF) -> int:
    """Bytes of KV cache for one token: layers x kv_heads x head_dim numbers for keys, and as many for values.

    Source: the shape of attention's cache. Llama 3.1 8B: 2 x 32 x 8 x 128 x 2 bytes = 128 KiB; Llama 3.3 70B: 320 KiB.
    """
    numbers = architecture.layers * architecture.kv_heads * architecture.head_dim
    return math.ceil(numbers * (key_bits + value_bits) / 8)


def cache_bits(arguments: Sequence[str]) -> tuple[float, float]:
    """Bits of a number among the keys and among the values, as llama-server's arguments say; the last one counts."""
    keys = values = HALF
    for option, kind in pairwise(arguments):
        if option in KEY_OPTIONS:
            keys = CACHE_BITS.get(kind, HALF)
        if option in VALUE_OPTIONS:
            values = CACHE_BITS.get(kind, HALF)
    return keys, values


def room_for_cache(memory: int, weights: int, overhead: int) -> int:
    """Bytes left for the KV cache, 0 at least, of the `memory` that an engine may take.

    Source: llama-server within its limit, and vLLM within its utilization of the card: 0.80 x 15.51 GiB less 8.46 GiB
    of FP8 weights and about 1 GiB of overhead leave 2.6 to 3.2 GiB.
    """
    return max(0, memory - weights - overhead)


def kv_bytes(
    architecture: Architecture, tokens: int, sequences: int, key_bits: float = HALF, value_bits: float = HALF
) -> int:
    """Bytes of KV cache for so many sequences of so many tokens each: llama.cpp sets all of it aside at its start."""
    return kv_bytes_per_token(architecture, key_bits, value_bits) * tokens * sequences

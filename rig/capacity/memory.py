"""Memory that serving a model takes: weights, the cache of keys and values, and what computing needs besides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rig.capacity.model import Architecture

CACHE_BITS = {"auto": 16.0, "f16": 16.0, "fp8": 8.0, "q8_0": 8.5}
"""Bits of a number in the KV cache, by the settings' names: vLLM's auto and fp8, llama.cpp's f16 and q8_0.

q8_0 stores blocks of 32 numbers with a scale of 16 bits (ggml's block_q8_0: 34 bytes), hence the fraction.
"""

VLLM_HOST = 4 << 30
"""Bytes of RAM that vLLM takes beside what it has on the card: Python, its libraries and pinned buffers (unproven)."""


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


def kv_bytes_per_token(architecture: Architecture, bits: float = 16.0) -> int:
    """Bytes of KV cache for one token: layers x kv_heads x head_dim numbers for keys, and as many for values.

    Source: the shape of attention's cache. Llama 3.1 8B: 2 x 32 x 8 x 128 x 2 bytes = 128 KiB; Llama 3.3 70B: 320 KiB.
    """
    return math.ceil(2 * architecture.layers * architecture.kv_heads * architecture.head_dim * bits / 8)


def cache_bits(kind: str) -> float:
    """Bits of a number in the KV cache of this kind. Raises KeyError for a kind that no engine has."""
    return CACHE_BITS[kind]


def room_for_cache(memory: int, weights: int, overhead: int) -> int:
    """Bytes left for the KV cache, 0 at least, of the `memory` that an engine may take.

    Source: llama-server within its limit, and vLLM within its utilization of the card: 0.80 x 15.51 GiB less 8.46 GiB
    of FP8 weights and about 1 GiB of overhead leave 2.6 to 3.2 GiB.
    """
    return max(0, memory - weights - overhead)


def kv_bytes(architecture: Architecture, tokens: int, sequences: int, bits: float = 16.0) -> int:
    """Bytes of KV cache for so many sequences of so many tokens each: llama.cpp sets all of it aside at its start."""
    return kv_bytes_per_token(architecture, bits) * tokens * sequences

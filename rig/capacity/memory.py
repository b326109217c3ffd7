"""Memory for serving a model: weights, the KV cache, and compute buffers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rig.capacity.model import Architecture

BATCH = 512
"""Tokens that llama-server computes at once (--ubatch-size), and keeps in addition to a window meanwhile."""
ROUNDED = 256
"""Tokens by which llama.cpp rounds the length of a window's cache (its llama-kv-cache-iswa.cpp)."""
STATE_BITS = 32
"""Bits of a number in the state of a layer without attention."""
CHECKPOINTS = 4
"""States of a sequence that llama-server keeps in RAM to go back to (--ctx-checkpoints).

Only for a cache that cannot be cut at any token: with windows and with layers without attention. llama-server's default
of 32 would take 15 GiB with Gemma 3 12B.
"""

CACHE_BITS = {"auto": 16.0, "f16": 16.0, "fp8": 8.0, "q8_0": 8.5}
"""Bits of a number in the KV cache, by the settings' names: vLLM's auto and fp8, llama.cpp's f16 and q8_0.

q8_0 stores blocks of 32 numbers with a scale of 16 bits (ggml's block_q8_0: 34 bytes), hence the fraction.
"""

VLLM_HOST = 4 << 30
"""Bytes of RAM that vLLM takes in addition to the card: Python, its libraries and pinned buffers (unproven)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes of one kind of memory that an engine needs; ``kv_cache`` is None where the architecture is unknown.

    ``prompts``: the engine's cache of earlier prompts, which saves computing them again.
    """

    weights: int
    kv_cache: int | None
    overhead: int
    prompts: int = 0

    @property
    def fixed(self) -> int:
        """Bytes without the KV cache."""
        return self.weights + self.overhead + self.prompts

    @property
    def known(self) -> int:
        """Bytes that it certainly takes: all of it, or all but a KV cache of unknown size."""
        return self.fixed + (self.kv_cache or 0)

    @property
    def total(self) -> int | None:
        """Bytes in all, None when a part is unknown."""
        return None if self.kv_cache is None else self.known


@dataclass(frozen=True, slots=True)
class Cache:
    """Bytes of the KV cache of one sequence.

    ``full``: for a token, in layers that keep all of them; ``local``: for a token, in layers that keep the last
    ``kept``; ``state``: for a sequence of any length.
    """

    full: int
    local: int
    kept: int
    state: int

    def of(self, tokens: int) -> int:
        """Bytes for this number of tokens."""
        return self.full * tokens + self.local * min(tokens, self.kept) + self.state

    def tokens_in(self, room: int, most: int) -> int:
        """Tokens whose cache fits into `room` bytes, but no more than `most`."""
        left = room - self.state
        if left < 0:
            return 0
        if left <= (self.full + self.local) * self.kept:
            return min(most, left // max(1, self.full + self.local))
        return min(most, (left - self.local * self.kept) // self.full) if self.full else most

    @property
    def checkpoint(self) -> int:
        """Bytes of a state to go back to: all that cannot be cut at a token."""
        return self.local * self.kept + self.state


def cache(architecture: Architecture, bits: float = 16.0) -> Cache:
    """The KV cache of a sequence, with numbers of `bits` bits.

    Source: the shape of attention's cache. Llama 3.1 8B: 2 x 32 x 8 x 128 numbers of 2 bytes = 128 KiB a token; Llama
    3.3 70B: 320 KiB. Layers with a window keep that and a batch, rounded up (llama.cpp; vLLM keeps about as much):
    Gemma 3 12B at 32,768 tokens takes 2.5 GiB, not 12.
    """
    kept = architecture.cached
    return Cache(
        full=math.ceil(kept.full * bits / 8),
        # llama.cpp leaves the small caches of windows at 16 bits, whatever type is requested (since April 2026).
        local=math.ceil(kept.local * max(bits, 16.0) / 8),
        kept=-(-(kept.window + BATCH) // ROUNDED) * ROUNDED if kept.local else 0,
        state=kept.state * STATE_BITS // 8,
    )


def cache_bits(kind: str) -> float:
    """Bits of a number in the KV cache of this kind. Raises KeyError for a kind that no engine has."""
    return CACHE_BITS[kind]


def room_for_cache(memory: int, fixed: int) -> int:
    """Bytes left for the KV cache, 0 at least, of the engine's `memory` limit; `fixed`: everything else it takes.

    Source: llama-server within its limit, and vLLM within its utilization of the card: 0.80 x 15.51 GiB less 8.46 GiB
    of FP8 weights and about 1 GiB of overhead leave 2.6 to 3.2 GiB.
    """
    return max(0, memory - fixed)


def kv_bytes(architecture: Architecture, tokens: int, sequences: int, bits: float = 16.0) -> int:
    """Bytes of KV cache for `sequences` sequences of `tokens` each: llama.cpp allocates all of it at its start."""
    return cache(architecture, bits).of(tokens) * sequences

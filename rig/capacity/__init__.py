"""Memory demand and limits of speed: arithmetic on sizes and speeds, without settings, machines or networks.

Units are bytes, seconds, tokens, bytes a second and floating-point operations a second throughout; nothing here rounds
for people except `rig.capacity.units`. Few commands read the headers of model files, so their readers are apart:
`rig.capacity.header` for GGUF files, `rig.capacity.checkpoint` for checkpoints.
"""

from rig.capacity.fit import largest_at_once, sets_that_fit
from rig.capacity.memory import (
    CHECKPOINTS,
    VLLM_HOST,
    Cache,
    Demand,
    cache,
    cache_bits,
    kv_bytes,
    room_for_cache,
)
from rig.capacity.model import (
    Architecture,
    Cached,
    Experts,
    Model,
    Weights,
    cached,
    estimated_weights,
    unknown_weights,
)
from rig.capacity.placement import Share, all_in_ram, blocks_on_card, largest_split, split
from rig.capacity.speed import Device, decode_ceiling, first_token_seconds, prefill_operations

__all__ = [
    "CHECKPOINTS",
    "VLLM_HOST",
    "Architecture",
    "Cache",
    "Cached",
    "Demand",
    "Device",
    "Experts",
    "Model",
    "Share",
    "Weights",
    "all_in_ram",
    "blocks_on_card",
    "cache",
    "cache_bits",
    "cached",
    "decode_ceiling",
    "estimated_weights",
    "first_token_seconds",
    "kv_bytes",
    "largest_at_once",
    "largest_split",
    "prefill_operations",
    "room_for_cache",
    "sets_that_fit",
    "split",
    "unknown_weights",
]

"""What fits and how fast it can be: arithmetic on sizes and speeds, without settings, machines or networks.

Units are bytes, seconds, tokens, bytes a second and floating-point operations a second throughout; nothing here rounds
for people except `rig.capacity.units`. Reading the headers of model files is left out of this list: that of a GGUF file
(`rig.capacity.header`) needs the gguf library, and those of a checkpoint (`rig.capacity.checkpoint`) are needed as
rarely.
"""

from rig.capacity.fit import largest_at_once, sequences_that_fit, sets_that_fit, tokens_that_fit
from rig.capacity.memory import VLLM_HOST, Demand, cache_bits, kv_bytes, kv_bytes_per_token, room_for_cache
from rig.capacity.model import Architecture, Model, Weights, estimated_weights, unknown_weights
from rig.capacity.placement import Share, all_in_ram, blocks_on_card, largest_split, split
from rig.capacity.speed import Device, decode_ceiling, first_token_seconds, prefill_operations

__all__ = [
    "VLLM_HOST",
    "Architecture",
    "Demand",
    "Device",
    "Model",
    "Share",
    "Weights",
    "all_in_ram",
    "blocks_on_card",
    "cache_bits",
    "decode_ceiling",
    "estimated_weights",
    "first_token_seconds",
    "kv_bytes",
    "kv_bytes_per_token",
    "largest_at_once",
    "largest_split",
    "prefill_operations",
    "room_for_cache",
    "sequences_that_fit",
    "sets_that_fit",
    "split",
    "tokens_that_fit",
    "unknown_weights",
]

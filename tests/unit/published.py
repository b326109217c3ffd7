"""Published models: their config.json, and figures about them from other sources.

Keys and values of `config` are those of each model's config.json on the hub; from memory if no other source is named,
so unproven to the letter. The published numbers of parameters agree with them; with a wrong width or count they would
not.

`total` and `active`: parameters as the makers publish them, in thousands of millions; `active` counts the head and not
the embedding, as gpt-oss's model card does. `kv`: bytes of KV cache at 16 bits for a sequence of `context` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rig.capacity.checkpoint import Tensor

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Published:
    """One model."""

    config: dict[str, Any]
    total: float
    active: float
    context: int
    kv: float
    tied: bool = False
    shared: int = 0
    """Width of all shared experts of a layer together."""
    dense: int = 0
    """Layers before the first mixture of experts."""


def _config(hidden: int, layers: int, heads: int, kv: int, feed: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": feed,
        "vocab_size": vocabulary,
        **more,
    }


def _alternating(layers: int, every: int, other: str = "sliding_attention") -> list[str]:
    return ["full_attention" if (layer + 1) % every == 0 else other for layer in range(layers)]


MODELS = {
    # 128 KiB a token (shared facts of the field; llama.cpp's log: 4096.00 MiB at 32,768).
    "Llama 3.1 8B": Published(_config(4096, 32, 32, 8, 14336, 128256), 8.03, 7.50, 32768, 4 * GIB),
    # 320 KiB a token.
    "Llama 3.3 70B": Published(_config(8192, 80, 64, 8, 28672, 128256), 70.55, 69.50, 32768, 10 * GIB),
    # 2 x 40 layers x 8 heads x 128 x 2 bytes = 160 KiB a token; 14.8 thousand million on its model card.
    "Qwen3 14B": Published(_config(5120, 40, 40, 8, 17408, 151936, head_dim=128), 14.77, 13.99, 32768, 5 * GIB),
    # n_head_kv 4, n_embd_head_k 128, n_layer 48 in llama.cpp's log (its issue 14235): 96 KiB a token. 30.5 and 3.3.
    "Qwen3-30B-A3B": Published(
        _config(2048, 48, 32, 4, 6144, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8)
        | {"moe_intermediate_size": 768},
        30.53,
        3.04,
        32768,
        3 * GIB,
    ),
    # Model card: 20.91 and 3.61. Twelve layers of 2 KiB a token, and twelve that keep 128 + 512 tokens, rounded to 768.
    "gpt-oss-20b": Published(
        _config(2880, 24, 64, 8, 2880, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4)
        | {"sliding_window": 128, "layer_types": _alternating(24, 2)},
        20.91,
        3.61,
        32768,
        (12 * 32768 + 12 * 768) * 2048,
    ),
    # 11.77 in llama-bench's table (llama.cpp's pull request 13194). Facts of the field: 2.5 GiB at 32k.
    "Gemma 3 12B": Published(
        _config(3840, 48, 16, 8, 15360, 262144, head_dim=256, sliding_window=1024, sliding_window_pattern=6),
        11.77,
        11.77,
        32768,
        2.47 * GIB,
        tied=True,
    ),
    # Measured with llama-server at 4096 tokens: 27.00 MiB (unsloth's pull request 5225).
    "Gemma 3 270M": Published(
        _config(640, 18, 4, 1, 2048, 262144, head_dim=256, sliding_window=512, layer_types=_alternating(18, 6)),
        0.268,
        0.268,
        4096,
        27 * MIB,
        tied=True,
    ),
    # The same at 8192 tokens: 39.00 MiB.
    "Gemma 3 270M, longer": Published(
        _config(640, 18, 4, 1, 2048, 262144, head_dim=256, sliding_window=512, layer_types=_alternating(18, 6)),
        0.268,
        0.268,
        8192,
        39 * MIB,
        tied=True,
    ),
    # 21 layers of 8 KiB a token, and 21 that keep 4096 + 512 tokens. 9.24 on its model card.
    "Gemma 2 9B": Published(
        _config(3584, 42, 16, 8, 14336, 256000, head_dim=256, sliding_window=4096, model_type="gemma2"),
        9.24,
        9.24,
        8192,
        21 * (8192 + 4608) * 8192,
        tied=True,
    ),
    # All layers keep 4096 + 512 tokens of 128 KiB together, in engines that use the window (vLLM does).
    "Mistral 7B v0.1": Published(
        _config(4096, 32, 32, 8, 14336, 32000, sliding_window=4096), 7.24, 7.11, 32768, 4608 * 128 * 1024
    ),
    # 46.7 and 12.9 (its paper); 128 KiB a token.
    "Mixtral 8x7B": Published(
        _config(4096, 32, 32, 8, 14336, 32000, num_local_experts=8, num_experts_per_tok=2, sliding_window=None),
        46.70,
        12.75,
        32768,
        4 * GIB,
    ),
    # 6.94, d_inner 3072, d_state 128, d_conv 4, one group, vocabulary 100352 in llama.cpp's log (koboldcpp's
    # issue 1781). Four of forty layers have attention; 36 keep 403,200 numbers of 32 bits.
    "Granite 4 H Tiny": Published(
        _config(1536, 40, 12, 4, 512, 100352, num_local_experts=64, num_experts_per_tok=6)
        | {"layer_types": ["attention" if layer in (5, 15, 25, 35) else "mamba" for layer in range(40)]}
        | {"mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_n_groups": 1},
        6.94,
        1.46,
        32768,
        4 * 32768 * 2048 + 36 * 403_200 * 4,
        tied=True,
        shared=1024,
    ),
    # 15.7 (its paper); kv_lora_rank 512, rope.dimension_count 64, block_count 27 (llama.cpp's pull request 7519):
    # 27 x 576 x 2 bytes a token.
    "DeepSeek V2 Lite": Published(
        _config(2048, 27, 16, 16, 10944, 102400, n_routed_experts=64, num_experts_per_tok=6, moe_intermediate_size=1408)
        | {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128},
        15.71,
        2.45,
        32768,
        27 * 576 * 2 * 32768,
        shared=2816,
        dense=1,
    ),
    # 14.7 on its model card; 2 x 40 layers x 10 heads x 128 x 2 bytes = 200 KiB a token.
    "Phi-4": Published(_config(5120, 40, 40, 10, 17920, 100352), 14.66, 14.15, 16384, 3.125 * GIB),
}


def tensors(model: Published, size: float = 2) -> dict[str, Tensor]:
    """The weights of a checkpoint of the model, with `size` bytes per number; norms and biases are left out."""
    return {name: Tensor("BF16", math.prod(shape), int(math.prod(shape) * size)) for name, shape in _shapes(model)}


def _shapes(model: Published) -> Iterator[tuple[str, tuple[int, ...]]]:
    config = model.config
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    if not model.tied:
        yield "lm_head.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        here = f"model.layers.{layer}"
        if config.get("layer_types", ["attention"] * (layer + 1))[layer] == "mamba":
            inner = config["mamba_n_heads"] * config["mamba_d_head"]
            both = 2 * inner + 2 * config["mamba_n_groups"] * config["mamba_d_state"] + config["mamba_n_heads"]
            yield f"{here}.mamba.in_proj.weight", (both, hidden)
            yield f"{here}.mamba.out_proj.weight", (hidden, inner)
        elif "kv_lora_rank" in config:
            latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
            nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
            yield f"{here}.self_attn.q_proj.weight", (heads * (nope + rope), hidden)
            yield f"{here}.self_attn.kv_a_proj_with_mqa.weight", (latent + rope, hidden)
            yield f"{here}.self_attn.kv_b_proj.weight", (heads * (nope + value), latent)
            yield f"{here}.self_attn.o_proj.weight", (hidden, heads * value)
        else:
            kept = config["num_key_value_heads"] * head
            yield f"{here}.self_attn.q_proj.weight", (heads * head, hidden)
            yield f"{here}.self_attn.k_proj.weight", (kept, hidden)
            yield f"{here}.self_attn.v_proj.weight", (kept, hidden)
            yield f"{here}.self_attn.o_proj.weight", (hidden, heads * head)
        yield from _feed(model, layer, here)


def _feed(model: Published, layer: int, here: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    config, hidden = model.config, model.config["hidden_size"]
    count = next((config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in config), 0)
    if not count or layer < model.dense:
        for part in ("gate", "up", "down"):
            yield f"{here}.mlp.{part}_proj.weight", (config["intermediate_size"], hidden)
        return
    yield f"{here}.mlp.gate.weight", (count, hidden)
    width = config.get("moe_intermediate_size", config["intermediate_size"])
    if "mamba_n_heads" in config:
        # Granite's names: all experts of a layer in two tensors.
        yield f"{here}.block_sparse_moe.input_linear.weight", (count, 2 * width, hidden)
        yield f"{here}.block_sparse_moe.output_linear.weight", (count, hidden, width)
        yield f"{here}.shared_mlp.input_linear.weight", (2 * model.shared, hidden)
        yield f"{here}.shared_mlp.output_linear.weight", (hidden, model.shared)
        return
    for expert in range(count):
        for part in ("gate", "up", "down"):
            yield f"{here}.mlp.experts.{expert}.{part}_proj.weight", (width, hidden)
    if model.shared:
        for part in ("gate", "up", "down"):
            yield f"{here}.mlp.shared_experts.{part}_proj.weight", (model.shared, hidden)

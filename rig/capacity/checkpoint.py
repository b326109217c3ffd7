"""The real numbers of a Hugging Face checkpoint: a folder with config.json and *.safetensors files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.capacity.model import Architecture, Cached, Experts, Model, NotAModel, Weights

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the format (safetensors, MAX_HEADER_SIZE)."""
BLOCK = re.compile(r"\blayers\.(\d+)\.")
SIGHT = re.compile(r"\b(visual|vision\w*|multi_modal_projector|audio\w*)\.")
"""Vision and audio parts: they take memory, and no time for a token of text."""
GUESSING = re.compile(r"\b(mtp|nextn)\b")
"""Parts that predict further tokens, unless they are layers behind the last: engines do not use them by default."""
EXPERTS = re.compile(r"\bexperts\.|\bblock_sparse_moe\.(input|output)_linear\.")
"""The experts of a mixture, the second in Granite's naming; experts for every token are called shared."""
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
PACKED = (".qweight", ".weight_packed", "_blocks")
"""Suffixes of tensors with several quantized numbers in each integer."""
SCALES = re.compile(
    r"_scale(_inv|_2|s)?$|\.(scales|qzeros|g_idx|SCB|weight_format)$|_(zero_point|shape|global_scale)$"
    r"|\.weight\.(absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..*)$"
)
"""Suffixes of tensors that describe the quantization of others, and are no parameters: GPTQ, AWQ, compressed-tensors,
FP8, ModelOpt's NVFP4 (weight_scale_2), MXFP4 (blocks and scales) and bitsandbytes (quant_state, absmax, SCB)."""
MOST_LAYERS = 1000
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_CHOSEN = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk", "moe_top_k")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its stored numbers (a packed one holds several parameters each) and its bytes."""

    dtype: str
    numbers: int
    size: int


def tensors(header: bytes, data: int) -> dict[str, Tensor]:
    """The tensors of one file, by name; `header`: its JSON; `data`: bytes after it in the file.

    Source: the format's description. A file is 8 bytes with the header's length as a little-endian number, the header,
    and the data, where each tensor has the bytes between its two data_offsets. Raises ValueError, KeyError, TypeError,
    AttributeError.
    """
    found = {}
    for name, entry in json.loads(header).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= data:
            raise ValueError(f"{name} ends at byte {end} of {data}")
        found[name] = Tensor(str(entry["dtype"]), math.prod(entry["shape"]), end - begin)
    return found


def model(config: Mapping[str, Any], found: Mapping[str, Tensor]) -> Model:
    """A model from its config.json and all of its tensors. Raises KeyError, ValueError, TypeError.

    A model with vision has its language model's figures under text_config.
    """
    text = {**config, **(config.get("text_config") or {})}
    hidden, layers = _number(text, "hidden_size"), _number(text, "num_hidden_layers")
    if layers > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers}")
    blocks = {name: int(match[1]) for name in found if (match := BLOCK.search(name)) and not SIGHT.search(name)}
    idle = {name for name in found if GUESSING.search(name) or blocks.get(name, 0) >= layers}
    tables = [
        tensor
        for name, tensor in found.items()
        if name.endswith(EMBEDDING) and name not in blocks and name not in idle and not SIGHT.search(name)
    ]
    if len(tables) != 1:
        raise ValueError(f"{len(tables)} tensors end with {EMBEDDING}")
    embedding = tables[0]
    # Not tie_word_embeddings: its default differs between families.
    tied = not any(name.endswith(HEAD) for name in found if name not in blocks and name not in idle)
    bits = _bits(config.get("quantization_config"))
    numbers = {name: _parameters(name, tensor, bits) for name, tensor in found.items()}
    chosen = [name for name in blocks if EXPERTS.search(name) and name not in idle]
    experts = _experts(text, sum(numbers[name] for name in chosen)) if chosen else None
    unread = 0 if experts is None else experts.unread(sum(found[name].size for name in chosen))
    architecture = Architecture(
        layers=layers,
        cached=_cached(text, layers, hidden),
        hidden=hidden,
        vocabulary=embedding.numbers // hidden,
        tied=tied,
        parameters=sum(count for name, count in numbers.items() if name not in idle and not SIGHT.search(name)),
        experts=experts,
    )
    # Parts outside the blocks that no token reads count as looked up, like a table.
    beside = sum(
        tensor.size for name, tensor in found.items() if name not in blocks and (name in idle or SIGHT.search(name))
    )
    weights = Weights(
        total=sum(tensor.size for tensor in found.values()),
        layers=sum(found[name].size for name in blocks),
        looked_up=beside + (0 if tied else embedding.size),
        idle=unread + sum(found[name].size for name in blocks if name in idle),
    )
    return Model(architecture, weights)


def _cached(text: Mapping[str, Any], layers: int, hidden: int) -> Cached:
    """Numbers that attention keeps, summed over all layers."""
    attention, windowed = _kinds(text, layers)
    if text.get("kv_lora_rank"):
        return Cached(full=sum(attention) * (_number(text, "kv_lora_rank") + _number(text, "qk_rope_head_dim")))
    heads = _number(text, "num_attention_heads")
    head_dim = _number(text, "head_dim") if text.get("head_dim") else hidden // heads
    kept = [2 * kv_heads * head_dim for kv_heads in _kv_heads(text, layers, heads)]
    window = text.get("sliding_window")
    return Cached(
        full=sum(kept[layer] for layer in range(layers) if attention[layer] and not windowed[layer]),
        local=sum(kept[layer] for layer in range(layers) if attention[layer] and windowed[layer]),
        window=window if isinstance(window, int) and any(windowed) else 0,
        state=_state(text) * attention.count(False),
    )


def _kinds(text: Mapping[str, Any], layers: int) -> tuple[list[bool], list[bool]]:
    """For each layer, whether it has attention, and whether that attention has a window."""
    window = text.get("sliding_window")
    has_window = isinstance(window, int) and window > 0 and text.get("use_sliding_window") is not False
    kinds = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(kinds, list) and len(kinds) == layers:
        attention = ["attention" in str(kind) and not str(kind).startswith("linear") for kind in kinds]
        return attention, [has_window and "sliding" in str(kind) for kind in kinds]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == layers:
        return [letter == "*" for letter in pattern], [False] * layers
    period, offset = text.get("attn_layer_period"), text.get("attn_layer_offset", 0)
    if isinstance(period, int) and period > 0 and isinstance(offset, int):
        return [layer % period == offset for layer in range(layers)], [False] * layers
    interval = text.get("full_attention_interval")
    if isinstance(interval, int) and interval > 0:
        return [(layer + 1) % interval == 0 for layer in range(layers)], [False] * layers
    every = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern")
    every = every or (2 if text.get("model_type") == "gemma2" else None)
    if has_window and isinstance(every, int) and every > 0:
        return [True] * layers, [(layer + 1) % every != 0 for layer in range(layers)]
    return [True] * layers, [has_window] * layers


def _kv_heads(text: Mapping[str, Any], layers: int, heads: int) -> list[int]:
    """Heads of keys and values of each layer, given as one number, as a list, or by the number of heads."""
    found = text.get("num_key_value_heads", text.get("num_kv_heads"))
    if isinstance(found, list):
        if len(found) != layers or not all(type(number) is int and number >= 0 for number in found):
            raise ValueError(f"num_key_value_heads has {len(found)} entries for {layers} layers")
        return found
    return [heads if found is None else _whole("num_key_value_heads", found)] * layers


def _state(text: Mapping[str, Any]) -> int:
    """Numbers that a Mamba 2 layer keeps of a sequence; 0 for other kinds, whose state is unknown here."""
    names = ("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_d_conv", "mamba_n_groups")
    if not all(isinstance(text.get(name), int) for name in names):
        return 0
    heads, width, state, kernel, groups = (int(text[name]) for name in names)
    return heads * width * state + (kernel - 1) * (heads * width + 2 * groups * state)


def _experts(text: Mapping[str, Any], parameters: int) -> Experts:
    """The mixture of experts; families have different names for its two numbers."""
    count = next((text[key] for key in EXPERT_COUNTS if text.get(key)), None)
    active = next((text[key] for key in EXPERTS_CHOSEN if text.get(key)), None)
    total = _whole("the number of experts", count)
    return Experts(total, min(total, _whole("the number of experts of a token", active)), parameters)


def read_checkpoint(folder: Path) -> Model:
    """The model in a folder, from the headers of its files; no weights are read.

    Raises NotAModel, and OSError when a file cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise NotAModel(f"{folder} has no {CONFIG}; give the folder of a whole checkpoint")
    try:
        found: dict[str, Tensor] = {}
        for name in _weight_files(folder):
            found |= _tensors_of(folder / name)
        return model(_object(folder / CONFIG), found)
    except RecursionError:
        raise NotAModel(f"{folder} holds JSON that is nested too deep; give another folder") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"is not a complete checkpoint of a language model ({error})"
        raise NotAModel(f"{folder} {reason}; give another folder") from None


def _weight_files(folder: Path) -> list[str]:
    """The files of the model: those in the index, as the folder may hold the same weights in another layout, too."""
    if (folder / INDEX).is_file():
        named = {str(name) for name in _object(folder / INDEX)["weight_map"].values()}
        if strange := sorted(name for name in named if "/" in name or not name.endswith(".safetensors")):
            raise ValueError(f"{INDEX} names {strange[0][:60]!r}")
        return sorted(named)
    return sorted(path.name for path in folder.glob("*.safetensors"))


def _tensors_of(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = file.read(length)
            size = path.stat().st_size - 8 - length
        return tensors(header, size)
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    """A JSON file of moderate size that holds an object. Raises ValueError, RecursionError."""
    if path.stat().st_size > LONGEST_HEADER:
        raise ValueError(f"{path.name} has more than {LONGEST_HEADER} bytes")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def _parameters(name: str, tensor: Tensor, bits: int) -> int:
    """Numbers that a tensor stands for. Bytes without a type of their own (U8) hold two numbers of 4 bits each."""
    if SCALES.search(name):
        return 0
    packed = name.endswith(PACKED) or (tensor.dtype == "U8" and name.endswith((".weight", "_proj")))
    return tensor.size * 8 // bits if packed else tensor.numbers


def _bits(quantization: object) -> int:
    """Bits of a packed number: one value for GPTQ and AWQ, one for each group in compressed-tensors; 4 without any."""
    if not isinstance(quantization, Mapping):
        return 4
    groups = quantization.get("config_groups")
    weights = (
        [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    said = [quantization.get("bits"), *(each.get("num_bits") for each in weights if isinstance(each, Mapping))]
    return next((bits for bits in said if type(bits) is int and bits > 0), 4)


def _number(config: Mapping[str, Any], key: str) -> int:
    return _whole(key, config[key])


def _whole(name: str, value: object) -> int:
    if type(value) is not int or value <= 0:
        raise ValueError(f"{name} is {str(value)[:60]}")
    return value

"""The real numbers of a checkpoint as Hugging Face keeps them: a folder with config.json and *.safetensors files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.capacity.model import Architecture, Model, NotAModel, Weights

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit (safetensors, MAX_HEADER_SIZE)."""
BLOCK = re.compile(r"\blayers\.\d+\.")
SIGHT = re.compile(r"\b(visual|vision\w*|multi_modal_projector|audio\w*)\.")
"""Parts of a model that sees or hears: they take memory, and no time for a token of text."""
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
PACKED = (".qweight", ".weight_packed")
"""Endings of tensors that hold several quantized numbers in each of their integers."""
SCALES = ("_scale", "_scale_inv", ".scales", "_zero_point", ".qzeros", ".g_idx", "_shape", "_global_scale")
"""Endings of tensors that tell how others are quantized, and are no parameters."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: numbers as stored, of which a packed one holds several parameters each, and bytes."""

    dtype: str
    numbers: int
    size: int


def tensors(header: bytes, data: int) -> dict[str, Tensor]:
    """The tensors of one file, by name; `header`: its JSON; `data`: bytes that follow it in the file.

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

    A model that sees keeps the figures of its language model under text_config.
    """
    text = {**config, **config.get("text_config", {})}
    heads, hidden = _number(text, "num_attention_heads"), _number(text, "hidden_size")
    (embedding,) = (tensor for name, tensor in found.items() if name.endswith(EMBEDDING))
    # Not tie_word_embeddings: what is not written there has another meaning in each family.
    tied = not any(name.endswith(HEAD) for name in found)
    sizes = {name: tensor.size for name, tensor in found.items()}
    idle = sum(size for name, size in sizes.items() if SIGHT.search(name))
    bits = _bits(config.get("quantization_config") or {})
    architecture = Architecture(
        layers=_number(text, "num_hidden_layers"),
        kv_heads=_number(text, "num_key_value_heads") if text.get("num_key_value_heads") else heads,
        head_dim=_number(text, "head_dim") if text.get("head_dim") else hidden // heads,
        hidden=hidden,
        vocabulary=embedding.numbers // hidden,
        tied=tied,
        parameters=sum(_parameters(name, tensor, bits) for name, tensor in found.items() if not SIGHT.search(name)),
    )
    weights = Weights(
        total=sum(sizes.values()),
        layers=sum(size for name, size in sizes.items() if BLOCK.search(name) and not SIGHT.search(name)),
        looked_up=idle + (0 if tied else embedding.size),
    )
    return Model(architecture, weights)


def read_checkpoint(folder: Path) -> Model:
    """What the headers of a folder say; no weights are read.

    Raises NotAModel, and OSError when a file cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise NotAModel(f"{folder} has no {CONFIG}; give the folder of a whole checkpoint")
    try:
        found: dict[str, Tensor] = {}
        for name in _weight_files(folder):
            found |= _tensors_of(folder / name)
        return model(json.loads((folder / CONFIG).read_bytes()), found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"is not a complete checkpoint of a language model ({error})"
        raise NotAModel(f"{folder} {reason}; give another folder") from None


def _weight_files(folder: Path) -> list[str]:
    """The files that make up the model: those of the index, beside which the same weights may lie in another layout."""
    if (folder / INDEX).is_file():
        return sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
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


def _parameters(name: str, tensor: Tensor, bits: int) -> int:
    if name.endswith(SCALES):
        return 0
    return tensor.size * 8 // bits if name.endswith(PACKED) else tensor.numbers


def _bits(quantization: Mapping[str, Any]) -> int:
    """Bits of a packed number: GPTQ and AWQ say it once, compressed-tensors for each group; 4 where nobody does."""
    groups = quantization.get("config_groups") or {}
    said = [quantization.get("bits"), *((group.get("weights") or {}).get("num_bits") for group in groups.values())]
    return next((bits for bits in said if isinstance(bits, int) and bits > 0), 4)


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"{key} is {value}")
    return value

"""The real numbers of a model, from the header of its GGUF file: architecture, and the size of each part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rig.capacity.model import Architecture, Cached, Experts, Model, NotAModel, Weights
from rigd.models import gguf
from rigd.models.gguf import BadHeader, Header, Value

INPUT, OUTPUT = "token_embd.weight", "output.weight"
BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
EXPERTS = re.compile(r"ffn_(gate|up|down|gate_up)_(ch)?exps\.")
"""Tensors that hold all experts of a layer in one; not the shared experts (_shexp)."""
MOST_LAYERS = 1000
PERIODS = {"gemma2": 2, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "olmo2": 4, "gemma3n": 5, "gemma3": 6}
"""Layers in a period: the last keeps all tokens and the others a window. Only where the file does not say it.

Source: set_swa_pattern of each family in llama.cpp. Other families keep all tokens everywhere, even if they were
trained with a window: phi3 and llama (Mistral) have none there.
"""


def read_header(path: Path) -> Model:
    """The model in a GGUF file, from its header; sizes are the tensors' sizes in memory.

    For a model in several parts, `path` is the first. Raises NotAModel, and OSError when a file cannot be read.
    """
    try:
        return model(gguf.read(path))
    except BadHeader as error:
        raise NotAModel(
            f"{path} is not a complete GGUF file of a language model: it {error}; give another file"
        ) from None
    except (ValueError, KeyError) as error:
        reason = f"is not a complete GGUF file of a language model ({error})"
        raise NotAModel(f"{path} {reason}; give another file") from None


def model(header: Header) -> Model:
    """The numbers of a model with this header. Raises ValueError, KeyError."""
    keys = _Keys(header.values)
    tensors = header.tensors
    hidden = keys.number("embedding_length")
    # Layers that predict further tokens come last: they take memory, and llama-server skips them.
    layers = keys.number("block_count") - keys.number("nextn_predict_layers", 0, least=0)
    if not 0 < layers <= MOST_LAYERS:
        raise ValueError(f"it has {layers} layers")
    tied = OUTPUT not in tensors
    blocks = {name: BLOCK.fullmatch(name) for name in tensors}
    inside = {name: (int(found[1]), found[2]) for name, found in blocks.items() if found is not None}
    guessing = {name for name, (layer, _) in inside.items() if layer >= layers}
    chosen = [name for name, (_, rest) in inside.items() if EXPERTS.match(rest) and name not in guessing]
    experts = None
    if chosen:
        count, active = keys.number("expert_count"), keys.number("expert_used_count")
        experts = Experts(count, min(active, count), sum(tensors[name].numbers for name in chosen))
    idle = 0 if experts is None else experts.unread(sum(tensors[name].size for name in chosen))
    idle += sum(tensors[name].size for name in guessing)
    architecture = Architecture(
        layers=layers,
        cached=_cached(keys, layers, hidden, _without_attention(inside)),
        hidden=hidden,
        vocabulary=tensors[INPUT].numbers // hidden,
        tied=tied,
        parameters=sum(tensor.numbers for name, tensor in tensors.items() if name not in guessing),
        experts=experts,
    )
    weights = Weights(
        total=sum(tensor.size for tensor in tensors.values()),
        layers=sum(tensors[name].size for name in inside),
        looked_up=0 if tied else tensors[INPUT].size,
        idle=idle,
    )
    return Model(architecture, weights)


def _without_attention(inside: Mapping[str, tuple[int, str]]) -> set[int]:
    """Layers that keep a state instead of keys and values."""
    states = {layer for layer, rest in inside.values() if rest.startswith("ssm_")}
    return states - {layer for layer, rest in inside.values() if rest.startswith("attn_k.")}


def _cached(keys: _Keys, layers: int, hidden: int, stateful: set[int]) -> Cached:
    """Numbers that all layers keep."""
    window = keys.number("attention.sliding_window", 0, least=0)
    local = _local(keys, layers) if window else [False] * layers
    heads = keys.heads(layers)
    shared = keys.number("attention.shared_kv_layers", 0, least=0)
    own = [layer for layer in range(layers - shared) if layer not in stateful]
    sizes = {False: _kept(keys, hidden, ""), True: _kept(keys, hidden, "_swa")}
    if keys.number("attention.key_length_mla", 0, least=0):
        # One latent for all heads, beside the part that carries the position.
        latent = keys.number("attention.kv_lora_rank") + keys.number("rope.dimension_count")
        return Cached(full=len(own) * latent)
    return Cached(
        full=sum(heads[layer] * sizes[False] for layer in own if not local[layer]),
        local=sum(heads[layer] * sizes[True] for layer in own if local[layer]),
        window=window if any(local) else 0,
        state=_state(keys) * len(stateful),
    )


def _kept(keys: _Keys, hidden: int, which: str) -> int:
    """Numbers that a head keeps of a token; without a key for it, heads share the state evenly, as in llama.cpp."""
    even = hidden // keys.number("attention.head_count")
    key, value = (keys.number(f"attention.{kind}_length", even) for kind in ("key", "value"))
    if which:
        key, value = (keys.number(f"attention.{k}_length{which}", d) for k, d in (("key", key), ("value", value)))
    return key + value


def _local(keys: _Keys, layers: int) -> list[bool]:
    """For each layer, whether it keeps only a window."""
    said = keys.value("attention.sliding_window_pattern")
    if isinstance(said, list):
        return [bool(said[layer % len(said)]) if said else False for layer in range(layers)]
    period = said if isinstance(said, int) else PERIODS.get(keys.family, 1)
    return [period == 0 or layer % period < period - 1 for layer in range(layers)]


def _state(keys: _Keys) -> int:
    """Numbers that a layer without attention keeps of a sequence (llama.cpp: n_embd_s and n_embd_r)."""
    inner, state = keys.number("ssm.inner_size", 0, least=0), keys.number("ssm.state_size", 0, least=0)
    kernel, groups = keys.number("ssm.conv_kernel", 1), keys.number("ssm.group_count", 0, least=0)
    return inner * state + (kernel - 1) * (inner + 2 * groups * state)


class _Keys:
    """The header's keys for the model's family."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values
        family = values.get("general.architecture")
        if not isinstance(family, str):
            raise KeyError("general.architecture")
        self.family = family

    def value(self, key: str) -> Value | None:
        return self._values.get(f"{self.family}.{key}")

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number; the largest of a list. Raises KeyError, ValueError when there is none."""
        name = f"{self.family}.{key}"
        found = self._values.get(name, default)
        if found is None:
            raise KeyError(name)
        numbers = found if isinstance(found, list) else [found]
        whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
        if len(whole) != len(numbers) or not whole or max(whole) < least:
            raise ValueError(f"{name} is {found}")
        return max(whole)

    def heads(self, layers: int) -> list[int]:
        """Heads of keys and values of each layer: one number for all, a list, or as many as there are heads."""
        name = f"{self.family}.attention.head_count_kv"
        found = self._values.get(name)
        if found is None:
            found = self.value("attention.head_count")
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return [found] * layers
        if isinstance(found, list) and len(found) >= layers:
            numbers = [number for number in found[:layers] if type(number) is int and number >= 0]
            if len(numbers) == layers:
                return numbers
        raise ValueError(f"{name} is {'missing' if found is None else found}")

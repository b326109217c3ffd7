"""A checkpoint as vLLM loads it, a whole repository of a megabyte: a Llama with random weights in two shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

from lab.cache import Cache, Note, recipe_source
from lab.recipes.packing import sha256

REPOSITORY = "rig-lab/tiny-checkpoint"
REVISION = "c" * 40
SEED = 20250118
LAYERS, WIDTH, HEADS, FEED, VOCABULARY = 2, 128, 4, 256, 259
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": FEED,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": VOCABULARY,
}
SERVED = (
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)
"""Files that an engine reads, sorted."""
OTHERS = ("README.md", "original/params.json", "original/consolidated.00.pth")
"""Files that a repository holds besides, and that nobody is to fetch."""
Tensors = dict[str, numpy.typing.NDArray[numpy.float32]]


def checkpoint(cache: Cache) -> Path:
    """A directory with the repository's files."""

    def make(target: Path, note: Note) -> None:
        write(target)

    return cache.artefact("checkpoint", "Make a tiny checkpoint", recipe_source("checkpoint"), make)


def entry(directory: Path) -> dict[str, Any]:
    """The repository as models.catalogue has it."""
    files = [
        {"file": name, "size": (directory / name).stat().st_size, "sha256": sha256(directory / name)} for name in SERVED
    ]
    return {
        "repository": REPOSITORY,
        "revision": REVISION,
        "files": files,
        "size": sum((directory / name).stat().st_size for name in SERVED),
    }


def write(directory: Path) -> None:
    """The repository's files, always the same."""
    (directory / "original").mkdir(parents=True)
    tensors = _tensors()
    names = list(tensors)
    shards = {SERVED[2]: names[: len(names) // 2], SERVED[3]: names[len(names) // 2 :]}
    for file, inside in shards.items():
        _safetensors(directory / file, {name: tensors[name] for name in inside})
    size = sum(tensor.nbytes for tensor in tensors.values())
    places = {name: file for file, inside in shards.items() for name in inside}
    for name, content in (
        ("config.json", CONFIG),
        ("generation_config.json", {"max_length": 4096}),
        ("model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places}),
        ("original/params.json", {"dim": WIDTH}),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
    (directory / "original/consolidated.00.pth").write_bytes(bytes(4096))
    (directory / "README.md").write_text("Random weights, for tests.\n")


def _tensors() -> Tensors:
    numbers = numpy.random.default_rng(SEED)

    def random(*shape: int) -> numpy.typing.NDArray[numpy.float32]:
        return (numbers.standard_normal(shape) * 0.08).astype(numpy.float32)

    found = {"model.embed_tokens.weight": random(VOCABULARY, WIDTH), "lm_head.weight": random(VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        found |= {f"{block}.self_attn.{part}_proj.weight": random(WIDTH, WIDTH) for part in "qkvo"}
        found |= {f"{block}.mlp.{part}_proj.weight": random(FEED, WIDTH) for part in ("gate", "up")}
        found |= {f"{block}.mlp.down_proj.weight": random(WIDTH, FEED)}
        norms = ("input_layernorm", "post_attention_layernorm")
        found |= {f"{block}.{norm}.weight": numpy.ones(WIDTH, numpy.float32) for norm in norms}
    return found | {"model.norm.weight": numpy.ones(WIDTH, numpy.float32)}


def _safetensors(path: Path, tensors: Tensors) -> None:
    """The format: length of the header, the header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())

"""A real model file of half a megabyte: a Llama with random weights, which talks nonsense, but talks."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy
import numpy.typing

from lab.cache import Cache, Note, recipe_source
from lab.recipes.packing import sha256

REPOSITORY = "rig-lab/tiny-GGUF"
FILE = "tiny.gguf"
SEED = 20250117
UPDATE, SPOILT = "1" * 40, "2" * 40
"""Further revisions of the same file: another model that works, and as many bytes that are none."""
END = 2
LAYERS, WIDTH, HEADS, FEED, CONTEXT = 2, 64, 4, 128, 4096
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Weights = numpy.typing.NDArray[numpy.float32]


def model(cache: Cache) -> Path:
    """A directory with the model file and `about.json`: revision, size, SHA-256. Further revisions have folders."""

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        file = target / FILE
        _write(file, SEED)
        for revision in (UPDATE, SPOILT):
            (target / revision).mkdir()
        _write(target / UPDATE / FILE, SEED + 1)
        (target / SPOILT / FILE).write_bytes(numpy.random.default_rng(SEED).bytes(file.stat().st_size))
        digest = sha256(file)
        about = {"revision": digest[:40], "size": file.stat().st_size, "sha256": digest}
        (target / "about.json").write_text(json.dumps(about))

    return cache.artefact("model", "Make a tiny model", recipe_source("model"), make)


def _write(file: Path, seed: int) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens, types = _vocabulary()
    _add_vocabulary(writer, tokens, types)
    numbers = numpy.random.default_rng(seed)

    def random(*shape: int) -> Weights:
        return (numbers.standard_normal(shape) * 0.08).astype(numpy.float32)

    def ones(name: str) -> None:
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    # The first dimension is the same for every token and no layer writes to it, so the output can use it
    # to make whatever is not readable text unlikely: an answer of broken bytes would look like a fault.
    embedding, output = random(len(tokens), WIDTH), random(len(tokens), WIDTH)
    embedding[:, 0] = 1.0
    output[[kind != gguf.TokenType.NORMAL for kind in types], 0] = -10.0
    output[END, 0] = 0.0
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{block}.{part}.weight", random(WIDTH, WIDTH))
        writer.add_tensor(f"{block}.ffn_gate.weight", random(FEED, WIDTH))
        writer.add_tensor(f"{block}.ffn_up.weight", random(FEED, WIDTH))
        for part, inner in (("attn_output", WIDTH), ("ffn_down", FEED)):
            writing = random(WIDTH, inner)
            writing[0] = 0.0
            writer.add_tensor(f"{block}.{part}.weight", writing)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[gguf.TokenType]]:
    """One token a byte, and the printable ones once more as text."""
    text = ["\u2581"] + [chr(code) for code in range(33, 127)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *text]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    types += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(text)
    return tokens, types


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str], types: list[gguf.TokenType]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0 if kind == gguf.TokenType.BYTE else 0.0 for kind in types])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

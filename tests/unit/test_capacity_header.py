"""A model file's header gives the real numbers; any other file is reported in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest

from rig.capacity import Architecture, Cached, Experts, Weights, cached, kv_bytes
from rig.capacity.header import model as model_of
from rig.capacity.header import read_header
from rig.capacity.model import NotAModel
from rigd.models.gguf import Header, Tensor

LAYERS, WIDTH, HEADS, KV_HEADS, VOCABULARY = 3, 64, 4, 2, 96
HALF, FULL = numpy.float16, numpy.float32


def write_model(path: Path, *, tied: bool = False, head_dim: int | None = None, layers: int = LAYERS) -> Path:
    """A GGUF file: embedding and head of half precision, one tensor of full precision in each block."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_tensor("token_embd.weight", numpy.zeros((VOCABULARY, WIDTH), HALF))
    if not tied:
        writer.add_tensor("output.weight", numpy.zeros((VOCABULARY, WIDTH), HALF))
    writer.add_tensor("output_norm.weight", numpy.zeros(WIDTH, FULL))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_q.weight", numpy.zeros((WIDTH, WIDTH), FULL))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_header_gives_architecture_and_the_size_of_each_part(tmp_path: Path) -> None:
    model = read_header(write_model(tmp_path / "x.gguf"))
    table, block, norm = VOCABULARY * WIDTH, WIDTH * WIDTH, WIDTH
    assert model.architecture == Architecture(
        layers=LAYERS,
        cached=cached(LAYERS, KV_HEADS, WIDTH // HEADS),
        hidden=WIDTH,
        vocabulary=VOCABULARY,
        tied=False,
        parameters=2 * table + LAYERS * block + norm,
    )
    assert model.weights == Weights(
        total=2 * table * 2 + (LAYERS * block + norm) * 4, layers=LAYERS * block * 4, looked_up=table * 2
    )


def test_a_model_without_a_head_of_its_own_reads_its_embedding_for_each_token(tmp_path: Path) -> None:
    model = read_header(write_model(tmp_path / "x.gguf", tied=True))
    assert model.architecture is not None
    assert model.architecture.tied
    assert model.weights.read_per_token == model.weights.total


def test_a_head_has_the_length_that_the_file_says(tmp_path: Path) -> None:
    model = read_header(write_model(tmp_path / "x.gguf", head_dim=32))
    assert model.architecture is not None
    assert kv_bytes(model.architecture, 1, 1) == 2 * LAYERS * KV_HEADS * 32 * 2


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all, only some text in a file" * 9])
def test_a_file_that_is_no_model_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(NotAModel, match="is not a complete GGUF file of a language model"):
        read_header(path)


def test_a_file_that_was_cut_is_told(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(NotAModel, match="is not a complete GGUF file"):
        read_header(path)


def test_a_model_without_layers_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="block_count is 0"):
        read_header(write_model(tmp_path / "x.gguf", layers=0))


def test_a_projector_is_told(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "clip")
    writer.add_tensor("v.patch_embd.weight", numpy.zeros((8, 8), HALF))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(NotAModel, match="of a language model"):
        read_header(tmp_path / "x.gguf")


# Kinds of models. A head keeps 16 + 16 numbers of a token.


def _read(family: str = "llama", blocks: tuple[str, ...] = ("attn_q", "attn_k"), **keys: Any) -> Architecture:
    """The architecture of a model with six layers and these keys; `blocks`: tensors of each layer, 1000 bytes each."""
    known: dict[str, Any] = {"block_count": 6, "embedding_length": 64, "attention.head_count": 4}
    known |= {"attention.head_count_kv": 2} | {key.replace("__", "."): value for key, value in keys.items()}
    named = [f"blk.{layer}.{part}.weight" for layer in range(known["block_count"]) for part in blocks]
    tensors = {name: Tensor(500, 1000) for name in named} | {"token_embd.weight": Tensor(64 * 96, 64 * 96 * 2)}
    values = {"general.architecture": family} | {f"{family}.{key}": value for key, value in known.items()}
    found = model_of(Header(values, tensors)).architecture
    assert found is not None
    return found


def test_heads_of_keys_may_be_a_number_a_list_or_left_out() -> None:
    assert _read().cached == Cached(full=6 * 2 * 32)
    assert _read(attention__head_count_kv=[1, 2, 3, 0, 0, 4]).cached == Cached(full=10 * 32)
    assert _read(attention__head_count_kv=None).cached == Cached(full=6 * 4 * 32)


@pytest.mark.parametrize("heads", [[1, 2], [1, 2, 3, 4, 5, -1], [1.5] * 6, "two", 0, True])
def test_heads_that_cannot_be_are_told(heads: object) -> None:
    with pytest.raises(ValueError, match="head_count_kv is"):
        _read(attention__head_count_kv=heads)


@pytest.mark.parametrize(
    ("family", "pattern", "local"),
    [
        ("gemma3", None, 5),
        ("gpt-oss", None, 3),
        ("llama", None, 0),
        ("phi3", None, 0),
        ("any", 3, 4),
        ("any", [True, False, False, False, False, False], 1),
        ("any", 0, 6),
        ("any", 1, 0),
    ],
)
def test_layers_keep_a_window_where_llama_cpp_lets_them(family: str, pattern: object, local: int) -> None:
    keys: dict[str, Any] = {} if pattern is None else {"attention__sliding_window_pattern": pattern}
    found = _read(family, attention__sliding_window=512, **keys).cached
    assert (found.full, found.local) == ((6 - local) * 64, local * 64)
    assert found.window == (512 if local else 0)


def test_windows_may_have_heads_of_their_own_length() -> None:
    keys: dict[str, Any] = {"attention__key_length_swa": 8, "attention__value_length_swa": 8}
    found = _read("gemma4", attention__sliding_window=512, attention__sliding_window_pattern=6, **keys).cached
    assert found == Cached(full=64, local=5 * 2 * 16, window=512)


def test_layers_that_share_their_cache_with_others_keep_nothing() -> None:
    assert _read(attention__shared_kv_layers=2).cached == Cached(full=4 * 64)


def test_a_hybrid_keeps_a_state_in_its_other_layers() -> None:
    keys: dict[str, Any] = {"ssm__inner_size": 128, "ssm__state_size": 16, "ssm__conv_kernel": 4, "ssm__group_count": 1}
    found = _read("granitehybrid", ("ssm_in",), **keys)
    assert found.cached == Cached(full=0, state=6 * (128 * 16 + 3 * (128 + 32)))
    both = _read("falcon-h1", ("ssm_in", "attn_k"), **keys)
    assert both.cached.full == 6 * 64


def test_a_latent_takes_the_place_of_all_heads() -> None:
    keys: dict[str, Any] = {"attention__key_length_mla": 24, "attention__kv_lora_rank": 48, "rope__dimension_count": 8}
    assert _read("deepseek2", **keys).cached == Cached(full=6 * 56)


def test_only_the_chosen_experts_are_read() -> None:
    blocks = ("attn_k", "ffn_up_exps", "ffn_down_exps", "ffn_up_shexp")
    found = _read("qwen3moe", blocks, expert_count=8, expert_used_count=2)
    assert found.experts == Experts(8, 2, 6 * 2 * 500)
    values: dict[str, Any] = {"general.architecture": "x", "x.block_count": 1, "x.embedding_length": 64}
    values |= {"x.attention.head_count": 4, "x.expert_count": 8, "x.expert_used_count": 2}
    tensors = {"token_embd.weight": Tensor(64, 64), "blk.0.ffn_up_exps.weight": Tensor(800, 800)}
    assert model_of(Header(values, tensors)).weights.read_per_token == 64 + 200


def test_layers_that_guess_further_tokens_take_memory_and_no_time() -> None:
    values: dict[str, Any] = {"general.architecture": "x", "x.block_count": 2, "x.embedding_length": 64}
    values |= {"x.attention.head_count": 4, "x.nextn_predict_layers": 1}
    tensors = {name: Tensor(100, 100) for name in ("token_embd.weight", "blk.0.attn_k.weight", "blk.1.attn_k.weight")}
    tensors["token_embd.weight"] = Tensor(64, 64)
    found = model_of(Header(values, tensors))
    assert found.architecture is not None
    assert (found.architecture.layers, found.architecture.parameters) == (1, 164)
    assert (found.weights.total, found.weights.read_per_token) == (264, 164)

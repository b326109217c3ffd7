"""A model file's header gives the real numbers; a file that is none is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy
import pytest

from rig.capacity import Architecture, Weights, cached, kv_bytes
from rig.capacity.header import read_header
from rig.capacity.model import NotAModel

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

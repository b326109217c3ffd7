"""The header of a GGUF file: its values are read, its parts are one model, and no bytes take long or much memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as some

from rig.capacity.header import read_header
from rig.capacity.model import NotAModel
from rigd.models import gguf as headers
from rigd.models.gguf import BadHeader
from tests.unit.sample import examples

MAGIC, TEXT, LIST, BYTE = b"GGUF", 8, 9, 0


def write(path: Path, parts: int = 0, **options: object) -> Path:
    """Write a small Llama with a vocabulary; in `parts` files if given."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=-(-8 // parts) if parts else 0, **options)  # type: ignore[arg-type]
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list([f"word{number}" for number in range(96)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 96)
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", numpy.zeros((96, 64), numpy.float16))
    for layer in range(3):
        for part in ("attn_q", "ffn_up"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", numpy.zeros((64, 64), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name(headers.parts(f"{path.stem}-00001-of-{parts:05d}.gguf")[0]) if parts else path


def _head(count: int = 1, tensors: int = 0, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", MAGIC, version, tensors, count)


def _key(name: bytes, kind: int) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)


def test_the_sizes_of_types_are_those_of_the_gguf_library() -> None:
    assert {kind.value: sizes for kind, sizes in GGML_QUANT_SIZES.items()} == headers.BLOCKS


def test_tensors_are_those_that_the_gguf_library_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf")
    expected = {tensor.name: (int(tensor.n_elements), int(tensor.n_bytes)) for tensor in gguf.GGUFReader(path).tensors}
    found = headers.read(path)
    assert {name: (tensor.numbers, tensor.size) for name, tensor in found.tensors.items()} == expected
    assert (found.values["llama.block_count"], found.values["general.architecture"]) == (3, "llama")
    assert "tokenizer.ggml.tokens" not in found.values


# Parts


def test_the_parts_of_a_model_are_named_as_llama_cpp_does() -> None:
    assert headers.parts("Q4_K_M/big-00001-of-00003.gguf") == tuple(
        f"Q4_K_M/big-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    )
    assert headers.parts("big.gguf") == headers.parts("model-00001-of-00002.safetensors") == ()


def test_a_model_in_parts_has_the_numbers_of_the_whole(tmp_path: Path) -> None:
    whole, first = write(tmp_path / "whole.gguf"), write(tmp_path / "split.gguf", parts=3)
    assert len(list(tmp_path.glob("split-*"))) == 3
    assert read_header(first) == read_header(whole)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "split.gguf", parts=3)
    first.with_name("split-00002-of-00003.gguf").unlink()
    with pytest.raises(NotAModel, match=r"first of 3 parts, of which split-00002-of-00003\.gguf is missing"):
        read_header(first)


def test_a_part_that_is_not_the_first_names_the_first(tmp_path: Path) -> None:
    first = write(tmp_path / "split.gguf", parts=3)
    with pytest.raises(NotAModel, match=f"whose first one is {first.name}"):
        read_header(first.with_name("split-00003-of-00003.gguf"))


# What is no sound header


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "ends within its header"),
        (b"PK\x03\x04 an archive", "does not begin with GGUF"),
        (struct.pack(">4sIQQ", MAGIC, 3, 0, 0), "is written for big-endian machines"),
        (_head(version=1), "is of version 1 of the format"),
        (_head() + _key(b"a", 99), "a value of the unknown type 99"),
        (_head() + _key(b"a", LIST) + struct.pack("<IQ", 99, 1), "a list of the unknown type 99"),
        (_head() + _key(b"a", LIST) + struct.pack("<IQ", LIST, 1) * 9, "lists within lists, more than 4 deep"),
        (_head() + _key(b"a", LIST) + struct.pack("<IQ", BYTE, 1 << 60), "a header of more than"),
        (_head() + _key(b"a", TEXT) + struct.pack("<Q", 1 << 62), "a header of more than"),
        (_head(0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9), "a tensor of 9 dimensions"),
        (_head(0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 1, 999, 0), "a in the unknown type 999"),
        (_head(0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 1 << 60, 0, 0), "bytes of"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(BadHeader, match=sentence):
        headers.read(tmp_path / "x.gguf")


def _sparse(path: Path, content: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    "content",
    [
        _head(1 << 60),
        _head(0, 1 << 60),
        _head() + _key(b"a", LIST) + struct.pack("<IQ", TEXT, 1 << 60),
        _head() + _key(b"a", LIST) + struct.pack("<IQ", LIST, 1 << 60) * 3,
        _head() + _key(b"a", LIST) + struct.pack("<IQ", BYTE, 1 << 27),
    ],
    ids=["keys", "tensors", "texts", "lists", "bytes"],
)
def test_a_header_without_end_takes_neither_long_nor_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    # A sixteenth of the real bounds, as this machine is slow where memory is traced.
    monkeypatch.setattr(headers, "MOST_STEPS", headers.MOST_STEPS // 16)
    path = _sparse(tmp_path / "x.gguf", content, 40 << 30)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(BadHeader):
        headers.read(path)
    took = time.process_time() - began
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 30
    assert most < 32 << 20
    assert headers.file_type(path) is None


@given(some.integers(0, 2**32), some.integers(1, 8), some.booleans())
@examples
def test_no_spoilt_header_ends_in_another_way_than_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, seed: int, places: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("spoilt")
    content = bytearray(write(folder / "x.gguf").read_bytes())
    chance = random.Random(seed)
    header = content.index(b"blk.2") + 200
    for _ in range(places):
        at = chance.randrange(header)
        width = chance.choice([1, 2, 4, 8])
        content[at : at + width] = chance.choice([chance.randbytes(width), b"\xff" * width, b"\x00" * width])
    if cut:
        del content[chance.randrange(len(content)) :]
    (folder / "x.gguf").write_bytes(content)
    began = time.process_time()
    try:
        model = read_header(folder / "x.gguf")
    except NotAModel as error:
        assert "\n" not in str(error)
    else:
        assert model.architecture is not None
        assert model.weights.read_per_token <= model.weights.total
    headers.file_type(folder / "x.gguf")
    assert time.process_time() - began < 10, "a spoilt header took long to read"

"""The headers of a checkpoint give the real numbers; a broken or incomplete one is reported in a sentence."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rig.capacity import Architecture, Model, Weights, cached, kv_bytes
from rig.capacity.checkpoint import model, read_checkpoint, tensors
from rig.capacity.model import NotAModel
from tests.unit.sample import examples

LAYERS, WIDTH, HEADS, KV_HEADS, VOCABULARY = 3, 64, 4, 2, 96
BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4, "I32": 4, "U8": 1, "I8": 1}
CONFIG = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
}
TABLE, BLOCK = VOCABULARY * WIDTH, WIDTH * WIDTH

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def shapes(tied: bool = False) -> Shapes:
    """The shapes of an FP8 checkpoint: tables of 16 bits, blocks of 8 with a scale each."""
    found: Shapes = {
        "model.embed_tokens.weight": ("BF16", (VOCABULARY, WIDTH)),
        "model.norm.weight": ("BF16", (WIDTH,)),
    }
    for layer in range(LAYERS):
        found[f"model.layers.{layer}.self_attn.q_proj.weight"] = ("F8_E4M3", (WIDTH, WIDTH))
        found[f"model.layers.{layer}.self_attn.q_proj.weight_scale"] = ("F32", (1,))
    return found if tied else found | {"lm_head.weight": ("BF16", (VOCABULARY, WIDTH))}


def header(entries: Shapes) -> tuple[bytes, int]:
    """The header of a file with these tensors, and the bytes of its data."""
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * BYTES[dtype]
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return json.dumps(document).encode(), end


def write(path: Path, entries: Shapes) -> None:
    text, size = header(entries)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


def checkpoint(folder: Path, entries: Shapes, config: dict[str, Any] | None = None) -> Path:
    """Two shards with their index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    names = list(entries)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in parts.items():
        write(folder / file, {name: entries[name] for name in inside})
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_the_headers_give_architecture_and_the_size_of_each_part(tmp_path: Path) -> None:
    found = read_checkpoint(checkpoint(tmp_path / "x", shapes()))
    assert found.architecture == Architecture(
        layers=LAYERS,
        cached=cached(LAYERS, KV_HEADS, WIDTH // HEADS),
        hidden=WIDTH,
        vocabulary=VOCABULARY,
        tied=False,
        parameters=2 * TABLE + LAYERS * BLOCK + WIDTH,
    )
    scales = LAYERS * 4
    assert found.weights == Weights(
        total=2 * TABLE * 2 + WIDTH * 2 + LAYERS * BLOCK + scales, layers=LAYERS * BLOCK + scales, looked_up=TABLE * 2
    )


def test_the_shape_of_llama_3_1_8b_fp8_gives_the_known_figures() -> None:
    """9.08 GB with tables of 16 bits, 8.03 read for each token, 128 KiB of KV cache; no file is needed for it."""
    width, feed, vocabulary, kv = 4096, 14336, 128256, 1024
    entries: Shapes = {name: ("BF16", (vocabulary, width)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for layer in range(32):
        for part, shape in {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (feed, width),
            "mlp.up_proj": (feed, width),
            "mlp.down_proj": (width, feed),
        }.items():
            entries[f"model.layers.{layer}.{part}.weight"] = ("F8_E4M3", shape)
    config = {"hidden_size": width, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    found = model(config, tensors(*header(entries)))
    assert found.architecture is not None
    assert found.weights.total / 1e9 == pytest.approx(9.08, abs=0.005)
    assert found.weights.read_per_token / 1e9 == pytest.approx(8.03, abs=0.005)
    assert kv_bytes(found.architecture, 1, 1) == 128 << 10
    assert found.architecture.parameters / 1e9 == pytest.approx(8.03, abs=0.005)


def test_a_model_without_a_head_of_its_own_reads_its_embedding_for_each_token(tmp_path: Path) -> None:
    found = read_checkpoint(checkpoint(tmp_path / "x", shapes(tied=True)))
    assert found.architecture is not None
    assert found.architecture.tied
    assert found.weights.read_per_token == found.weights.total


def test_a_model_that_sees_keeps_its_figures_one_level_down_and_reads_its_eyes_for_no_token(tmp_path: Path) -> None:
    seeing = shapes() | {"visual.blocks.0.mlp.weight": ("BF16", (WIDTH, WIDTH))}
    seeing |= {"vision_tower.encoder.layers.0.fc1.weight": ("BF16", (WIDTH, WIDTH))}
    blind, folder = read_checkpoint(checkpoint(tmp_path / "x", shapes())), checkpoint(tmp_path / "y", seeing)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 7, "text_config": CONFIG}))
    found = read_checkpoint(folder)
    assert found.architecture == blind.architecture
    assert found.weights.total == blind.weights.total + 2 * BLOCK * 2
    assert found.weights.read_per_token == blind.weights.read_per_token


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "gptq", "bits": 8}, 8),
        ({"quant_method": "awq", "bits": 4}, 4),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}, 4),
        (None, 4),
    ],
)
def test_integers_that_hold_several_parameters_are_counted_by_their_bits(
    tmp_path: Path, quantization: dict[str, Any] | None, bits: int
) -> None:
    entries = shapes() | {"model.layers.0.mlp.up_proj.qweight": ("I32", (WIDTH, WIDTH))}
    folder = checkpoint(tmp_path / "x", entries, {"quantization_config": quantization})
    plain = read_checkpoint(checkpoint(tmp_path / "y", shapes())).architecture
    found = read_checkpoint(folder).architecture
    assert found is not None
    assert plain is not None
    assert found.parameters - plain.parameters == BLOCK * 32 // bits


def test_the_same_weights_in_another_layout_beside_them_do_not_count(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "x", shapes())
    before = read_checkpoint(folder)
    write(folder / "consolidated.safetensors", {"tok_embeddings.weight": ("BF16", (VOCABULARY, WIDTH))})
    assert read_checkpoint(folder) == before


def test_a_model_in_a_single_file_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write(tmp_path / "model.safetensors", shapes())
    assert read_checkpoint(tmp_path) == read_checkpoint(checkpoint(tmp_path / "sharded", shapes()))


def _cut(folder: Path) -> None:
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _remove(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def _text(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").write_text("not weights at all, only some text in a file")


def _empty(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


def _list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _no_layers(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 0}))


def _no_heads(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({key: CONFIG[key] for key in CONFIG if "heads" not in key}))


def _no_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_cut, "model-00002-of-00002.safetensors: model.* ends at byte 140 of 139"),
        (_remove, "model-00002-of-00002.safetensors is missing"),
        (_text, "a header of"),
        (_empty, "a header of 0 bytes"),
        (_list, "is not a complete checkpoint"),
        (_no_layers, "num_hidden_layers is 0"),
        (_no_heads, "num_attention_heads"),
        (_no_map, "weight_map"),
    ],
)
def test_what_is_no_whole_checkpoint_is_told(tmp_path: Path, spoil: Any, reason: str) -> None:
    folder = checkpoint(tmp_path / "x", shapes())
    spoil(folder)
    with pytest.raises(NotAModel, match=reason) as refused:
        read_checkpoint(folder)
    assert str(refused.value).endswith("give another folder")
    assert "\n" not in str(refused.value)


def test_a_folder_without_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match=r"has no config\.json; give the folder of a whole checkpoint"):
        read_checkpoint(tmp_path)


@given(some.binary(max_size=200))
@examples
def test_no_bytes_make_the_reader_of_a_header_fail_in_another_way(content: bytes) -> None:
    try:
        tensors(content, 10)
    except (ValueError, KeyError, TypeError, AttributeError):
        return


@given(
    some.dictionaries(
        some.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        some.tuples(some.sampled_from(list(BYTES)), some.lists(some.integers(0, 9), max_size=3).map(tuple)),
        max_size=6,
    )
)
@examples
def test_sizes_and_numbers_are_those_that_were_written(entries: Shapes) -> None:
    text, size = header(entries)
    found = tensors(text, size)
    assert sum(tensor.size for tensor in found.values()) == size
    assert {name: tensor.numbers for name, tensor in found.items()} == {
        name: math.prod(shape) for name, (_, shape) in entries.items()
    }


# What config.json and tensors may look like


def _read(config: dict[str, Any], entries: Shapes) -> Model:
    return model(CONFIG | config, tensors(*header(entries)))


def test_a_model_that_has_no_text_part_may_say_so() -> None:
    assert _read({"text_config": None}, shapes()) == _read({}, shapes())


def test_heads_of_keys_may_be_a_list_or_left_out() -> None:
    def full(config: dict[str, Any]) -> int:
        found = _read(config, shapes()).architecture
        assert found is not None
        return found.cached.full

    assert full({"num_key_value_heads": [1, 2, 3]}) == 6 * 2 * 16
    assert full({"num_key_value_heads": None}) == LAYERS * HEADS * 2 * 16
    with pytest.raises(ValueError, match="num_key_value_heads has 2 entries for 3 layers"):
        full({"num_key_value_heads": [1, 2]})


def test_what_guesses_further_tokens_takes_memory_and_no_time() -> None:
    more = {
        f"model.layers.{LAYERS}.embed_tokens.weight": ("BF16", (VOCABULARY, WIDTH)),
        f"model.layers.{LAYERS}.shared_head.lm_head.weight": ("BF16", (VOCABULARY, WIDTH)),
        "mtp.embed_tokens.weight": ("BF16", (VOCABULARY, WIDTH)),
    }
    plain, guessing = _read({}, shapes()), _read({}, shapes() | more)
    assert guessing.architecture == plain.architecture
    assert guessing.weights.total == plain.weights.total + 3 * TABLE * 2
    assert guessing.weights.read_per_token == plain.weights.read_per_token


@pytest.mark.parametrize(
    ("entries", "config"),
    [
        (
            {
                "weight": ("U8", (WIDTH, WIDTH // 2)),
                "weight_scale": ("F8_E4M3", (WIDTH, WIDTH // 16)),
                "weight_scale_2": ("F32", (1,)),
                "input_scale": ("F32", (1,)),
            },
            {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        ),
        (
            {
                "weight_packed": ("U8", (WIDTH, WIDTH // 2)),
                "weight_scale": ("F8_E4M3", (WIDTH, WIDTH // 16)),
                "weight_global_scale": ("F32", (1,)),
            },
            {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
        ),
        (
            {"weight_blocks": ("U8", (WIDTH, 2, WIDTH // 4)), "weight_scales": ("U8", (WIDTH, 2))},
            {"quant_method": "mxfp4"},
        ),
        (
            {
                "weight": ("U8", (WIDTH * WIDTH // 2, 1)),
                "weight.absmax": ("U8", (64,)),
                "weight.quant_map": ("F32", (16,)),
                "weight.nested_absmax": ("F32", (1,)),
                "weight.nested_quant_map": ("F32", (256,)),
                "weight.quant_state.bitsandbytes__nf4": ("U8", (90,)),
            },
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
        ),
        (
            {"weight": ("I8", (WIDTH, WIDTH)), "SCB": ("F32", (WIDTH,)), "weight_format": ("U8", (1,))},
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
        ),
    ],
    ids=["NVFP4", "NVFP4 of compressed-tensors", "MXFP4", "bitsandbytes of 4 bits", "bitsandbytes of 8 bits"],
)
def test_every_way_to_quantize_counts_the_same_parameters(entries: Shapes, config: dict[str, Any]) -> None:
    tables = {name: shape for name, shape in shapes().items() if "layers" not in name}
    blocks = {f"model.layers.0.mlp.down_proj.{name}": shape for name, shape in entries.items()}
    found = _read({"quantization_config": config}, tables | blocks).architecture
    assert found is not None
    assert found.parameters == 2 * TABLE + WIDTH + BLOCK


@pytest.mark.parametrize(
    "strange", [[], "none", 7, {"config_groups": []}, {"config_groups": {"a": None}}, {"bits": "4"}]
)
def test_a_strange_word_on_quantization_is_no_reason_to_fail(strange: object) -> None:
    assert _read({"quantization_config": strange}, shapes()) == _read({}, shapes())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", "[" * 200_000, "nested too deep"),
        ("config.json", "[]", "config.json holds no object"),
        ("config.json", json.dumps(CONFIG | {"num_hidden_layers": 10**9}), "num_hidden_layers is 1000000000"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../etc/passwd"}}', "names '../../etc/passwd'"),
        ("model.safetensors.index.json", '{"weight_map": []}', "is not a complete checkpoint"),
    ],
)
def test_a_file_that_cannot_be_is_told_in_a_sentence(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    folder = checkpoint(tmp_path / "x", shapes())
    (folder / name).write_text(content)
    with pytest.raises(NotAModel, match=re.escape(sentence)):
        read_checkpoint(folder)


def test_a_header_that_is_nested_too_deep_is_told_in_a_sentence(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "x", shapes())
    text = b'{"a":' * 100_000
    (folder / "model-00001-of-00002.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(NotAModel, match="nested too deep"):
        read_checkpoint(folder)

"""The arithmetic of fit and speed: the field's known figures, and rules that hold for any."""

from __future__ import annotations

from typing import get_args

import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import assume, given
from hypothesis import strategies as some

from rig.capacity import (
    Architecture,
    Cached,
    Demand,
    Device,
    Experts,
    Weights,
    all_in_ram,
    blocks_on_card,
    cache,
    cache_bits,
    cached,
    decode_ceiling,
    estimated_weights,
    first_token_seconds,
    kv_bytes,
    largest_at_once,
    largest_split,
    prefill_operations,
    room_for_cache,
    sets_that_fit,
    split,
    unknown_weights,
)
from rig.capacity.memory import CACHE_BITS
from rig.capacity.units import GB, GIB, KIB, MIB, TERA, in_words, size_at_least, size_bytes, size_text
from rig.settings.engines import LlamaEngine, VllmEngine
from tests.unit.sample import examples

LLAMA_8B = Architecture(32, cached(32, 8, 128), hidden=4096, vocabulary=128256, tied=False, parameters=8_030_261_248)
LLAMA_70B = Architecture(80, cached(80, 8, 128), hidden=8192, vocabulary=128256, tied=False, parameters=70_553_706_496)
QWEN_4B = Architecture(36, cached(36, 8, 128), hidden=2560, vocabulary=151936, tied=True, parameters=4_022_468_096)

# Figures of the field: 0.513 GB a layer; 8.03 of 9.08 GB read for each token; the card's and the DIMMs' speeds.
FILE_70B = 42_520_398_816
WEIGHTS_70B = Weights(total=FILE_70B, layers=80 * 513 * GB // 1000, looked_up=591 * GB // 1000)
WEIGHTS_8B_FP8 = Weights(total=9_080_000_000, layers=6_980_000_000, looked_up=128256 * 4096 * 2)
CARD_MEMORY = round(15.51 * GIB)
CARD, TWO_DIMMS, FOUR_DIMMS = 896 * GB, 102.4 * GB, 57.6 * GB
DEMAND_70B = Demand(FILE_70B, kv_bytes(LLAMA_70B, 8192, 1), GIB)


@pytest.mark.parametrize(
    ("architecture", "kib"), [(LLAMA_8B, 128), (LLAMA_70B, 320), (QWEN_4B, 144)], ids=["8B", "70B", "Qwen 4B"]
)
def test_a_token_takes_the_known_cache(architecture: Architecture, kib: int) -> None:
    assert kv_bytes(architecture, 1, 1) == kib * KIB
    assert kv_bytes(architecture, 1, 1, 8) == kib * KIB / 2


def test_eight_sequences_of_8192_tokens_take_8_gib_for_llama_8b() -> None:
    assert kv_bytes(LLAMA_8B, 8192, 8) == 8 * GIB


def test_llama_cpps_kinds_of_cache_have_the_bits_that_ggml_stores() -> None:
    for name in ("f16", "q8_0"):
        block, size = GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
        assert cache_bits(name) == size * 8 / block, name


def test_every_kind_of_cache_that_the_settings_know_has_its_bits() -> None:
    fields = [engine.model_fields["kv_cache"] for engine in (LlamaEngine, VllmEngine)]
    kinds = [kind for field in fields for kind in get_args(field.annotation)]
    assert sorted(kinds) == sorted(CACHE_BITS)


@pytest.mark.parametrize(("left", "tokens", "half", "eighth"), [(2.6, 21_299, 2, 5), (3.2, 26_214, 3, 6)])
def test_beside_llama_8b_in_fp8_the_card_holds_the_known_tokens(
    left: float, tokens: int, half: int, eighth: int
) -> None:
    room = round(left * GIB)
    assert cache(LLAMA_8B).tokens_in(room, 10**9) == tokens
    assert room // cache(LLAMA_8B).of(8192) == half
    assert room // cache(LLAMA_8B, 8).of(8192) == eighth


def test_utilization_080_leaves_the_known_room_beside_llama_8b_in_fp8() -> None:
    for overhead, left in ((0.74, 3.2), (1.35, 2.6)):
        room = room_for_cache(round(0.80 * CARD_MEMORY), WEIGHTS_8B_FP8.total + round(overhead * GIB))
        assert room / GIB == pytest.approx(left, abs=0.05)


def test_llama_8b_in_fp8_reads_8_03_gb_a_token_and_cannot_exceed_111_tokens_a_second() -> None:
    assert WEIGHTS_8B_FP8.read_per_token / GB == pytest.approx(8.03, abs=0.005)
    assert decode_ceiling((WEIGHTS_8B_FP8.read_per_token, CARD)) == pytest.approx(111, abs=1)


@pytest.mark.parametrize(("dimms", "ceiling", "digits"), [(TWO_DIMMS, 3.38, 0.02), (FOUR_DIMMS, 1.9, 0.05)])
@pytest.mark.parametrize(
    "weights", [WEIGHTS_70B, estimated_weights(FILE_70B, LLAMA_70B)], ids=["measured", "estimated"]
)
def test_25_layers_of_llama_70b_on_the_card_have_the_known_ceiling(
    weights: Weights, dimms: float, ceiling: float, digits: float
) -> None:
    card, ram = split(weights, DEMAND_70B, 80, 25)
    reached = decode_ceiling((card.read_per_token, CARD), (ram.read_per_token, dimms))
    assert reached == pytest.approx(ceiling, abs=digits)


def test_25_layers_of_llama_70b_are_the_head_and_24_blocks() -> None:
    card, ram = split(WEIGHTS_70B, DEMAND_70B, 80, 25)
    assert card.memory.weights == WEIGHTS_70B.head + WEIGHTS_70B.layers * 24 // 80
    assert card.memory.kv_cache == kv_bytes(LLAMA_70B, 8192, 1) * 24 // 80
    assert card.memory.known / GIB == pytest.approx(14, abs=0.05)
    assert ram.memory.weights / GB == pytest.approx(29.3, abs=0.05)
    assert ram.read_per_token / GB == pytest.approx(28.7, abs=0.05)


def test_the_output_head_is_the_first_layer_on_the_card() -> None:
    card, ram = split(WEIGHTS_70B, DEMAND_70B, 80, 1)
    assert card.memory == Demand(WEIGHTS_70B.head, 0, GIB)
    assert ram.memory.kv_cache == DEMAND_70B.kv_cache


def test_as_many_layers_as_the_model_has_blocks_are_all_of_it() -> None:
    assert [blocks_on_card(80, layers) for layers in (0, 1, 25, 79, 80)] == [0, 0, 24, 78, 80]


def test_a_layer_of_llama_70b_is_estimated_within_a_hundredth() -> None:
    assert estimated_weights(FILE_70B, LLAMA_70B).layers / 80 / GB == pytest.approx(0.513, rel=0.01)


def test_llama_70b_and_llama_8b_in_fp8_exclude_each_other_on_the_card() -> None:
    hybrid = split(WEIGHTS_70B, DEMAND_70B, 80, 25)[0].memory.known
    demands = {"vllm": (round(0.80 * CARD_MEMORY),), "llama-70b": (hybrid,)}
    assert sets_that_fit(demands, (CARD_MEMORY,)) == [("vllm",), ("llama-70b",)]


def test_more_layers_of_llama_70b_than_fit_are_never_put_on_the_card() -> None:
    most = largest_split(WEIGHTS_70B, DEMAND_70B, 80, CARD_MEMORY)
    assert 25 <= most < 80
    assert split(WEIGHTS_70B, DEMAND_70B, 80, most)[0].memory.known <= CARD_MEMORY
    assert split(WEIGHTS_70B, DEMAND_70B, 80, most + 1)[0].memory.known > CARD_MEMORY


def test_the_whole_model_on_the_card_leaves_only_the_table_that_is_looked_up() -> None:
    card, ram = split(WEIGHTS_70B, DEMAND_70B, 80, 80)
    assert ram.memory.weights == WEIGHTS_70B.looked_up
    assert (ram.read_per_token, ram.computing) == (0, 0)
    assert card.memory.kv_cache == DEMAND_70B.kv_cache


def test_a_card_without_layers_needs_nothing() -> None:
    card, ram = split(WEIGHTS_70B, DEMAND_70B, 80, 0)
    assert card.memory == Demand(0, 0, 0)
    assert ram == all_in_ram(WEIGHTS_70B, DEMAND_70B)


@pytest.mark.parametrize("layers", [-1, 81])
def test_layers_that_the_model_does_not_have_cannot_be_placed(layers: int) -> None:
    with pytest.raises(ValueError, match="of 80 layers"):
        split(WEIGHTS_70B, DEMAND_70B, 80, layers)


def test_a_tied_table_is_read_for_each_token_as_the_head_is() -> None:
    assert estimated_weights(2_497_281_664, QWEN_4B).read_per_token == 2_497_281_664


def test_what_is_unknown_stays_unknown_and_is_not_counted_as_nothing() -> None:
    demand = Demand(100, None, 10)
    assert (demand.known, demand.total) == (110, None)
    card, ram = split(Weights(100, 80, 10), demand, 4, 2)
    assert (card.memory.total, ram.memory.total) == (None, None)


def test_reading_a_prompt_takes_two_operations_for_each_parameter_and_token() -> None:
    assert prefill_operations(8_030_000_000, 512) == 8_222_720_000_000


@pytest.mark.parametrize(("tokens", "seconds"), [(512, 8.0), (1, 0.1)])
def test_the_first_token_waits_for_computing_or_for_reading_whichever_is_longer(tokens: int, seconds: float) -> None:
    device = Device(bandwidth=100 * GB, compute=1.024 * TERA)
    work = prefill_operations(8_000_000_000, tokens)
    assert first_token_seconds((work, 10 * GB, device)) == pytest.approx(seconds)


def test_sets_that_fit_are_the_largest_ones() -> None:
    assert sets_that_fit({"a": (6,), "b": (4,), "c": (3,)}, (10,)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sets_that_fit({"a": (6,), "b": (4,)}, (10,)) == [("a", "b")]
    assert sets_that_fit({"a": (11,)}, (10,)) == []


def test_a_set_has_to_fit_into_every_kind_of_memory_and_has_one_of_a_group() -> None:
    assert sets_that_fit({"a": (1, 9), "b": (1, 9), "c": (9, 0)}, (10, 10)) == [("a", "c"), ("b", "c")]
    assert sets_that_fit({"a": (1, 1), "b": (1, 1), "c": (1, 1)}, (10, 10), [("a", "b")]) == [("a", "c"), ("b", "c")]


def test_of_a_group_the_largest_counts() -> None:
    assert largest_at_once({"a": 3, "b": 5, "c": 1}, [("a", "b")]) == ["b", "c"]
    assert largest_at_once({"a": 3, "b": 5, "c": 1}, []) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0.0 GiB"), (GIB, "1.0 GiB"), (1600 * GIB, "1,600.0 GiB"), (MIB // 2, "0.5 MiB"), (GIB // 2, "0.5 GiB")],
)
def test_bytes_are_told_in_words(count: int, words: str) -> None:
    assert in_words(count) == words


architectures = some.builds(
    Architecture,
    layers=some.integers(1, 128),
    cached=some.builds(
        Cached,
        full=some.integers(1, 10**6),
        local=some.integers(0, 10**6),
        window=some.integers(1, 10**5),
        state=some.integers(0, 10**8),
    ),
    experts=some.none()
    | some.builds(Experts, some.integers(8, 256), some.integers(1, 8), some.integers(10**8, 4 * 10**9)),
    hidden=some.integers(64, 16384),
    vocabulary=some.integers(256, 200_000),
    tied=some.booleans(),
    parameters=some.integers(2 * 10**10, 10**12),
)
sizes = some.integers(10**9, 10**12)
tokens = some.integers(1, 10**6)
few = some.integers(1, 256)
small = some.integers(0, 100)
bits = some.sampled_from(sorted(CACHE_BITS.values()))
speeds = some.floats(1e9, 1e13)


@given(architectures, tokens, few, bits, bits)
@examples
def test_more_tokens_sequences_or_bits_never_take_less(
    architecture: Architecture, tokens: int, sequences: int, fewer: float, more: float
) -> None:
    fewer, more = sorted((fewer, more))
    cache = kv_bytes(architecture, tokens, sequences, fewer)
    assert cache < kv_bytes(architecture, tokens + 1, sequences, fewer)
    assert cache < kv_bytes(architecture, tokens, sequences + 1, fewer)
    assert cache <= kv_bytes(architecture, tokens, sequences, more)


@given(architectures, some.integers(0, 10**13), some.integers(1, 10**8), bits)
@examples
def test_the_tokens_that_fit_do_fit_and_one_more_does_not(
    architecture: Architecture, room: int, most: int, kind: float
) -> None:
    kept = cache(architecture, kind)
    fitting = kept.tokens_in(room, most)
    assert fitting <= most
    assert fitting == 0 or kept.of(fitting) <= room
    assert fitting == most or kept.of(fitting + 1) > room


@given(sizes, architectures)
@examples
def test_the_parts_of_a_model_are_the_whole(size: int, architecture: Architecture) -> None:
    weights = estimated_weights(size, architecture)
    assert min(weights.layers, weights.looked_up, weights.head) >= 0
    assert weights.layers + weights.looked_up + weights.head == weights.total == size
    assert weights.read_per_token <= unknown_weights(size).read_per_token == size


@given(sizes, architectures, some.data())
@examples
def test_what_is_placed_adds_up_wherever_it_lies(size: int, architecture: Architecture, data: some.DataObject) -> None:
    weights = estimated_weights(size, architecture)
    demand = Demand(size + 7, kv_bytes(architecture, 8192, 1), GIB)
    layers = data.draw(some.integers(0, architecture.layers))
    card, ram = split(weights, demand, architecture.layers, layers)
    assert card.memory.weights + ram.memory.weights == demand.weights
    assert (card.memory.kv_cache or 0) + (ram.memory.kv_cache or 0) == demand.kv_cache
    assert card.read_per_token + ram.read_per_token == weights.read_per_token
    assert card.computing + ram.computing == pytest.approx(1)


@given(sizes, architectures, speeds, speeds, some.data())
@examples
def test_a_hybrid_is_between_the_processor_and_the_card_and_each_layer_moves_it_to_the_card(
    size: int, architecture: Architecture, one: float, other: float, data: some.DataObject
) -> None:
    slow, fast = sorted((one, other))
    weights, demand = estimated_weights(size, architecture), Demand(size, 0, 0)

    def ceiling(layers: int) -> float:
        card, ram = split(weights, demand, architecture.layers, layers)
        return decode_ceiling((card.read_per_token, fast), (ram.read_per_token, slow))

    layers = data.draw(some.integers(0, architecture.layers - 1))
    cpu, gpu = decode_ceiling((weights.read_per_token, slow)), decode_ceiling((weights.read_per_token, fast))
    assert cpu * (1 - 1e-9) <= ceiling(layers) <= gpu * (1 + 1e-9)
    assert ceiling(layers) <= ceiling(layers + 1) * (1 + 1e-9)


@given(some.integers(1, 10**15), tokens, speeds, speeds)
@examples
def test_a_longer_prompt_never_answers_sooner(parameters: int, tokens: int, bandwidth: float, compute: float) -> None:
    device = Device(bandwidth, compute)

    def wait(length: int) -> float:
        return first_token_seconds((prefill_operations(parameters, length), parameters, device))

    assert wait(tokens) <= wait(tokens + 1)
    assert wait(tokens) >= 1 / decode_ceiling((parameters, bandwidth)) * (1 - 1e-9)


@given(
    some.dictionaries(some.text("abcdef", min_size=1, max_size=2), some.tuples(small, small), max_size=6),
    some.tuples(small, small),
)
@examples
def test_every_set_that_fits_does_and_takes_nothing_more(
    demands: dict[str, tuple[int, int]], room: tuple[int, int]
) -> None:
    for names in sets_that_fit(demands, room):
        totals = [sum(demands[name][kind] for name in names) for kind in (0, 1)]
        assert totals[0] <= room[0] and totals[1] <= room[1]
        for other in set(demands) - set(names):
            assert any(totals[kind] + demands[other][kind] > room[kind] for kind in (0, 1))


@given(some.integers(1, 10**9))
def test_a_size_that_is_written_is_read_as_the_same_bytes(kib: int) -> None:
    assert size_bytes(size_text(kib * KIB)) == kib * KIB


@given(some.integers(1, 10**6), some.sampled_from("KMGT"))
def test_bytes_that_are_read_are_written_as_the_same_bytes(number: int, letter: str) -> None:
    assert size_bytes(size_text(size_bytes(f"{number}{letter}"))) == size_bytes(f"{number}{letter}")


@given(some.integers(0, 10**15))
def test_the_nearest_size_is_enough_and_less_than_a_unit_too_much(count: int) -> None:
    unit = GIB if count >= GIB else MIB
    assert count <= size_bytes(size_at_least(count)) <= max(unit, count + unit - 1)


@given(some.integers(-(10**12), 10**12))
def test_what_is_no_size_is_not_written_as_one(count: int) -> None:
    assume(count <= 0 or count % KIB)
    with pytest.raises(ValueError, match="no positive multiple"):
        size_text(count)

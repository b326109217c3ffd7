"""Published models: the figures from a config.json, and from the catalogue, match the real ones."""

from __future__ import annotations

import pytest

from rig.capacity import kv_bytes
from rig.capacity.checkpoint import model as checkpoint
from rig.settings import Settings
from rig.settings.tree import plain, read
from tests.unit.project import ROOT
from tests.unit.published import MODELS, Published, tensors

CLOSE = 0.05


@pytest.mark.parametrize("known", MODELS.values(), ids=MODELS)
def test_the_kv_cache_is_that_of_the_real_model(known: Published) -> None:
    read = checkpoint(known.config, tensors(known)).architecture
    assert read is not None
    assert kv_bytes(read, known.context, 1) == pytest.approx(known.kv, rel=CLOSE)


@pytest.mark.parametrize("known", MODELS.values(), ids=MODELS)
def test_a_token_uses_as_many_parameters_as_the_makers_say_and_reads_their_bytes(known: Published) -> None:
    found = checkpoint(known.config, tensors(known))
    read = found.architecture
    assert read is not None
    assert read.parameters / 1e9 == pytest.approx(known.total, rel=CLOSE)
    used = read.active_parameters - (0 if read.tied else read.vocabulary * read.hidden)
    assert used / 1e9 == pytest.approx(known.active, rel=CLOSE)
    assert found.weights.read_per_token / 2e9 == pytest.approx(known.active, rel=CLOSE)


SHIPPED = Settings.model_validate(plain(read(ROOT / "group_data" / "all.yml", "all.yml")), strict=False)
CATALOGUE = SHIPPED.models.catalogue
# By catalogue name: the published model, and GB read for a token. Those of mixtures are facts of the field; others are
# the file without its embedding, at the 4.5 bits that Q4_K_M gives it; a tied one is the head, too.
SHAPES = {
    "gpt-oss-20b": ("gpt-oss-20b", 2.6),
    "qwen3-30b-a3b-q4": ("Qwen3-30B-A3B", 1.85),
    "gemma-3-12b-q4": ("Gemma 3 12B", 7.30),
    "qwen3-14b-q4": ("Qwen3 14B", 9.00 - 151936 * 5120 * 4.5 / 8e9),
    "llama-3.1-8b-q4": ("Llama 3.1 8B", 4.92 - 128256 * 4096 * 4.5 / 8e9),
    "llama-3.3-70b-q4": ("Llama 3.3 70B", 42.52 - 128256 * 8192 * 4.5 / 8e9),
    "llama-3.1-8b-fp8": ("Llama 3.1 8B", 8.03),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_shape_in_the_catalogue_says_what_the_model_takes(name: str) -> None:
    known, read_per_token = MODELS[SHAPES[name][0]], SHAPES[name][1]
    model = CATALOGUE[name].known
    assert model.architecture is not None
    assert kv_bytes(model.architecture, known.context, 1) == pytest.approx(known.kv, rel=CLOSE)
    assert model.architecture.parameters / 1e9 == pytest.approx(known.total, rel=CLOSE)
    assert model.weights.read_per_token / 1e9 == pytest.approx(read_per_token, rel=CLOSE)

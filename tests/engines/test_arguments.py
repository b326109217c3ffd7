"""The rendered command line, read by vLLM's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rig.engines import compose, vllm
from rig.settings.engines import VllmEngine
from tests.engines.real import understood
from tests.unit.sample import IMAGE, settings

ENGINE = {"runtime": "vllm", "image": IMAGE, "model": "llama-3.1-8b-fp8", "port": 8000, "sequences": 32}
PATH = "/models/llama-3.1-8b-fp8"


def _engine(**changes: Any) -> VllmEngine:
    engine = settings({"engines": {"one": {**ENGINE, **changes}}}).engines["one"]
    assert isinstance(engine, VllmEngine)
    return engine


def test_every_setting_arrives_where_it_belongs(tmp_path: Path) -> None:
    engine = _engine(kv_cache="fp8", context=4096, sequences=7, gpu_utilization=0.65, port=8011)
    options = understood(vllm.arguments(engine, PATH, host="0.0.0.0"), tmp_path)
    assert options["model_tag"] == PATH
    assert options["served_model_name"] == ["llama-3.1-8b-fp8"]
    assert (options["host"], options["port"]) == ("0.0.0.0", 8011)
    assert (options["max_model_len"], options["max_num_seqs"]) == (4096, 7)
    assert options["gpu_memory_utilization"] == 0.65
    assert options["kv_cache_dtype"] == "fp8"


def test_what_the_checkpoint_says_and_what_must_not_be_seen_is_not_said_again(tmp_path: Path) -> None:
    options = understood(vllm.arguments(_engine(), PATH, host="0.0.0.0"), tmp_path)
    assert options["quantization"] is None
    assert options["api_key"] is None
    assert options["kv_cache_dtype"] == "auto"


def test_further_arguments_of_the_owner_are_understood(tmp_path: Path) -> None:
    engine = _engine(arguments=["--enforce-eager", "--max-num-batched-tokens", "2048"])
    options = understood(vllm.arguments(engine, PATH, host="0.0.0.0"), tmp_path)
    assert (options["enforce_eager"], options["max_num_batched_tokens"]) == (True, 2048)


def test_the_parser_is_one_that_can_say_no(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unrecognized arguments: --no-such-argument"):
        understood([PATH, "--no-such-argument"], tmp_path)


def test_the_container_starts_what_was_parsed_here() -> None:
    made = settings({"engines": {"one": ENGINE}})
    service = compose.document(made)["services"]["one"]
    assert service["entrypoint"] == ["vllm", "serve"]
    assert service["command"] == vllm.arguments(_engine(), PATH, host="0.0.0.0")

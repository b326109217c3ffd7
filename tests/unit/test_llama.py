"""The server's command line says what the settings say, and never a key."""

from __future__ import annotations

import pytest

from rig.capacity import CHECKPOINTS
from rig.engines import llama
from rig.settings.engines import ContainerEngine, NativeEngine
from tests.unit.sample import settings

FILES = {"llama-3.3-70b-q4": "/models/big.gguf", "qwen3-vl-4b-mmproj": "/models/eye.gguf"}


def _arguments(**changes: object) -> list[str]:
    made = settings({f"engines/one/{key}": value for key, value in changes.items()})
    engine = made.engines["one"]
    assert isinstance(engine, ContainerEngine)
    return llama.arguments(engine, FILES, host="127.0.0.9", layers=80)


def _value(arguments: list[str], option: str) -> str:
    assert arguments.count(option) == 1
    return arguments[arguments.index(option) + 1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model", "/models/big.gguf"),
        ("--alias", "llama-3.3-70b-q4"),
        ("--host", "127.0.0.9"),
        ("--port", "8002"),
        ("--parallel", "3"),
        ("--threads", "7"),
        ("--n-gpu-layers", "0"),
    ],
)
def test_each_option_has_the_value_of_the_settings(option: str, value: str) -> None:
    assert _value(_arguments(sequences=3, threads=7), option) == value


def test_every_sequence_gets_the_whole_context_as_the_server_divides_it() -> None:
    assert _value(_arguments(context=4096, sequences=4), "--ctx-size") == "16384"


@pytest.mark.parametrize(("layers", "passed"), [(0, "0"), (25, "25"), (79, "79"), (80, "all")])
def test_layers_lie_on_the_card_as_the_settings_say_and_the_whole_model_is_all(layers: int, passed: str) -> None:
    assert _value(_arguments(gpu_layers=layers), "--n-gpu-layers") == passed


def test_the_server_does_not_shrink_its_context_by_itself_to_fit_in() -> None:
    assert _value(_arguments(gpu_layers=25), "--fit") == "off"


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_keys_and_values_are_kept_as_the_settings_say(kind: str) -> None:
    made = _arguments(kv_cache=kind)
    assert (_value(made, "--cache-type-k"), _value(made, "--cache-type-v")) == (kind, kind)


@pytest.mark.parametrize(("wanted", "passed"), [("1G", "1024"), ("1536K", "2"), (0, "0")])
def test_earlier_prompts_take_as_much_ram_as_the_settings_say(wanted: str | int, passed: str) -> None:
    assert _value(_arguments(prompt_cache=wanted), "--cache-ram") == passed


def test_as_many_states_to_go_back_to_are_kept_as_the_plan_counts() -> None:
    assert _value(_arguments(), "--ctx-checkpoints") == str(CHECKPOINTS)


def test_other_clients_prompts_are_not_shown() -> None:
    assert "--no-slots" in _arguments()


def test_a_projector_is_passed_only_where_there_is_one() -> None:
    assert "--mmproj" not in _arguments()
    assert _value(_arguments(projector="qwen3-vl-4b-mmproj"), "--mmproj") == "/models/eye.gguf"


def test_the_owners_own_arguments_come_last_and_so_have_the_last_word() -> None:
    assert _arguments(arguments=["--batch-size", "256"])[-2:] == ["--batch-size", "256"]


def test_no_option_passes_a_key() -> None:
    assert not [argument for argument in _arguments() if "key" in argument]


def test_both_ways_of_running_pass_the_same_arguments() -> None:
    own = {"model": "llama-3.3-70b-q4", "port": 8002}
    made = settings({"engines/two/model": own["model"], "engines/two/port": own["port"]})
    container, native = made.engines["one"], made.engines["two"]
    assert isinstance(container, ContainerEngine)
    assert isinstance(native, NativeEngine)
    passed = [llama.arguments(engine, FILES, host="x", layers=80) for engine in (container, native)]
    assert passed[0] == passed[1]

"""The server's command line says what the settings say, and never a key."""

from __future__ import annotations

import pytest

from rig import llama
from rig.settings.engines import ContainerEngine, NativeEngine
from tests.unit.sample import settings

FILES = {"llama-3.3-70b-q4": "/models/big.gguf", "qwen3-vl-4b-mmproj": "/models/eye.gguf"}


def _arguments(**changes: object) -> list[str]:
    made = settings({f"engines/one/{key}": value for key, value in changes.items()})
    return llama.arguments(made.engines["one"], FILES, host="127.0.0.9")


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
    assert llama.arguments(container, FILES, host="x") == llama.arguments(native, FILES, host="x")

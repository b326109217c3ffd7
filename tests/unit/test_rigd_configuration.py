"""Settings files of the machine's programs: programs and files of different ages get along, and nonsense is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from rigd.backup import config as backup
from rigd.base import configuration
from rigd.base.errors import BadInput
from rigd.gateway import config as gateway
from rigd.metrics import config as metrics
from rigd.models import manifest
from rigd.modes import config as modes
from rigd.thermal import config as thermal

ENGINE = metrics.Engine("one", "rig-container@one.service", "127.0.0.1", 8000, "one", True)
ALTERNATIVE = modes.Engine(
    "one", "rig-container@one.service", "one", "127.0.0.1", 8000, "m", True, "KEY", 60, "/var/lib/one", "abc"
)
MODEL = manifest.Model("one", "a/b", "c" * 40, (manifest.File("x.gguf", 1, "d" * 64),), ("engine",))
BACKUP = backup.Config("/mnt/backup", True, "Etc/UTC", "/m", paths=("/home",))
GATEWAY = gateway.Config(("one",), gateway.Limits(60, 5, 2))
METRICS = metrics.Config("/m", "/r", (ENGINE,), ("one",), ("/etc/a.pem",), 9093)
MODELS = manifest.Manifest("http://h", "/m", "/r", (MODEL,), backup="/b")
MODES = modes.Modes("/etc/rig/keys.env", {"gpu": (ALTERNATIVE,)})
THERMAL = thermal.Config(interval=7)
FILES: dict[str, tuple[Callable[[str], object], str, object]] = {
    "backup": (backup.parse, backup.dump(BACKUP), BACKUP),
    "gateway": (gateway.parse, gateway.dump(GATEWAY), GATEWAY),
    "metrics": (metrics.parse, metrics.dump(METRICS), METRICS),
    "models": (manifest.parse, manifest.dump(MODELS), MODELS),
    "modes": (modes.parse, modes.dump(MODES), MODES),
    "thermal": (thermal.parse, thermal.dump(THERMAL), THERMAL),
}
"""For each program: its parser, the text of a settings file, and the value that it holds."""

REQUIRED = {
    "backup": {"target", "must_be_mount", "timezone", "metrics"},
    "gateway": {"engines"},
    "metrics": {"output", "records", "engines", "models", "certificates", "alertmanager"}
    | {f"engines.{key}" for key in ("name", "unit", "address", "port")},
    "models": {"hub", "directory", "records", "models"}
    | {f"models.{key}" for key in ("name", "repository", "revision", "files")}
    | {f"models.files.{key}" for key in ("path", "size", "sha256")},
    "modes": {"keys", "groups"}
    | {
        f"groups.{key}"
        for key in ("name", "unit", "container", "address", "port", "model", "gpu", "variable", "timeout", "record")
    }
    | {"groups.definition"},
    "thermal": set(),
}
"""Keys without a default. A key that joins them makes new programs refuse the files of the last deploy."""


def objects(document: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a document that stands for a dataclass: maps by name do not."""
    if isinstance(document, dict):
        if not any(isinstance(value, list) and key == "gpu" for key, value in document.items()):
            yield document
        for value in document.values():
            yield from objects(value)
    elif isinstance(document, list):
        for value in document:
            yield from objects(value)


def required(kind: Any, above: str = "") -> Iterator[str]:
    """Fields without a default, of a dataclass and those inside it."""
    hints = get_type_hints(kind)
    for part in fields(kind):
        if part.default is MISSING and part.default_factory is MISSING:
            yield f"{above}{part.name}"
        yield from inside(hints[part.name], f"{above}{part.name}.")


def inside(hint: Any, above: str) -> Iterator[str]:
    if is_dataclass(hint):
        yield from required(hint, above)
    for argument in get_args(hint):
        yield from inside(argument, above)


@pytest.mark.parametrize("program", FILES)
def test_a_program_reads_what_a_deploy_writes(tmp_path: Path, program: str) -> None:
    parse, text, value = FILES[program]
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="utf-8")
    assert configuration.read(path, parse) == value


@pytest.mark.parametrize("program", FILES)
def test_an_old_program_ignores_the_keys_of_a_newer_file(program: str) -> None:
    parse, text, value = FILES[program]
    document = json.loads(text)
    for found in list(objects(document)):
        found["a_key_of_next_year"] = {"x": [1]}
    assert parse(json.dumps(document)) == value


@pytest.mark.parametrize("program", FILES)
def test_a_new_program_takes_defaults_for_the_keys_that_an_older_file_lacks(program: str) -> None:
    parse, _, value = FILES[program]
    assert set(required(type(value))) == REQUIRED[program]
    document = json.loads(FILES[program][1])
    for key in [key for key in document if key not in REQUIRED[program]]:
        lacking = copy.deepcopy(document)
        del lacking[key]
        parse(json.dumps(lacking))


@pytest.mark.parametrize("program", FILES)
def test_a_value_of_the_wrong_type_is_refused_in_one_sentence(tmp_path: Path, program: str) -> None:
    parse, text, _ = FILES[program]
    path = tmp_path / "settings.json"
    for key, value in json.loads(text).items():
        for wrong in ([None], {"x": None}, 3.5, "text", True):
            if value is None or type(wrong) is type(value):
                continue
            path.write_text(json.dumps({**json.loads(text), key: wrong}), encoding="utf-8")
            with pytest.raises(BadInput, match=rf"cannot be used \({key}.*\); {configuration.REMEDY}") as refused:
                configuration.read(path, parse)
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize("program", FILES)
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[" * 100_000])
def test_what_no_deploy_wrote_is_refused(tmp_path: Path, program: str, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=configuration.REMEDY):
        configuration.read(path, FILES[program][0])


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadInput, match=rf"settings\.json cannot be used .*; {configuration.REMEDY}"):
        configuration.read(path, thermal.parse)


def test_what_is_not_there_is_written_by_a_deploy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no .*settings\.json; a deploy writes it"):
        configuration.read(tmp_path / "settings.json", thermal.parse)

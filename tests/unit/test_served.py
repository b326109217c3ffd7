"""What an engine served with last is kept as it was, and brings back that engine alone."""

from __future__ import annotations

import pytest
import yaml

from rig import compose, served
from rig.render import render
from rig.served import Served
from tests.unit.sample import IMAGE, settings

OTHER = {"runtime": "container", "image": IMAGE, "model": "qwen3-vl-4b-q4", "port": 8010}


def _record(changes: dict[str, object]) -> tuple[Served, str]:
    """The record of `one`, and the compose file of the same settings."""
    made = settings({"engines/other": OTHER, **changes})
    engine = compose.engines(made)["one"]
    asked: dict[str, str | int | bool] = {"address": "127.0.0.1", "port": 8001, "on_card": False}
    record = Served(compose.fingerprint(made, "one", engine), asked, compose.service(made, "one", engine), {})
    return record, render(served.COMPOSE, compose=compose.document(made))


def test_a_record_is_read_as_it_was_written() -> None:
    record, _ = _record({})
    assert served.parse(record.text) == record
    unit = Served("f", {}, None, {"/etc/systemd/system/x.conf": "[Unit]\n"})
    assert served.parse(unit.text) == unit


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"fingerprint": "x"}'])
def test_what_is_no_record_brings_nothing_back(text: str | None) -> None:
    assert served.parse(text) is None


def test_what_is_brought_back_is_the_file_that_was_there() -> None:
    record, before = _record({})
    _, broken = _record({"engines/one/arguments": ["--broken"]})
    kept = served.parse(record.text)
    assert kept is not None
    assert kept.restored("one", broken) == {served.COMPOSE: before}


def test_other_engines_keep_their_new_settings() -> None:
    record, _ = _record({})
    _, now = _record({"engines/one/arguments": ["--broken"], "engines/other/context": 1024})
    services = yaml.safe_load(record.restored("one", now)[served.COMPOSE])["services"]
    assert "--broken" not in services["one"]["command"]
    assert services["other"] == yaml.safe_load(now)["services"]["other"]


def test_a_service_of_the_machine_gets_its_files_back() -> None:
    files = {"/etc/systemd/system/rig-native@two.service.d/engine.conf": "[Service]\n"}
    assert Served("f", {}, None, files).restored("two", None) == files


def test_no_key_is_kept() -> None:
    record, _ = _record({})
    assert "${RIG_KEY_ONE:?" in record.text

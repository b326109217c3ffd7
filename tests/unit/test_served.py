"""The definition that an engine served with last is kept unchanged, and restores that engine alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rig.engines import compose, served
from rig.engines.served import Served
from rig.facts import engines as facts
from rig.render import render
from tests.unit.sample import IMAGE, Here, settings

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


def test_a_container_comes_back_with_its_drop_in() -> None:
    record, before = _record({})
    drop_in = "/etc/systemd/system/rig-container@one.service.d/models.conf"
    kept = served.parse(replace(record, files={drop_in: "[Unit]\n"}).text)
    assert kept is not None
    assert kept.restored("one", before) == {served.COMPOSE: before, drop_in: "[Unit]\n"}


def test_other_engines_keep_their_new_settings() -> None:
    record, _ = _record({})
    _, now = _record({"engines/one/arguments": ["--broken"], "engines/other/context": 1024})
    services = yaml.safe_load(record.restored("one", now)[served.COMPOSE])["services"]
    assert "--broken" not in services["one"]["command"]
    assert services["other"] == yaml.safe_load(now)["services"]["other"]


def _document(*changed: str) -> dict[str, Any]:
    """The compose file of three engines; `changed` ones have another definition."""
    document = compose.document(settings({"engines/other": OTHER, "engines/two": OTHER | {"port": 8011}}))
    for name in changed:
        document["services"][name]["command"] += ["--new"]
    return document


BEFORE = _document()
BOTH = _document("one", "other")


def _records(document: dict[str, Any]) -> dict[str, str]:
    return {name: Served("f", {}, service, {}).text for name, service in document["services"].items()}


def _file(document: dict[str, Any]) -> str:
    return render(served.COMPOSE, compose=document)


def test_an_engine_is_defined_anew_without_the_others_until_it_is_their_turn() -> None:
    first = served.amended(BOTH, "one", (), _file(BEFORE), _records(BEFORE))
    assert first["services"] == BEFORE["services"] | {"one": BOTH["services"]["one"]}
    second = served.amended(BOTH, "other", (), _file(first), _records(first))
    assert _file(second) == _file(BOTH)


@pytest.mark.parametrize("engine", BEFORE["services"])
def test_where_nothing_changed_the_file_stays_as_it_is(engine: str) -> None:
    for alternatives in ((), ("one", "other")):
        assert _file(served.amended(BEFORE, engine, alternatives, _file(BEFORE), _records(BEFORE))) == _file(BEFORE)


def test_what_a_killed_run_left_untried_is_taken_out_before_another_engine_is_tried() -> None:
    made = served.amended(BOTH, "one", (), _file(BOTH), _records(BEFORE))
    assert made["services"]["other"] == BEFORE["services"]["other"]


def test_an_alternative_that_is_not_chosen_keeps_what_was_written_for_it() -> None:
    made = served.amended(BOTH, "one", ("other",), _file(BOTH), _records(BEFORE))
    assert made["services"]["other"] == BOTH["services"]["other"]


@pytest.mark.parametrize("there", [None, "", "[", "[]", "services:", "services: [1]", "a: b"])
def test_on_a_new_machine_the_file_grows_by_one_engine_after_the_other(there: str | None) -> None:
    first = served.amended(BEFORE, "one", ("other",), there, {})
    assert list(first["services"]) == ["one"]
    assert first.keys() == BEFORE.keys()
    assert list(served.amended(BEFORE, "two", (), _file(first), {})["services"]) == ["one", "two"]


def test_an_engine_that_is_retired_is_in_the_file_no_more() -> None:
    without = {**BEFORE, "services": {"one": BEFORE["services"]["one"]}}
    assert served.amended(without, "one", (), _file(BEFORE), _records(BEFORE)) == without


def test_a_record_of_the_same_engine_as_a_service_of_the_machine_defines_no_container() -> None:
    records = {"other": Served("f", {}, None, {}).text, "two": "spoilt"}
    assert list(served.amended(BEFORE, "one", (), None, records)["services"]) == ["one"]


def test_what_defines_the_engines_of_a_machine_is_read_in_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "COMPOSE_FILE", f"{tmp_path}/compose.yaml")
    monkeypatch.setattr(facts, "FOLDER", f"{tmp_path}/served")
    assert Here().get_fact(facts.Definitions) == facts.Defined()
    record = tmp_path / "served" / "one.json"
    record.parent.mkdir()
    record.write_text('{"a": "ü"}\n')
    (tmp_path / "compose.yaml").write_text("name: rig\n")
    assert Here().get_fact(facts.Definitions) == facts.Defined("name: rig\n", {"one": '{"a": "ü"}\n'})


def test_a_service_of_the_machine_gets_its_files_back() -> None:
    files = {"/etc/systemd/system/rig-native@two.service.d/engine.conf": "[Service]\n"}
    assert Served("f", {}, None, files).restored("two", None) == files


def test_no_key_is_kept() -> None:
    record, _ = _record({})
    assert "${RIG_KEY_ONE:?" in record.text

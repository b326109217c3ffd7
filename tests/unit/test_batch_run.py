"""Batches from upload to files, with a scripted engine and the server as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.batching import Client, ScriptedEngine, Server, jsonl, line


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


@pytest.fixture
def client(engine: ScriptedEngine, tmp_path: Path) -> Iterator[Client]:
    with Server(tmp_path, engine.settings()).running() as server:
        yield Client(server.url)


def test_every_line_is_answered_once(client: Client, engine: ScriptedEngine) -> None:
    names = [f"line-{number}" for number in range(200)]
    batch = client.ended(client.create(jsonl(*map(line, names))))
    assert batch["status"] == "completed"
    output, error = client.results(batch)
    assert {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in output} == {
        name: name for name in names
    }
    assert error == [] and batch["error_file_id"] is None
    assert engine.seen == dict.fromkeys(names, 1)

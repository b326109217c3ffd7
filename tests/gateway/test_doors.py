"""The doors: who gets in, and by which paths."""

from __future__ import annotations

from tests.gateway.door import Door
from tests.gateway.scripted import Engine


def test_key_opens_the_engine_of_the_model_and_the_engine_gets_its_own(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answer = gate.ask(key)
    assert answer.status == 200, answer.body
    assert answer.headers["x-rig-engine"] == "one"
    (request,) = engines["one"].requests
    assert request.path == "/v1/chat/completions"
    assert request.all("authorization") == ["Bearer key-of-one"]

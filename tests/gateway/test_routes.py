"""Which engine answers: by path, by model, by weight, and when one is down."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest

from rigd.gateway import draining
from tests.gateway.conftest import Open
from tests.gateway.door import CHAT, Answer, Door, until
from tests.gateway.scripted import Engine

ONE, TWO = "llama-3.3-70b-q4", "llama-3.1-8b-q4"
"""The models of the engines `one` and `two`."""


def models(gate: Door, key: str, path: str = "/v1/models") -> list[str]:
    return [model["id"] for model in gate.ask(key, path, method="GET").json["data"]]


def padded(model: str | None, size: int, first: bool = False) -> bytes:
    """A request whose prompt has `size` letters, with the model behind or before it."""
    messages = [{"role": "user", "content": "x" * size}]
    named = {} if model is None else {"model": model}
    return json.dumps(named | {"messages": messages} if first else {"messages": messages} | named).encode()


def test_model_in_the_body_chooses_the_engine(gate: Door) -> None:
    key = gate.key("alice")
    for model, engine in ((ONE, "one"), (TWO, "two")):
        assert gate.ask(key, body={"messages": [], "model": model}).headers["x-rig-engine"] == engine


def test_engine_in_the_path_is_the_engine_whatever_the_body_says(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answer = gate.ask(key, "/engines/two/v1/chat/completions", body={"model": ONE})
    assert answer.headers["x-rig-engine"] == "two"
    assert [request.path for request in engines["two"].requests] == [CHAT]


@pytest.mark.parametrize("size", [1000, 100_000, 200_000])
def test_model_behind_a_long_prompt_is_seen(gate: Door, size: int) -> None:
    key = gate.key("alice")
    assert gate.ask(key, body=padded(TWO, size)).headers["x-rig-engine"] == "two"


def test_model_that_is_out_of_sight_is_refused_with_the_way_out(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answer = gate.ask(key, body=padded(TWO, 400_000))
    assert (answer.status, answer.code) == (400, "model_not_seen")
    assert "/engines/NAME/v1" in answer.json["error"]["message"]
    # Both ways that it names.
    assert gate.ask(key, body=padded(TWO, 400_000, first=True)).headers["x-rig-engine"] == "two"
    assert gate.ask(key, "/engines/two/v1/chat/completions", body=padded(TWO, 3_000_000)).status == 200
    assert [request.size > 400_000 for request in engines["two"].requests] == [True, True]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "model_missing"),
        (b"not json", "model_missing"),
        (b'{"model": 5}', "model_not_found"),
        (b'{"model": "gpt-5"}', "model_not_found"),
        (b'{"mod\\u0065l": "llama-3.1-8b-q4"}', "model_missing"),
    ],
)
def test_request_without_a_model_that_is_served_here_goes_to_nobody(gate: Door, body: bytes, code: str) -> None:
    answer = gate.ask(gate.key("alice"), body=body)
    assert (answer.status, answer.code) == (404 if code == "model_not_found" else 400, code)


def test_key_reaches_only_its_engines_and_sees_only_their_models(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice", engines=",two,")
    assert models(gate, key) == [TWO]
    assert models(gate, key, "/engines/one/v1/models") == []
    assert gate.ask(key, f"/v1/models/{TWO}", method="GET").json["id"] == TWO
    assert gate.ask(key, f"/v1/models/{ONE}", method="GET").code == "model_not_found"
    assert gate.ask(key, body={"model": ONE}).code == "model_not_found"
    assert gate.ask(key, "/engines/one/v1/completions", body={"model": TWO}).code == "not_allowed"
    # The model is no permission: of two names, the gateway and the engine may each take another one.
    assert gate.ask(key, body=b'{"model": "llama-3.1-8b-q4", "model": "llama-3.3-70b-q4"}').status == 200
    assert engines["one"].requests == []


def test_list_has_the_models_of_engines_that_run(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    assert models(gate, key) == [ONE, TWO]
    engines["one"].healthy = False
    until(lambda: models(gate, key) == [TWO])
    engines["one"].healthy = True
    until(lambda: models(gate, key) == [ONE, TWO])


def test_engine_that_is_down_is_503_in_json_and_back_as_soon_as_it_answers(
    gate: Door, engines: dict[str, Engine]
) -> None:
    key = gate.key("alice")
    engines["one"].kill()
    answer = gate.ask(key)
    assert (answer.status, answer.code) == (503, "engine_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert gate.ask(key, body={"model": TWO}).status == 200
    until(lambda: models(gate, key) == [TWO])
    engines["one"].start()
    begin = time.monotonic()
    until(lambda: gate.ask(key).status == 200)
    assert time.monotonic() - begin < 5


def test_fallback_takes_over_without_an_error(opened: Open, engines: dict[str, Engine]) -> None:
    gate = opened({"gateway/fallbacks": {"one": "two"}})
    key = gate.key("alice")
    assert gate.ask(key).headers["x-rig-engine"] == "one"
    engines["one"].kill()
    answers = [gate.ask(key) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["x-rig-engine"] == "two"
    assert {tuple(request.all("authorization")) for request in engines["two"].requests} == {("Bearer key-of-two",)}
    assert gate.logged(answers[-1])["engine"] == "two"
    # A key that may not use the fallback gets no answer from it.
    assert gate.ask(gate.key("bob", engines=",one,")).status == 503
    engines["one"].start()
    until(lambda: gate.ask(key).headers["x-rig-engine"] == "one")


def test_requests_are_divided_by_weight_and_say_which_variant_they_got(opened: Open) -> None:
    gate = opened({"gateway/routes": {"chat": {"one": 3, "two": 1}}})
    key = gate.key("alice")
    assert "chat" in models(gate, key)
    answers = [gate.ask(key, body={"model": "chat"}) for _ in range(80)]
    found = Counter(answer.headers["x-rig-variant"] for answer in answers)
    # 60 of 80 are expected; five standard deviations to both sides.
    assert 41 <= found["one"] <= 79, found
    assert all(answer.headers["x-rig-engine"] == answer.headers["x-rig-variant"] for answer in answers)
    line = gate.logged(answers[0])
    assert (line["variant"], line["asked"]) == (answers[0].headers["x-rig-variant"], "chat")
    assert "x-rig-variant" not in gate.ask(key).headers


def test_variant_that_is_down_leaves_its_share_to_the_others(opened: Open, engines: dict[str, Engine]) -> None:
    gate = opened({"gateway/routes": {"chat": {"one": 256, "two": 1}}})
    key = gate.key("alice")
    engines["one"].kill()
    until(lambda: models(gate, key, "/engines/one/v1/models") == [])
    assert {gate.ask(key, body={"model": "chat"}).status for _ in range(10)} == {200}


def test_prompt_that_an_engine_cannot_take_takes_it_from_nobody_else(gate: Door) -> None:
    alice, bob = gate.key("alice"), gate.key("bob")
    for _ in range(100):
        assert gate.ask(alice, body={"model": ONE, "status": 500}).status == 500
    assert gate.ask(bob).status == 200


def test_client_that_leaves_ends_the_engines_work(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    with pytest.raises(TimeoutError):
        gate.ask(key, body={"model": ONE, "hold": True}, timeout=0.5)
    until(lambda: engines["one"].left == [CHAT], seconds=3)


def test_engine_killed_in_the_middle_cuts_only_what_it_was_answering(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answers: list[Answer] = []
    other = threading.Thread(
        target=lambda: answers.append(gate.ask(key, body={"model": TWO, "events": 20, "gap": 0.05}))
    )
    other.start()
    engines["one"].kill()
    other.join(20)
    assert answers[0].body.endswith(b"data: [DONE]\n\n")


def test_pattern_flags_a_request_and_refuses_it_only_where_the_settings_say_so(opened: Open) -> None:
    patterns = [{"name": "override", "regex": "(?i)ignore (all )?previous #1"}, {"name": "other", "regex": "zzz"}]
    for block in (False, True):
        gate = opened({"gateway/input/patterns": patterns, "gateway/input/block": block})
        key = gate.key("alice")
        body = {"model": ONE, "messages": [{"content": "Please IGNORE all previous #1"}]}
        for path in (CHAT, "/engines/one/v1/completions"):
            flagged = gate.ask(key, path, body=body)
            assert flagged.status == (400 if block else 200)
            assert flagged.headers["x-rig-flag"] == "override"
            assert gate.logged(flagged)["flag"] == "override"
        fine = gate.ask(key)
        assert fine.status == 200
        assert "x-rig-flag" not in fine.headers
        assert gate.logged(fine)["flag"] == ""


def test_engine_that_is_to_stop_finishes_its_answers_and_gets_no_new_requests(
    opened: Open, engines: dict[str, Engine]
) -> None:
    gate = opened({"gateway/fallbacks": {"one": "two"}})
    admin, alice, bob = str(gate.folder / "admin.sock"), gate.key("alice"), gate.key("bob", engines=",one,")
    held: list[Answer] = []
    body = {"messages": [], "model": ONE, "hold": True}
    waiting = [threading.Thread(target=lambda key=key: held.append(gate.ask(key, body=body))) for key in (alice, bob)]
    for thread in waiting:
        thread.start()
    until(lambda: draining.in_progress(admin, "one") == 2)
    draining.hold(admin, "one")
    # A key that may use the fallback gets it; any other gets the time of its next attempt.
    assert gate.ask(alice).headers["x-rig-engine"] == "two"
    refused = gate.ask(bob)
    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    engines["one"].release.set()
    for thread in waiting:
        thread.join(20)
    assert [answer.status for answer in held] == [200, 200]
    assert draining.in_progress(admin, "one") == 0
    draining.release(admin, "one")
    until(lambda: gate.ask(bob).status == 200)

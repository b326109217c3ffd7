"""The log: a line of JSON for each request, which counts tokens and holds no text."""

from __future__ import annotations

import json

import pytest

from rig.gateway.log import FIELDS
from tests.gateway.door import CHAT, Door, until
from tests.gateway.scripted import Engine, completion

ONE = "llama-3.3-70b-q4"
CANARY = "canary-of-a-prompt"


def stream(last: str | None, **more: object) -> dict[str, object]:
    """A request for a stream whose last event is this one."""
    return {"model": ONE, "events": 3, **({} if last is None else {"last": last}), **more}


USAGE = '{"choices":[],"usage":{"completion_tokens":22,"prompt_tokens":11,"total_tokens":33}}'
TIMINGS = '{"choices":[],"timings":{"cache_n":4,"prompt_n":7,"prompt_ms":1.5,"predicted_n":22,"predicted_ms":9.1}}'
LIE = '"prompt_tokens": 999, "completion_tokens": 999, "predicted_n": 999'


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"model": ONE}, (11, 22, "counted")),
        ({"model": ONE, "answer": completion(LIE, 11, 22)}, (11, 22, "counted")),
        ({"model": ONE, "answer": completion("x" * 300_000, 11, 22)}, (11, 22, "counted")),
        ({"model": ONE, "answer": json.dumps({**json.loads(USAGE), "text": LIE})}, (11, 22, "counted")),
        ({"model": ONE, "answer": '{"usage":{"input_tokens":11,"output_tokens":22}}'}, (11, 22, "counted")),
        ({"model": ONE, "answer": '{"data":[],"usage":{"prompt_tokens":11}}'}, (11, None, "counted")),
        ({"model": ONE, "answer": "{}"}, (None, None, "not reported")),
        (stream(USAGE), (11, 22, "counted")),
        (stream(TIMINGS), (11, 22, "counted")),
        (stream(None), (None, None, "not reported")),
    ],
)
def test_tokens_are_counted_or_it_is_said_why_not(
    gate: Door, body: dict[str, object], tokens: tuple[object, ...]
) -> None:
    line = gate.logged(gate.ask(gate.key("alice"), body=body))
    assert (line["prompt_tokens"], line["completion_tokens"], line["tokens"]) == tokens


def test_line_names_client_model_and_engine(gate: Door, engines: dict[str, Engine]) -> None:
    answer = gate.ask(gate.key("alice"), headers=[("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")])
    line = gate.logged(answer)
    assert list(line) == list(FIELDS)
    expected = {
        **{"client": "alice", "method": "POST", "path": CHAT, "status": 200, "engine": "one", "asked": ONE},
        **{"served": "scripted", "variant": None, "limit": "none", "flag": "", "termination": "--", "trace": "a" * 32},
    }
    assert {key: line[key] for key in expected} == expected
    assert line["bytes"] >= len(answer.body)
    assert 0 <= line["first_byte_ms"] <= line["total_ms"] + 1
    assert line["time"].endswith("Z")


def test_limits_and_refusals_are_in_the_log(gate: Door) -> None:
    key = gate.key("alice", rate=6, burst=1)
    lines = [gate.logged(gate.ask(key)), gate.logged(gate.ask(key)), gate.logged(gate.ask("wrong"))]
    assert [(line["client"], line["status"], line["limit"]) for line in lines] == [
        ("alice", 200, "none"),
        ("alice", 429, "rate"),
        (None, 401, "none"),
    ]


def test_answer_that_was_broken_off_has_no_tokens(gate: Door, engines: dict[str, Engine]) -> None:
    with pytest.raises(TimeoutError):
        gate.ask(gate.key("alice"), body=stream(USAGE, gap=1), timeout=0.5)
    line = until(lambda: next((line for line in gate.lines() if line["client"] == "alice"), None))
    assert (line["tokens"], line["completion_tokens"]) == ("cut", None)
    assert line["termination"] != "--"


@pytest.mark.parametrize(
    "junk", ['"', "\\", "\\u0000", "%", "%[var(txn.id)]", "\x01", "\x7f", "'", "{", "\u2028", "x" * 3000]
)
def test_every_line_is_json_whatever_a_client_sends(gate: Door, junk: str) -> None:
    key = gate.key("alice")
    raw = junk.encode()
    for head in (
        b"POST /v1/chat/completions?" + raw + b" HTTP/1.1\r\nHost: x\r\n",
        b"POST /" + raw + b" HTTP/1.1\r\nHost: x\r\n",
        b"X" + raw + b" / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: " + raw + b"\r\nX-Request-Id: " + raw + b"\r\n",
    ):
        gate.raw(head + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", timeout=3)
    gate.ask(key, body=json.dumps({"model": junk}).encode())
    gate.ask(key, body=json.dumps({"model": ONE, "answer": json.dumps({"model": junk, "usage": junk})}).encode())
    last = gate.ask(key)
    gate.logged(last)
    assert all(list(line) == list(FIELDS) for line in gate.lines())
    assert [notice for notice in gate.notices() if notice.endswith("}")] == []


def test_no_text_of_prompts_answers_or_keys_gets_into_the_log(gate: Door) -> None:
    key = gate.key("alice")
    body = {"model": ONE, "messages": [{"content": CANARY}], "answer": completion(CANARY, 1, 1)}
    last = gate.ask(key, f"{CHAT}?{CANARY}", body=body, headers=[("User-Agent", CANARY)])
    gate.ask(key, "/engines/one/v1/completions", body=stream(json.dumps({"x": CANARY})))
    gate.logged(last)
    written = "\n".join([*map(json.dumps, gate.lines()), *gate.notices()])
    assert CANARY not in written
    assert key not in written
    assert "key-of-one" not in written

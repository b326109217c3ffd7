"""Clients as they come from their makers: the official one of OpenAI's, unmodified, and curl."""

from __future__ import annotations

import json
import subprocess
import time

import openai
import pytest

from tests.gateway.door import CHAT, Door, until
from tests.gateway.scripted import Engine

MODEL = "llama-3.3-70b-q4"
"""Of the engine `one`."""
HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


def client(gate: Door, key: str, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"http://127.0.0.1:{gate.port}/v1", max_retries=retries, timeout=30)


def test_official_client_gets_an_answer_with_its_usage_and_the_id_of_its_request(gate: Door) -> None:
    answer = client(gate, gate.key("alice")).chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == "hello"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 22)
    assert answer._request_id in {line["id"] for line in until(gate.lines)}


def test_official_client_lists_the_models_of_its_key(gate: Door) -> None:
    key = gate.key("alice", engines=",one,")
    until(lambda: client(gate, key).models.list().data)
    assert [model.id for model in client(gate, key).models.list()] == [MODEL]
    assert client(gate, key).models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="no engine serves this model to this key now"):
        client(gate, key).models.retrieve("llama-3.1-8b-q4")


def test_official_client_reads_a_stream_event_by_event_to_its_end(gate: Door) -> None:
    stream = client(gate, gate.key("alice")).chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, extra_body={"events": 5, "gap": 0.1}
    )
    came = [time.monotonic() for _ in stream]
    assert len(came) == 5
    # One heap at the end would come at one time.
    assert came[-1] - came[0] > 0.2


def test_official_client_knows_each_refusal_by_its_own_class_and_code(gate: Door) -> None:
    key = gate.key("alice", engines=",one,")
    with pytest.raises(openai.AuthenticationError) as wrong:
        client(gate, "rig-wrong").chat.completions.create(model=MODEL, messages=HELLO)
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as absent:
        client(gate, key).chat.completions.create(model="gpt-5", messages=HELLO)
    assert absent.value.code == "model_not_found"
    by_path = client(gate, key).with_options(base_url=f"http://127.0.0.1:{gate.port}/engines/two/v1")
    with pytest.raises(openai.PermissionDeniedError) as other:
        by_path.chat.completions.create(model=MODEL, messages=HELLO)
    assert other.value.code == "not_allowed"


def test_official_client_waits_out_the_limit_by_itself_and_loses_nothing(gate: Door) -> None:
    key = gate.key("alice", rate=60, burst=1)
    with pytest.raises(openai.RateLimitError):
        for _ in range(2):
            client(gate, key).chat.completions.create(model=MODEL, messages=HELLO)
    patient = client(gate, key, retries=2)
    answers = [patient.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(3)]
    assert [answer.choices[0].message.content for answer in answers] == ["hello"] * 3


def test_official_client_gets_503_while_the_engine_is_down_and_an_answer_afterwards(
    gate: Door, engines: dict[str, Engine]
) -> None:
    key = gate.key("alice")
    engines["one"].kill()
    with pytest.raises(openai.InternalServerError) as down:
        client(gate, key).chat.completions.create(model=MODEL, messages=HELLO)
    assert (down.value.status_code, down.value.code) == (503, "engine_unavailable")
    assert down.value.response.headers["retry-after"] == "10"
    engines["one"].start()
    until(lambda: gate.ask(key).status == 200)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_curl_gets_an_answer_by_every_version_of_http(gate: Door, version: str) -> None:
    question = json.dumps({"model": MODEL, "messages": HELLO})
    address = f"http://127.0.0.1:{gate.port}{CHAT}"
    done = subprocess.run(
        ["curl", "--silent", "--fail-with-body", version, "--config", "-", "--data", question, address],
        # Not an argument, which everybody on the machine could read.
        input=f'header = "Authorization: Bearer {gate.key("alice")}"\n',
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "hello"

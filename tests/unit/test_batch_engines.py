"""Engines in trouble: dispatch pauses and goes on by itself, no line is charged for it, and each line ends once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiohttp import web

from rigd.batch.answers import Answer, Trouble, answer_line, error_line, judge
from rigd.batch.calls import with_priority
from rigd.batch.config import Config, Limits
from rigd.batch.lanes import Lane, Work
from rigd.batch.pace import Pace
from rigd.batch.store import Pending, Store
from tests.unit.batching import CHAT, Client, ScriptedEngine, Server, answer, jsonl, line, until

NAMES = [f"line-{number}" for number in range(40)]
Script = Callable[[web.Request, dict[str, Any], str], Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = Limits(answer_bytes=1 << 20)
    settings = engine.settings(timeout=1.0)
    with Server(tmp_path_factory.mktemp("server"), settings, limits=limits, grace=0.5).running() as running:
        yield running


@pytest.fixture
def client(server: Server, engine: ScriptedEngine) -> Iterator[Client]:
    engine.script, engine.models, engine.delay = None, ("m",), 0.0
    engine.seen.clear()
    engine.order.clear()
    engine.bodies.clear()
    engine.most = 0
    yield Client(server.url)
    engine.script = None


def first(count: int, reply: Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]) -> Script:
    """The first requests get this, all others an ordinary answer."""
    left = [count]

    def script(request: web.Request, _body: dict[str, Any], _name: str) -> Any:
        left[0] -= 1
        return reply(request) if left[0] >= 0 else None

    return script


def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_in_the_answer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(request)
    await response.write(b'{"id":')
    assert request.transport is not None
    request.transport.abort()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 100_000)


async def hang(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def status(number: int, body: Any = None, **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _request: web.json_response(body or {"error": {"message": "no"}}, status=number, headers=headers)


TROUBLES: dict[str, Callable[[web.Request], Any]] = {
    "429": status(429),
    "429 with Retry-After": status(429, **{"Retry-After": "0.1"}),
    "500": status(500),
    "502 with a page": lambda _request: web.Response(status=502, text="<html>Bad Gateway</html>"),
    "503": status(503),
    "connection cut": cut,
    "answer cut": cut_in_the_answer,
    "answer without end": endless,
    "no answer in time": hang,
    "200 with an error": status(200, {"error": {"message": "CUDA error"}}),
    "200 with an error of SGLang's": status(200, {"object": "error", "message": "busy", "code": 503}),
    "200 with no JSON": lambda _request: web.Response(text="data: {}"),
    "key refused": status(401),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_no_line_is_charged_for_the_engines_trouble(name: str, client: Client, engine: ScriptedEngine) -> None:
    engine.script = first(5, TROUBLES[name])
    batch = client.ended(client.create(jsonl(*map(line, NAMES))))
    output, error = client.results(batch)
    assert (batch["status"], error, len(output)) == ("completed", [], len(NAMES))
    assert sum(engine.seen.values()) == len(NAMES) + 5


def test_an_engine_that_is_gone_is_waited_for(client: Client, engine: ScriptedEngine) -> None:
    engine.delay = 0.02
    identity = client.create(jsonl(*map(line, NAMES)))
    until(lambda: len(engine.seen) > 10)
    engine.down()
    done = until(lambda: client.batch(identity)["request_counts"]["completed"])
    assert client.batch(identity)["status"] == "in_progress" and done < len(NAMES)
    engine.up()
    output, error = client.results(client.ended(identity))
    assert (len(output), error) == (len(NAMES), [])


def test_nothing_is_sent_to_another_model_behind_the_port(client: Client, engine: ScriptedEngine) -> None:
    engine.delay = 0.02
    identity = client.create(jsonl(*map(line, NAMES)))
    until(lambda: len(engine.seen) > 10)
    # Switched: the next engine on this port answers whatever it is asked.
    engine.down()
    engine.models = ("other",)
    engine.script = lambda _request, _body, name: web.json_response(answer(name, "other"))
    seen = engine.seen.total()
    engine.up()
    probes = [client.batch(identity)["request_counts"]["completed"] for _ in range(10)]
    # Lines that were on their way meanwhile come to the wrong model, and their answers do not count.
    assert engine.seen.total() - seen <= engine.settings().concurrency and max(probes) < len(NAMES)
    engine.down()
    engine.models, engine.script = ("m",), None
    engine.up()
    output, _ = client.results(client.ended(identity))
    assert {each["response"]["body"]["model"] for each in output} == {"m"} and len(output) == len(NAMES)


def test_a_line_that_kills_the_engine_is_isolated_after_three_deaths(client: Client, engine: ScriptedEngine) -> None:
    beside: list[int] = []

    def script(request: web.Request, _body: dict[str, Any], name: str) -> web.StreamResponse | None:
        if name != "line-7":
            return None
        beside.append(engine.flight - 1)
        return cut(request)

    engine.script = script
    engine.delay = 0.01
    output, error = client.results(client.ended(client.create(jsonl(*map(line, NAMES)))))
    assert [(each["custom_id"], each["response"], each["error"]["code"]) for each in error] == [
        ("line-7", None, "engine_died")
    ]
    assert len(output) == len(NAMES) - 1
    assert len(beside) == engine.seen["line-7"] == 3 and beside[1:] == [0, 0]


def test_a_line_without_end_is_given_up_and_the_others_finish(client: Client, engine: ScriptedEngine) -> None:
    engine.script = lambda request, _body, name: hang(request) if name == "line-7" else None
    output, error = client.results(client.ended(client.create(jsonl(*map(line, NAMES)))))
    assert [(each["custom_id"], each["error"]["code"]) for each in error] == [("line-7", "request_timeout")]
    assert len(output) == len(NAMES) - 1


def test_a_line_that_always_fails_gets_the_engines_answer(client: Client, engine: ScriptedEngine) -> None:
    engine.script = lambda request, _body, name: status(500)(request) if name == "line-7" else None
    output, error = client.results(client.ended(client.create(jsonl(*map(line, NAMES)))))
    assert [(each["custom_id"], each["response"]["status_code"], each["error"]) for each in error] == [
        ("line-7", 500, None)
    ]
    assert len(output) == len(NAMES) - 1


OVERFLOW = {
    "error": {"code": 400, "message": "the request exceeds the context size", "type": "exceed_context_size_error"}
}


def test_a_prompt_over_the_context_is_that_lines_error(client: Client, engine: ScriptedEngine) -> None:
    engine.script = lambda request, _body, name: status(400, OVERFLOW)(request) if name == "line-7" else None
    output, error = client.results(client.ended(client.create(jsonl(*map(line, NAMES)))))
    assert len(output) == len(NAMES) - 1 and engine.seen["line-7"] == 1
    assert error[0]["response"]["body"] == OVERFLOW and error[0]["error"] is None


def test_a_batch_of_which_all_lines_fail_is_completed(client: Client, engine: ScriptedEngine) -> None:
    engine.script = lambda request, _body, _name: status(400)(request)
    batch = client.ended(client.create(jsonl(*map(line, NAMES))))
    output, error = client.results(batch)
    assert (batch["status"], batch["output_file_id"], output, len(error)) == ("completed", None, [], len(NAMES))
    assert batch["usage"]["total_tokens"] == 0


def test_a_cancelled_batch_keeps_what_is_finished(client: Client, engine: ScriptedEngine) -> None:
    asked: list[bool] = []

    async def script(request: web.Request, _body: dict[str, Any], name: str) -> web.StreamResponse | None:
        # Of those in flight, one comes within the grace.
        place = engine.order.index(name)
        while place == 10 and not asked:
            await asyncio.sleep(0.005)
        return await hang(request) if place > 10 else None

    engine.script = script
    identity = client.create(jsonl(*map(line, NAMES)))
    until(lambda: len(engine.order) > 11)
    found = client.call("POST", f"/batches/{identity}/cancel").json()
    asked.append(True)
    assert found["status"] == "cancelling" and found["cancelling_at"] is not None
    assert client.call("POST", f"/batches/{identity}/cancel").json()["cancelling_at"] == found["cancelling_at"]
    batch = client.ended(identity)
    output, error = client.results(batch)
    assert batch["status"] == "cancelled" and batch["cancelled_at"] >= batch["cancelling_at"]
    assert {each["error"]["code"] for each in error} == {"batch_cancelled"}
    assert {each["custom_id"] for each in output + error} == set(NAMES)
    assert {each["custom_id"] for each in output} == set(engine.order[:11])
    assert client.call("POST", f"/batches/{identity}/cancel").json() == batch


def test_an_expired_batch_keeps_what_is_finished(client: Client, engine: ScriptedEngine) -> None:
    engine.script = lambda request, _body, name: hang(request) if engine.order.index(name) >= 20 else None
    batch = client.ended(client.create(jsonl(*map(line, NAMES)), window="2s"))
    output, error = client.results(batch)
    assert batch["status"] == "expired" and batch["expired_at"] >= batch["expires_at"]
    assert {each["error"]["code"] for each in error} == {"batch_expired"}
    assert {each["custom_id"] for each in output} == set(engine.order[:20])


class Lines:
    """A store with one line that has been struck, so that it is sent alone."""

    def pending(self, batch: int, models: tuple[str, ...], after: int, most: int) -> list[Pending]:
        return [Pending(1, "one", "m", 0, 2, b"", 1)] if after == 0 else []


def test_a_line_that_is_cancelled_before_it_is_begun_does_not_hold_its_lane(engine: ScriptedEngine) -> None:
    async def cancelled_at_once() -> tuple[int, int]:
        config = Config("/nowhere", (engine.settings(),))
        lane = Lane(config.engines[0], config, cast("Store", Lines()), lambda: None, lambda _: None)
        lane.paused = None
        work = Work(1, "batch", "alice", CHAT, 1, lambda _: b"{}", lambda: None)
        lane.add(work)
        running = asyncio.create_task(lane.run())
        # Each turn of the loop comes before the first step of a task that the lane has made in the turn before.
        while not work.tasks:
            await asyncio.sleep(0)
        (task,) = work.tasks
        work.stopped = True
        task.cancel()
        await asyncio.wait([task], timeout=10)
        await asyncio.sleep(0)
        running.cancel()
        return work.out, lane.flight

    assert asyncio.run(cancelled_at_once()) == (0, 0)


def test_a_batch_of_several_models_uses_their_engines(engine: ScriptedEngine, client: Client, tmp_path: Path) -> None:
    with ScriptedEngine(models=("other",)).running() as second:
        engines = (engine.settings(), replace(second.settings(), name="second"))
        with Server(tmp_path, *engines).running() as server:
            own = Client(server.url)
            lines = [line(name, model=("m", "other")[place % 2]) for place, name in enumerate(NAMES)]
            batch = own.ended(own.create(jsonl(*lines)))
            assert batch["model"] is None and len(own.results(batch)[0]) == len(NAMES)
        assert set(engine.seen) == set(NAMES[::2]) and set(second.seen) == set(NAMES[1::2])


def test_the_engine_never_gets_more_than_its_most_at_a_time(client: Client, engine: ScriptedEngine) -> None:
    engine.delay = 0.02
    client.ended(client.create(jsonl(*map(line, NAMES))))
    assert engine.most == 8


def test_lines_with_one_beginning_follow_each_other(client: Client, engine: ScriptedEngine) -> None:
    def messages(name: str, system: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}, {"role": "user", "content": name}]

    lines = [line(name, messages=messages(name, str(place % 4))) for place, name in enumerate(NAMES)]
    client.ended(client.create(jsonl(*lines)))
    beginnings = [json.loads(body)["messages"][0]["content"] for body in engine.bodies]
    changes = sum(one != two for one, two in pairwise(beginnings))
    # Eight are on the way at a time, and may overtake each other; in the file's order it would be 39.
    assert Counter(beginnings) == dict.fromkeys("0123", 10) and changes <= 20


def test_the_pace_is_halved_by_an_overload_and_grows_by_one_a_round() -> None:
    pace = Pace(8, first_pause=0.5)
    assert [pace.overload() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pace.limit == 1
    limits = []
    for _ in range(40):
        pace.success()
        limits.append(pace.limit)
    assert limits[0] == 2 and limits[3] == 3 and limits[-1] == 8 and limits == sorted(limits)
    assert pace.failure() == 0.5


@pytest.mark.parametrize(
    "body", [b'{"model":"m"}', b'{"priority": -9, "model":"m"}', b'{"\\u0070riority":-9,"model":"m"}']
)
def test_a_client_cannot_overrule_the_batches_priority(body: bytes) -> None:
    assert json.loads(with_priority(body, 7), object_pairs_hook=list) in (
        [["model", "m"], ["priority", 7]],
        [("priority", 7), ("model", "m")],
        [("model", "m"), ("priority", 7)],
    )


def test_an_answer_keeps_its_bytes_in_one_line() -> None:
    raw = b'{"a": 12345678901234567890123, "b": 0.10000000000000000555, "model": "m"}'
    found = judge(200, raw)
    assert isinstance(found, Answer) and found.body == raw
    pretty = judge(200, b'{\n "a": "x\\ny"\n}')
    assert isinstance(pretty, Answer) and pretty.body == b'{"a":"x\\ny"}'
    surrogate = judge(200, b'{"a": "\\ud83d"}')
    assert isinstance(surrogate, Answer) and json.loads(surrogate.body) == {"a": "\ud83d"}
    for found in (judge(200, raw), pretty, surrogate):
        assert isinstance(found, Answer)
        text = answer_line("ü\n", found)
        assert text.count(b"\n") == 1 and json.loads(text)["custom_id"] == "ü\n"
    assert orjson.loads(error_line("a", "c", "m"))["error"] == {"code": "c", "message": "m"}


def test_every_error_in_the_error_file_has_the_interfaces_shape() -> None:
    for content in (b"", b"<html>", b"[1]", b"\xff", b'{"detail": "x"}'):
        found = judge(422, content)
        assert isinstance(found, Answer) and not found.good
        assert orjson.loads(found.body)
    inner = judge(200, b'{"object":"error","message":"too long","code":400}')
    assert isinstance(inner, Answer) and inner.status == 400
    assert isinstance(judge(200, b'{"error":"CUDA error"}'), Trouble)

"""Streams: they pass event by event, and a reload or a change of keys cuts none."""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import threading
import time

from tests.gateway.door import CHAT, Answer, Door, until
from tests.gateway.scripted import Engine

ONE = "llama-3.3-70b-q4"


def arrivals(port: int, key: str, events: int, gap: float) -> list[float]:
    """Seconds between the events of a stream, as they arrive."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"model": ONE, "events": events, "gap": gap})
    connection.request("POST", CHAT, body, {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    seen = []
    while line := answer.readline():
        if line.startswith(b"data: {"):
            seen.append(time.monotonic())
    connection.close()
    return [after - before for before, after in itertools.pairwise(seen)]


def test_events_of_a_stream_arrive_one_by_one(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    through, direct = arrivals(gate.port, key, 40, 0.02), arrivals(engines["one"].port, key, 40, 0.02)
    assert len(through) == len(direct) == 39
    # Held back, most of them would come at once.
    assert statistics.median(through) > 0.015


def test_reload_and_changes_of_keys_cut_no_stream_and_fail_no_request(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answers: list[Answer] = []
    body = {"model": ONE, "events": 30, "gap": 0.1}
    streams = [threading.Thread(target=lambda: answers.append(gate.ask(key, body=body))) for _ in range(100)]
    for thread in streams:
        thread.start()
    until(lambda: len(engines["one"].requests) == 100)
    short = []
    for number in range(3):
        gate.reload()
        gate.key(f"other-{number}")
        short += [gate.ask(key).status for _ in range(20)]
    for thread in streams:
        thread.join(30)
    assert short == [200] * 60
    assert [answer.body.endswith(b"data: [DONE]\n\n") for answer in answers] == [True] * 100


def test_revoked_key_is_refused_at_once_and_its_stream_goes_on_to_its_end(
    gate: Door, engines: dict[str, Engine]
) -> None:
    key, other = gate.key("alice"), gate.key("bob")
    answers: list[Answer] = []
    body = {"model": ONE, "events": 10, "gap": 0.1}
    stream = threading.Thread(target=lambda: answers.append(gate.ask(key, body=body)))
    stream.start()
    until(lambda: engines["one"].requests)
    gate.keys = {digest: record for digest, record in gate.keys.items() if not record.startswith("alice|")}
    gate.load_keys()
    assert gate.ask(key).status == 401
    assert gate.ask(other).status == 200
    stream.join(20)
    assert answers[0].body.endswith(b"data: [DONE]\n\n")
    # Also for the process that comes after a reload.
    gate.reload()
    assert [gate.ask(key).status, gate.ask(other).status] == [401, 200]


def test_configuration_that_haproxy_refuses_leaves_the_gateway_as_it_is(gate: Door) -> None:
    key = gate.key("alice")
    path = gate.folder / "haproxy.cfg"
    path.write_text(path.read_text() + "\nnonsense\n")
    assert gate.check().returncode != 0
    assert gate.ask(key).status == 200

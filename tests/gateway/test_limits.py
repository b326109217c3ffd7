"""Limits: each key has its own, they hold over a reload, and nobody is locked out by others."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.gateway.conftest import Open
from tests.gateway.door import Answer, Door, until
from tests.gateway.scripted import Engine


@pytest.mark.parametrize(("rate", "burst"), [(600, 60), (60, 6), (6, 1)])
def test_hammering_client_gets_its_rate_and_its_burst_and_no_more(gate: Door, rate: int, burst: int) -> None:
    key = gate.key("alice", rate=rate, burst=burst)
    begin = time.monotonic()
    answers = []
    while time.monotonic() - begin < 5:
        answers.append(gate.ask(key, "/v1/models", method="GET"))
    passed = [answer for answer in answers if answer.status == 200]
    wanted = burst + (time.monotonic() - begin) * rate / 60
    assert abs(len(passed) - wanted) <= 1 + rate / 600, (len(passed), wanted)
    refused = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.code) for answer in refused} == {(429, "rate_limit_exceeded")}
    assert all(1 <= int(answer.headers["retry-after"]) <= 120 for answer in refused)


@pytest.mark.parametrize(("rate", "burst"), [(600, 3), (60, 2)])
def test_client_that_obeys_retry_after_is_never_refused_again(gate: Door, rate: int, burst: int) -> None:
    key = gate.key("alice", rate=rate, burst=burst)
    refused = 0
    for _ in range(burst + 3):
        answer = gate.ask(key, "/v1/models", method="GET")
        if answer.status == 429:
            refused += 1
            time.sleep(int(answer.headers["retry-after"]))
            answer = gate.ask(key, "/v1/models", method="GET")
        assert answer.status == 200
    assert refused > 0 or rate == 600


def spend(gate: Door, key: str) -> list[int]:
    """The statuses of requests until the key is refused."""
    found: list[int] = []
    while 429 not in found:
        found.append(gate.ask(key, "/v1/models", method="GET").status)
        assert len(found) < 100
    return found


def test_reload_gives_nobody_a_new_burst(gate: Door) -> None:
    alice, bob = gate.key("alice", rate=6, burst=5), gate.key("bob", rate=6, burst=5)
    assert spend(gate, alice) == [200] * 5 + [429]
    for _ in range(2):
        # A process that has just begun waits for counters itself, and hands none on.
        until(lambda: int(re.findall(r"flags=0x([0-9a-f]+)", gate.tell("show peers"))[0], 16) & 3 == 3)
        gate.reload()
        assert gate.ask(alice, "/v1/models", method="GET").status == 429
    assert spend(gate, bob) == [200] * 5 + [429]


def test_limit_is_the_keys_and_not_the_addresss(gate: Door) -> None:
    alice, bob = gate.key("alice", rate=6, burst=1), gate.key("bob", rate=6, burst=1)
    assert gate.ask(alice, "/v1/models", method="GET").status == 200
    assert gate.ask(alice, "/v1/models", method="GET", source="127.0.0.2").status == 429
    assert gate.ask(bob, "/v1/models", method="GET").status == 200


def test_wrong_keys_are_limited_by_address_and_good_ones_go_on(opened: Open) -> None:
    gate = opened({"gateway/limits/wrong_keys": 20})
    good = gate.key("alice", rate=6, burst=3)
    assert gate.ask(good, "/v1/models", method="GET").status == 200
    answers = [gate.ask(f"guess-{number}", "/v1/models", method="GET") for number in range(60)]
    assert [answer.status for answer in answers] == [401] * 20 + [429] * 40
    assert answers[-1].headers["retry-after"] == "60"
    assert gate.ask("guess", "/v1/models", method="GET", source="127.0.0.9").status == 401
    # From the same address, and with what was left of its burst.
    assert spend(gate, good) == [200, 200, 429]


def test_ten_thousand_wrong_keys_push_no_good_one_out_of_its_table(gate: Door) -> None:
    good = gate.key("alice", rate=1, burst=2)
    assert spend(gate, good) == [200, 200, 429]
    line = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess-%d\r\n\r\n"
    for block in range(20):
        guesses = b"".join(line % (block * 500 + number) for number in range(499))
        gate.raw(guesses + (line % 0).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert gate.tell("show table rate").count("key=") == 1
    assert gate.ask(good, "/v1/models", method="GET").status == 429


def test_key_has_no_more_requests_in_progress_than_it_may(gate: Door, engines: dict[str, Engine]) -> None:
    alice, bob = gate.key("alice", concurrency=3), gate.key("bob", concurrency=1)
    body = {"model": "llama-3.3-70b-q4", "hold": True}
    done: list[Answer] = []
    held = [threading.Thread(target=lambda: done.append(gate.ask(alice, body=body))) for _ in range(3)]
    for thread in held:
        thread.start()
    end = time.monotonic() + 10
    while len(engines["one"].requests) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    refused = gate.ask(alice)
    assert (refused.status, refused.code) == (429, "too_many_at_once")
    assert gate.ask(bob).status == 200
    engines["one"].release.set()
    for thread in held:
        thread.join(10)
    assert [answer.status for answer in done] == [200] * 3
    assert gate.ask(alice).status == 200


def test_key_is_refused_from_the_second_of_its_end(gate: Door) -> None:
    now = int(time.time())
    ended = gate.ask(gate.key("alice", end=now - 1))
    assert (ended.status, ended.code) == (401, "invalid_api_key")
    assert "alice" in ended.json["error"]["message"]
    key = gate.key("bob", end=now + 4)
    assert gate.ask(key).status == 200
    time.sleep(max(0, now + 4.1 - time.time()))
    assert gate.ask(key).status == 401

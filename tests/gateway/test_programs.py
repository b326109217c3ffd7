"""What HAProxy logs is what rig-gateway-reader counts, and what rig-keys writes is what HAProxy obeys."""

from __future__ import annotations

import grp
import json
import os

from rig.gateway import haproxy
from rigd.gateway import keys
from rigd.gateway.config import Config
from rigd.gateway.counters import Counters, Series
from rigd.gateway.records import Key
from tests.gateway.door import Door
from tests.unit.sample import settings


def test_answers_refusals_and_strangers_are_counted_from_the_log(gate: Door) -> None:
    key = gate.key("alice", rate=6, burst=1)
    answers = [gate.ask(key), gate.ask(key), gate.ask("wrong"), gate.ask(key, "/metrics")]
    counted = Counters()
    for answer in answers:
        counted.count(json.dumps(gate.logged(answer)), 1.0, haproxy.config(settings()).engines)
    assert counted.unusable == 0
    values = dict(counted.values)
    times = {series: values.pop(series) for series in list(values) if series.what in ("duration", "first_byte")}
    assert {series.kind for series in times} == {"count", "sum"}
    assert values == {
        Series("requests", "alice", "one", "2xx"): 1,
        Series("input", "alice", "one", "count"): 1,
        Series("input", "alice", "one", "sum"): 11,
        Series("output", "alice", "one", "count"): 1,
        Series("output", "alice", "one", "sum"): 22,
        Series("requests", "alice", "none", "4xx"): 1,
        Series("limited", "alice", "none", "rate"): 1,
        # Neither has a client: a path that is no door is refused before its key is looked at.
        Series("requests", "unknown", "none", "4xx"): 2,
    }


def test_keys_that_rig_keys_makes_open_the_doors_that_they_say_and_no_other(gate: Door) -> None:
    config = Config(
        engines=("one", "two"),
        socket=str(gate.folder / "admin.sock"),
        map=str(gate.folder / "keys.map"),
        records=str(gate.folder / "keys/keys.json"),
        group=grp.getgrgid(os.getgid()).gr_name,
    )
    bound = keys.add(config, Key("bound", "", "", rate=6, burst=2, engines=("two",)))
    over = keys.add(config, Key("over", "", "", ends="2026-01-01T00:00:00Z"))
    lasting = keys.add(config, Key("lasting", "", "", ends="2099-01-01T00:00:00Z"))
    assert keys.apply(config) is True
    one, two = (f"/engines/{name}/v1/chat/completions" for name in ("one", "two"))
    assert [gate.ask(bound, path).status for path in (one, two, two)] == [403, 200, 429]
    assert gate.ask(over).status == 401
    assert gate.ask(lasting).status == 200
    keys.revoke(config, "lasting")
    assert keys.apply(config) is True
    assert gate.ask(lasting).status == 401

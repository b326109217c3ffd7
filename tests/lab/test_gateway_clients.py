"""Clients of the gateway on a machine: what each used is counted once and is in Prometheus, whatever dies meanwhile."""

from __future__ import annotations

import json

import pytest

from lab.machine import Lab
from rig.facts.gateway_doctor import look, script
from rig.gateway.doctor import diagnose
from rig.monitoring import dashboards
from tests.lab.conftest import Machines
from tests.lab.prometheus import lines, undrawn, value
from tests.lab.runs import host_tests
from tests.lab.traces import eventually
from tests.unit.sample import settings

READER = "rig-gateway-reader.service"
METRICS = "/var/lib/prometheus/node-exporter/rig_gateway.prom"
RECORDS = "/var/lib/rig/gateway/keys.json"


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Lab:
    return machines.boot(name="gateway-clients", converged=True)


def made(lab: Lab, name: str, *more: str) -> str:
    """A new key of this client's."""
    key: str = json.loads(lab.sudo(f"rig-keys add {name} --json {' '.join(more)}").stdout)["key"]
    return key


def ask(lab: Lab, key: str, path: str = "/v1/models", more: str = "") -> int:
    """Status of one answer."""
    command = f"curl -s -o /dev/null --max-time 60 -w '%{{http_code}}' -H 'Authorization: Bearer {key}' {more}"
    return int(lab.ssh(f"{command} http://127.0.0.1:8080{path}").stdout)


def counted(lab: Lab, client: str) -> float:
    """Requests of a client in the file for node_exporter, which a reader that begins writes again."""
    rows = lab.sudo(f"cat {METRICS}", check=False).stdout.splitlines()
    return sum(
        float(row.split()[-1])
        for row in rows
        if row.startswith("rig_gateway_requests_total{") and f'client="{client}"' in row
    )


def gaps(lab: Lab) -> float:
    (row,) = [row for row in lab.sudo(f"cat {METRICS}").stdout.splitlines() if row.startswith("rig_gateway_log_gaps")]
    return float(row.split()[-1])


def counts(lab: Lab, client: str, number: int) -> None:
    """Wait until so many requests are counted."""

    def missing() -> list[str]:
        found = counted(lab, client)
        return [] if found == number else [f"{found} of {number}"]

    eventually(missing, seconds=60)


def test_host_tests_of_the_reader_pass_and_the_doctor_finds_nothing(lab: Lab) -> None:
    made(lab, "anna")
    verdict = host_tests(lab, "-k", "test_gateway_reader")
    assert verdict.code == 0, verdict.output
    made_so = settings()
    found = look(lab.sudo(script(made_so)).stdout.splitlines())
    assert {check.name: check.result for check in diagnose(made_so, found)} == dict.fromkeys(
        ("gateway", "gateway door", "gateway keys", "gateway engines", "gateway metrics"), "good"
    )


def test_tokens_of_a_client_are_in_prometheus_and_its_last_use_in_the_list(lab: Lab) -> None:
    key = made(lab, "ben", "--rate", "6", "--burst", "3")
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
    path = "/engines/llama-8b/v1/chat/completions"
    assert [ask(lab, key, path, f"--data '{body}'") for _ in range(4)] == [200, 200, 200, 429]
    made_tokens = 'sum(gen_ai_client_token_usage_sum{client="ben",engine="llama-8b",gen_ai_token_type="output"})'
    refused = 'sum(rig_gateway_limited_requests_total{client="ben",limit="rate"})'

    def missing() -> list[str]:
        found = (value(lab, made_tokens), value(lab, refused))
        return [] if found == (15, 1) else [str(found)]

    eventually(missing, seconds=90)
    (ben,) = [entry for entry in json.loads(lab.sudo("rig-keys list --json").stdout)["keys"] if entry["name"] == "ben"]
    assert abs(ben["last_request"] - float(lab.ssh("date +%s").stdout)) < 600


def test_every_line_of_the_gateways_dashboard_is_drawn_with_its_legend(lab: Lab) -> None:
    """After the test above, as a machine without requests has nothing to draw."""
    drawn = lines(dashboards.GATEWAY)
    assert len(drawn) >= len(dashboards.GATEWAY.panels)
    eventually(lambda: undrawn(lab, drawn), seconds=90)


def test_requests_are_counted_once_when_reader_and_gateway_are_killed_among_them(lab: Lab) -> None:
    key = made(lab, "carl", "--rate", "600", "--burst", "600", "--concurrency", "50")
    for _ in range(3):
        lab.sudo(
            f"for n in $(seq 20); do curl -s -o /dev/null -H 'Authorization: Bearer {key}' "
            f"http://127.0.0.1:8080/v1/models; [ $n != 7 ] || systemctl kill --signal=KILL {READER}; done"
        )
        lab.sudo("systemctl restart rig-gateway; journalctl --rotate")
    counts(lab, "carl", 60)
    assert gaps(lab) == 0


def test_lines_that_the_journal_deleted_unread_are_reported_and_later_ones_are_counted(lab: Lab) -> None:
    key = made(lab, "dora")
    lab.sudo(f"systemctl stop {READER}")
    assert ask(lab, key) == 200
    lab.sudo("journalctl --rotate && journalctl --vacuum-size=1")
    assert ask(lab, key) == 200
    lab.sudo(f"systemctl start {READER}")
    counts(lab, "dora", 1)
    assert gaps(lab) == 1
    assert ask(lab, key) == 200
    counts(lab, "dora", 2)


def test_damaged_records_lock_nobody_out_also_over_a_restart(lab: Lab) -> None:
    key = made(lab, "emil")
    lab.sudo(f"cp -p {RECORDS} {RECORDS}.good && truncate -s 10 {RECORDS} && systemctl restart rig-gateway")
    assert ask(lab, key) == 200
    done = lab.sudo("rig-keys list", check=False)
    assert (done.returncode, "sudo rig-backup restore" in done.stderr) == (1, True)
    lab.sudo(f"mv {RECORDS}.good {RECORDS} && rig-keys revoke emil")
    assert ask(lab, key) == 401

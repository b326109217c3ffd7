"""The gateway on a machine: keys, doors and limits before the real llama-server, a reload, and an engine that dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.machine import Lab
from tests.lab.conftest import Machines
from tests.lab.runs import host_tests, plan
from tests.lab.traces import eventually

GATEWAY = "http://127.0.0.1:8080"
NATIVE = "rig-native@llama-8b.service"
CANARY = "canary-of-a-prompt-in-the-lab"


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Lab:
    """A Debian 13 with the gateway before both engines."""
    return machines.boot(name="gateway", converged=True)


@pytest.fixture
def key(lab: Lab) -> Iterator[str]:
    """A key that lives as long as the test."""
    yield made(lab, "alice", "--rate", "600", "--burst", "100")
    lab.sudo("rig-keys revoke alice", check=False)


def made(lab: Lab, name: str, *more: str) -> str:
    """A new key of this client's."""
    found: dict[str, str] = json.loads(lab.sudo(f"rig-keys add {name} --json {' '.join(more)}").stdout)
    return found["key"]


def ask(lab: Lab, key: str, path: str, body: dict[str, Any] | None = None, more: str = "") -> tuple[int, str]:
    """Status and body of one answer, through the gateway."""
    data = "" if body is None else f"--data '{json.dumps(body)}'"
    options = f"-s --max-time 60 -w '\\n%{{http_code}}' -H 'Authorization: Bearer {key}'"
    command = f"curl {options} {data} {more} {GATEWAY}{path}"
    answer, _, status = lab.ssh(command, check=False).stdout.rpartition("\n")
    return int(status), answer


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 5, **more}


def logged(lab: Lab) -> list[dict[str, Any]]:
    """The lines of the gateway's log."""
    lines = lab.sudo("journalctl -u rig-gateway -o cat").stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_host_tests_of_the_gateway_pass_and_a_second_run_changes_nothing(lab: Lab) -> None:
    verdict = host_tests(lab, "tests/host/test_gateway.py")
    assert verdict.code == 0, verdict.output
    assert not [name for name in plan(lab).changed if name.startswith("gateway")]


def test_real_engine_answers_by_path_and_by_model_and_is_counted(lab: Lab, key: str) -> None:
    status, answer = ask(lab, key, "/engines/llama-8b/v1/chat/completions", chat())
    assert status == 200, answer
    usage = json.loads(answer)["usage"]
    assert ask(lab, key, "/v1/chat/completions", chat(model="tiny"))[0] == 200
    stream = chat(stream=True)
    assert ask(lab, key, "/engines/llama-8b/v1/chat/completions", stream)[1].rstrip().endswith("data: [DONE]")
    lines = [line for line in logged(lab) if line["client"] == "alice"]
    assert lines[-3]["prompt_tokens"] == usage["prompt_tokens"]
    assert lines[-3]["completion_tokens"] == usage["completion_tokens"] == 5
    # llama.cpp's own figures, as this client did not ask for usage.
    assert (lines[-1]["completion_tokens"], lines[-1]["tokens"], lines[-1]["engine"]) == (5, "counted", "llama-8b")
    assert {line["served"] for line in lines[-3:]} == {"tiny"}


def test_every_other_route_of_the_real_engine_is_404(lab: Lab, key: str) -> None:
    routes = ["/health", "/props", "/slots", "/metrics", "/tokenize", "/completion", "/infill", "/lora-adapters"]
    direct = lab.ssh("curl -so /dev/null -w '%{http_code}' http://127.0.0.1:8003/health").stdout
    assert direct == "200"
    for route in routes:
        for path in (route, f"/engines/llama-8b{route}", f"/v1/..{route}"):
            assert ask(lab, key, path, more="--path-as-is")[0] == 404, path


def test_key_is_in_force_at_once_and_out_of_it_at_once(lab: Lab) -> None:
    key = made(lab, "bob")
    assert ask(lab, key, "/v1/models")[0] == 200
    lab.sudo("systemctl restart rig-gateway")
    assert ask(lab, key, "/v1/models")[0] == 200
    lab.sudo("rig-keys revoke bob")
    assert ask(lab, key, "/v1/models")[0] == 401
    lab.sudo("systemctl restart rig-gateway")
    assert ask(lab, key, "/v1/models")[0] == 401


def test_limit_holds_over_a_reload_of_the_unit(lab: Lab) -> None:
    key = made(lab, "carol", "--rate", "6", "--burst", "2")
    try:
        assert [ask(lab, key, "/v1/models")[0] for _ in range(3)] == [200, 200, 429]
        # A process that has just begun hands no counters on.
        lab.sudo("sleep 6; systemctl reload rig-gateway")
        statuses = [ask(lab, key, "/v1/models")[0] for _ in range(3)]
        assert statuses.count(200) <= 2
        assert statuses[-1] == 429
    finally:
        lab.sudo("rig-keys revoke carol")


def test_neighbour_reaches_neither_the_gateway_nor_its_metrics(lab: Lab) -> None:
    for port in (8080, 8405, 8443):
        seen = lab.neighbour(f"timeout 2 bash -c '</dev/tcp/{lab.address}/{port}'")
        assert seen.returncode != 0, port


def test_engine_that_was_killed_is_503_and_comes_back(lab: Lab, key: str) -> None:
    lab.sudo(f"systemctl stop {NATIVE}")
    path = "/engines/llama-8b/v1/chat/completions"
    status, answer = ask(lab, key, path, chat())
    assert (status, json.loads(answer)["error"]["code"]) == (503, "engine_unavailable")
    assert ask(lab, key, "/engines/llama-70b/v1/chat/completions", chat())[0] == 200
    lab.sudo(f"systemctl start {NATIVE}")
    eventually(lambda: [] if ask(lab, key, path, chat())[0] == 200 else ["not yet"], seconds=60)


def test_no_text_of_a_prompt_is_in_any_log_of_the_machine(lab: Lab, key: str) -> None:
    assert ask(lab, key, "/engines/llama-8b/v1/chat/completions", chat(CANARY))[0] == 200
    lab.sudo("journalctl --sync")
    assert lab.sudo(f"journalctl -o cat | grep -v COMMAND= | grep -c {CANARY}", check=False).stdout == "0\n"
    assert lab.sudo(f"grep -rl {CANARY} /var/log --include='*.log'", check=False).stdout == ""


def test_configuration_that_was_broken_by_hand_is_never_in_force_and_the_next_run_mends_it(lab: Lab, key: str) -> None:
    lab.sudo("echo nonsense >>/etc/rig/gateway/haproxy.cfg")
    assert lab.sudo("systemctl reload rig-gateway", check=False).returncode != 0
    assert ask(lab, key, "/v1/models")[0] == 200
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.sudo("systemctl reload rig-gateway").returncode == 0
    assert ask(lab, key, "/v1/models")[0] == 200


def test_gateway_on_debian_12_answers_and_limits(machines: Machines) -> None:
    lab = machines.boot("bookworm", name="gateway-bookworm", converged=True)
    verdict = host_tests(lab, "tests/host/test_gateway.py")
    assert verdict.code == 0, verdict.output
    key = made(lab, "alice", "--rate", "6", "--burst", "2")
    assert ask(lab, key, "/engines/llama-8b/v1/chat/completions", chat())[0] == 200
    assert [ask(lab, key, "/v1/models")[0] for _ in range(2)] == [200, 429]
    machines.end(lab)

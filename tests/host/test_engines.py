"""Concern engines: each answers clients with its key, and nobody else, from a sandbox that holds."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from rig.settings import Settings, key_variable, size_bytes
from tests.host.machine import KEYS, Machine

EXPOSED_AT_MOST = 1.5
"""On systemd's scale from 0 to 10, where 0 to 2 is safe; a service without a sandbox has 9.6."""

NOBODYS_KEY = "0" * 64


def _ask(
    machine: Machine, settings: Settings, engine: str, path: str, *, key_of: str | None = None, body: Any = None
) -> tuple[int, str]:
    """Send a request on the machine; return status and answer. ``key_of`` names the variable of the key to send.

    curl reads the key from its standard input, where nobody else sees it.
    """
    served = settings.engines[engine]
    options = ["--silent", "--max-time", "120", "--write-out", "\\n%{http_code}"]
    if body is not None:
        options += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
    url = f"http://{served.address}:{served.port}{path}"
    if key_of is None:
        key = ":"
    elif key_of == NOBODYS_KEY:
        key = f"printf 'header = \"Authorization: Bearer %s\"\\n' {NOBODYS_KEY}"
    else:
        key = f"sed -n 's/^{key_of}=\\(.*\\)/header = \"Authorization: Bearer \\1\"/p' {KEYS}"
    answer = machine.run(f"{{ {key}; }} | curl --config - {shlex.join(options)} {url} || true")
    text, _, code = answer.rpartition("\n")
    return int(code), text


CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}


def test_engine_answers_whoever_has_its_key(machine: Machine, settings: Settings, engine: str) -> None:
    code, text = _ask(machine, settings, engine, "/v1/chat/completions", key_of=key_variable(engine), body=CHAT)
    assert code == 200, text
    answer = json.loads(text)
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert (message.get("content") or "") + (message.get("reasoning_content") or "") != ""
    assert answer["usage"]["completion_tokens"] > 0


QUESTION = {
    "messages": [{"role": "user", "content": "Which gas do plants take from the air?"}],
    **{"max_tokens": 48, "temperature": 0, "seed": 1},
}


def test_engine_of_a_real_model_knows_the_answer(machine: Machine, settings: Settings, knowing: str) -> None:
    """With wrong weights, a wrong template or a broken kernel, an engine is healthy but its answers are nonsense."""
    code, text = _ask(machine, settings, knowing, "/v1/chat/completions", key_of=key_variable(knowing), body=QUESTION)
    assert code == 200, text
    message = json.loads(text)["choices"][0]["message"]
    said = (message.get("reasoning_content") or "") + (message.get("content") or "")
    assert re.search(r"carbon\s+dioxide|CO[2\u2082]", said, re.IGNORECASE), said


def test_engine_serves_the_model_of_the_settings(machine: Machine, settings: Settings, engine: str) -> None:
    code, text = _ask(machine, settings, engine, "/v1/models", key_of=key_variable(engine))
    assert code == 200
    assert [model["id"] for model in json.loads(text)["data"]] == [settings.engines[engine].model]


def test_llama_cpp_has_the_context_of_the_settings_for_each_sequence(
    machine: Machine, settings: Settings, llama: str
) -> None:
    wanted = settings.engines[llama]
    code, text = _ask(machine, settings, llama, "/props", key_of=key_variable(llama))
    assert code == 200
    properties = json.loads(text)
    assert properties["total_slots"] == wanted.sequences
    assert properties["default_generation_settings"]["n_ctx"] == wanted.context
    path = settings.model_path(wanted.model)
    seen = path if wanted.runtime == "native" else f"/models/{wanted.model}/{path.name}"
    assert properties["model_path"] == str(seen)


def test_vllm_has_the_context_of_the_settings(machine: Machine, settings: Settings, vllm: str) -> None:
    code, text = _ask(machine, settings, vllm, "/v1/models", key_of=key_variable(vllm))
    assert code == 200
    assert [model["max_model_len"] for model in json.loads(text)["data"]] == [settings.engines[vllm].context]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize"])
@pytest.mark.parametrize("key_of", [None, NOBODYS_KEY], ids=["no key", "a wrong key"])
def test_engine_refuses_whoever_has_not_its_key(
    machine: Machine, settings: Settings, engine: str, path: str, key_of: str | None
) -> None:
    if settings.engines[engine].runtime == "vllm" and not path.startswith("/v1/"):
        pytest.skip("vLLM's key guards /v1 only; nothing but the machine itself reaches the rest")
    assert _ask(machine, settings, engine, path, key_of=key_of, body=CHAT)[0] == 401


def test_engine_refuses_the_key_of_another(machine: Machine, settings: Settings, engine: str) -> None:
    for other in settings.consumers:
        if other != engine:
            code, _ = _ask(machine, settings, engine, "/v1/chat/completions", key_of=key_variable(other), body=CHAT)
            assert code == 401, f"the key of {other} opens {engine}"


def test_engine_says_to_everyone_that_it_is_healthy(machine: Machine, settings: Settings, engine: str) -> None:
    code, text = _ask(machine, settings, engine, "/health")
    assert code == 200
    assert text == "" or json.loads(text) == {"status": "ok"}


def test_engine_that_computes_on_the_card_has_a_process_there(machine: Machine, computing: str) -> None:
    """An engine that found no card and fell back to the processor reports that it is healthy, and answers, slowly."""
    first = int(machine.run(f"docker inspect --format '{{{{.State.Pid}}}}' rig-{computing}"))
    group = machine.run(f"sed -n 's/^0:://p' /proc/{first}/cgroup")
    processes = machine.lines(f"find /sys/fs/cgroup{group} -name cgroup.procs -exec cat {{}} +")
    # Other lines are remarks, which come with another exit code.
    on_card = machine.lines("nvidia-smi --query-compute-apps=pid --format=csv,noheader | grep -xE '[0-9]+' || true")
    assert set(processes) & set(on_card), f"the card's processes are {on_card}, and the engine's {processes}"


def test_engine_does_not_show_other_clients_prompts(machine: Machine, settings: Settings, engine: str) -> None:
    code, text = _ask(machine, settings, engine, "/slots", key_of=key_variable(engine))
    assert code in (404, 501)
    assert '"prompt"' not in text


def test_engine_listens_on_its_loopback_address_and_nowhere_else(
    machine: Machine, settings: Settings, engine: str
) -> None:
    wanted = settings.engines[engine]
    assert [address for address, port in machine.listeners if port == wanted.port] == [wanted.address]


def test_only_engines_of_the_settings_run(machine: Machine, settings: Settings) -> None:
    shown = "systemctl list-units --state=active,activating,failed --plain --no-legend 'rig-container@*' 'rig-native@*'"
    running = [line.split()[0] for line in machine.lines(shown)]
    assert sorted(running) == sorted(map(settings.unit, machine.running(settings)))


def test_one_of_a_group_of_alternatives_runs_and_starts_at_boot(
    machine: Machine, settings: Settings, group: str
) -> None:
    names = settings.alternatives[group]
    for state in ("is-active", "is-enabled"):
        found = machine.run(f"systemctl {state} {' '.join(map(settings.unit, names))} || true").split()
        assert sum(word in ("active", "enabled") for word in found) == 1, f"{state}: {found}"


def test_rig_mode_says_which_alternative_runs_and_that_it_is_healthy(
    machine: Machine, settings: Settings, group: str
) -> None:
    said = machine.json("/usr/local/bin/rig-mode --json")
    (running,) = (name for name in settings.alternatives[group] if machine.instead_of(settings, name) is None)
    assert said["groups"][group]["chosen"] == running
    assert [name for name, engine in said["groups"][group]["engines"].items() if engine["healthy"]] == [running]


def test_engine_runs_now_and_after_a_boot(machine: Machine, settings: Settings, engine: str) -> None:
    unit = settings.unit(engine)
    assert machine.unit(unit, "ActiveState", "UnitFileState", "NeedDaemonReload") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NeedDaemonReload": "no",
    }


def test_compose_file_names_no_key_and_is_roots_alone_to_change(machine: Machine, container: str) -> None:
    assert machine.stat("/etc/rig/compose.yaml") == "644 root root"
    assert machine.keys_in("cat /etc/rig/compose.yaml") == 0


def _pid(machine: Machine, service: str) -> str:
    pid = machine.unit(f"rig-native@{service}.service", "MainPID")["MainPID"]
    assert int(pid) > 0, f"{service} has no process"
    return pid


def test_services_process_has_no_privilege_and_can_get_none(machine: Machine, service: str) -> None:
    status = machine.process(_pid(machine, service))
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_service_is_as_little_exposed_as_it_can_be(machine: Machine, service: str) -> None:
    shown = machine.run(f"systemd-analyze security --no-pager rig-native@{service}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert found, shown
    assert float(found[1]) <= EXPOSED_AT_MOST, shown


def test_service_has_the_limits_of_the_settings(machine: Machine, settings: Settings, service: str) -> None:
    wanted = settings.engines[service]
    shown = machine.unit(f"rig-native@{service}.service", "MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec")
    assert int(shown["MemoryMax"]) == size_bytes(wanted.memory)
    assert int(shown["MemorySwapMax"]) == 0
    assert _seconds(shown["CPUQuotaPerSecUSec"]) == pytest.approx(wanted.cpus)


def _seconds(span: str) -> float:
    """A time span as systemd prints it, such as ``1min 30s`` or ``500ms``."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)([a-z]+)", span))


def test_service_sees_no_keys_and_no_homes(machine: Machine, settings: Settings, service: str) -> None:
    """From inside its own mounts, where even root finds them empty or closed."""
    inside = f"nsenter --mount --target {_pid(machine, service)}"
    assert machine.run(f"{inside} ls /etc/passwd") == "/etc/passwd"
    for folder in ("/etc/rig", "/var/lib/rig", "/root", "/home", settings.storage.backup.path):
        there = machine.run(f"{inside} sh -c 'ls -A {folder} 2>/dev/null | wc -l'")
        models = settings.storage.models.path.startswith(f"{folder}/")
        assert there == ("1" if models else "0"), f"{service} sees {there} entries of {folder}"


def test_service_can_write_nowhere_that_lasts(machine: Machine, service: str) -> None:
    """As its own user, from inside its own mounts: it has a /tmp of its own, and /dev and /run are memory."""
    pid = _pid(machine, service)
    status = machine.process(pid)
    user, group = status["Uid"].split()[0], status["Gid"].split()[0]
    inside = f"nsenter --mount --target {pid} setpriv --reuid={user} --regid={group} --clear-groups"
    search = r"find / \( -path /proc -o -path /sys \) -prune -o -type d -writable -print"
    found = machine.lines(f"{inside} {search} 2>/dev/null || true")
    lasting = [path for path in found if not path.startswith(("/tmp", "/var/tmp", "/dev/", "/run/"))]
    assert "/tmp" in found
    assert lasting == []


def test_service_runs_the_program_of_the_pinned_archive(machine: Machine, settings: Settings, service: str) -> None:
    archive = getattr(settings.engines[service], "archive", None)
    assert archive is not None
    folder = f"/opt/rig/llama.cpp/{archive.sha256[:12]}/"
    program = machine.run(f"readlink /proc/{_pid(machine, service)}/exe")
    assert program.startswith(folder)
    assert f"{folder}{archive.binary}" in machine.unit(f"rig-native@{service}.service", "ExecStart")["ExecStart"]
    mode, owner, _ = machine.stat(program).split()
    assert owner == "root"
    assert int(mode, 8) & 0o022 == 0


def test_service_has_the_files_of_its_archive_and_nobody_else_changes_them(
    machine: Machine, settings: Settings, service: str
) -> None:
    """By the sums that were written down when those of the archive had been checked."""
    archive = getattr(settings.engines[service], "archive", None)
    assert archive is not None
    folder = f"/opt/rig/llama.cpp/{archive.sha256[:12]}"
    machine.run(f"cd {folder} && sha256sum --check --quiet --strict .rig-sha256")
    files = machine.lines(f"cd {folder} && find . -type f ! -name '.rig-*'")
    assert len(files) == len(machine.lines(f"cat {folder}/.rig-sha256")) > 0
    open_ones = f"find {folder} ! -type l '(' ! -uid 0 -o -perm /022 ')'"
    assert machine.lines(f"{open_ones}; find /opt/rig /opt/rig/llama.cpp -maxdepth 0 -perm /022") == []
    assert machine.run(f"grep -c '{folder}/.*(deleted)' /proc/{_pid(machine, service)}/maps || true") == "0"


def test_service_has_the_time_zone_of_the_settings(machine: Machine, settings: Settings, service: str) -> None:
    shown = machine.run(f"tr '\\0' '\\n' </proc/{_pid(machine, service)}/environ | grep ^TZ=")
    assert shown == f"TZ={settings.machine.timezone}"


def test_service_is_restarted_when_it_fails(machine: Machine, service: str) -> None:
    shown = machine.unit(f"rig-native@{service}.service", "Restart", "RestartUSec")
    assert shown["Restart"] == "on-failure"
    assert 0 < _seconds(shown["RestartUSec"]) <= 60

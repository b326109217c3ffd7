"""A real vLLM on a tiny model, started as rendered: asked as a deploy and as the host tests ask a machine's."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import testinfra  # type: ignore[import-untyped]

from lab.standins import vllm as standin
from rig.facts.engines import ContainerEngine
from rig.facts.secrets import KEYS
from rig.monitoring import dashboards
from rig.monitoring.alerts import QUEUE
from rig.settings import Settings, key_variable
from rig.settings.engines import VllmEngine
from tests.engines.real import serving, tiny
from tests.host import test_engines as host_tests
from tests.host.machine import Machine
from tests.lab.promql import names
from tests.unit.sample import IMAGE, settings

NAME = "one"
NO_UNIT = ("ActiveState=inactive", "UnitFileState=", "NeedDaemonReload=no", "NRestarts=0")
"""What systemd says of a unit that is not there; not every computer that runs these tests has a systemd to ask."""


@pytest.fixture(scope="module")
def made() -> Settings:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = {"runtime": "vllm", "image": IMAGE, "model": "llama-3.1-8b-fp8", "port": port}
    return settings({"engines": {NAME: {**engine, "context": 512, "sequences": 2}}})


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's file of keys, elsewhere."""
    path = tmp_path_factory.mktemp("keys") / "keys.env"
    path.touch(mode=0o600)
    path.write_text(f"{key_variable(NAME)}={secrets.token_hex(32)}\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def process(made: Settings, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, home = tmp_path_factory.mktemp("checkpoint") / "tiny", tmp_path_factory.mktemp("home")
    tiny(folder)
    engine = made.engines[NAME]
    assert isinstance(engine, VllmEngine)
    with serving(engine, folder, home, keys.read_text().strip().partition("=")[2]) as pid:
        yield pid


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, keys: Path) -> Machine:
    """This computer, whose keys are not where a machine has them."""
    monkeypatch.setattr(host_tests, "KEYS", str(keys))
    return Machine(testinfra.get_host("local://"))


def test_the_host_tests_pass(machine: Machine, made: Settings) -> None:
    host_tests.test_engine_answers_whoever_has_its_key(machine, made, NAME)
    host_tests.test_engine_serves_the_model_of_the_settings(machine, made, NAME)
    host_tests.test_vllm_has_the_context_of_the_settings(machine, made, NAME)
    host_tests.test_engine_says_to_everyone_that_it_is_healthy(machine, made, NAME)
    host_tests.test_engine_does_not_show_other_clients_prompts(machine, made, NAME)
    host_tests.test_engine_listens_on_its_loopback_address_and_nowhere_else(machine, made, NAME)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize("key_of", [None, host_tests.NOBODYS_KEY], ids=["no key", "a wrong key"])
def test_nobody_gets_in_without_the_key(machine: Machine, made: Settings, path: str, key_of: str | None) -> None:
    host_tests.test_engine_refuses_whoever_has_not_its_key(machine, made, NAME, path, key_of)


@pytest.mark.parametrize(("model", "health"), [("llama-3.1-8b-fp8", "healthy"), ("another", "unhealthy")])
def test_a_deploy_finds_it_healthy_when_it_lists_its_model(made: Settings, keys: Path, model: str, health: str) -> None:
    engine = made.engines[NAME]
    fact = ContainerEngine()
    script = fact.command(NAME, key_variable(NAME), engine.address, engine.port, model, on_card=False)
    shown = subprocess.run(["sh", "-c", script.replace(KEYS, str(keys))], capture_output=True, text=True)
    assert fact.process([*NO_UNIT, *shown.stdout.splitlines()]).health == health


def test_its_key_is_in_no_argument(process: int, keys: Path) -> None:
    key = keys.read_text().strip().partition("=")[2]
    shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert f"{process} " in shown
    assert key not in shown


def test_every_figure_that_is_watched_or_drawn_is_one_of_its_own_and_counts(made: Settings, keys: Path) -> None:
    """Asked before anything was answered, as after a start, and afterwards."""
    engine = made.engines[NAME]
    url = f"http://{engine.address}:{engine.port}"
    lines = [line.expression for panel in dashboards.ENGINES.panels for line in panel.lines]
    wanted = {name for expression in (QUEUE.expression, *lines) for name in names(expression) if "vllm:" in name}
    assert len(wanted) > 8
    before = _figures(f"{url}/metrics")
    assert wanted | {f"vllm:{name}" for name in standin.FIGURES} <= before.keys()
    asked = {"model": engine.model, "prompt": "So it goes. " * 20, "max_tokens": 40, "ignore_eos": True}
    header = {"Authorization": f"Bearer {keys.read_text().strip().partition('=')[2]}"}
    for _ in range(2):
        requests.post(f"{url}/v1/completions", json=asked, headers=header, timeout=120).raise_for_status()
    after = _figures(f"{url}/metrics")
    gone_up = {name for name in wanted if after[name] > before[name]}
    assert gone_up == wanted - {"vllm:num_requests_running", "vllm:num_requests_waiting"}


def _figures(url: str) -> dict[str, float]:
    """Every figure by its name; vLLM has one engine inside, and so one of each."""
    found = {}
    for line in requests.get(url, timeout=30).text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name.partition("{")[0]] = float(value)
    return found

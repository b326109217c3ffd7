"""Batches from upload to files, with a scripted engine and the server as a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.batching import Client, ScriptedEngine, Server, free_port, jsonl, line, until
from tests.unit.project import ROOT


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), engine.settings(), metrics=free_port()).running() as running:
        yield running


def test_every_line_is_answered_once_and_the_metrics_say_so(server: Server, engine: ScriptedEngine) -> None:
    client = Client(server.url)
    names = [f"line-{number}" for number in range(200)]
    batch = client.ended(client.create(jsonl(*map(line, names))))
    assert batch["status"] == "completed"
    output, error = client.results(batch)
    assert {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in output} == {
        name: name for name in names
    }
    assert error == [] and batch["error_file_id"] is None
    assert engine.seen == dict.fromkeys(names, 1)
    found = scrape(server)
    assert found['rig_batch_lines_total{engine="scripted",result="completed"}'] == len(names)
    assert found['rig_batch_tokens_total{engine="scripted",kind="cached"}'] == len(names)
    assert found['rig_batch_engine_paused{engine="scripted"}'] == found["rig_batch_disk_full"] == 0


def scrape(server: Server) -> dict[str, float]:
    """The metrics by name and labels."""
    text = requests.get(f"http://127.0.0.1:{server.config.metrics}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        sample.name + (f"{{{labels}}}" if (labels := _labels(sample.labels)) else ""): sample.value
        for sample in samples
    }


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def test_an_engine_that_is_away_is_shown_as_paused(server: Server, engine: ScriptedEngine) -> None:
    engine.down()
    Client(server.url).create(jsonl(line("a")))
    until(lambda: scrape(server)['rig_batch_engine_paused{engine="scripted"}'] == 1)
    assert scrape(server)['rig_batch_batches{status="in_progress"}'] == 1
    engine.up()
    until(lambda: scrape(server)['rig_batch_engine_paused{engine="scripted"}'] == 0)


def test_a_large_upload_is_not_held_in_memory(server: Server) -> None:
    """Neither its content nor its lines: the highest memory use of the server is that of one line."""
    assert server.process is not None
    client, status = Client(server.url), Path(f"/proc/{server.process.pid}/status")

    def peak() -> int:
        return next(int(each.split()[1]) for each in status.read_text().splitlines() if each.startswith("VmHWM"))

    client.ended(client.create(jsonl(line("a"))))
    before = peak()
    content = jsonl(*(line(str(number), "x" * 32_000) for number in range(2000))) + b"wrong\n"
    assert len(content) > 60 << 20
    assert client.ended(client.create(content))["errors"]["data"][0]["line"] == 2001
    assert peak() - before < 32 << 10


def test_the_command_needs_none_of_the_servers_libraries() -> None:
    """They are in an environment of their own on the machine, and the command is in the base one."""
    libraries = [each.split("==")[0] for each in LOCK.read_text().splitlines() if re.match(r"[a-z].*==", each)]
    code = "import sys, rigd.batch.cli, rigd.batch.client, rigd.batch.following; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert len(libraries) > 20
    assert set(loaded.stdout.split()) & {name.replace("-", "_") for name in libraries} <= BASE


LOCK = ROOT / "rigd/batch/requirements.txt"
BASE = {"idna", "prometheus_client"}
"""The distribution's packages, which the base environment has."""


def test_the_servers_lock_is_part_of_the_checkouts() -> None:
    """The tests run what the machine runs."""

    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^[a-z][^ ]*==[^ ]+", path.read_text(), re.MULTILINE))

    assert pins(LOCK) <= pins(ROOT / "requirements.txt")

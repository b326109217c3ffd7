"""A GGUF in several parts, from the hub to a real llama-server: one model, of which the server gets the first part."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import pytest
import requests

from lab.cache import Cache
from lab.progress import Reporter
from lab.recipes import engine as recipe
from lab.recipes import model as tiny
from rig.capacity import CHECKPOINTS, kv_bytes
from rig.capacity.header import read_header
from rig.engines import llama
from rig.settings.engines import NativeEngine
from rigd.models import gguf as headers
from tests.lab.traces import eventually
from tests.unit.fetching import Place, serving

FILE = "Q4_K_M/tiny-00001-of-00003.gguf"
CONTEXT = 1024


@pytest.fixture(scope="module")
def program(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real llama-server."""
    store = Cache(cache, Reporter(lambda event: None))
    folder = tmp_path_factory.mktemp("llama.cpp")
    with tarfile.open(recipe.archive(store, recipe.tree(store)) / "llama.cpp.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.rglob(recipe.BINARY)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A fetch of the lab's model in three parts, in a folder of its repository."""
    writer = functools.partial(gguf.GGUFWriter, split_max_tensors=8)
    monkeypatch.setattr("lab.recipes.model.gguf.GGUFWriter", writer)
    tiny._write(tmp_path / "tiny.gguf", tiny.SEED)
    with serving() as hub:
        place = Place(tmp_path, hub)
        place.publish_files("tiny", {name: tmp_path / Path(name).name for name in headers.parts(FILE)})
        yield place


@contextmanager
def _running(program: Path, first: Path, log: Path) -> Iterator[int]:
    """Run the server with the arguments of the settings; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = NativeEngine(
        runtime="native",
        model="tiny",
        port=port,
        context=CONTEXT,
        threads=1,
        prompt_cache="64M",
        arguments=("--log-verbosity", "5"),
    )
    words = llama.arguments(engine, {"tiny": str(first)}, host="127.0.0.1", layers=None)
    with log.open("wb") as output, subprocess.Popen([program, *words], stdout=output, stderr=output) as server:
        try:
            eventually(lambda: _unhealthy(port, log), seconds=300)
            yield port
        finally:
            server.terminate()


def _unhealthy(port: int, log: Path) -> list[str]:
    try:
        status = requests.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code
    except requests.RequestException as error:
        return [type(error).__name__, log.read_text(errors="replace")[-500:]]
    return [] if status == 200 else [str(status)]


def test_a_model_in_three_parts_is_fetched_and_answers(program: Path, place: Place, tmp_path: Path) -> None:
    place.fetch()
    first = place.final(file=FILE)
    log = tmp_path / "server.log"
    with _running(program, first, log) as port:
        asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        answer = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=120).json()
    assert answer["usage"]["completion_tokens"] > 0
    said = log.read_text(errors="replace")
    assert re.search(r"additional 2 GGUFs", said)
    # The planned arguments are the server's.
    found = read_header(first).architecture
    assert found is not None
    size = re.search(r"llama_kv_cache: size = +([0-9.]+) MiB", said)
    assert size is not None
    assert float(size[1]) == pytest.approx(kv_bytes(found, CONTEXT, 1) / (1 << 20), abs=0.01)
    assert "prompt cache is enabled, size limit: 64 MiB" in said
    assert f"context checkpoints enabled, max = {CHECKPOINTS}" in said

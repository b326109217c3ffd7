"""rig-models is killed at random moments: the next one goes on exactly where it was."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.unit.fetching import Place, serving

SEEDS = range(3)
KILLS = 4


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving() as running:
        yield Place(tmp_path, running)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _has_come_to(part: Path, size: int, fetcher: subprocess.Popen[str]) -> bool:
    return _size(part) >= size or fetcher.poll() is not None


def _has_files(directory: Path, count: int, fetcher: subprocess.Popen[str]) -> bool:
    return len(list(directory.glob("*.gguf"))) >= count or fetcher.poll() is not None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_leaves_no_wrong_file_and_no_finished_byte_is_fetched_twice(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(12 << 20)
    place.publish("tiny", tiny=content)
    # So slow that whoever comes late, by a second, still catches it in the middle.
    place.hub.fault(bytes_per_second=4 << 20)
    left = [0]
    for target in sorted(chance.randrange(1, len(content) * 2 // 3) for _ in range(KILLS)):
        with place.start("fetch", stderr=subprocess.DEVNULL) as fetcher:
            _until(partial(_has_come_to, place.part(), target, fetcher))
            fetcher.kill()
        assert fetcher.returncode == -9
        assert not place.final().exists()
        left.append(_size(place.part()))
        assert content.startswith(place.part().read_bytes())
    place.hub.fault()
    sent = place.hub.sent
    assert place.run("fetch").returncode == 0
    assert place.final().read_bytes() == content
    assert place.hub.sent - sent == len(content) - left[-1]
    # Every download began at the byte after the last one that was finished.
    assert place.hub.begun_at == left
    assert place.ask("status")["models"]["tiny"] == {"verified": True, "failure": None}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_at_any_moment_of_many_small_files_leaves_only_right_ones(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    contents = {f"file{number}": chance.randbytes(64 << 10) for number in range(12)}
    place.publish("many", **contents)
    place.put(place.saved("many", "file3.gguf"), contents["file3"])
    place.put(place.saved("many", "file4.gguf"), bytes(64 << 10))
    place.hub.fault(bytes_per_second=2 << 20)
    hashes = {f"{name}.gguf": hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    finals = place.final("many", "file0.gguf").parent
    for _ in range(3):
        with place.start("fetch", stderr=subprocess.DEVNULL) as fetcher:
            _until(partial(_has_files, finals, chance.randrange(1, 12), fetcher))
            fetcher.kill()
        for path in finals.glob("*.gguf"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == hashes[path.name]
    place.hub.fault()
    assert place.run("fetch").returncode == 0
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in finals.iterdir()} == hashes

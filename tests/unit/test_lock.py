"""`python -m rig lock`: what the hub says is put into the YAML, and everything else stays as it was typed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import lock
from rig.lock import CannotLock, Pin
from rig.settings.tree import parse
from tests.unit.fetching import REPOSITORY, REVISION, Hub, serving
from tests.unit.project import Project

CONTENT = b"model" * 100
SHA = hashlib.sha256(CONTENT).hexdigest()
PIN = Pin(REVISION, len(CONTENT), SHA)
TEXT = f"""# Mine.
models:
  hub: HUB
  catalogue:
    # The first.
    first:
      repository: {REPOSITORY}   # theirs
      revision: main # moves
      file: model.gguf
      size: 1
      sha256: {"0" * 64}
    second:
      repository: {REPOSITORY}
      file: model.gguf
    third:
      repository: a/b
      revision: {"c" * 40}
      file: x.gguf
      size: 1
      sha256: {"0" * 64}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "model").write_bytes(CONTENT)
    with serving() as running:
        running.publish(tmp_path / "model", "model.gguf")
        yield running


def _lock(
    project: Project, hub: Hub, *arguments: str, text: str = TEXT, **options: str
) -> subprocess.CompletedProcess[str]:
    (project.root / "group_data" / "mine.yml").write_text(text.replace("HUB", hub.address))
    return project.run("rig", "lock", "--file", "group_data/mine.yml", *arguments, **options)


def _written(project: Project) -> str:
    return (project.root / "group_data" / "mine.yml").read_text()


def test_what_is_not_pinned_is_pinned_and_all_else_stays(project: Project, hub: Hub) -> None:
    done = _lock(project, hub, "--yes")
    assert done.returncode == 0, done.stderr
    pinned = f"      size: {len(CONTENT)}\n      sha256: {SHA}\n"
    expected = TEXT.replace("HUB", hub.address)
    expected = expected.replace("revision: main # moves", f"revision: {REVISION} # moves")
    first, second = f"      size: 1\n      sha256: {'0' * 64}\n    second", "      file: model.gguf\n    third"
    expected = expected.replace(first, f"{pinned}    second")
    expected = expected.replace(second, f"      file: model.gguf\n      revision: {REVISION}\n{pinned}    third")
    assert _written(project) == expected
    assert f"+      sha256: {SHA}" in done.stdout
    assert hub.sent == 0


def test_nothing_is_written_without_a_yes(project: Project, hub: Hub) -> None:
    done = _lock(project, hub)
    assert done.returncode == 1
    assert "Write this?" in done.stdout
    assert _written(project) == TEXT.replace("HUB", hub.address)


def test_what_is_pinned_is_left_alone_until_it_is_named(project: Project, hub: Hub) -> None:
    assert _lock(project, hub, "--yes").returncode == 0
    text = _written(project)
    assert "all is pinned" in _lock(project, hub, "--yes", text=text).stdout
    assert "the hub has what is pinned" in _lock(project, hub, "first", "--revision", "main", text=text).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fourth"], 2, "has no fourth"),
        (["third"], 1, "answers 404 for x.gguf of a/b at cccc"),
    ],
)
def test_what_cannot_be_pinned_is_told(
    project: Project, hub: Hub, arguments: list[str], code: int, sentence: str
) -> None:
    done = _lock(project, hub, *arguments)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert _written(project) == TEXT.replace("HUB", hub.address)


def test_a_hub_that_does_not_answer_is_told(project: Project, hub: Hub) -> None:
    done = _lock(project, hub, text=TEXT.replace("HUB", "http://127.0.0.1:1"))
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_an_entry_on_one_line_is_refused_with_its_place() -> None:
    text = "models:\n  catalogue:\n    one: {repository: a/b, file: x.gguf}\n"
    (entry,) = lock.entries(parse(text, "all.yml"), [])
    with pytest.raises(CannotLock, match=r"all\.yml:3: models\.catalogue\.one stands on one line"):
        lock.edited(text, entry, PIN)


def test_the_shipped_settings_lack_only_what_could_not_be_looked_up(project: Project) -> None:
    tree = parse((project.root / "group_data" / "all.yml").read_text(), "all.yml")
    assert [entry.name for entry in lock.entries(tree, [])] == ["qwen3-embedding-0.6b-q8", "llama-3.1-8b-fp8"]

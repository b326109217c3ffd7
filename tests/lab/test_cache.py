"""The lab's cache: its artefacts are whole, and match their recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cache import BuildError, Cache, Note, run
from lab.progress import Event, Reporter


class Maker:
    """A recipe that counts its runs."""

    def __init__(self, fails: bool = False) -> None:
        self.times = 0
        self.fails = fails

    def __call__(self, target: Path, note: Note) -> None:
        self.times += 1
        target.mkdir()
        (target / "half").touch()
        if self.fails:
            raise BuildError("no")
        (target / "whole").touch()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def cache(tmp_path: Path, events: list[Event]) -> Cache:
    return Cache(tmp_path, Reporter(events.append))


def test_an_artefact_is_made_once_and_announced(cache: Cache, events: list[Event]) -> None:
    maker = Maker()
    first = cache.artefact("thing", "Make a thing", ["recipe"], maker)
    assert cache.artefact("thing", "Make a thing", ["recipe"], maker) == first
    assert maker.times == 1
    assert [(event["event"], event["step"]) for event in events] == [
        ("start", "Make a thing"),
        ("done", "Make a thing"),
    ]


def test_a_changed_recipe_makes_another_artefact(cache: Cache) -> None:
    first = cache.artefact("thing", "Make a thing", ["recipe"], Maker())
    assert cache.artefact("thing", "Make a thing", ["other recipe"], Maker()) != first


def test_a_failed_build_leaves_nothing_that_counts_and_is_tried_again(cache: Cache) -> None:
    with pytest.raises(BuildError):
        cache.artefact("thing", "Make a thing", ["recipe"], Maker(fails=True))
    finished = cache.artefact("thing", "Make a thing", ["recipe"], Maker())
    assert {path.name for path in finished.iterdir()} == {"half", "whole"}


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(BuildError, match=r"'sh' ended with status 3:\nbecause"):
        run(["sh", "-c", "echo because; exit 3"])

"""The disks on which tests start: made once, made again after any change that decides a deploy, and few."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from lab import converged
from lab.machine import CHECKOUT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources that decide a deploy."""
    for name in converged.DECIDING:
        source, target = CHECKOUT / name, tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return tmp_path / "checkout"


@pytest.mark.parametrize("name", converged.DECIDING)
def test_whatever_decides_a_deploy_decides_which_disk(checkout: Path, name: str) -> None:
    before = converged.digest(checkout, ["bare"])
    assert converged.digest(checkout, ["bare"]) == before
    changed = checkout / name / "new" if (checkout / name).is_dir() else checkout / name
    changed.write_text("other")
    assert converged.digest(checkout, ["bare"]) != before


def test_what_it_is_made_from_decides_and_what_python_leaves_does_not(checkout: Path) -> None:
    before = converged.digest(checkout, ["bare"])
    assert converged.digest(checkout, ["bare", "image"]) != before
    (checkout / "rig/__pycache__").mkdir(exist_ok=True)
    (checkout / "rig/__pycache__/x.pyc").write_text("compiled")
    assert converged.digest(checkout, ["bare"]) == before


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The disks made by a stand-in for boot and deploy, in a cache of its own."""
    found: list[Path] = []

    def make(finished: Path, release: str, gpu: bool) -> None:
        found.append(finished)
        time.sleep(0.2)
        finished.unlink(missing_ok=True)
        finished.symlink_to("/nowhere")

    monkeypatch.setenv("RIG_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(converged, "_make", make)
    monkeypatch.setattr(converged, "_artefacts", lambda release: ("bare",))
    return found


def test_two_that_want_it_at_once_get_the_same_and_it_is_made_once(made: list[Path]) -> None:
    got: list[Path] = []
    threads = [threading.Thread(target=lambda: got.append(converged.disk())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [made[0], made[0]]
    assert len(made) == 1


def test_few_of_each_variant_are_kept_the_newest(made: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for variant in [("trixie", False), ("trixie", True), ("bookworm", False)]:
        converged.disk(*variant)
    for number in range(converged.KEPT):
        monkeypatch.setattr(converged, "_artefacts", lambda release, number=number: (f"other-{number}",))
        converged.disk("trixie")
    assert [path.is_symlink() for path in made] == [False, *[True] * (2 + converged.KEPT)]


def test_one_that_is_older_than_a_day_is_made_again(made: list[Path]) -> None:
    """Otherwise every boot would start the daily jobs."""
    disk = converged.disk()
    yesterday = time.time() - converged.OLDEST - 1
    os.utime(disk, (yesterday, yesterday), follow_symlinks=False)
    assert converged.disk() == disk
    assert made == [disk, disk]

"""A backup's disk that fails while a program writes to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rigd.backup import command, target, vault
from rigd.base.errors import Failed


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


def restic(disk: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace restic by a script; the disk is probed at every look."""
    program = disk / "bin/restic"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(vault, "PROBED", 0.0)


def test_a_disk_that_takes_what_is_written_is_not_refused_and_nothing_is_left_on_it(disk: Path) -> None:
    assert target.refusal() is None
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_told_with_the_cause(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing(monkeypatch, number)
    assert target.refusal() == os.strerror(number)


def test_a_full_disk_is_left_to_the_program_that_filled_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.ENOSPC)
    assert target.refusal() is None


def test_a_program_that_writes_to_a_failed_disk_is_ended_though_it_would_try_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restic(disk, monkeypatch, "trap '' TERM\nfor turn in $(seq 120); do sleep 1; done\nexit 9\n")
    monkeypatch.setattr(command, "GRACE", 0.5)
    failing(monkeypatch, errno.EIO)
    with pytest.raises(Failed, match=r"restic check of .* was ended: the disk takes nothing any more"):
        vault.Vault("secret").check(vault.CHECK_ALL)


def test_a_disk_that_fails_is_still_read(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restic(disk, monkeypatch, "sleep 1\n")
    failing(monkeypatch, errno.EROFS)
    vault.Vault("secret", read_only=True).check(vault.CHECK_ALL)

"""An engine that is retired leaves nothing behind, wherever a run that did so was killed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from rig.operations import engines
from tests.unit.sample import Here

OLD, KEPT = "old", "kept"
SYSTEMCTL = """#!/bin/sh
units={root}/etc/systemd/system
template() {{ ls "$units/${{1%%@*}}@.service"; }}
case $1 in
  disable) rm -f "$units/multi-user.target.wants/$3"; template "$3" ;;
  cat) template "$2" ;;
esac
"""
DOCKER = """#!/bin/sh
rm -f "{root}/containers/$3"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A machine of files alone, without loaded units."""
    for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text.format(root=tmp_path))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    here = Here(lambda command: command.replace("/etc/", f"{tmp_path}/etc/").replace("/var/", f"{tmp_path}/var/"))
    monkeypatch.setattr(engines, "host", here)
    return here


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {"bin/systemctl", "bin/docker"}


def _make(root: Path, kind: str, engine: str) -> None:
    unit = f"rig-{kind}@{engine}.service"
    paths = [
        f"etc/systemd/system/multi-user.target.wants/{unit}",
        f"etc/systemd/system/{unit}.d/own.conf",
        f"etc/systemd/system/rig-{kind}@.service",
        f"var/lib/rig/served/{engine}.json",
    ]
    for path in paths + (["etc/rig/compose.yaml", f"containers/rig-{engine}"] if kind == "container" else []):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize("killed_after", range(8))
@pytest.mark.parametrize("kind", ["container", "native"])
def test_what_a_killed_run_left_of_an_engine_is_gone_after_the_next_one(
    here: Here, tmp_path: Path, kind: str, killed_after: int
) -> None:
    _make(tmp_path, "native", KEPT)
    (tmp_path / f"etc/systemd/system/rig-{kind}@.service").touch()
    before = _files(tmp_path)
    _make(tmp_path, kind, OLD)
    here.carry_out(islice(_retired(), killed_after))
    assert all(done.returncode == 0 for done in here.carry_out(_retired()))
    assert _files(tmp_path) == before
    assert list(_retired()) == []


def test_an_owners_drop_in_of_an_engine_that_never_was_does_not_stop_a_run(here: Here, tmp_path: Path) -> None:
    own = tmp_path / "etc/systemd/system/rig-native@old.service.d/own.conf"
    own.parent.mkdir(parents=True)
    own.touch()
    assert all(done.returncode == 0 for done in here.carry_out(_retired()))


def _retired() -> Iterator[str]:
    commands: Iterator[str] = engines.retired._inner(wanted=[f"rig-native@{KEPT}.service"])
    return commands

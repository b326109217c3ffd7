"""A change that could lock the operator out lasts only if it was confirmed; anything else gives the state before."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyinfra.api import FunctionCommand

from rig import confirmation
from rig.confirmation import FOLDER, SECONDS, Change
from rig.operations import shell
from rig.operations.confirmation import PATIENCE, confirmed
from rig.operator import connection
from tests.unit.sample import Here

PROGRAMS = {
    # A timer that the test lets elapse by running what it would run.
    "systemd-run": 'for word; do last=$word; done; printf "%s\\n" "$*" >"{here}/timer"; echo "$last" >"{here}/undo"',
    "systemctl": '[ "$1" = stop ] && [ -e "{here}/timer" ] || exit 5; rm "{here}/timer"',
}


class Machine:
    """A state in two files, one of which a boot would read; systemd is a stand-in, the scripts are run for real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name, script in PROGRAMS.items():
            path = programs / name
            path.write_text(f"#!/bin/sh\n{script.replace('{here}', str(folder))}\n")
            path.chmod(0o755)
        self.environ = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.live, self.boot, self.new = (folder / name for name in ("live", "boot", "new"))
        self.live.write_text("old")
        self.boot.write_text("old")
        self.new.write_text("new")
        self.here = Here(rewrite=lambda command: command.replace(FOLDER, str(folder / "run")))

    def change(self, **other: str) -> Change:
        made = {
            "keep": f'cp {self.live} "$kept/live"',
            "apply": f"cp {self.new} {self.live}",
            "undo": f'cp "$kept/live" {self.live}',
            "commit": f"mv {self.new} {self.boot}",
        }
        return Change(name="trial", **{**made, **other})

    def run(self, script: Callable[[Change], str], **other: str) -> subprocess.CompletedProcess[str]:
        return self.here.shell(script(self.change(**other)), **self.environ)

    def elapse(self) -> None:
        """60 s go by."""
        (self.folder / "timer").unlink()
        undo = (self.folder / "undo").read_text().strip()
        subprocess.run(["sh", undo], check=True)

    @property
    def state(self) -> tuple[str, str]:
        return self.live.read_text(), self.boot.read_text()

    @property
    def armed(self) -> bool:
        return (self.folder / "timer").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_change_is_made_after_its_return_is_armed_and_a_boot_does_not_find_it(machine: Machine) -> None:
    assert machine.run(confirmation.begin).returncode == 0
    assert machine.state == ("new", "old")
    assert f"--on-active={SECONDS}" in (machine.folder / "timer").read_text()


def test_a_confirmed_change_lasts_and_nothing_is_armed(machine: Machine) -> None:
    machine.run(confirmation.begin)
    assert machine.run(confirmation.confirm).returncode == 0
    assert machine.state == ("new", "new")
    assert not machine.armed
    assert not (machine.folder / "run/trial").exists()


def test_a_change_that_nobody_confirms_is_taken_back(machine: Machine) -> None:
    machine.run(confirmation.begin)
    machine.elapse()
    assert machine.state == ("old", "old")


def test_a_change_that_was_taken_back_cannot_be_confirmed_any_more(machine: Machine) -> None:
    machine.run(confirmation.begin)
    machine.elapse()
    late = machine.run(confirmation.confirm)
    assert late.returncode != 0
    assert "deploy again" in late.stderr
    assert machine.state == ("old", "old")


def test_a_change_is_taken_back_at_once(machine: Machine) -> None:
    machine.run(confirmation.begin)
    assert machine.run(confirmation.take_back).returncode == 0
    assert machine.state == ("old", "old")
    assert not machine.armed


def test_a_change_that_fails_leaves_the_state_before(machine: Machine) -> None:
    failed = machine.run(confirmation.begin, apply=f"cp {machine.new} {machine.live} && false")
    assert failed.returncode != 0
    assert machine.state == ("old", "old")
    assert not machine.armed


def test_a_change_whose_return_cannot_be_armed_is_not_made(machine: Machine) -> None:
    (machine.folder / "bin/systemd-run").write_text("#!/bin/sh\nexit 1\n")
    assert machine.run(confirmation.begin).returncode != 0
    assert machine.state == ("old", "old")


def test_what_a_dead_run_left_on_trial_is_taken_back_before_the_state_is_kept(machine: Machine) -> None:
    """Otherwise the state before would be the one that nobody confirmed."""
    machine.run(confirmation.begin)
    machine.new.write_text("newer")
    machine.run(confirmation.begin)
    assert machine.state == ("newer", "old")
    machine.elapse()
    assert machine.state == ("old", "old")


def test_a_change_that_is_taken_back_twice_is_taken_back_once(machine: Machine) -> None:
    machine.run(confirmation.begin)
    machine.elapse()
    machine.live.write_text("somebody's")
    machine.run(confirmation.take_back)
    assert machine.state == ("somebody's", "old")


@dataclass(frozen=True)
class Operator:
    """Stands in for pyinfra's host."""

    print_prefix: str = ""


@pytest.mark.parametrize(
    ("problem", "reached", "sentence"),
    [
        (None, True, ""),
        ("no answer", True, "(no answer); it was taken back; correct it"),
        ("no answer", False, f"the machine takes it back within {SECONDS} s"),
    ],
    ids=["let in", "kept out", "kept out, and the first connection is gone, too"],
)
def test_only_a_new_connection_confirms(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    machine: Machine,
    problem: str | None,
    reached: bool,
    sentence: str,
) -> None:
    change = machine.change()
    ran: list[str] = []

    def run(state: object, host: object, script: str) -> tuple[bool, list[str]]:
        ran.append(script)
        return reached, []

    monkeypatch.setattr(connection, "refused", lambda state, host, seconds: problem)
    monkeypatch.setattr(shell, "run", run)
    begin, proof, confirm = confirmed(change, "correct it")
    assert (begin, confirm) == (confirmation.begin(change), confirmation.confirm(change))
    assert isinstance(proof, FunctionCommand)
    monkeypatch.setattr(logging.getLogger("pyinfra"), "propagate", True)
    assert proof.function(None, Operator(), *proof.args) is (problem is None)
    assert ran == ([] if problem is None else [confirmation.take_back(change)])
    assert sentence in caplog.text


def test_a_connection_is_waited_for_no_longer_than_the_machine_waits() -> None:
    assert PATIENCE < SECONDS / 2

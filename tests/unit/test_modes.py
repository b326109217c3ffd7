"""Alternatives: the choice of the engine, and a switch that is undone if the other one does not serve."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rig.engines import modes
from rig.engines.served import Served
from rig.engines.steps import idle_steps
from rig.render import render
from rigd.base import card, command, configuration
from rigd.base.command import Programs
from rigd.base.errors import BadInput, Failed
from rigd.modes import cli, config, look
from rigd.modes.choice import Unit, chosen
from rigd.modes.config import Engine
from rigd.modes.look import Seen
from rigd.modes.switch import CRASHES, FINISH, POLL, switch
from tests.unit.sample import examples, settings
from tests.unit.test_engines import _every_state
from tests.unit.web import serving

BOTH = {"engines/one/alternatives": "card", "engines/two/alternatives": "card"}
ON, OFF = Unit(enabled=True, active=True), Unit(enabled=False, active=False)
ENABLED, ACTIVE = Unit(enabled=True, active=False), Unit(enabled=False, active=True)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (OFF, OFF, "first"),
        (ON, OFF, "first"),
        (OFF, ON, "second"),
        (ENABLED, ACTIVE, "first"),
        (ENABLED, ENABLED, "first"),
        (ENABLED, ON, "second"),
        (OFF, ACTIVE, "second"),
    ],
)
def test_what_starts_at_boot_is_chosen_and_of_several_the_one_that_runs(
    first: Unit, second: Unit, expected: str
) -> None:
    assert chosen({"first": first, "second": second}) == expected


def test_an_engine_that_is_not_to_run_is_stopped_and_does_not_start_at_boot() -> None:
    for state in _every_state():
        steps = idle_steps(state)
        assert ("disable" in steps) == state.enabled
        assert ("stop" in steps) == (state.active or state.running)
        assert not {"enable", "serve", "wait"} & set(steps)


@dataclass
class Simulated:
    """Two units as systemd keeps them: starting one stops the other. `broken` ones never serve, `lame` ones crash."""

    units: dict[str, Unit]
    broken: set[str] = field(default_factory=set)
    lame: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unkept: set[str] = field(default_factory=set)
    stopped_at: float = 1e9
    """Time at which somebody else stops the engine on trial, and starts the other."""
    dies_at: float = 1e9
    clock: float = 0.0
    said: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    answers: dict[str, float] = field(default_factory=dict)
    """Times at which the last answer of an engine ends."""

    def look(self, engine: Engine) -> Seen:
        if self.clock >= self.stopped_at:
            self.stopped_at = 1e9
            self.units = {"one": ACTIVE, "two": OFF}
        unit, bad = self.units[engine.name], engine.name in self.broken | self.lame
        crashes = int(self.clock) if engine.name in self.lame else 0
        trouble = None if unit.active and not bad else "is loading" if unit.active else "is stopped"
        return Seen(unit, unit.active, crashes, False, trouble)

    def drain(self, engine: Engine) -> int:
        return int(self.clock < self.answers.get(engine.name, 0.0))

    def start(self, engine: Engine) -> None:
        self.starts.append(engine.name)
        for name in self.units:
            self._set(name, active=name == engine.name)
        if engine.name in self.refused:
            self._set(engine.name, active=False)
            raise Failed(f"systemd does not start {engine.name}")

    def stop(self, engine: Engine) -> None:
        self._set(engine.name, active=False)

    def enable(self, engine: Engine) -> None:
        self._set(engine.name, enabled=True)

    def disable(self, engine: Engine) -> None:
        self._set(engine.name, enabled=False)

    def keep(self, engine: Engine) -> None:
        if engine.name in self.unkept:
            raise Failed("the disk is full")
        self.kept.append(engine.name)

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def _set(self, name: str, **changes: bool) -> None:
        self.clock += 0.25
        if self.clock >= self.dies_at:
            raise PowerCut
        self.units[name] = replace(self.units[name], **changes)


class PowerCut(BaseException):
    """Ends everything."""


RECORDS = {name: Served(name, {}, None, {}) for name in ("one", "two")}
GROUP = modes.modes(settings(BOTH), RECORDS).groups["card"]


def test_a_switch_ends_with_the_other_alone() -> None:
    machine = Simulated({"one": ON, "two": OFF})
    assert switch(machine, GROUP, "two", machine.said.append)
    assert machine.units == {"one": OFF, "two": ON}
    assert machine.kept == ["two"]


def test_a_switch_waits_until_the_engine_has_finished_its_answers() -> None:
    machine = Simulated({"one": ON, "two": OFF}, answers={"one": 7.0})
    assert switch(machine, GROUP, "two", machine.said.append)
    assert machine.clock >= 7
    assert machine.said[0] == "waiting for answers to end: 1 of one, 0 s of 300 s"


def test_a_switch_does_not_wait_for_an_answer_that_never_ends() -> None:
    machine = Simulated({"one": ON, "two": OFF}, answers={"one": 1e6})
    assert switch(machine, GROUP, "two", machine.said.append)
    assert machine.units == {"one": OFF, "two": ON}
    assert FINISH <= machine.clock < FINISH + 10


def test_a_switch_to_what_runs_does_nothing() -> None:
    machine = Simulated({"one": ON, "two": OFF})
    assert not switch(machine, GROUP, "one", machine.said.append)
    assert machine.clock == 0


@pytest.mark.parametrize("how", ["broken", "lame", "refused", "unkept"])
def test_a_switch_that_fails_goes_back_and_says_so(how: str) -> None:
    machine = Simulated({"one": ON, "two": OFF}, **{how: {"two"}})  # type: ignore[arg-type]
    with pytest.raises(Failed, match="one runs again"):
        switch(machine, GROUP, "two", machine.said.append)
    assert machine.units == {"one": ON, "two": OFF}
    assert machine.kept == []


def test_a_switch_that_fails_goes_back_to_what_ran_and_not_to_what_starts_at_boot() -> None:
    before = {"one": ENABLED, "two": ACTIVE}
    machine = Simulated(dict(before), broken={"one"})
    with pytest.raises(Failed, match="two runs again"):
        switch(machine, GROUP, "one", machine.said.append)
    assert machine.units == before


def test_of_a_switch_without_anything_before_it_that_is_said() -> None:
    machine = Simulated({"one": ENABLED, "two": OFF}, broken={"one"})
    with pytest.raises(Failed, match="nothing ran before it"):
        switch(machine, GROUP, "one", machine.said.append)


def test_an_engine_that_somebody_stops_is_not_waited_for_and_what_he_started_is_left_running() -> None:
    machine = Simulated({"one": ON, "two": OFF}, broken={"two"}, stopped_at=5)
    with pytest.raises(Failed, match="two was stopped by somebody else; one runs again"):
        switch(machine, GROUP, "two", machine.said.append)
    assert machine.clock < 5 + 3 * POLL
    assert machine.starts == ["two"]


@pytest.mark.parametrize(
    ("shown", "keys", "said"),
    [
        ("", True, "systemd does not say how"),
        ("ActiveState=active\nUnitFileState=enabled\nNRestarts=0\nMainPID=7", False, "keys.env cannot be read"),
    ],
)
def test_what_cannot_be_looked_at_is_told_in_a_sentence(
    shown: str, keys: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.env"
    if keys:
        path.touch()
    monkeypatch.setattr(look, "_output", lambda ask, *command: shown)
    with serving() as web, pytest.raises(Failed, match=said):
        web.files["/health"] = b"{}"
        look.look(replace(GROUP[1], address="127.0.0.1", port=int(web.url.rpartition(":")[2])), path, Programs(1))


def test_a_card_that_does_not_answer_is_trouble_of_an_engine_that_should_be_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    engine = replace(GROUP[1], address="127.0.0.1", gpu=True)
    shown = r"ActiveState=active\nUnitFileState=enabled\nNRestarts=0\nMainPID=11\n"
    (tmp_path / "keys.env").touch()
    with serving() as web:
        engine = replace(engine, port=int(web.url.rpartition(":")[2]))
        web.files |= {"/health": b"{}", "/v1/models": json.dumps({"data": [{"id": engine.model}]}).encode()}
        troubles = []
        for smi in ("exec sleep 600", "exit 9", "echo 12", "echo 11"):
            for name, script in (("systemctl", f"printf '{shown}'"), ("nvidia-smi", smi)):
                (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
                (tmp_path / name).chmod(0o755)
            monkeypatch.setattr(card, "control_group", lambda pid: f"0::/{engine.unit}" if pid == "11" else "0::/")
            troubles.append(look.look(engine, tmp_path / "keys.env", Programs(1)).trouble)
    assert troubles == [
        "may have no process on the graphics card (nvidia-smi did not answer within 1 s)",
        "may have no process on the graphics card (nvidia-smi ended with 9, '')",
        "has no process on the graphics card",
        None,
    ]


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left on device", "/run"), 1), (KeyboardInterrupt, 130)]
)
def test_whatever_ends_it_there_is_no_traceback(
    error: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(configuration, "read", fail)
    assert cli.main([]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_engine_that_crashes_is_not_waited_for_until_its_time_is_over() -> None:
    machine = Simulated({"one": ON, "two": OFF}, lame={"two"})
    with pytest.raises(Failed, match="two ends again and again instead of serving"):
        switch(machine, GROUP, "two", machine.said.append)
    assert machine.clock < CRASHES + 3 * POLL


def test_an_engine_that_does_not_serve_is_waited_for_as_long_as_the_settings_say() -> None:
    machine = Simulated({"one": ON, "two": OFF}, broken={"two"})
    with pytest.raises(Failed, match="two is loading, after 900 s of the 900 s it may take"):
        switch(machine, GROUP, "two", machine.said.append)
    assert 900 <= machine.clock < 905


def test_when_neither_serves_both_are_named() -> None:
    machine = Simulated({"one": ENABLED, "two": OFF}, broken={"one", "two"})
    with pytest.raises(Failed, match=r"^two is loading.*; one is loading.* either$"):
        switch(machine, GROUP, "two", machine.said.append)


@given(some.floats(0, 6), some.sampled_from([(), ("two",)]))
@examples
def test_a_switch_that_breaks_off_anywhere_leaves_one_choice_that_was_or_is_healthy(
    moment: float, broken: tuple[str, ...]
) -> None:
    machine = Simulated({"one": ON, "two": OFF}, broken=set(broken), dies_at=moment)
    with suppress(PowerCut, Failed):
        switch(machine, GROUP, "two", machine.said.append)
    choice = chosen(machine.units)
    assert choice == "one" or not broken
    assert machine.units[choice].enabled


def test_units_of_a_group_exclude_each_other_and_are_ordered_without_a_circle() -> None:
    made = settings({**BOTH, "engines/three": {**_engine(), "port": 8010, "alternatives": "card"}})
    said = {name: modes.exclusion(made, name) for name in ("one", "two", "three")}
    for name, exclusion in said.items():
        assert set(exclusion.units) == {made.unit(other) for other in said} - {made.unit(name)}
    assert said["one"].earlier == ()
    assert said["three"].earlier == (made.unit("one"), made.unit("two"))
    assert said["two"].containers == ("rig-one", "rig-three")
    assert modes.exclusion(settings(), "one") == modes.Exclusion((), (), ())


def _engine() -> dict[str, str]:
    return {"runtime": "container", "image": f"x@sha256:{'d' * 64}", "model": "qwen3-vl-4b-q4"}


def test_a_group_of_which_one_engine_is_enabled_excludes_nothing() -> None:
    made = settings({**BOTH, "engines/two/enabled": False})
    assert made.alternatives == {}
    assert modes.modes(made, {}).groups == {}


def test_the_drop_in_says_what_the_start_needs_and_what_it_stops() -> None:
    path = "/etc/systemd/system/rig-container@ENGINE.service.d/models.conf"
    made = settings(BOTH)
    plain = {"models": "/mnt/models", "card": None, "cache": None, "user": "2000:0"}
    text = render(path, markers=["/m.failed"], exclusion=modes.exclusion(made, "one"), **plain)
    assert "[Unit]\nRequiresMountsFor=/mnt/models\n" in text
    assert "AssertPathExists=!/m.failed\nConflicts=rig-native@two.service\n" in text
    assert "[Service]" not in text
    assert "Conflicts" not in render(path, markers=[], exclusion=modes.exclusion(settings(), "one"), **plain)


def test_an_engine_on_the_card_is_started_after_the_card_is_there_and_not_without_it() -> None:
    path = "/etc/systemd/system/rig-container@ENGINE.service.d/models.conf"
    exclusion = modes.exclusion(settings(), "one")
    values: dict[str, Any] = {"models": "/mnt/models", "markers": [], "exclusion": exclusion, "user": "2000:0"}
    text = render(path, card="nvidia.com/gpu=all", cache=PurePosixPath("/var/lib/rig/caches/one"), **values)
    assert "After=nvidia-persistenced.service nvidia-cdi-refresh.service\n" in text
    assert "exit 1'\n" in text
    assert "ExecStartPre=+/usr/bin/install -d -m 0700 -o 2000 -g 0 /var/lib/rig/caches/one\n" in text
    assert "ExecStartPre" not in render(path, card=None, cache=None, **values)


def test_what_a_deploy_writes_is_what_rig_mode_reads(tmp_path: Path) -> None:
    written = modes.modes(settings(BOTH), RECORDS)
    path = tmp_path / "modes.json"
    path.write_text(config.dump(written), encoding="utf-8")
    assert configuration.read(path, config.parse) == written
    assert [engine.name for engine in written.group_of("two")] == ["one", "two"]
    assert json.loads(path.read_text())["groups"]["card"][0]["container"] == "rig-one"
    assert written.group_of("two")[1].container is None
    with pytest.raises(BadInput, match="there is no alternative three; choose one of one, two"):
        written.group_of("three")

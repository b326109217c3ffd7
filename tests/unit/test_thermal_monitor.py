"""The monitor against the stand-in for nvidia-smi: whatever that does, the monitor continues, reports it, and writes
whole files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigd.base import command, files, lock
from rigd.base.command import Command, NoAnswer
from rigd.thermal import cli, desktop, journal, monitor
from rigd.thermal.config import Config, OnCritical, dump, parse
from rigd.thermal.cooling import Action, Hand, Power, SetPower, StartUnit, StopUnit, parse_power, plan
from rigd.thermal.levels import Level, Warm
from rigd.thermal.metrics import Snapshot
from rigd.thermal.monitor import Clock, Monitor
from rigd.thermal.places import Applied, Places, read_applied, read_word, write_applied
from tests.unit.project import ROOT
from tests.unit.sample import needs_root, tree

ENGINE = "rig-native@one.service"
CARD = "GPU-5c1b6d2e-0f3a-4f7c-9b8e-2d6a41c07e95"
HOT = {"temperature.gpu": 87, "temperature.gpu.tlimit": 1}
WARM = {"temperature.gpu": 84, "temperature.gpu.tlimit": 4}


class Bench:
    """A monitor with a state file as its card, a clock under the test's control, and a record of its entries."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, cooling: OnCritical | None = None) -> None:
        self.state_file = folder / "gpu.json"
        monkeypatch.setitem(command.ENVIRONMENT, "RIG_LAB_GPU", str(self.state_file))
        self.places = Places(folder / "monitor", folder / "root")
        self.places.monitor.mkdir()
        self.places.root.mkdir()
        smi = str(ROOT / "lab" / "standins" / "nvidia-smi")
        self.config = Config(timeout=5, on_critical=cooling or OnCritical(), smi=smi)
        self.now = 0.0
        self.entries: list[tuple[int, str, dict[str, Any]]] = []
        self.start()

    def start(self) -> None:
        """A monitor without a memory, as after a restart of the service."""
        self.monitor = Monitor(self.config, self.places, self.tell, Clock(lambda: 5000 + self.now, lambda: self.now))

    def tell(self, priority: int, message: str, fields: dict[str, Any] | None = None) -> None:
        self.entries.append((priority, message, fields or {}))

    def card(self, *values: dict[str, Any], **state: Any) -> None:
        self.state_file.write_text(json.dumps({"gpus": list(values) or [{}], **state}))

    def round(self, minutes: int = 1) -> Snapshot:
        self.entries.clear()
        for _ in range(minutes):
            snapshot = self.monitor.round()
            self.now += 60
        return snapshot

    def told(self, event: str) -> list[tuple[int, str]]:
        return [(priority, message) for priority, message, fields in self.entries if fields.get("event") == event]

    def metric(self, name: str) -> float | None:
        for line in self.places.metrics.read_text().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
        return None

    def hand(self, hot: bool) -> bool:
        return Hand(self.config, self.places, lambda priority, message: self.tell(priority, message)).reconcile(hot)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


# A reading


def test_a_reading_is_told_to_journal_metrics_and_status(bench: Bench) -> None:
    bench.card(WARM)
    bench.round()
    (entry,) = [entry for entry in bench.entries if entry[2].get("event") == "reading"]
    assert entry[0] == journal.INFO
    assert entry[2].items() >= {"gpu": CARD, "temperature": 84, "margin": 4, "level": "ok"}.items()
    assert bench.metric("rig_gpu_temperature_celsius") == 84
    assert bench.metric("rig_gpu_reading_timestamp_seconds") == 5000
    last = json.loads(bench.places.last.read_text())
    assert (last["problem"], last["cards"][0]["margin"], last["cards"][0]["level"]) == (None, 4, "ok")


def test_entries_have_the_priority_of_their_level(bench: Bench) -> None:
    bench.card(WARM)
    bench.round(6)
    assert bench.told("level") == [(journal.WARNING, bench.told("level")[0][1])]
    assert "rose from ok to warning, at 84 C, 4 C below its limit" in bench.told("level")[0][1]
    bench.card(HOT)
    bench.round()
    assert [priority for priority, _ in bench.told("level") + bench.told("reading")] == [journal.CRITICAL] * 2
    bench.card({})
    bench.round(6)
    assert [priority for priority, _ in bench.told("level")] == [journal.WARNING, journal.NOTICE]
    assert bench.told("reading")[-1][0] == journal.INFO


def test_a_card_that_slows_itself_down_is_critical_although_it_seems_cool(bench: Bench) -> None:
    bench.card({"clocks_event_reasons.hw_thermal_slowdown": True})
    assert bench.round().levels == {CARD: Level.CRITICAL}


def test_each_card_has_a_level_of_its_own(bench: Bench) -> None:
    bench.card({}, {"uuid": "GPU-2", **HOT})
    assert bench.round().levels == {CARD: Level.OK, "GPU-2": Level.CRITICAL}
    assert bench.monitor.level == Level.CRITICAL


def test_a_card_that_tells_no_margin_is_judged_by_its_temperature(bench: Bench) -> None:
    bench.card({"temperature.gpu": 91, "temperature.gpu.tlimit": None})
    assert bench.round().levels == {CARD: Level.CRITICAL}
    assert bench.metric("rig_gpu_temperature_margin_celsius") is None


def test_fields_that_a_driver_does_not_know_are_left_out_and_told_once(bench: Bench) -> None:
    bench.card(HOT, unknown_fields=["temperature.gpu.tlimit", "fan.speed"])
    assert bench.round().failure is None
    assert [message for _, message in bench.told("fields")] == [
        "this driver does not know temperature.gpu.tlimit, fan.speed: not measured"
    ]
    assert bench.round().levels == {CARD: Level.OK}
    assert bench.told("fields") == []


# Failures


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({"fault": "no-driver"}, "no_driver"),
        ({"fault": "no-devices"}, "no_card"),
        ({"gpus": []}, "no_card"),
        ({"fault": "mismatch"}, "mismatch"),
        ({"fault": "lost"}, "card_lost"),
        ({"fault": "blocked"}, "failed"),
        ({"fault": "silent"}, "unreadable"),
        ({"fault": "half"}, "unreadable"),
        ({"fault": "garbage"}, "unreadable"),
        ({"fault": "errors"}, "no_temperature"),
        ({"gpus": [{"temperature.gpu": None, "temperature.gpu.tlimit": "[Not Supported]"}]}, "no_temperature"),
    ],
)
def test_a_reading_that_fails_is_told_once_and_so_is_its_end(bench: Bench, state: dict[str, Any], cause: str) -> None:
    bench.card({})
    bench.round()
    bench.state_file.write_text(json.dumps(state))
    bench.round()
    assert [priority for priority, _ in bench.told("failure")] == [journal.ERROR]
    assert bench.metric("rig_gpu_reading_success") == 0
    assert bench.metric("rig_gpu_reading_success_timestamp_seconds") == 5000
    assert bench.metric("rig_gpu_temperature_celsius") is None
    assert f'rig_gpu_reading_failures_total{{cause="{cause}"}} 1.0' in bench.places.metrics.read_text()
    assert json.loads(bench.places.last.read_text())["cause"] == cause
    bench.round(3)
    assert bench.told("failure") == []
    bench.card({})
    bench.round()
    assert [message for _, message in bench.told("recovery")] == ["the card can be read again"]
    assert bench.metric("rig_gpu_reading_success") == 1


CASES = ROOT / "tests/unit/data/smi"


@pytest.fixture
def says(bench: Bench, tmp_path: Path) -> Callable[[str, int], None]:
    """nvidia-smi with this case's answer and this exit code; its warnings go to the real ones' stream."""
    program = tmp_path / "nvidia-smi"
    bench.config = replace(bench.config, smi=str(program))

    def say(case: str, code: int) -> None:
        warning = f"cat {CASES}/{case}.err >&2" if (CASES / f"{case}.err").exists() else ""
        program.write_text(f"#!/bin/sh\ncat {CASES}/{case}.out\n{warning}\nexit {code}\n")
        program.chmod(0o755)

    bench.start()
    return say


@pytest.mark.parametrize(("case", "code"), [("inforom", 14), ("inforom0", 0), ("inforom-err", 14)])
def test_a_warning_beside_a_card_is_told_once_and_hides_nothing(
    bench: Bench, says: Callable[[str, int], None], case: str, code: int
) -> None:
    says("plain", 0)
    bench.start()
    bench.round()
    says(case, code)
    assert bench.round().failure is None
    assert bench.metric("rig_gpu_temperature_celsius") == 41
    remark = "nvidia-smi remarks: WARNING: infoROM is corrupted at gpu 0000:01:00.0"
    assert bench.told("remark") == [(journal.WARNING, remark)]
    bench.round()
    assert bench.told("remark") == []


@pytest.mark.parametrize(("case", "code"), [("lost-one0", 0), ("lost-one15", 15), ("lost-one255", 255)])
def test_a_lost_card_is_told_and_does_not_hide_the_other(
    bench: Bench, says: Callable[[str, int], None], case: str, code: int
) -> None:
    says(case, code)
    bench.start()
    assert bench.round().failure == "card_lost"
    assert bench.metric("rig_gpu_temperature_celsius") == 41
    ((priority, message),) = bench.told("failure")
    assert priority == journal.ERROR
    assert "Unable to determine the device handle for GPU0000:02:00.0" in message
    assert message.endswith("the card does not answer any more; reboot")


@pytest.mark.parametrize("code", [0, 1, 255])
@pytest.mark.parametrize(
    ("case", "cause"),
    [("mismatch", "mismatch"), ("nodev", "no_card"), ("nodrv", "no_driver"), ("noml", "no_driver")],
)
def test_a_cause_is_known_by_its_words_where_the_exit_code_says_nothing(
    bench: Bench, says: Callable[[str, int], None], case: str, cause: str, code: int
) -> None:
    says(case, code)
    bench.start()
    assert bench.round().failure == cause


def test_a_card_that_is_lost_stays_as_hot_as_it_was_beside_one_that_answers(
    bench: Bench, says: Callable[[str, int], None]
) -> None:
    lost = "Unable to determine the device handle for GPU0000:02:00.0: Unknown Error\n"
    row = (CASES / "plain.out").read_text()
    hot = row.replace(", 41, 47,", ", 91, 1,").replace("GPU-0", "GPU-9").replace(":01:", ":02:")
    for text in (row + hot, row + lost):
        Path(bench.config.smi).write_text(f"#!/bin/sh\nprintf '%s' '{text}'\n")
        Path(bench.config.smi).chmod(0o755)
        if "lost" not in text and not bench.entries:
            bench.start()
        bench.round(8)
    assert bench.monitor.level == Level.CRITICAL


def test_a_card_that_cannot_be_read_stays_as_hot_as_it_was(bench: Bench) -> None:
    bench.card(HOT)
    bench.round()
    bench.card(fault="no-driver")
    bench.round(8)
    assert bench.monitor.level == Level.CRITICAL


def test_a_program_that_is_not_there_is_a_reading_that_failed(bench: Bench) -> None:
    bench.config = replace(bench.config, smi="/nonexistent/nvidia-smi")
    bench.start()
    assert bench.round().failure == "missing"


def test_one_that_hangs_is_killed_and_leaves_no_process(bench: Bench) -> None:
    bench.card(fault="hang")
    bench.config = replace(bench.config, timeout=1)
    bench.start()
    for _ in range(3):
        assert bench.round().failure == "timeout"
    assert _children() == []
    bench.card({})
    assert bench.round().failure is None


def test_one_that_never_stops_talking_is_cut_off() -> None:
    with pytest.raises(NoAnswer, match="yes does not stop talking"):
        Command(60).run(["yes"])
    assert _children() == []


def test_what_it_started_itself_is_ended_with_it() -> None:
    with pytest.raises(NoAnswer):
        Command(0.5).run(["sh", "-c", "sleep 4711 & wait"])
    assert "sleep 4711" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()


def test_beside_one_that_cannot_be_killed_no_other_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in the driver: here the signal is withheld, as no other program cannot be killed."""
    monkeypatch.setattr(command, "GRACE", 0.05)
    # Of other processes: a sleep that another test killed may still be about to die.
    monkeypatch.setattr(command, "left_over", lambda name: None)
    real, withheld = os.killpg, []
    monkeypatch.setattr(os, "killpg", lambda group, number: withheld.append(group))
    asked = Command(0.2)
    with pytest.raises(NoAnswer, match="did not answer within"):
        asked.run(["sleep", "4712"])
    for _ in range(3):
        with pytest.raises(NoAnswer, match="hangs and cannot be killed") as stuck:
            asked.run(["sleep", "4712"])
        assert stuck.value.cause == "stuck"
    assert _children() == withheld
    real(withheld[0], signal.SIGKILL)
    os.waitid(os.P_PID, withheld[0], os.WEXITED | os.WNOWAIT)
    assert asked.run(["true"]).code == 0
    assert _children() == []


def _children() -> list[int]:
    """Children of this process that still exist, including zombies."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in listed if "sleep" in _name(pid) or "smi" in _name(pid) or "yes" in _name(pid)]


def _name(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().split("(")[1].split(")")[0]


def test_a_full_disk_is_told_and_the_files_stay_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.card({})
    bench.round()
    before = bench.places.metrics.read_text()
    bench.places.monitor.rename(bench.places.monitor.with_name("gone"))
    bench.round()
    assert [cause for _, _, fields in bench.entries if (cause := fields.get("cause"))] == ["write", "write"]
    bench.places.monitor.with_name("gone").rename(bench.places.monitor)
    assert bench.places.metrics.read_text() == before


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, texts = tmp_path / "f", {"a" * 100_000, "b" * 200_000}
    files.replace(path, "a" * 100_000, lasting=False)
    writing = "from rigd.base.files import replace; from pathlib import Path\nwhile True:\n"
    writing += f" for text in 'a' * 100000, 'b' * 200000: replace(Path({str(path)!r}), text, lasting=False)"
    with subprocess.Popen([sys.executable, "-c", writing], cwd=ROOT) as writer:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert path.read_text() in texts
        writer.kill()
    files.replace(path, "after it", lasting=False)
    assert tree(tmp_path) == {"f": "644"}


def test_the_service_goes_on_after_something_unforeseen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(journal, "send", lambda priority, message, fields=None: told.append(message))
    rounds = iter([ZeroDivisionError("odd"), None, None])

    def round() -> None:
        if problem := next(rounds):
            raise problem

    monkeypatch.setattr(bench.monitor, "round", round)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    seen = iter([frozenset(), frozenset(), frozenset(), frozenset({"/dev/nvidia0 49920"})])
    steady = iter(range(0, 10_000, 30))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(steady)))
    assert monitor.run(bench.monitor, bench.config, lambda: next(seen)) == 0
    assert told == [
        "a reading went wrong: ZeroDivisionError: odd",
        "the device files of the card are other ones: starting again, to be let in to them",
    ]


# Xid


def test_xid_lines_are_told_when_they_come_and_counted_since_the_boot(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journalctl of our own, as nobody can write into the kernel's log: it shows what comes after the cursor."""
    entries = tmp_path / "entries"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "journalctl").write_text(
        "#!/bin/sh\nfor word; do case $word in --after-cursor=*) after=${word#*=};; esac; done\n"
        f"tail -n +$((${{after:-0}} + 1)) {entries}\n"
    )
    (tmp_path / "bin" / "journalctl").chmod(0o755)
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    written: list[str] = []

    def kernel(*messages: str) -> None:
        written.extend(messages)
        lines = (json.dumps({"__CURSOR": str(n), "MESSAGE": text}) for n, text in enumerate(written, 1))
        entries.write_text("\n".join(lines) + "\n")

    bench.card({})
    kernel("NVRM: Xid (PCI:0000:01:00): 13, before", "something else")
    bench.round()
    assert [priority for priority, _ in bench.told("xid")] == [journal.WARNING]
    kernel("NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.", "else")
    bench.round()
    assert bench.told("xid") == [
        (
            journal.ERROR,
            "the driver reports Xid 79 of the card at 0000:01:00: pid=1, GPU has fallen off the bus.",
        )
    ]
    bench.round()
    assert bench.told("xid") == []
    for number in (13, 79):
        assert f'rig_gpu_xid_errors_total{{bus="0000:01:00",xid="{number}"}} 1.0' in bench.places.metrics.read_text()
    bench.start()
    bench.round()
    assert 'rig_gpu_xid_errors_total{bus="0000:01:00",xid="79"} 1.0' in bench.places.metrics.read_text()


# Cooling


def test_without_a_measure_root_is_never_asked(bench: Bench) -> None:
    bench.card(HOT)
    bench.round()
    assert not bench.places.wanted.exists()


CONFIG = Config(on_critical=OnCritical(power_limit=250, unit="rig-native@one.service"))
POWER = {CARD: Power(300, 200)}


@pytest.mark.parametrize(
    ("hot", "applied", "power", "running", "actions"),
    [
        (True, Applied(), POWER, True, [SetPower(CARD, 250, 300), StopUnit("rig-native@one.service")]),
        (True, Applied(), {CARD: Power(300, 280)}, False, [SetPower(CARD, 280, 300)]),
        (True, Applied({CARD: 300}, "rig-native@one.service"), {CARD: Power(250, 200)}, False, []),
        (True, Applied({CARD: 300}), {CARD: Power(290, 200)}, False, [SetPower(CARD, 250, 300)]),
        (True, Applied({}, "rig-native@one.service"), {}, True, []),
        (True, Applied({}, "rig-native@old.service"), {}, False, [StartUnit("rig-native@old.service")]),
        (
            False,
            Applied({CARD: 300}, "rig-native@one.service"),
            {CARD: Power(250, 200)},
            False,
            [SetPower(CARD, 300, None), StartUnit("rig-native@one.service")],
        ),
        (False, Applied(), POWER, True, []),
    ],
)
def test_what_is_done_follows_from_what_is_and_what_was_done(
    hot: bool, applied: Applied, power: dict[str, Power], running: bool, actions: list[Action]
) -> None:
    assert plan(hot, CONFIG, applied, power, running) == actions


def test_a_limit_that_is_lower_already_is_left_alone() -> None:
    config = replace(CONFIG, on_critical=OnCritical(power_limit=250))
    assert plan(True, config, Applied(), {CARD: Power(220, 200)}, False) == []


def test_only_cards_that_can_be_limited_are() -> None:
    text = f"{CARD}, 300.00, 250.00\nGPU-2, [N/A], [N/A]\nGPU-3, 100.00, [N/A]\nnonsense"
    assert parse_power(text) == {CARD: Power(300, 250), "GPU-3": Power(100, 0)}


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch, OnCritical(power_limit=260))


def _watts(bench: Bench) -> float:
    state = json.loads(bench.state_file.read_text())
    return float(state["gpus"][0].get("power.limit", 300))


@needs_root
def test_a_critical_card_gets_less_power_until_it_is_ok_again(limited: Bench) -> None:
    limited.card(HOT)
    limited.round()
    assert limited.places.wanted.read_text() == "hot\n"
    assert limited.metric("rig_gpu_cooling_wanted") == 1
    assert limited.metric("rig_gpu_cooling") == 0
    assert limited.hand(hot=True)
    assert _watts(limited) == 260
    assert limited.entries[-1][:2] == (
        journal.WARNING, f"the power limit of {CARD} is lowered to 260 W from 300 W, because it is too hot"
    )  # fmt: skip
    limited.round()
    assert limited.metric("rig_gpu_cooling") == 1
    assert limited.hand(hot=True)

    limited.card({**WARM, "temperature.gpu.tlimit": 6, "power.limit": 260})
    limited.round(10)
    assert limited.monitor.level == Level.WARNING
    assert limited.places.wanted.read_text() == "hot\n"
    limited.card({"power.limit": 260})
    limited.round(4)
    assert limited.places.wanted.read_text() == "cool\n"
    assert limited.hand(hot=False)
    assert _watts(limited) == 300
    assert not read_applied(limited.places).any
    limited.round()
    assert limited.metric("rig_gpu_cooling") == 0


@needs_root
def test_a_monitor_that_is_started_anew_takes_back_what_the_one_before_wanted(limited: Bench) -> None:
    limited.card(HOT)
    limited.round()
    limited.hand(hot=True)
    for path in limited.places.monitor.iterdir():
        path.unlink()
    limited.start()
    limited.card({"power.limit": 260})
    limited.round()
    assert limited.places.wanted.read_text() == "hot\n"
    limited.round(6)
    assert limited.places.wanted.read_text() == "cool\n"


@needs_root
def test_what_is_not_to_be_taken_back_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, OnCritical(power_limit=260, restore=False))
    bench.card(HOT)
    bench.round()
    bench.hand(hot=True)
    bench.card({"power.limit": 260})
    bench.round(8)
    assert bench.monitor.level == Level.OK
    assert bench.places.wanted.read_text() == "hot\n"


@needs_root
@pytest.mark.parametrize("fault", ["no-driver", "hang", "garbage"])
def test_a_hand_that_fails_says_so_and_is_asked_again(limited: Bench, fault: str) -> None:
    limited.config = replace(limited.config, timeout=1)
    limited.card(HOT)
    limited.round()
    limited.card(HOT, fault=fault)
    assert not limited.hand(hot=True) or fault == "garbage"
    assert not read_applied(limited.places).any
    limited.card(HOT)
    written = limited.places.wanted.stat().st_ino
    limited.round()
    assert limited.places.wanted.stat().st_ino != written
    assert limited.hand(hot=True)
    assert _watts(limited) == 260


@needs_root
@pytest.mark.parametrize("fault", ["no-driver", "lost", "hang", "garbage"])
def test_a_card_that_does_not_answer_keeps_no_engine_from_being_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    bench = Bench(tmp_path, monkeypatch, OnCritical(power_limit=260, unit=ENGINE))
    bench.config = replace(bench.config, timeout=1)
    calls = _systemctl(tmp_path, monkeypatch, "active")
    bench.card(HOT, fault=fault)
    bench.hand(hot=True)
    assert f"stop {ENGINE}" in calls.read_text()
    assert read_applied(bench.places).unit == ENGINE


@needs_root
def test_a_systemd_that_does_not_say_how_the_engine_is_keeps_neither_measure_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, OnCritical(power_limit=260, unit=ENGINE))
    monkeypatch.setattr(Hand, "_runs", _no_answer)
    calls = _systemctl(tmp_path, monkeypatch, "active")
    bench.card(HOT)
    assert bench.hand(hot=True)
    assert _watts(bench) == 260
    assert f"stop {ENGINE}" in calls.read_text()


def _no_answer(hand: Hand, unit: str) -> bool:
    raise NoAnswer("timeout", f"systemctl does not say how {unit} is")


def _systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> Path:
    """A systemctl that reports this state for every unit; return the file with its calls."""
    calls, program = folder / "calls", folder / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >>{calls}\necho {state}\n')
    program.chmod(0o755)
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", f"{program.parent}:/usr/bin:/bin")
    return calls


@needs_root
def test_a_hand_that_was_killed_after_it_wrote_down_what_was_before_still_lowers_the_limit(limited: Bench) -> None:
    limited.card(HOT)
    write_applied(limited.places, Applied({CARD: 300}))
    assert limited.hand(hot=True)
    assert _watts(limited) == 260
    assert limited.hand(hot=False)
    assert _watts(limited) == 300


@pytest.fixture
def systemd(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """systemctl with this state at boot; returns its recorded actions."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", f"{tmp_path}/bin:/usr/bin:/bin")

    def cooled(state: str) -> list[str]:
        calls, program = tmp_path / "calls", tmp_path / "bin/systemctl"
        program.write_text(f'#!/bin/sh\n[ "$1" = is-enabled ] && echo {state} || echo "$*" >>{calls}\n')
        program.chmod(0o755)
        write_applied(bench.places, Applied(unit=ENGINE))
        assert bench.hand(hot=False)
        return calls.read_text().splitlines() if calls.exists() else []

    return cooled


@needs_root
def test_an_engine_that_was_stopped_is_started_again(bench: Bench, systemd: Callable[[str], list[str]]) -> None:
    assert systemd("enabled") == [f"reset-failed {ENGINE}", f"start {ENGINE}"]
    assert bench.entries[-1][:2] == (journal.NOTICE, f"{ENGINE} is started again")
    assert not read_applied(bench.places).any


@needs_root
def test_an_engine_that_its_owner_switched_away_from_meanwhile_is_not_started(
    bench: Bench, systemd: Callable[[str], list[str]]
) -> None:
    assert systemd("disabled") == []
    assert "stays stopped, as it does not start at boot any more" in bench.entries[-1][1]
    assert not read_applied(bench.places).any


@needs_root
def test_an_engine_is_not_started_while_another_one_is_tried_in_its_place(
    bench: Bench, systemd: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(lock, "holder", lambda folder: 7)
        assert systemd("enabled") == []
    assert read_applied(bench.places).unit == ENGINE
    assert systemd("enabled") == [f"reset-failed {ENGINE}", f"start {ENGINE}"]


def test_root_believes_one_word_in_a_regular_file_and_nothing_else(tmp_path: Path) -> None:
    wanted, words = tmp_path / "wanted", ("hot", "cool")
    assert read_word(wanted, words) is None
    for text, word in (("hot\n", "hot"), ("cool\n", "cool"), ("", None), ("hot; reboot\n", None), ("hot" * 99, None)):
        wanted.write_text(text)
        assert read_word(wanted, words) == word
    wanted.unlink()
    (tmp_path / "elsewhere").write_text("hot\n")
    wanted.symlink_to(tmp_path / "elsewhere")
    assert read_word(wanted, words) is None
    wanted.unlink()
    os.mkfifo(wanted)
    assert read_word(wanted, words) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"power": 3, "unit": null}', '{"power": {"a": "b"}, "unit": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    places = Places(tmp_path, tmp_path)
    places.applied.write_text(text)
    assert not read_applied(places).any


# Notification


def test_graphical_sessions_are_told_from_others_each_person_once() -> None:
    blocks = [
        "Name=ann\nUser=1000\nType=wayland\nState=active",
        "Name=ann\nUser=1000\nType=x11\nState=online",
        "Name=bob\nUser=1001\nType=tty\nState=active",
        "Name=eve\nUser=1002\nType=x11\nState=closing",
    ]
    assert [session.user for session in desktop.sessions("\n\n".join(blocks))] == ["ann"]
    assert desktop.sessions("") == []


def test_another_level_is_written_down_for_who_notifies_and_the_first_one_is_none(bench: Bench) -> None:
    bench.card({})
    bench.round()
    assert not bench.places.level.exists()
    bench.card(HOT)
    bench.round()
    assert bench.places.level.read_text() == "critical\n"
    bench.card({})
    bench.round(7)
    assert bench.places.level.read_text() == "ok\n"
    assert set(desktop.TEXTS) == {level.name.lower() for level in Level}


# The program


def test_a_configuration_survives_being_written_and_read() -> None:
    config = Config(
        warning=Warm(margin=9),
        interval=7,
        timeout=3,
        on_critical=OnCritical(250, "rig-native@one.service", False),
        smi="/bin/true",
    )
    assert parse(dump(config)) == config


@pytest.fixture
def program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    path = bench.state_file.with_name("thermal.json")
    path.write_text(dump(bench.config))
    monkeypatch.setattr(cli, "Places", lambda: bench.places)
    return lambda *words: cli.main([words[0], f"--config={path}", *words[1:]])


def test_status_shows_the_last_reading(
    bench: Bench, program: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    bench.card(WARM)
    bench.monitor = Monitor(bench.config, bench.places, bench.tell)
    bench.round()
    assert program("status") == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert ["level", "ok"] in lines and ["temperature", "84 C"] in lines
    assert program("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cards"][0]["temperature"] == 84


@pytest.mark.parametrize(
    ("age", "fault", "said"),
    [(None, None, "there is no reading"), (500, None, "s old; is the service running"), (0, "no-driver", "lsmod")],
)
def test_status_says_when_there_is_nothing_to_rely_on(
    bench: Bench,
    program: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    age: int | None,
    fault: str | None,
    said: str,
) -> None:
    if age is not None:
        bench.card({}, fault=fault)
        clock = Clock(lambda: time.time() - age)
        Monitor(bench.config, bench.places, bench.tell, clock).round()
    assert program("status") == 1
    assert said in capsys.readouterr().err


def test_once_reads_the_card_now(bench: Bench, program: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    bench.card(HOT)
    assert program("once") == 0
    assert "87 C" in capsys.readouterr().out
    bench.card(fault="mismatch")
    assert program("once", "--json") == 1
    assert "of different versions; reboot" in capsys.readouterr().err
    assert list(bench.places.monitor.iterdir()) == []


def test_a_configuration_that_cannot_be_used_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (None, "", "{", '{"interval": "1"}', '{"warning": {"margin": null}}'):
        path = tmp_path / "thermal.json"
        if text is not None:
            path.write_text(text)
        assert cli.main(["run", f"--config={path}"]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "deploy" in told

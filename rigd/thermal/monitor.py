"""The monitor: a reading at each interval, written to the journal and the metrics, and requests for measures."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rigd.base import files
from rigd.base.command import NoAnswer
from rigd.thermal import journal
from rigd.thermal.config import Config
from rigd.thermal.levels import Level, State, step
from rigd.thermal.metrics import Snapshot, render
from rigd.thermal.places import Places, read_applied
from rigd.thermal.reading import FIELDS, Card
from rigd.thermal.smi import Smi
from rigd.thermal.xid import KernelLog

PRIORITIES = {Level.OK: journal.INFO, Level.WARNING: journal.WARNING, Level.CRITICAL: journal.CRITICAL}
LONGEST_SLEEP = 60.0
"""Seconds after which the monitor tells systemd that it is alive."""

Tell = Callable[..., None]


@dataclass(frozen=True)
class Clock:
    """Two clocks: wall time, and one that never jumps."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


class Monitor:
    """The state from one reading to the next."""

    def __init__(self, config: Config, places: Places, tell: Tell = journal.send, clock: Clock | None = None) -> None:
        self._config, self._places, self._tell, self._clock = config, places, tell, clock or Clock()
        self._smi = Smi(config.smi, config.timeout)
        self._log = KernelLog(config.timeout)
        self._log_read = False
        self._states: dict[str, State] = {}
        self._failures: Counter[str] = Counter()
        self._failure: str | None = None
        self._log_failure: str | None = None
        self._succeeded: float | None = None
        self._refused: list[str] = []
        self._remarks: tuple[str, ...] = ()
        # Measures that outlived the monitor began at the critical level; they end by the same rules as if that still
        # held.
        self._begin = Level.CRITICAL if read_applied(places).any else Level.OK
        self._told_level = self._begin

    @property
    def level(self) -> Level:
        """The level of the hottest card; at first, the level of an earlier monitor."""
        return max((state.level for state in self._states.values()), default=self._begin)

    def round(self) -> Snapshot:
        """Take one reading, and report it everywhere."""
        self._read_kernel_log()
        cards, cause, problem = self._read()
        self._judge(cards, whole=cause is None)
        self._tell_failure(cause, problem)
        for card in cards:
            self._tell_reading(card)
        wanted, applied = self._cooling()
        snapshot = Snapshot(
            time=self._clock.wall(),
            cards=tuple(cards),
            levels={uuid: state.level for uuid, state in self._states.items()},
            failure=cause,
            succeeded=self._succeeded,
            failures=dict(self._failures),
            xids=dict(self._log.counts),
            cooling_wanted=wanted,
            cooling_applied=applied,
        )
        self._write(snapshot, problem)
        return snapshot

    def _read(self) -> tuple[list[Card], str | None, str | None]:
        """The cards, and the failure: a word and a sentence."""
        try:
            reading, trouble = self._smi.read()
        except NoAnswer as error:
            self._failures[error.cause] += 1
            return [], error.cause, str(error)
        cards = list(reading.cards)
        refused = [field for field in FIELDS if field not in self._smi.fields]
        if refused != self._refused:
            self._refused = refused
            message = f"this driver does not know {', '.join(refused)}: not measured"
            self._tell(journal.NOTICE, message, {"event": "fields"})
        for remark in reading.remarks if trouble is None and reading.remarks != self._remarks else ():
            self._tell(journal.WARNING, f"nvidia-smi remarks: {remark}", {"event": "remark"})
        self._remarks = reading.remarks
        if trouble is not None:
            self._failures[trouble.cause] += 1
            return cards, trouble.cause, str(trouble)
        silent = [card.name for card in cards if not card.heat.known]
        if silent:
            self._failures["no_temperature"] += 1
            return cards, "no_temperature", f"{', '.join(silent)} tells no temperature"
        self._succeeded = self._clock.wall()
        return cards, None, None

    def _judge(self, cards: list[Card], whole: bool) -> None:
        """Update the level of every card; forget those that a `whole` reading no longer shows."""
        if cards:
            begin = self._states or {card.uuid: State(self._begin) for card in cards}
            # A card that does not answer keeps its level.
            kept = {} if whole else self._states
            self._states = {**kept, **{card.uuid: begin.get(card.uuid, State()) for card in cards}}
            self._begin = Level.OK
        for card in cards:
            before = self._states[card.uuid]
            state, entered = step(before, card.heat, self._clock.steady(), self._config)
            self._states[card.uuid] = state
            level = before.level
            for now in entered:
                self._tell_level(card, level, now)
                level = now

    def _tell_level(self, card: Card, before: Level, now: Level) -> None:
        priority = journal.NOTICE if now == Level.OK else PRIORITIES[now]
        change = f"{'rose' if now > before else 'fell'} from {before.name.lower()} to {now.name.lower()}"
        fields = {"event": "level", "level": now.name.lower(), "before": before.name.lower(), **_fields(card)}
        self._tell(priority, f"{card.name}: the level {change}, at {heat_in_words(card)}", fields)

    def _tell_reading(self, card: Card) -> None:
        level = self._states[card.uuid].level
        fields = {"event": "reading", "level": level.name.lower(), **_fields(card)}
        self._tell(PRIORITIES[level], f"{card.name}: {in_words(card)}", fields)

    def _tell_failure(self, cause: str | None, problem: str | None) -> None:
        """Report once when readings begin to fail, or fail for another cause, and once when they succeed again."""
        if cause == self._failure:
            return
        if cause is not None:
            self._tell(journal.ERROR, f"the card cannot be read: {problem}", {"event": "failure", "cause": cause})
        else:
            self._tell(journal.NOTICE, "the card can be read again", {"event": "recovery"})
        self._failure = cause

    def _read_kernel_log(self) -> None:
        try:
            news = self._log.news()
        except NoAnswer as error:
            if self._log_failure is None:
                self._tell(journal.ERROR, str(error), {"event": "failure", "cause": error.cause})
            self._log_failure = error.cause
            return
        self._log_failure = None
        for xid in news if self._log_read else []:
            message = f"the driver reports Xid {xid.number} of the card at {xid.bus}: {xid.text}"
            self._tell(journal.ERROR, message, {"event": "xid", "xid": xid.number, "bus": xid.bus})
        if news and not self._log_read:
            message = f"the driver reported {len(news)} Xid since the boot; look at them: journalctl -k --grep=Xid"
            self._tell(journal.WARNING, message, {"event": "xid"})
        self._log_read = True

    def _cooling(self) -> tuple[dict[str, bool], dict[str, bool]]:
        """Whether each measure should be and is in force; repeat the word for root until it is."""
        cooling, applied = self._config.on_critical, read_applied(self._places)
        # A mere warning does not undo the measures: it would be critical again at once.
        kept = applied.any and (self.level > Level.OK or not cooling.restore)
        hot = cooling.wanted and (self.level == Level.CRITICAL or kept)
        word = "hot\n" if hot else "cool\n"
        if hot or applied.any or _text(self._places.wanted) not in (word, ""):
            self._replace(self._places.wanted, word)
        level = self.level
        if self._told_level != level:
            self._replace(self._places.level, f"{level.name.lower()}\n")
            self._told_level = level
        measures = {"power_limit": cooling.power_limit is not None, "engine": cooling.unit is not None}
        wanted = {name: hot for name, is_set in measures.items() if is_set}
        in_force = {"power_limit": bool(applied.power), "engine": applied.unit is not None}
        return wanted, {name: in_force[name] for name in measures if measures[name] or in_force[name]}

    def _write(self, snapshot: Snapshot, problem: str | None) -> None:
        self._replace(self._places.metrics, render(snapshot))
        last = {
            "time": snapshot.time,
            "interval": self._config.interval,
            "problem": problem,
            "cause": snapshot.failure,
            "cards": [{**asdict(card), "level": snapshot.levels[card.uuid].name.lower()} for card in snapshot.cards],
            "xids": [{"bus": bus, "xid": number, "count": n} for (bus, number), n in sorted(snapshot.xids.items())],
            "cooling": snapshot.cooling_applied,
        }
        self._replace(self._places.last, json.dumps(last, indent=2) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        try:
            files.replace(path, text, lasting=False)
        except OSError as error:
            fields = {"event": "failure", "cause": "write"}
            self._tell(journal.ERROR, f"{path} cannot be written: {error.strerror}", fields)


def run(monitor: Monitor, config: Config, devices: Callable[[], frozenset[str]]) -> int:
    """Run until the card's device files change; systemd then starts the monitor again.

    systemd determines the devices that a unit may open when it starts the unit. A driver that was loaded later, or a
    card that came back, stays closed to an older process.
    """
    known = devices()
    begin = time.monotonic()
    while True:
        try:
            monitor.round()
        except Exception as error:
            # A monitor that ends over an unforeseen error would leave the card unwatched; report the error instead.
            message = f"a reading went wrong: {type(error).__name__}: {error}"
            journal.send(journal.ERROR, message, {"event": "failure", "cause": "internal"})
        _tell_systemd("READY=1")
        # By multiples of the interval: a slow reading does not shift the later ones.
        passed = time.monotonic() - begin
        due = begin + (passed // config.interval + 1) * config.interval
        while (left := due - time.monotonic()) > 0:
            _tell_systemd("WATCHDOG=1")
            time.sleep(min(left, LONGEST_SLEEP))
        if devices() != known:
            message = "the device files of the card are other ones: starting again, to be let in to them"
            journal.send(journal.NOTICE, message, {"event": "devices"})
            return 0


def card_devices() -> frozenset[str]:
    """The card's device files, with their present numbers."""
    found = (path for path in Path("/dev").glob("nvidia*") if path.is_char_device())
    return frozenset(f"{path} {path.stat().st_rdev}" for path in found)


def _tell_systemd(state: str) -> None:
    """sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def heat_in_words(card: Card) -> str:
    """Temperature and margin."""
    if card.temperature is None and card.margin is None:
        return "an unknown temperature"
    temperature = "" if card.temperature is None else f"{card.temperature:g} C"
    margin = "" if card.margin is None else f"{card.margin:g} C below its limit"
    return ", ".join(filter(None, (temperature, margin)))


def in_words(card: Card) -> str:
    """A reading on one line."""
    parts = [
        heat_in_words(card),
        None if card.power is None else f"{card.power:g} W",
        None if card.fan is None else f"fan {card.fan:g} %",
        None if card.sm_clock is None else f"{card.sm_clock:g} MHz",
        None if card.memory_used is None else f"{card.memory_used:g} MiB in use",
        ", ".join(reason for reason in card.reasons or () if reason != "gpu_idle") or None,
    ]
    return ", ".join(part for part in parts if part is not None)


def _fields(card: Card) -> dict[str, object]:
    values = asdict(card)
    values["gpu"] = values.pop("uuid")
    values["reasons"] = None if card.reasons is None else " ".join(card.reasons)
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""

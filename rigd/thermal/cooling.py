"""Root's measures against a card that is too hot: lower its power limit, stop an engine, and undo both.

The monitor that requests them has no privileges and can write one word, `hot` or `cool`; the measures for it are in the
configuration, which only root can write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rigd.base import lock
from rigd.base.card import ANSWERED
from rigd.base.command import Command, NoAnswer
from rigd.modes.config import LOCK
from rigd.thermal import journal
from rigd.thermal.config import Config
from rigd.thermal.places import Applied, Places, read_applied, write_applied
from rigd.thermal.reading import MUCH, number_in
from rigd.thermal.smi import first_line

UNIT_TIMEOUT = 150.0
"""Seconds that an engine may take to stop or start; a container is stopped within a minute."""


@dataclass(frozen=True)
class Power:
    """Limits of one card, watts."""

    limit: float
    least: float


@dataclass(frozen=True)
class SetPower:
    """Set a card's limit; `before` is recorded, or None when this undoes a measure."""

    uuid: str
    watts: float
    before: float | None


@dataclass(frozen=True)
class StopUnit:
    unit: str


@dataclass(frozen=True)
class StartUnit:
    unit: str


Action = SetPower | StopUnit | StartUnit


def plan(hot: bool, config: Config, applied: Applied, power: dict[str, Power], running: bool) -> list[Action]:
    """The actions, by the present state and the applied measures. None if all is as it should be.

    `power`: of each card that answers; `running`: True if the configured unit runs.
    """
    wanted = config.on_critical if hot else replace(config.on_critical, power_limit=None, unit=None)
    actions: list[Action] = []
    if wanted.power_limit is not None:
        for uuid, now in power.items():
            target = max(float(wanted.power_limit), now.least)
            if now.limit > target:
                actions.append(SetPower(uuid, target, applied.power.get(uuid, now.limit)))
    else:
        actions += [SetPower(uuid, watts, None) for uuid, watts in applied.power.items()]
    if applied.unit is not None and applied.unit != wanted.unit:
        actions.append(StartUnit(applied.unit))
    # Stop it only once: whoever starts it again in the heat, by hand or by a deploy that waits for it, wants it to run.
    if wanted.unit is not None and running and applied.unit != wanted.unit:
        actions.append(StopUnit(wanted.unit))
    return actions


Tell = Callable[[int, str], None]


def _tell(priority: int, message: str) -> None:
    journal.send(priority, message, {"event": "cooling"})


class Hand:
    """Carries out the actions and reports them."""

    def __init__(self, config: Config, places: Places, tell: Tell = _tell) -> None:
        self._config, self._places, self._tell = config, places, tell
        self._smi = Command(config.timeout)
        self._systemctl = Command(UNIT_TIMEOUT)

    def reconcile(self, hot: bool) -> bool:
        """Bring the machine to the wanted state; False if an action failed, which is reported."""
        applied = read_applied(self._places)
        unit, done = self._config.on_critical.unit, True
        # Each measure by itself: if a card does not answer, there is all the more reason to stop the source of its
        # heat.
        power: dict[str, Power] = {}
        if applied.power or (hot and self._config.on_critical.power_limit is not None):
            try:
                power = self._power()
            except NoAnswer as error:
                self._tell(journal.ERROR, f"the power limit cannot be read: {error}")
                done = False
        running = False
        if hot and unit is not None:
            try:
                running = self._runs(unit)
            except NoAnswer as error:
                # Stopping a stopped unit changes nothing.
                self._tell(journal.ERROR, f"{unit} is stopped without a look at it: {error}")
                running = True
        for action in plan(hot, self._config, applied, power, running):
            try:
                applied = self._do(action, applied)
            except NoAnswer as error:
                self._tell(journal.ERROR, f"{error}")
                done = False
        return done

    def _do(self, action: Action, applied: Applied) -> Applied:
        """Carry out an action; record each measure before it is taken, and clear it after it is undone. Raises
        NoAnswer."""
        if isinstance(action, StopUnit):
            applied = self._record(replace(applied, unit=action.unit))
            self._systemd("stop", action.unit)
            self._tell(journal.WARNING, f"{action.unit} is stopped, because the graphics card is too hot")
        elif isinstance(action, StartUnit):
            # Its start would stop an alternative that was chosen meanwhile, or that is on trial: then the choice is
            # still open, and the monitor requests the start again.
            if lock.holder(Path(LOCK)) is not None:
                self._tell(journal.NOTICE, f"{action.unit} stays stopped until rig-mode is done")
                return applied
            wanted = self._starts_at_boot(action.unit)
            if wanted:
                # An intended start is no crash: without this, systemd refuses the sixth in ten minutes.
                self._systemctl.run(["systemctl", "reset-failed", action.unit])
                self._systemd("start", action.unit)
            applied = self._record(replace(applied, unit=None))
            fate = "is started again" if wanted else "stays stopped, as it does not start at boot any more"
            self._tell(journal.NOTICE, f"{action.unit} {fate}")
        elif action.before is not None:
            applied = self._record(replace(applied, power={**applied.power, action.uuid: action.before}))
            self._set(action)
            least = self._config.on_critical.power_limit != action.watts
            why = " (the card's least)" if least else ""
            text = f"{action.watts:g} W{why} from {action.before:g} W, because it is too hot"
            self._tell(journal.WARNING, f"the power limit of {action.uuid} is lowered to {text}")
        else:
            self._set(action)
            rest = {uuid: watts for uuid, watts in applied.power.items() if uuid != action.uuid}
            applied = self._record(replace(applied, power=rest))
            self._tell(journal.NOTICE, f"the power limit of {action.uuid} is {action.watts:g} W again")
        return applied

    def _record(self, applied: Applied) -> Applied:
        write_applied(self._places, applied)
        return applied

    def _power(self) -> dict[str, Power]:
        query = "--query-gpu=uuid,power.limit,power.min_limit"
        answer = self._smi.run([self._config.smi, query, "--format=csv,noheader,nounits"])
        found = parse_power(answer.text)
        if answer.code not in ANSWERED and not found:
            raise NoAnswer("failed", f"nvidia-smi ended with {answer.code}, '{first_line(answer.text)}'")
        return found

    def _set(self, action: SetPower) -> None:
        answer = self._smi.run([self._config.smi, f"--id={action.uuid}", f"--power-limit={action.watts:g}"])
        if answer.code not in ANSWERED or "was set to" not in answer.text:
            said = first_line(answer.text)
            wanted = f"the power limit of {action.uuid} could not be set to {action.watts:g} W"
            raise NoAnswer("failed", f"{wanted}: '{said}'")

    def _runs(self, unit: str) -> bool:
        answer = self._systemctl.run(["systemctl", "is-active", unit])
        return answer.text.strip() in ("active", "activating", "reloading")

    def _starts_at_boot(self, unit: str) -> bool:
        """True if the owner still wants it. Raises NoAnswer."""
        answer = self._systemctl.run(["systemctl", "is-enabled", unit])
        return answer.text.strip() == "enabled"

    def _systemd(self, verb: str, unit: str) -> None:
        answer = self._systemctl.run(["systemctl", verb, unit])
        if answer.code != 0:
            raise NoAnswer("failed", f"'systemctl {verb} {unit}' failed: {first_line(answer.text)}")


def parse_power(text: str) -> dict[str, Power]:
    """Limits by card; a card without a limit is skipped."""
    found = {}
    for line in text.splitlines():
        # With its space, because some locales write a fraction with a comma.
        uuid, *cells = (cell.strip() for cell in line.split(", "))
        values = [number_in(cell, MUCH) for cell in cells]
        if re.fullmatch(r"[A-Za-z0-9-]+", uuid) and len(values) == 2 and values[0] is not None:
            found[uuid] = Power(values[0], values[1] or 0.0)
    return found

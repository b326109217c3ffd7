"""Switch from one engine to another; undo the switch if the new one does not become healthy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rigd.base.errors import Failed
from rigd.modes.choice import chosen
from rigd.modes.config import Engine
from rigd.modes.look import Seen

POLL = 1.0
"""Seconds between two checks of a starting engine."""
CRASHES = 3
"""Crashes after which the wait for an engine ends."""
FINISH = 300.0
"""Seconds for which an engine may finish its answers before it is stopped: most answers take less."""

Tell = Callable[[str], None]


class Machine(Protocol):
    """The actions of a switch on a machine."""

    def look(self, engine: Engine) -> Seen: ...
    def start(self, engine: Engine) -> None:
        """Start it; its unit stops the others. Raises Failed."""

    def drain(self, engine: Engine) -> int:
        """Let no new requests through to it; return the number of those in progress."""

    def stop(self, engine: Engine) -> None: ...
    def enable(self, engine: Engine) -> None:
        """Raises Failed."""

    def disable(self, engine: Engine) -> None: ...
    def keep(self, engine: Engine) -> None:
        """Record the definition that it serves with. Raises Failed."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


def switch(machine: Machine, group: Sequence[Engine], name: str, tell: Tell) -> bool:
    """Run this engine of the group instead of the others; False if nothing had to change. Raises Failed.

    Start at boot changes last: a switch that breaks off earlier has no lasting effect.
    """
    seen = {engine.name: machine.look(engine) for engine in group}
    ran = [other for other, state in seen.items() if other != name and state.unit.active and state.running]
    # The running engine may differ from the one that starts at boot: then a failed switch must restore the running one.
    before = ran[0] if ran else chosen({other: state.unit for other, state in seen.items()})
    (wanted,) = (engine for engine in group if engine.name == name)
    others = [engine for engine in group if engine.name != name]
    alone = not any(seen[other.name].running or seen[other.name].unit.enabled for other in others)
    if alone and seen[name].unit.enabled and seen[name].trouble is None:
        return False
    try:
        if not (seen[name].unit.active and seen[name].running):
            finish(machine, [other for other in others if seen[other.name].running], tell)
            machine.start(wanted)
        wait(machine, wanted, tell)
        machine.keep(wanted)
        machine.enable(wanted)
    except (Failed, KeyboardInterrupt) as error:
        said = str(error) or "interrupted"
        if not seen[name].unit.enabled:
            machine.disable(wanted)
        if before == name:
            raise Failed(f"{said}; nothing ran before it") from None
        raise Failed(f"{said}; {_back(machine, wanted, others, before, tell)}") from None
    for other in others:
        machine.stop(other)
        machine.disable(other)
    return True


def _back(machine: Machine, wanted: Engine, others: Sequence[Engine], before: str, tell: Tell) -> str:
    """Start the engine that ran before; return a sentence about the outcome."""
    (old,) = (engine for engine in others if engine.name == before)
    tell(f"going back to {before}")
    machine.stop(wanted)
    try:
        # Whoever stopped the new engine may have started this one already.
        state = machine.look(old)
        if not (state.unit.active and state.running):
            machine.start(old)
        wait(machine, old, tell)
    except (Failed, KeyboardInterrupt) as error:
        return f"{str(error) or 'interrupted'} either"
    return f"{before} runs again"


def finish(machine: Machine, engines: Sequence[Engine], tell: Tell) -> None:
    """Let the engines finish the answers that they have begun, for as long as FINISH."""
    begin = machine.now()
    while True:
        left = {engine.name: machine.drain(engine) for engine in engines}
        elapsed = machine.now() - begin
        if not any(left.values()) or elapsed >= FINISH:
            return
        answers = " and ".join(f"{count} of {name}" for name, count in left.items() if count)
        tell(f"waiting for answers to end: {answers}, {elapsed:.0f} s of {FINISH:.0f} s")
        machine.sleep(POLL)


def wait(machine: Machine, engine: Engine, tell: Tell) -> None:
    """Wait until the engine serves. Raises Failed if it ends again and again, is stopped, or exceeds its time."""
    begin = machine.now()
    crashed: int | None = None
    while True:
        seen = machine.look(engine)
        if seen.trouble is None:
            return
        if not (seen.unit.active or seen.lost):
            raise Failed(f"{engine.name} was stopped by somebody else")
        crashed = seen.crashes if crashed is None else crashed
        elapsed = machine.now() - begin
        if seen.lost or seen.crashes - crashed >= CRASHES:
            raise Failed(f"{engine.name} ends again and again instead of serving")
        if elapsed >= engine.timeout:
            raise Failed(f"{engine.name} {seen.trouble}, after {elapsed:.0f} s of the {engine.timeout} s it may take")
        tell(f"{engine.name} {seen.trouble}, {elapsed:.0f} s of {engine.timeout} s")
        machine.sleep(POLL)

"""systemd units that are enabled and running, and restarted only if a file that they read is younger."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import OperationError, operation

from rig.facts.units import Unit
from rig.operations import Commands, programs
from rig.systemd import units


@operation()
def running(unit: str, files: list[str] | None = None, starts: list[str] | None = None) -> Commands:
    """``unit`` is enabled and active, and was started after the last change of ``files``.

    ``starts``: units that it starts; systemd must know their current files. Raises OperationError for a masked unit.
    """
    seen = host.get_fact(Unit, unit=unit, files=tuple(files or ()), starts=tuple(starts or ()))
    refusal = units.refusal(unit, seen)
    if refusal:
        raise OperationError(refusal)
    yield from programs.take(unit, units.steps(seen))

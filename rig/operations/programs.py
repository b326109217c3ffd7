"""Programs that run by a systemd unit: the commands that start, reload and remove them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence

from pyinfra.api import FunctionCommand, Host

from rig.operations import Commands
from rig.operations.waiting import wait
from rig.systemd.units import Step


def take(unit: str, steps: Sequence[Step]) -> Commands:
    """Take the steps that the unit's state makes necessary."""
    for step in steps:
        yield "systemctl daemon-reload" if step == "daemon-reload" else f"systemctl {step} {shlex.quote(unit)}"


def starts(steps: Collection[Step]) -> bool:
    """Whether one of the steps starts the program, which then reads its files anyway."""
    return not {"start", "restart"}.isdisjoint(steps)


def reload(unit: str, steps: Collection[Step], ready: Callable[[Host], bool]) -> Commands:
    """Have the program read its files, unless the steps have just started it; wait until it is ``ready``.

    After a start it has no handler for the signal yet. If its files made it fail, it waits for its restart, and cannot
    get a signal.
    """
    if not starts(steps):
        yield f"systemctl reload-or-restart {unit}"
    yield FunctionCommand(wait, (unit, ready), {})


def remove(unit: str, files: Sequence[str], folder: str | None = None) -> Commands:
    """Stop the program, and delete its unit's files, and a ``folder`` of its own before them."""
    yield f"systemctl disable --now {unit}"
    first = "" if folder is None else f"rm -rf {folder} && "
    yield f"{first}rm -f {shlex.join(files)} && systemctl daemon-reload"
    yield f"systemctl reset-failed {unit} 2>/dev/null || true"

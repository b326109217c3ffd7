"""Changes that could lock the operator out: a new SSH connection confirms one, or the machine takes it back by itself.

What undoes a change, and the timer that runs it, are in the machine's memory and belong to systemd: they outlive the
operator's connection and the run, and end with a power cut, after which the machine boots with what was there before.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

SECONDS = 60
"""Time until the machine takes a change back."""
FOLDER = "/run/rig-return"


@dataclass(frozen=True)
class Change:
    """A change in root's shell language; commands are joined with ``&&``, as the first failure must end a script."""

    name: str
    keep: str
    """Keeps the present state in the folder ``$kept``."""
    apply: str
    """Makes the change, so that a boot would not find it."""
    undo: str
    """Makes the kept state effective again, from the folder ``$kept``."""
    commit: str
    """Makes the change last."""

    @property
    def unit(self) -> str:
        """systemd's units that take it back, without their suffix."""
        return f"rig-return-{self.name}"

    @property
    def kept(self) -> str:
        return f"{FOLDER}/{self.name}"


def begin(change: Change) -> str:
    """A script that makes the change, after it has armed the return."""
    undo = f'kept={change.kept}; [ -e "$kept/pending" ] || exit 0; rm "$kept/pending"; {change.undo}\n'
    timer = f"--on-active={SECONDS} --timer-property=AccuracySec=1s"
    return f"""kept={change.kept}
# A run that died has left a change on trial: what it had kept is the state before.
{_undo(change)}
rm -rf "$kept" && mkdir -p -m 0700 "$kept" && {change.keep} && printf %s {shlex.quote(undo)} >"$kept/undo" &&
: >"$kept/pending" && systemd-run --quiet --collect --service-type=oneshot {timer} --unit={change.unit} \\
  --description="Take an unconfirmed change back" /bin/sh "$kept/undo" || exit 1
{change.apply} || {{ {_undo(change)}; exit 1; }}"""


def confirm(change: Change) -> str:
    """A script that disarms the return and makes the change last; it fails if the machine has taken the change back."""
    late = f"the machine took the change back after {SECONDS} s, before it was confirmed; deploy again"
    return f"""kept={change.kept}
{_disarm(change)}
[ -e "$kept/pending" ] || {{ echo {shlex.quote(late)} >&2; exit 1; }}
{change.commit} && rm -rf "$kept" """.rstrip()


def take_back(change: Change) -> str:
    """A script that takes the change back now."""
    return f"kept={change.kept}\n{_undo(change)}"


def _undo(change: Change) -> str:
    return f'{{ {_disarm(change)}; [ ! -e "$kept/undo" ] || sh "$kept/undo"; }}'


def _disarm(change: Change) -> str:
    # Neither is known to systemd when no change is on trial.
    return f"systemctl stop {change.unit}.timer {change.unit}.service 2>/dev/null || true"

"""The commands of a change that a new SSH connection must confirm."""

from __future__ import annotations

import click
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State

from rig import confirmation
from rig.confirmation import Change
from rig.operations import Commands, shell
from rig.operator import connection

PATIENCE = 25
"""Seconds for a new connection; the return of the change is nearer than confirmation.SECONDS then."""


def confirmed(change: Change, remedy: str) -> Commands:
    """Make a change that lasts only if the operator can still log in; ``remedy``: what to do if not."""
    yield confirmation.begin(change)
    yield FunctionCommand(_logs_in, (change, remedy), {})
    yield confirmation.confirm(change)


def _logs_in(state: State, host: Host, change: Change, remedy: str) -> bool:
    """Whether a new connection gets in; if not, the change is taken back at once where the old one still works."""
    problem = connection.refused(state, host, PATIENCE)
    if problem is None:
        return True
    gone, _ = shell.run(state, host, confirmation.take_back(change))
    back = "it was taken back" if gone else f"the machine takes it back within {confirmation.SECONDS} s"
    sentence = f"you would be locked out: with this change no new SSH connection gets in ({problem}); {back}; {remedy}"
    logger.error(f"{host.print_prefix}{click.style(sentence, 'red')}")
    return False

"""A shell command inside a function of an operation, with the operation's own privileges."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra.api import Host, State
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments


def run(state: State, host: Host, script: str) -> tuple[bool, Iterable[str]]:
    """Run a script; returns whether it succeeded, and the lines of its output."""
    known, _ = pop_global_arguments(state, host, {})
    arguments = {key: value for key, value in known.items() if key in CONNECTOR_ARGUMENT_KEYS}
    succeeded, output = host.run_shell_command(script, **arguments)
    return succeeded, output.stdout_lines

"""A shell command in the middle of a function of an operation, with the privileges that the operation itself has."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra.api import Host, State
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments


def run(state: State, host: Host, script: str) -> tuple[bool, Iterable[str]]:
    """Whether the script succeeded, and the lines that it printed."""
    known, _ = pop_global_arguments(state, host, {})
    arguments = {key: value for key, value in known.items() if key in CONNECTOR_ARGUMENT_KEYS}
    succeeded, output = host.run_shell_command(script, **arguments)
    return succeeded, output.stdout_lines

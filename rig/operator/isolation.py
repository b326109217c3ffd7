"""A failure of one machine stays its own: the run goes on for the others, and exits with 1.

An operation whose commands all succeeded and changed nothing counts as a failure, too.
"""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from pyinfra import logger
from pyinfra.api import DeployError, FunctionCommand, Host, State
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import PyinfraError

from rig.operations import shell
from rig.operator import lock, reads

Commands = Callable[[], Iterator[PyinfraCommand]]

LONGEST = 160
"""Letters of a command in an error: the rest of a script does not help."""
BACKGROUND = "systemd-run "
"""Start of a command that runs in the background; a later operation waits for it and verifies it."""
UNIT = re.compile(r"systemctl (?:enable |disable |start |restart |stop |--now )+([\w@.:-]+)")


@contextmanager
def alone(state: State, host: Host) -> Iterator[None]:
    """A context for a deploy's code, which pyinfra runs for each machine, and ends for all when it fails for one.

    Raises DeployError if no other machine is left.
    """
    try:
        yield
    except Exception as error:
        # A failed fact has reported itself, and the code went on with nothing.
        failed = host in state.failed_hosts
        sentence = in_words(host, error)
        if not state.active_hosts - {host}:
            raise DeployError("no machine is left" if failed else sentence) from error
        if not failed:
            _say(host, sentence)
            state.fail_hosts({host})  # type: ignore[no-untyped-call]
    if host not in state.failed_hosts:
        for operation in state.ops[host].values():
            operation.command_generator = contained(state, host, operation.command_generator)


def contained(state: State, host: Host, commands: Commands) -> Commands:
    """An operation's commands; an error while they are being generated makes the operation fail."""

    def alone() -> Iterator[PyinfraCommand]:
        acted = False
        try:
            lock.keep(host)
            for command in commands():
                # A fact failed, and the operation decided without it.
                if host in state.failed_hosts:
                    yield _failure()
                    return
                yield command
                acted = True
            if acted:
                yield from unchanged(state, host, commands)
        except Exception as error:
            if reads.walking(state, host):
                raise
            if host not in state.failed_hosts:
                _say(host, in_words(host, error))
            yield _failure()

    return alone


def unchanged(state: State, host: Host, commands: Commands) -> Iterator[PyinfraCommand]:
    """Verify with the operation's own facts: it fails if they would make it act again in the same way.

    Every command has succeeded by then. A drop-in that empties a unit, or a program that puts a file back, makes no
    command fail.
    """
    reads.drop(state, host)
    # Not closed before the end: closing makes pyinfra forget the privileges of the operation's reads.
    again = commands()
    due = next(again, None)
    if due is None:
        return
    what = due.function.__name__.strip("_") if isinstance(due, FunctionCommand) else str(due)
    if BACKGROUND in what:
        return
    _say(host, f"nothing became better: every command succeeded, and this is due as before: {shortened(what)}")
    unit = UNIT.search(what)
    if unit:
        for line in shell.run(state, host, evidence(unit[1]))[1]:
            _say(host, f"  {line}")
    yield _failure()


def shortened(command: str) -> str:
    """The useful part of a command: its first line, cut short."""
    line = command.strip().splitlines()[0] if command.strip() else ""
    return line if len(line) <= LONGEST and line == command.strip() else f"{line[:LONGEST]}..."


def evidence(unit: str) -> str:
    """A command that prints why a unit differs from its file: state, drop-ins, and last log lines."""
    name = shlex.quote(unit)
    return (
        f"systemctl show --property=LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,ExecStart {name}; "
        f"journalctl --no-pager --output=cat --lines=5 --unit={name}"
    )


def in_words(host: Host, error: Exception) -> str:
    """A sentence for an error: the text of an expected one, or a description of any other."""
    if isinstance(error, PyinfraError):
        return str(error)
    logger.debug("".join(traceback.format_exception(error)))
    at = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{host.name} answers in a way that is not understood ({type(error).__name__} in {at.name}: {error}); "
        "--debug shows where"
    )


def _failure() -> FunctionCommand:
    return FunctionCommand(lambda state, host: False, (), {})


def _say(host: Host, sentence: str) -> None:
    logger.error(f"{host.print_prefix}{click.style(sentence, 'red')}")

"""What goes wrong with one machine is that machine's failure: the run goes on for the others, and ends with 1.

An operation whose commands all succeeded and changed nothing is such a failure, too.
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
"""Letters of a command that an error repeats: the rest of a script does not help."""
BACKGROUND = "systemd-run "
"""Begins what goes on by itself; the operation that waits for it looks whether it was of use."""
UNIT = re.compile(r"systemctl (?:enable |disable |start |restart |stop |--now )+([\w@.:-]+)")


@contextmanager
def alone(state: State, host: Host) -> Iterator[None]:
    """For the code of a deploy, which pyinfra runs for each machine, and which it ends for all when it fails for one.

    Raises DeployError where no other machine is left.
    """
    try:
        yield
    except Exception as error:
        # A fact that fails has told so itself, and the code went on with nothing.
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
    """An operation's commands; one that fails in the middle of being decided on is an operation that failed."""

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
    """Look again, with the facts that made an operation act: it fails when they would make it act in the same way.

    Every command of it succeeded before. A drop-in that empties a unit, or a program that puts a file back, makes no
    command fail.
    """
    reads.drop(state, host)
    # Not closed before the end: pyinfra forgets with which privileges the operation looks.
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
    """The first line of a command, as far as it helps."""
    line = command.strip().splitlines()[0] if command.strip() else ""
    return line if len(line) <= LONGEST and line == command.strip() else f"{line[:LONGEST]}..."


def evidence(unit: str) -> str:
    """A command that prints what makes a unit other than its file says: state, drop-ins, and its last lines."""
    name = shlex.quote(unit)
    return (
        f"systemctl show --property=LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,ExecStart {name}; "
        f"journalctl --no-pager --output=cat --lines=5 --unit={name}"
    )


def in_words(host: Host, error: Exception) -> str:
    """A sentence: that of an error that was foreseen, or what there is to say of another one."""
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

"""What goes wrong with one machine is that machine's failure: the run goes on for the others, and ends with 1."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from pyinfra import logger
from pyinfra.api import DeployError, FunctionCommand, Host, State
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import PyinfraError

from rig.operator import lock, reads

Commands = Callable[[], Iterator[PyinfraCommand]]


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
        try:
            lock.keep(host)
            for command in commands():
                # A fact failed, and the operation decided without it.
                if host in state.failed_hosts:
                    yield _failure()
                    return
                yield command
        except Exception as error:
            if reads.walking(state, host):
                raise
            if host not in state.failed_hosts:
                _say(host, in_words(host, error))
            yield _failure()

    return alone


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

"""Reads ahead of a run: the answers that all operations need of their machine, in one script; and what each would do.

Before the first operation of a machine begins, the operations' generators are walked without a machine: each read is
noted, and its generator is abandoned. All noted reads go to the machine as one script, and the walk is repeated until
it finds no new read. The run then uses these answers and does not query the machine again for each one. Before any
operation gives its first command, all answers of the machine are dropped for good, so that no decision rests on an
answer from before a change.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import gevent
from pyinfra import logger
from pyinfra.api import BaseStateCallback, Host, State, StringCommand
from pyinfra.api.command import PyinfraCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

from rig import bundle

FRESH = 30.0
"""Seconds until an answer is too old for a decision."""
ROUNDS = 10
"""Most walks; three are usual, as few operations read more than twice."""
SWITCH = "RIG_READS"
"""Environment variable for debugging: `single` makes each operation do its own reads."""


class _Unanswered(BaseException):
    """A read without an answer; an operation's own `except Exception` must not catch it as a failure of the machine."""


class _Undecided(BaseException):
    """pyinfra would drop the machine here, which only the run itself may do."""


class _Chatter(Exception):
    """The machine prints more than the answers."""


@dataclass(frozen=True)
class Read:
    """A command that only reads, with its privileges and environment."""

    text: str
    group: str
    arguments: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Foreseen:
    """The effect that an operation would have on the machine's present state."""

    name: str
    verdict: Literal["settled", "due", "unknown"]
    """Settled: no change. Due: it would change something. Unknown: not known before the run."""
    reason: str = ""
    """Why the verdict is unknown: a read without an answer, or an error that an answer causes."""


def install(state: State, environ: Mapping[str, str]) -> None:
    """Read ahead in this run; deploy.py runs once for each host, and one reader serves them all."""
    switch = environ.get(SWITCH, "")
    if switch not in ("", "single"):
        print(f"{SWITCH} is '{switch}'; write single, or unset it", file=sys.stderr)
        raise SystemExit(2)
    if not switch and _installed(state) is None:
        state.add_callback_handler(Reader())  # type: ignore[no-untyped-call]


def ahead(state: State, host: Host, *questions: Callable[[], object]) -> None:
    """Fetch answers in one round trip. Each question calls `host.get_fact` once, exactly as the run will later."""
    reader = _installed(state)
    if reader is not None:
        reader.ask(_itself(state, host), questions)


def drop(state: State, host: Host) -> None:
    """Forget all answers of the machine: after a wait for a change, only new ones count."""
    reader = _installed(state)
    if reader is not None:
        reader.answers(_itself(state, host)).drop()


def walking(state: State, host: Host) -> bool:
    """Whether the machine's operations are only being walked, so that their errors are not failures yet."""
    reader = _installed(state)
    return reader is not None and reader.answers(_itself(state, host)).recording_now


def _itself(state: State, host: Host) -> Host:
    """The host itself; deploy.py has pyinfra's stand-in for the current host."""
    host = state.inventory.get_host(host.name)
    assert host is not None
    return host


def _installed(state: State) -> Reader | None:
    return next((handler for handler in state.callback_handlers if isinstance(handler, Reader)), None)


class Answers:
    """One machine's answers, in place of its `run_shell_command`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[Read, tuple[bundle.Answer, float]] = {}
        self._noted: dict[Read, None] = {}
        self._asked: set[Read] = set()
        self.recording_now = False
        self.unread: str = ""
        """The last read without an answer."""

    def __len__(self) -> int:
        return len(self._known)

    def drop(self) -> None:
        """Read everything from the machine from here on."""
        self._known.clear()
        self._asked.clear()
        vars(self._host).pop("run_shell_command", None)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A context in which no command reaches the machine: a read is answered or noted."""
        self._serve()
        self.recording_now = True
        try:
            yield
        finally:
            self.recording_now = False

    def fetch(self) -> bool:
        """Read everything noted and not read yet, in one script; returns whether there was anything."""
        reads = [read for read in self._noted if read not in self._asked]
        self._noted.clear()
        self._asked.update(reads)
        begin = time.monotonic()
        for read, answer in _together(self._host, reads):
            # A failed read is repeated in its turn, where pyinfra reports its error.
            if answer is not None and answer.code == 0:
                self._known[read] = (answer, begin)
        return bool(reads)

    def _serve(self) -> None:
        self._host.run_shell_command = self._run  # type: ignore[method-assign]

    def _run(
        self, command: str | StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        read = _read(command, arguments)
        answer, begin = self._known.get(read, (None, 0.0)) if read is not None else (None, 0.0)
        if answer is not None and time.monotonic() - begin < FRESH:
            return True, CommandOutput([OutputLine("stdout", line) for line in answer.lines])
        if self.recording_now:
            self.unread = _text(command)
            if read is not None:
                self._noted[read] = None
            raise _Unanswered
        return _ask(self._host, command, print_output, print_input, **arguments)


class Reader(BaseStateCallback):
    """Reads ahead for every machine of a run, once each."""

    def __init__(self) -> None:
        self._answers: dict[Host, Answers] = {}
        self._begun: set[Host] = set()

    def answers(self, host: Host) -> Answers:
        return self._answers.setdefault(host, Answers(host))

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override]
        if host in self._begun:
            return
        self._begun.add(host)
        answers = self.answers(host)
        answers.drop()
        begin = time.monotonic()
        try:
            found = self.foresee(state, host)
        except Exception as error:
            # Not a failure: each operation can do its own reads.
            answers.drop()
            logger.debug(f"{host.print_prefix}reading one by one: reading ahead failed: {error!r}")
            return
        counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("settled", "due", "unknown")}
        logger.debug(
            f"{host.print_prefix}{len(answers)} reads ahead in {time.monotonic() - begin:.2f} s: "
            + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        )
        verdicts = dict(zip(state.ops[host], (one.verdict for one in found), strict=True))
        for op_hash, data in state.ops[host].items():
            # With -v, pyinfra reports for each operation why it does nothing.
            settled = verdicts[op_hash] == "settled" and not state.print_noop_info
            data.command_generator = _served(answers, data.command_generator, begin if settled else None)

    def foresee(self, state: State, host: Host) -> list[Foreseen]:
        """The effect of each operation of the machine, in order. Nothing is changed, and nothing is printed.

        The machine's answers are in force from then on, until they are dropped.
        """
        answers = self.answers(host)
        found: dict[str, Foreseen] = {}
        order = list(state.ops[host])
        for _ in range(ROUNDS):
            for op_hash in order:
                if op_hash not in found or found[op_hash].verdict == "unknown":
                    found[op_hash] = _foresee(state, host, answers, op_hash)
            if not answers.fetch():
                break
        return [found[op_hash] for op_hash in order]

    def ask(self, host: Host, questions: Iterable[Callable[[], object]]) -> None:
        """Fetch the answers to some questions."""
        answers = self.answers(host)
        try:
            for question in questions:
                with _quiet(host.state), answers.recording():
                    try:
                        question()
                    except (_Unanswered, _Undecided):
                        continue
            answers.fetch()
        except Exception as error:
            answers.drop()
            logger.debug(f"{host.print_prefix}reading one by one: reading ahead failed: {error!r}")


def _foresee(state: State, host: Host, answers: Answers, op_hash: str) -> Foreseen:
    name = ", ".join(sorted(state.get_op_meta(op_hash).names))
    generator = state.ops[host][op_hash].command_generator()
    with _quiet(state), answers.recording():
        try:
            command = next(generator, None)
        except _Unanswered:
            return Foreseen(name, "unknown", f"not read: {answers.unread}")
        except _Undecided as error:
            return Foreseen(name, "unknown", str(error))
        except Exception as error:
            return Foreseen(name, "unknown", f"{type(error).__name__}: {error}")
        finally:
            if isinstance(generator, Generator):
                generator.close()
    return Foreseen(name, "settled" if command is None else "due")


def _served(
    answers: Answers, generate: Callable[[], Iterator[PyinfraCommand]], settled: float | None
) -> Callable[[], Iterator[PyinfraCommand]]:
    """The operation's commands; the first one drops the answers, as it may make them wrong.

    `settled`: time of the read that showed no commands, which is valid as long as the answers; None in any other case.
    """

    def generated() -> Iterator[PyinfraCommand]:
        if settled is not None and len(answers) and time.monotonic() - settled < FRESH:
            return
        for command in generate():
            answers.drop()
            yield command

    return generated


@contextmanager
def _quiet(state: State) -> Iterator[None]:
    """A context without log lines, in which pyinfra drops no machine: the run itself will do both in its turn."""
    own = gevent.getcurrent()

    def audible(record: logging.LogRecord) -> bool:
        return gevent.getcurrent() is not own

    def fail_hosts(*_: object, **__: object) -> None:
        raise _Undecided("the machine's answer cannot be parsed")

    logger.addFilter(audible)
    state.fail_hosts = fail_hosts  # type: ignore[method-assign]
    try:
        yield
    finally:
        del state.fail_hosts
        logger.removeFilter(audible)


_IGNORED = {"_retries", "_retry_delay", "_temp_dir"}
"""pyinfra's arguments that do not reach a command."""
_ALONE = {"_stdin", "_get_pty", "_timeout", "_retry_until"}
"""Arguments that a command cannot share with others."""


def _read(command: str | StringCommand, arguments: Mapping[str, Any]) -> Read | None:
    """The read, or None if it must be a command of its own."""
    said = {key: value for key, value in arguments.items() if value and key not in _IGNORED}
    if said.pop("_success_exit_codes", [0]) != [0] or said.pop("_shell_executable", "sh") != "sh" or _ALONE & set(said):
        return None
    return Read(_text(command), repr(sorted(said.items(), key=lambda item: item[0])), said)


def _text(command: str | StringCommand) -> str:
    return command if isinstance(command, str) else str(command.get_raw_value())


def _together(host: Host, reads: Iterable[Read]) -> Iterator[tuple[Read, bundle.Answer | None]]:
    """The answers; one command for the login and plain sudo, and one for each other set of arguments."""
    groups: dict[str, list[Read]] = {}
    for read in reads:
        groups.setdefault(read.group, []).append(read)
    joint: list[list[Read]] = []
    for group in groups.values():
        if _shell(host, group) is None:
            yield from _answers(host, [group], LIMITED, _script(group), group[0].arguments)
        else:
            joint.append(group)
    if joint:
        script = "".join(bundle.fed(_shell(host, group) or "", _script(group)) for group in joint)
        yield from _answers(host, joint, "sh", script, {})


def _answers(
    host: Host, groups: list[list[Read]], shell: str, script: str, arguments: Mapping[str, Any]
) -> Iterator[tuple[Read, bundle.Answer | None]]:
    shown = host.state.print_fact_input
    _, printed = _ask(host, shell, print_input=shown, _stdin=script, _timeout=bundle.SECONDS + 5, **arguments)
    if said := bundle.chatter(printed.stdout_lines):
        # It would be in the middle of every read, too, and must be noticed there.
        raise _Chatter(f"the login prints {said[0]!r}")
    for group in groups:
        yield from zip(group, bundle.answers([read.text for read in group], printed.stdout_lines), strict=True)


def _script(group: list[Read]) -> str:
    return bundle.script([read.text for read in group])


LIMITED = f"timeout {bundle.SECONDS} sh"


def _shell(host: Host, group: list[Read]) -> str | None:
    """A shell for reads within the login's script; None if only pyinfra can start it, as with a password."""
    arguments = dict(group[0].arguments)
    if not arguments:
        return LIMITED
    if arguments == {"_sudo": True} and not host.connector_data.get("prompted_sudo_password"):
        return f"sudo -H -n {LIMITED}"
    return None


def _ask(
    host: Host,
    command: str | StringCommand,
    print_output: bool = False,
    print_input: bool = False,
    **arguments: Any,
) -> tuple[bool, CommandOutput]:
    """Query the machine itself."""
    return Host.run_shell_command(host, command, print_output=print_output, print_input=print_input, **arguments)

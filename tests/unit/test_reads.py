"""Reading ahead changes how often a machine is asked, and nothing else: real operations of pyinfra on this machine."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra import host, logger
from pyinfra.api import Config, FactBase, FactProcessError, FunctionCommand, Host, Inventory, State, operation
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host, ctx_state

from rig.operations import Commands
from rig.operator import isolation, reads
from rig.operator.reads import Reader


class Text(FactBase[str]):
    """Text of a file; a missing file makes it fail, and the word BROKEN cannot be processed."""

    def command(self, path: str) -> str:
        return f"cat {shlex.quote(path)}"

    def process(self, output: list[str]) -> str:
        if output == ["BROKEN"]:
            raise FactProcessError("broken")
        return "\n".join(output)


@operation()
def holds(path: str, text: str) -> Commands:
    """The file holds the text."""
    if host.get_fact(Text, path=path) != text:
        logger.info(f"DIFF {path}")
        yield f"echo {shlex.quote(text)} >{shlex.quote(path)}"


@operation()
def copied(source: str, path: str) -> Commands:
    """The file holds what the source holds."""
    wanted = host.get_fact(Text, path=source)
    if host.get_fact(Text, path=path) != wanted:
        yield f"cp {shlex.quote(source)} {shlex.quote(path)}"


@operation()
def polled(path: str, seen: list[str]) -> Commands:
    """Begin something slow, and poll until it is there."""
    seen.append(host.get_fact(Text, path=path))
    if seen[-1] != "done":
        yield f"echo done >{shlex.quote(path)}"
        yield FunctionCommand(lambda state, host: seen.append(host.get_fact(Text, path=path)), (), {})


@operation()
def refused() -> Commands:
    """Always fails before its first command."""
    raise ValueError("no such thing")
    yield ""


@dataclass
class Run:
    """One run on this machine, and its outcome."""

    state: State
    asked: list[str]
    lines: list[str]
    """The output for people."""

    @property
    def host(self) -> Host:
        (only,) = self.state.inventory
        return only

    @property
    def changed(self) -> list[bool]:
        return [
            data.operation_meta.is_complete() and data.operation_meta.did_change()
            for data in self.state.ops[self.host].values()
        ]


def _state(hosts: list[str]) -> State:
    inventory: Any = Inventory
    config: Any = Config
    return State(inventory((hosts, {})), config(), check_for_changes=False)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, level = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


Answering = Callable[[str, tuple[bool, CommandOutput]], tuple[bool, CommandOutput]]
Prepared = Callable[..., Run]


@pytest.fixture
def prepared(lines: list[str]) -> Prepared:
    """A run before its first operation: each of `operations` is one with its arguments."""

    def prepare(
        *operations: tuple[Any, dict[str, Any]], single: bool = False, answering: Answering = lambda _, answer: answer
    ) -> Run:
        state = _state(["@local"])
        reads.install(state, {"RIG_READS": "single"} if single else {})
        connect_all(state)
        run = Run(state, [], lines)
        itself = run.host.connector.run_shell_command

        def counted(command: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
            run.asked.append(str(command))
            return answering(str(command), itself(command, **arguments))

        setattr(run.host.connector, "run_shell_command", counted)  # noqa: B010
        for what, arguments in operations:
            add_op(state, what, **arguments)
        return run

    return prepare


def _to_the_end(run: Run) -> Run:
    run_ops(run.state)
    return run


def _files(folder: Path, *texts: str) -> list[str]:
    for number, text in enumerate(texts):
        (folder / str(number)).write_text(f"{text}\n")
    return [str(folder / str(number)) for number in range(len(texts))]


def test_a_run_without_changes_asks_once_a_round(prepared: Prepared, tmp_path: Path) -> None:
    paths = _files(tmp_path, *("same" for _ in range(9)))
    run = _to_the_end(prepared(*((holds, {"path": path, "text": "same"}) for path in paths)))
    assert run.changed == [False] * 9
    assert run.asked == ["sh"]
    run = _to_the_end(prepared(*((copied, {"source": paths[0], "path": path}) for path in paths)))
    assert run.asked == ["sh", "sh"]


def test_one_by_one_every_operation_asks_by_itself(prepared: Prepared, tmp_path: Path) -> None:
    (path,) = _files(tmp_path, "same")
    run = _to_the_end(prepared((holds, {"path": path, "text": "same"}), single=True))
    assert run.asked == [f"cat {path}"]


@pytest.mark.parametrize("single", [True, False])
def test_what_an_operation_changes_is_seen_by_the_next_one(prepared: Prepared, tmp_path: Path, single: bool) -> None:
    one, two, three = _files(tmp_path, "old", "old", "new")
    run = _to_the_end(
        prepared(
            (holds, {"path": three, "text": "new"}),
            (holds, {"path": one, "text": "new"}),
            (copied, {"source": one, "path": two}),
            (holds, {"path": two, "text": "new"}),
            single=single,
        )
    )
    assert run.changed == [False, True, True, False]
    assert Path(two).read_text() == "new\n"


def test_a_poll_sees_the_machine_and_no_answer_from_before(prepared: Prepared, tmp_path: Path) -> None:
    (path,) = _files(tmp_path, "begun")
    seen: list[str] = []
    run = _to_the_end(prepared((polled, {"path": path, "seen": seen})))
    assert run.changed == [True]
    # Read ahead, by the run, and by the poll.
    assert seen == ["begun", "begun", "done"]
    assert "run_shell_command" not in vars(run.host)


def test_an_answer_that_is_too_old_is_read_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = _files(tmp_path, "same", "same")
    now = 0.0
    monkeypatch.setattr(reads, "time", SimpleNamespace(monotonic=lambda: now))

    @operation()
    def lingering() -> Commands:
        nonlocal now
        now += reads.FRESH + 1
        yield from ()

    first, last = ((holds, {"path": path, "text": "same"}) for path in (one, two))
    assert _to_the_end(prepared(first, (lingering, {}), last)).asked == ["sh", f"cat {two}"]


def test_what_is_printed_before_a_change_is_printed_once(prepared: Prepared, tmp_path: Path) -> None:
    one, two = _files(tmp_path, "old", "old")
    run = _to_the_end(prepared(*((holds, {"path": path, "text": "new"}) for path in (one, two))))
    assert [line for line in run.lines if line.startswith("DIFF")] == [f"DIFF {one}", f"DIFF {two}"]


def test_a_read_that_fails_is_repeated_and_reported_when_its_turn_comes(prepared: Prepared, tmp_path: Path) -> None:
    one, two = _files(tmp_path, "same", "old")
    missing = str(tmp_path / "missing")
    run = prepared(*((holds, {"path": path, "text": "same"}) for path in (one, missing, two)))
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        run_ops(run.state)
    assert run.asked == ["sh", f"cat {missing}"]
    assert Path(two).read_text() == "old\n"
    assert any("could not load fact" in line for line in run.lines)


def test_a_read_that_fails_ahead_succeeds_once_an_earlier_operation_made_it_right(
    prepared: Prepared, tmp_path: Path
) -> None:
    (one,) = _files(tmp_path, "text")
    later = str(tmp_path / "later")

    @operation()
    def made() -> Commands:
        yield f"cp {one} {later}"

    run = _to_the_end(prepared((made, {}), (holds, {"path": later, "text": "text"})))
    assert run.changed == [True, False]


def test_an_answer_without_sense_ends_the_run_only_when_its_turn_comes(prepared: Prepared, tmp_path: Path) -> None:
    one, two = _files(tmp_path, "old", "BROKEN")
    run = prepared((holds, {"path": one, "text": "new"}), (holds, {"path": two, "text": "new"}))
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        run_ops(run.state)
    assert Path(one).read_text() == "new\n"
    mended = prepared((copied, {"source": one, "path": two}), (holds, {"path": two, "text": "new"}))
    Path(two).write_text("anything\n")
    assert _to_the_end(mended).changed == [True, False]


def test_an_operation_that_refuses_does_so_when_its_turn_comes(prepared: Prepared, tmp_path: Path) -> None:
    (one,) = _files(tmp_path, "old")
    run = prepared((holds, {"path": one, "text": "new"}), (refused, {}))
    with pytest.raises(ValueError, match="no such thing"):
        run_ops(run.state)
    assert Path(one).read_text() == "new\n"


def _noisy(command: str, answer: tuple[bool, CommandOutput]) -> tuple[bool, CommandOutput]:
    succeeded, output = answer
    return (succeeded, CommandOutput([OutputLine("stdout", "Welcome!"), *output])) if command == "sh" else answer


def _silent(command: str, answer: tuple[bool, CommandOutput]) -> tuple[bool, CommandOutput]:
    return (False, CommandOutput([])) if command == "sh" else answer


def _broken(command: str, answer: tuple[bool, CommandOutput]) -> tuple[bool, CommandOutput]:
    if command == "sh":
        raise TimeoutError
    return answer


def _half(command: str, answer: tuple[bool, CommandOutput]) -> tuple[bool, CommandOutput]:
    return (True, CommandOutput(answer[1].combined_lines[:3])) if command == "sh" else answer


@pytest.mark.parametrize("answering", [_silent, _broken, _half, _noisy])
def test_a_machine_that_cannot_be_read_ahead_is_read_one_by_one(
    prepared: Prepared, tmp_path: Path, answering: Answering
) -> None:
    one, two = _files(tmp_path, "same", "old")
    run = prepared((holds, {"path": one, "text": "same"}), (holds, {"path": two, "text": "new"}), answering=answering)
    assert _to_the_end(run).changed == [False, True]
    assert run.asked[1:3] == [f"cat {one}", f"cat {two}"]
    assert len([line for line in run.lines if "ahead" in line]) == 1


def test_it_is_foreseen_what_each_operation_would_do_and_nothing_is_done(prepared: Prepared, tmp_path: Path) -> None:
    one, two, broken = _files(tmp_path, "same", "old", "BROKEN")
    missing = str(tmp_path / "missing")
    run = prepared(
        (holds, {"path": one, "text": "same", "name": "settled"}),
        (holds, {"path": two, "text": "new", "name": "due"}),
        (copied, {"source": one, "path": two, "name": "due after two reads"}),
        (holds, {"path": missing, "text": "new", "name": "missing"}),
        (holds, {"path": broken, "text": "new", "name": "broken"}),
        (refused, {"name": "refused"}),
    )
    reader = next(handler for handler in run.state.callback_handlers if isinstance(handler, Reader))
    with ctx_state.use(run.state), ctx_host.use(run.host):
        found = reader.foresee(run.state, run.host)
    assert [(one.name, one.verdict) for one in found] == [
        ("settled", "settled"),
        ("due", "due"),
        ("due after two reads", "due"),
        ("missing", "unknown"),
        ("broken", "unknown"),
        ("refused", "unknown"),
    ]
    assert [one.reason for one in found[3:]] == [
        f"not read: cat {missing}",
        "the machine's answer cannot be parsed",
        "ValueError: no such thing",
    ]
    assert Path(two).read_text() == "old\n"
    assert run.state.failed_hosts == set()
    assert set(run.asked) == {"sh"}


def test_an_error_that_would_end_the_run_for_one_machine_is_foreseen_and_none_yet(
    prepared: Prepared, tmp_path: Path
) -> None:
    run = prepared((refused, {}))
    for data in run.state.ops[run.host].values():
        data.command_generator = isolation.contained(run.state, run.host, data.command_generator)
    reader = next(handler for handler in run.state.callback_handlers if isinstance(handler, Reader))
    with ctx_state.use(run.state), ctx_host.use(run.host):
        assert [one.verdict for one in reader.foresee(run.state, run.host)] == ["unknown"]
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        run_ops(run.state)
    assert any("no such thing" in line for line in run.lines)


def test_reads_with_other_environments_are_answered_apart(prepared: Prepared, tmp_path: Path) -> None:
    class Word(FactBase[str]):
        def command(self) -> str:
            return "echo $WORD"

    seen: list[str] = []

    @operation()
    def looked() -> Commands:
        seen.append(host.get_fact(Word))
        yield from ()

    run = prepared((looked, {"_env": {"WORD": "one"}}), (looked, {"_env": {"WORD": "two"}}), (looked, {}))
    _to_the_end(run)
    assert seen[-3:] == ["one", "two", ""]
    assert len(run.asked) == 3 and set(run.asked) <= {"sh", reads.LIMITED}


def test_questions_are_answered_together_and_forgotten_on_demand(prepared: Prepared, tmp_path: Path) -> None:
    one, two = _files(tmp_path, "a", "b")
    run = prepared()

    def ask(path: str) -> Callable[[], str]:
        return lambda: str(run.host.get_fact(Text, path=path))

    reads.ahead(run.state, run.host, ask(one), ask(two))
    assert (ask(one)(), ask(two)()) == ("a", "b")
    assert run.asked == ["sh"]
    Path(one).write_text("c\n")
    reads.drop(run.state, run.host)
    assert ask(one)() == "c"


def test_a_switch_without_a_meaning_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        reads.install(_state([]), {"RIG_READS": "twice"})
    assert ended.value.code == 2
    assert capsys.readouterr().err == "RIG_READS is 'twice'; write single, or unset it\n"

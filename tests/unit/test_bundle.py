"""Commands that run as one script answer as each would by itself."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig import bundle
from tests.unit.sample import examples


def _answers(*commands: str, shell: str = "sh") -> list[bundle.Answer | None]:
    return bundle.answers(commands, _printed(bundle.script(commands), shell))


def _printed(script: str, shell: str = "sh") -> list[str]:
    done = subprocess.run([shell], input=script.encode(), capture_output=True, check=False, timeout=60)
    return done.stdout.decode().split("\n")


def _alone(command: str) -> bundle.Answer:
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    return bundle.Answer(done.returncode, done.stdout.decode())


COMMANDS = (
    "echo one",
    "printf 'no end of line'",
    "printf 'two ends\\n\\n'",
    "true",
    "false",
    "echo before; exit 7",
    "cat; echo standard input was empty",
    "cd /; set -e; umask 077; X=lost; false; echo not here",
    'echo "it\'s ${X:-empty}" "$(pwd)"',
    "if",
    "echo to the other side >&2",
    "printf 'tab\\there \\\\ \\302\\265\\n'",
    "# docker\nsleep 0.2; echo slow",
    "# curl\ncat; echo slow, too; exit 3",
)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_answer_is_what_the_command_gives_by_itself(shell: str) -> None:
    found = _answers(*COMMANDS, shell=shell)
    for command, answer in zip(COMMANDS, found, strict=True):
        if command == "if":
            assert answer is not None and answer.code != 0 and answer.output == ""
        else:
            assert answer == _alone(command), command


@examples
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), max_size=4))
def test_any_output_arrives_as_it_was_printed(texts: list[str]) -> None:
    commands = [f"# {number}\nprintf %s {shlex.quote(text)}" for number, text in enumerate(texts)]
    assert [answer.output if answer else None for answer in _answers(*commands)] == texts


def test_lines_end_as_pyinfra_ends_them() -> None:
    outputs = ("", "a", "a\n", "a\nb\n\n", "\n")
    assert [bundle.Answer(0, output).lines for output in outputs] == [[], ["a"], ["a"], ["a", "b", ""], [""]]


def test_output_that_is_no_text_leaves_the_other_answers_as_they_are() -> None:
    assert _answers("printf '\\377\\n'", "echo fine") == [None, bundle.Answer(0, "fine\n")]


def test_slow_commands_run_at_the_same_time() -> None:
    commands = [f"# docker {number}\nsleep 1; echo {number}" for number in range(5)]
    begin = time.monotonic()
    assert _answers(*commands) == [bundle.Answer(0, f"{number}\n") for number in range(5)]
    assert time.monotonic() - begin < 4


def test_much_output_of_a_slow_command_arrives() -> None:
    """More than a pipe holds, while nobody reads it yet."""
    found = _answers("# docker\nseq 200000", "sleep 0.3; echo quick")
    assert found[0] is not None and len(found[0].lines) == 200_000
    assert found[1] == bundle.Answer(0, "quick\n")


def test_a_script_that_arrives_in_part_runs_nothing(tmp_path: Path) -> None:
    script = bundle.script([f"echo x >{tmp_path}/ran", "echo more"])
    for length in range(0, len(script) - 2, 7):
        _printed(script[:length])
    assert list(tmp_path.iterdir()) == []


def test_what_else_a_login_shell_prints_is_no_answer_and_is_noticed() -> None:
    commands = ["echo one", "echo two"]
    printed = _printed("echo Welcome; printf prompt\n" + bundle.script(commands) + "echo Bye\n")
    assert bundle.answers(commands, printed) == [bundle.Answer(0, "one\n"), bundle.Answer(0, "two\n")]
    assert bundle.chatter(printed) == ["Welcome", "prompt", "Bye"]
    assert bundle.chatter(_printed(bundle.script(commands) + bundle.fed("sh", bundle.script(["echo 3"])))) == []


@pytest.mark.parametrize("printed", [[], ["Welcome"], ["", "sh: base64: not found", ""]])
def test_a_machine_that_does_not_answer_gives_no_answers(printed: list[str]) -> None:
    assert bundle.answers(["echo one"], printed) == [None]


def test_an_answer_that_is_cut_short_is_none() -> None:
    commands = ["seq 100", "echo two"]
    whole = _printed(bundle.script(commands))
    for at, line in enumerate(whole):
        for cut in {0, len(line) // 2, max(0, len(line) - 4)} if line else ():
            found = bundle.answers(commands, [*whole[:at], line[:cut]])
            assert found == [None, None]


def test_a_script_within_a_script_answers_as_by_itself() -> None:
    inner = ['echo "it\'s $X"', "echo 'a\nb'"]
    assert bundle.answers(inner, _printed("X=lost\n" + bundle.fed("env -u X sh", bundle.script(inner)))) == [
        bundle.Answer(0, "it's \n"),
        bundle.Answer(0, "a\nb\n"),
    ]

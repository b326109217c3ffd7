"""The command rig-batch: tables to batches, runs that go on after an interruption, retries, the merge's proof."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rigd.base.errors import BadInput, Failed
from rigd.batch import convert, following, merge
from rigd.batch.cli import main
from tests.unit.batching import ScriptedEngine, Server, jsonl, line, until
from tests.unit.project import ROOT

TABLE = 'name,question\nanna,"What is {this}, ""here""?"\nbert,"two\nlines"\n'


def converted(text: str, kind: str = "csv", **changes: Any) -> list[dict[str, Any]]:
    values: dict[str, Any] = {"model": "m", "prompt": "Answer: {question}"} | changes
    return list(convert.requests(convert.Template(**values), convert.rows(io.StringIO(text, newline=""), kind)))


def test_each_row_of_a_table_becomes_a_request() -> None:
    made = converted(TABLE, identity="name", system="You are {name}.", max_tokens=5)
    assert [each["custom_id"] for each in made] == ["anna", "bert"]
    # Braces in a cell are text.
    assert made[0]["body"] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are anna."},
            {"role": "user", "content": 'Answer: What is {this}, "here"?'},
        ],
        "max_tokens": 5,
    }
    assert made[1]["body"]["messages"][1]["content"] == "Answer: two\nlines"
    assert [each["custom_id"] for each in converted('{"question": 1}\n\n{"question": ["x"]}\n', "jsonl")] == [
        "row-1",
        "row-2",
    ]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (TABLE, {"prompt": "{answer}"}, "line 2 has no column 'answer'; its columns are: name, question"),
        (TABLE, {"prompt": "{"}, "the template '{' cannot be read"),
        (TABLE, {"prompt": "{question.__class__}"}, "line 2 has no column 'question.__class__'"),
        ("id,question\na,x\na,y\n", {"identity": "id"}, "line 3: the custom_id 'a' is already that of line 2"),
        ("id,question\n,x\n", {"identity": "id"}, "line 2: 'id' is empty"),
        ("question,question\na,b\n", {}, "two columns have the name 'question'"),
        ("id,question\na\n", {}, "line 2 has not 2 cells"),
        ("id,question\na,b,c\n", {}, "line 2 has not 2 cells"),
    ],
)
def test_a_table_that_cannot_be_converted_is_refused(text: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        converted(text, **changes)
    assert message in str(caught.value)


def result(name: str, status: int | None = 200) -> dict[str, Any]:
    response = None if status is None else {"status_code": status, "body": {}}
    return {"custom_id": name, "response": response, "error": None if status else {"code": "batch_expired"}}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(jsonl(*lines))
    return path


def test_a_retry_has_the_lines_without_an_answer(tmp_path: Path) -> None:
    source = write(tmp_path / "a", *map(line, "abcd"))
    results = [write(tmp_path / "o", result("a")), write(tmp_path / "e", result("b", 400), result("c", None))]
    assert [each["custom_id"] for each in merge.failed(source, results)] == ["b", "c", "d"]


def test_a_merge_has_one_result_for_each_line(tmp_path: Path) -> None:
    source = write(tmp_path / "a", *map(line, "abc"))
    first = write(tmp_path / "1", result("a"), result("b", 400), result("c", None))
    second = write(tmp_path / "2", result("c"), result("b", 500))
    merged = list(merge.merge(source, [first, second]))
    assert merged == [result("a"), result("b", 500), result("c")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([result("a"), result("a"), result("b")], "'a' has two answers"),
        ([result("a")], "1 lines have no result; the first is 'b'"),
        ([result("a"), result("b"), result("x")], "a result for 'x', which is not in"),
    ],
)
def test_a_merge_that_is_not_exactly_once_is_refused(lines: list[Any], message: str, tmp_path: Path) -> None:
    source = write(tmp_path / "a", *map(line, "ab"))
    with pytest.raises(Failed, match=message):
        list(merge.merge(source, [write(tmp_path / "1", *lines)]))


def test_progress_shows_rate_and_time_left() -> None:
    assert following.line("in_progress", 50, 200, 2, [(0.0, 0), (5.0, 50)]) == (
        "in_progress [#####...............] 50 of 200, 2 failed, 10.0/s, 15 s left"
    )


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


@pytest.fixture
def gateway(engine: ScriptedEngine, tmp_path: Path) -> Iterator[str]:
    """The server's address."""
    folder = tmp_path / "server"
    folder.mkdir()
    with Server(folder, engine.settings()).running() as server:
        yield server.url


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", NAMED, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )


NAMED = """
import sys
from rigd.batch import client
from rigd.batch.cli import main
# The gateway would name the client.
begin = client.Client.__init__
def named(self, url):
    begin(self, url)
    self._session.headers["X-Rig-Client"] = "alice"
client.Client.__init__ = named
sys.exit(main())
"""


def test_a_run_that_was_interrupted_goes_on(gateway: str, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.delay = 0.1
    names = [str(number) for number in range(60)]
    source = write(tmp_path / "work.jsonl", *map(line, names))
    with start("run", str(source), "--url", gateway) as first:
        until(lambda: len(engine.seen) > 5)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130
    engine.delay = 0
    with start("run", str(source), "--url", gateway) as second:
        output, error = second.communicate(timeout=60)
    assert (second.returncode, output) == (0, f"{tmp_path / 'work_output.jsonl'}\n"), error
    answers = [json.loads(each) for each in (tmp_path / "work_output.jsonl").read_text().splitlines()]
    assert sorted(each["custom_id"] for each in answers) == sorted(names)
    assert engine.seen == dict.fromkeys(names, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server", "work.jsonl", "work_output.jsonl"]
    with start("status", "--url", gateway, "--json") as third:
        listed = json.loads(third.communicate(timeout=60)[0])
    assert [each["status"] for each in listed] == ["completed"]


def test_a_run_reports_what_failed(gateway: str, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.script = lambda _request, _body, name: web.json_response({}, status=400) if name == "b" else None
    with start("run", str(write(tmp_path / "w.jsonl", *map(line, "abc"))), "--url", gateway) as run:
        _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert error.endswith("rig-batch: 1 of 3 lines failed; rig-batch retry makes a file of them\n")
    with start("run", str(write(tmp_path / "x.jsonl", {"custom_id": "a"})), "--url", gateway) as run:
        _, error = run.communicate(timeout=60)
    assert run.returncode == 1 and "line 1: Missing required parameter: 'method'." in error


def test_a_conversion_from_a_pipe_shows_the_first_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n1\n2\n3\n4\n"))
    to = tmp_path / "out.jsonl"
    assert main(["convert", "-", "--model", "m", "--prompt", "{q}", "--to", str(to)]) == 0
    assert len(to.read_text().splitlines()) == 4
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 4 and shown.err.endswith("4 requests\n")


def test_a_usage_error_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("q\n1\n2\n3\n4\n5,6\n", encoding="utf-8")
    assert main(["convert", str(table), "--model", "m", "--prompt", "{q}", "--to", str(tmp_path / "o")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert capsys.readouterr().err.endswith("rig-batch: line 6 has not 1 cells, as the first line has\n")

"""The check of input files: every kind of line has its decision, each invalid one its number and code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigd.batch import lines, validation
from rigd.batch.config import Limits
from rigd.batch.lines import Wrong
from rigd.batch.validation import Numbered, Report
from tests.unit.batching import CHAT, jsonl, line

A, B = (json.dumps(line(name)).encode() for name in ("a", "b"))


def check(tmp_path: Path, content: bytes, **limits: int) -> tuple[Report, list[Numbered]]:
    path = tmp_path / "input.jsonl"
    path.write_bytes(content)
    kept: list[Numbered] = []
    return validation.check(path, CHAT, {"m", "other"}, Limits(**limits), kept.extend), kept


def found(tmp_path: Path, content: bytes, **limits: int) -> list[tuple[str, int | None, str | None]]:
    """Code, line and parameter of each finding."""
    return [(error.code, error.line, error.param) for error in check(tmp_path, content, **limits)[0].errors]


def bodies(content: bytes, kept: list[Numbered]) -> list[bytes]:
    """The bytes that an engine gets."""
    return [content[place + each.start : place + each.start + each.length] for _, place, each in kept]


VALID = {
    "plain": A + b"\n" + B + b"\n",
    "byte order mark": b"\xef\xbb\xbf" + A + b"\n" + B + b"\n",
    "CRLF": A + b"\r\n" + B + b"\r\n",
    "empty lines": A + b"\n\n   \n" + B + b"\n\n",
    "no last newline": A + b"\n" + B,
    "spaces around": b"  " + A + b" \t\n" + B,
}


@pytest.mark.parametrize("name", VALID)
def test_these_files_hold_two_lines(name: str, tmp_path: Path) -> None:
    report, kept = check(tmp_path, VALID[name])
    assert (report.errors, report.total, report.models) == ([], 2, {"m"})
    assert [each.custom_id for _, _, each in kept] == ["a", "b"]
    assert [json.loads(body)["messages"][0]["content"] for body in bodies(VALID[name], kept)] == ["a", "b"]


RAW = '{"custom_id":"a","method":"POST","url":"%s","body":{"model":"m","messages":[{"role":"user","content":%s}]%s}}'


def raw(content: str = '"hi"', more: str = "") -> bytes:
    return (RAW % (CHAT, content, more)).encode()


VERBATIM = {
    "U+2028, U+2029 and U+0085 are no ends of lines": raw('"one\u2028two\u2029three\u0085four"'),
    "half of a surrogate pair, escaped": raw('"cut \\ud83d here"'),
    "an escaped NUL": raw('"\\u0000"'),
    "integers beyond 2^53": raw(more=',"seed":9007199254740993'),
    "integers of 5,000 digits": raw(more=',"seed":' + "9" * 5000),
    "floats beyond a double": raw(more=',"temperature":1e999'),
    "all digits of a float": raw(more=',"temperature":0.1000000000000000055511151231257827'),
    "nested as deep as allowed": raw("[" * 190 + "]" * 190),
    "brackets in a text": raw('"' + "[{" * 10_000 + '"'),
}


@pytest.mark.parametrize("name", VERBATIM)
def test_the_engine_gets_these_byte_for_byte(name: str, tmp_path: Path) -> None:
    content = VERBATIM[name]
    report, kept = check(tmp_path, content)
    assert report.errors == []
    assert bodies(content, kept) == [content[content.index(b'{"model"') : -1]]


INVALID: dict[str, tuple[bytes, tuple[str, int | None, str | None]]] = {
    "no JSON": (A + b"\nnonsense\n", ("invalid_json_line", 2, None)),
    "cut off": (A[:-1], ("invalid_json_line", 1, None)),
    "cut off within a key": (A[:5], ("invalid_json_line", 1, None)),
    "an opening brace": (b"{", ("invalid_json_line", 1, None)),
    "more behind the object": (A + b"{}", ("invalid_json_line", 1, None)),
    "a comma too many": (A[:-1] + b",}", ("invalid_json_line", 1, None)),
    "NaN": (raw(more=',"temperature":NaN'), ("invalid_json_line", 1, None)),
    "Infinity": (raw(more=',"temperature":-Infinity'), ("invalid_json_line", 1, None)),
    "a raw NUL": (raw('"\0"'), ("invalid_json_line", 1, None)),
    "a raw NUL outside": (A + b"\0", ("invalid_json_line", 1, None)),
    "no UTF-8": (A + b'\n{"custom_id":"b","body":"\xff\xfe"}\n' + B, ("invalid_encoding", 2, None)),
    "a raw surrogate": (raw('"hi"').replace(b"hi", b"\xed\xa0\xbd"), ("invalid_encoding", 1, None)),
    "a list": (b"[" + A + b"," + B + b"]", ("invalid_request", 1, None)),
    "a number": (b"7", ("invalid_request", 1, None)),
    "nested 10,000 deep": (raw("[" * 10_000 + "]" * 10_000), ("invalid_request", 1, None)),
    "10,000 deep and unclosed": (b"[" * 10_000, ("invalid_request", 1, None)),
    "a key twice": (A[:-1] + b',"custom_id":"b"}', ("invalid_request", 1, None)),
    "a key of the body twice": (raw(more=',"stream":false,"stream":true'), ("invalid_request", 1, None)),
    "the same key, written otherwise": (raw(more=',"\\u006dodel":"other"'), ("invalid_request", 1, None)),
    "custom_id of an earlier line": (A + b"\n" + A + b"\n", ("duplicate_custom_id", 2, "custom_id")),
    "custom_id a number": (json.dumps(line("a") | {"custom_id": 1}).encode(), ("invalid_request", 1, "custom_id")),
    "custom_id empty": (json.dumps(line("a") | {"custom_id": ""}).encode(), ("invalid_request", 1, "custom_id")),
    "custom_id half a character": (A.replace(b'"a"', b'"\\ud83d"', 1), ("invalid_request", 1, "custom_id")),
    "a GET": (json.dumps(line("a") | {"method": "GET"}).encode(), ("invalid_method", 1, "method")),
    "a slash too many": (json.dumps(line("a") | {"url": f"{CHAT}/"}).encode(), ("url_mismatch", 1, "url")),
    "another server": (json.dumps(line("a") | {"url": "//example.org/v1"}).encode(), ("url_mismatch", 1, "url")),
    "body a text": (json.dumps(line("a") | {"body": "x"}).encode(), ("invalid_request", 1, "body")),
    "a stream": (json.dumps(line("a", stream=True)).encode(), ("streaming_unsupported", 1, "body.stream")),
    "a stream by 1": (json.dumps(line("a", stream=1)).encode(), ("streaming_unsupported", 1, "body.stream")),
    "model a number": (json.dumps(line("a") | {"body": {"model": 1}}).encode(), ("invalid_request", 1, "body.model")),
    "no model": (json.dumps(line("a") | {"body": {}}).encode(), ("missing_required_parameter", 1, "body.model")),
    "unknown model": (json.dumps(line("a", model="gone")).encode(), ("model_not_found", 1, "body.model")),
    "empty": (b"", ("empty_file", None, None)),
    "blank": (b"\n \n\xe2\x80\x8b"[:-3], ("empty_file", None, None)),
    **{
        f"no {name}": (
            json.dumps({key: value for key, value in line("a").items() if key != name}).encode(),
            ("missing_required_parameter", 1, name),
        )
        for name in ("custom_id", "method", "url", "body")
    },
}


@pytest.mark.parametrize("name", INVALID)
def test_this_makes_the_batch_fail(name: str, tmp_path: Path) -> None:
    content, expected = INVALID[name]
    assert found(tmp_path, content) == [expected]


def test_each_invalid_line_is_listed_by_its_number(tmp_path: Path) -> None:
    content = A + b"\nx\n\n" + B + b"\n[]\n" + jsonl(line("c"), line("a"))
    assert found(tmp_path, content) == [
        ("invalid_json_line", 2, None),
        ("invalid_request", 5, None),
        ("duplicate_custom_id", 7, "custom_id"),
    ]


def test_findings_beyond_the_cap_are_counted(tmp_path: Path) -> None:
    report, kept = check(tmp_path, b"x\n" * 30, findings=10)
    assert [error.line for error in report.errors] == [*range(1, 11), None]
    assert report.errors[-1].message == "30 lines are invalid; the first 10 of them are listed."
    assert kept == []


def test_lines_beyond_the_most_are_one_finding(tmp_path: Path) -> None:
    content = jsonl(*(line(str(number)) for number in range(6)))
    assert found(tmp_path, content, lines=5) == [("too_many_tasks", None, None)]
    assert found(tmp_path, content, lines=6) == []


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_may_be_exactly_as_long_as_allowed(end: bytes, tmp_path: Path) -> None:
    assert found(tmp_path, A + end, line_bytes=len(A)) == []
    assert found(tmp_path, A + end + B, line_bytes=len(A) - 1)[0] == ("invalid_request", 1, None)


def test_behind_a_line_that_is_too_long_numbers_and_places_stay_right(tmp_path: Path) -> None:
    content = b"x" * 5000 + b"\n" + b"y\n" + A
    assert [number for _, number, _ in found(tmp_path, content, line_bytes=1000)] == [1, 2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(more=st.dictionaries(st.text(), JSON, max_size=3), ascii_only=st.booleans())
def test_the_body_is_cut_out_exactly(more: dict[str, Any], ascii_only: bool) -> None:
    body = more | {"model": "m", "messages": [], "stream": None}
    whole = {"before": more, "custom_id": "é", "method": "POST", "url": CHAT, "body": body, "behind": more}
    text = json.dumps(whole, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    read = lines.read(text, CHAT, 200)
    assert json.loads(text[read.start : read.start + read.length]) == body


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,\\ua0e1 \t', max_size=60).map(str.encode))
def test_no_line_breaks_the_check(content: bytes) -> None:
    with pytest.raises(Wrong):
        lines.read(content, CHAT, 20)


def test_lines_with_the_same_beginning_have_the_same_prefix() -> None:
    def prefix(system: str, user: str) -> bytes:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return lines.read(json.dumps(line("a", messages=messages)).encode(), CHAT, 20).prefix

    assert prefix("one", "x") == prefix("one", "y") != prefix("two", "x")

"""What an engine's answer means for a line, and the line of the output or error file that it becomes."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from rigd.batch.errors import shape

Cause = Literal["refused", "died", "timeout", "overload", "failing", "key", "model"]
"""Why an engine gave no usable answer: not reachable; gone in the middle; too slow; busy; failed; our key is wrong; it
serves another model."""
SHOWN = 500
"""Characters of an answer that is no JSON, in the error file."""
MOST_WAIT = 120.0
"""Seconds of Retry-After that are honoured."""

Tokens = tuple[int, int, int, int]
NONE: Tokens = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """A line's final answer: `body` is JSON in one line."""

    status: int
    body: bytes
    tokens: Tokens = NONE
    model: str | None = None
    """The model that answered, as the engine says."""

    @property
    def good(self) -> bool:
        """True for the output file, False for the error file."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Trouble:
    """The engine's trouble, for which no line is blamed at first."""

    cause: Cause
    detail: str
    wait: float = 0.0
    """Seconds that the engine wants to be left alone."""
    answer: Answer | None = None
    """The answer that becomes the line's, if it turns out to be to blame."""


def judge(status: int, content: bytes, retry_after: str | None = None) -> Answer | Trouble:
    """The meaning of a complete HTTP answer."""
    body, value = _json(content)
    if 200 <= status < 300:
        if body is None or not isinstance(value, dict):
            return Trouble("failing", f"it answers {status} with something that is not JSON")
        inner = _inner_error(value)
        if inner is None:
            return Answer(status, body, _tokens(value.get("usage")), _text(value.get("model")))
        # SGLang, and llama.cpp within streams: the true status is in the body.
        code = inner.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        body = _error_body(inner.get("message"), status, inner)
    elif body is None or not isinstance(value, dict):
        body = _error_body(content[:SHOWN].decode(errors="replace"), status, {})
    answer = Answer(status, body)
    if status in (429, 503):
        return Trouble("overload", f"it answers {status}", _wait(retry_after))
    if status in (401, 403):
        return Trouble("key", f"it answers {status} to the server's key")
    if status == 408:
        return Trouble("timeout", "it answers 408", answer=answer)
    if status == 404 and "model" in str(_inner_error(value) or "").lower():
        return Trouble("model", "it answers 404 for the model", answer=answer)
    if status >= 500 or status < 400:
        return Trouble("failing", f"it answers {status}", answer=answer)
    return answer


def answer_line(custom_id: str, answer: Answer) -> bytes:
    """A line of either file, for a line that the engine answered."""
    head = orjson.dumps({"id": _id("batch_req_"), "custom_id": custom_id})[:-1]
    about = orjson.dumps({"status_code": answer.status, "request_id": _id("req_")})[:-1]
    return head + b',"response":' + about + b',"body":' + answer.body + b'},"error":null}\n'


def error_line(custom_id: str, code: str, message: str) -> bytes:
    """A line of the error file, for a line without an answer."""
    error = {"code": code, "message": message}
    return orjson.dumps({"id": _id("batch_req_"), "custom_id": custom_id, "response": None, "error": error}) + b"\n"


def _id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _json(content: bytes) -> tuple[bytes | None, Any]:
    """The content as JSON in one line, as the engine wrote it if possible, and its value; None if it is no JSON."""
    try:
        value = orjson.loads(content)
        body = content.strip()
        return (body if b"\n" not in body and b"\r" not in body else orjson.dumps(value)), value
    except ValueError:
        pass
    try:
        # Halves of surrogate pairs: a text that was cut between two tokens.
        value = json.loads(content, parse_constant=_no_constant)
        return json.dumps(value).encode(), value
    except (ValueError, RecursionError):
        return None, None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _inner_error(value: Any) -> dict[str, Any] | None:
    """The error in a body, whatever its status."""
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if error:
        return error if isinstance(error, dict) else {"message": str(error)}
    return value if value.get("object") == "error" else None


def _error_body(message: Any, status: int, inner: dict[str, Any]) -> bytes:
    text = message if isinstance(message, str) and message else f"The engine answers {status}."
    code = inner.get("code")
    return orjson.dumps(shape(text, status, _text(inner.get("param")), None if code is None else str(code)))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _tokens(usage: Any) -> Tokens:
    """Input, cached, output and reasoning tokens; responses and chats name them differently."""
    if not isinstance(usage, dict):
        return NONE
    return (
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(_section(usage, "prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
        _count(usage, "completion_tokens", "output_tokens"),
        _count(_section(usage, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
    )


def _count(values: dict[str, Any], *names: str) -> int:
    found = next((values[name] for name in names if name in values), 0)
    return found if isinstance(found, int) and 0 <= found < 1 << 53 else 0


def _section(values: dict[str, Any], *names: str) -> dict[str, Any]:
    found = next((values[name] for name in names if name in values), None)
    return found if isinstance(found, dict) else {}


def _wait(text: str | None) -> float:
    try:
        return min(max(0.0, float(text or 0)), MOST_WAIT)
    except ValueError:
        return 0.0

"""One line of an input file: what it asks of which model, or what is wrong with it.

The body goes to the engine byte for byte as the client wrote it, so numbers keep all their digits. Whatever two parsers
may read in two ways is therefore refused: the engine could run something else than was checked here.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

BEGINNING = 256
"""Characters of a lone message that count as its beginning."""

_space = re.compile(r"[ \t\n\r]*").match
_STRING = re.compile(r'"(?:[^"\\]|\\.)*\\?(?:"|\Z)', re.DOTALL)
"""A string; an unclosed one reaches to the end, so that no character is looked at twice."""
_OPEN, _CLOSE = "{[", "}]"


class Wrong(Exception):
    """A line that cannot be run."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(frozen=True, slots=True)
class Line:
    """A valid line; `start` and `length` give its body's place in the line, in bytes."""

    custom_id: str
    model: str
    start: int
    length: int
    prefix: bytes
    """Hash of the leading messages: the same for lines that share them."""


def read(raw: bytes, endpoint: str, nesting: int) -> Line:
    """Check a line. Raises Wrong."""
    members, text = _members(raw, nesting)
    for name in ("custom_id", "method", "url", "body"):
        if name not in members:
            raise Wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    custom_id, method, url, body = (members[name][0] for name in ("custom_id", "method", "url", "body"))
    for name, value in (("custom_id", custom_id), ("method", method), ("url", url)):
        if not isinstance(value, str):
            raise Wrong("invalid_request", f"'{name}' must be a string.", name)
    if not custom_id:
        raise Wrong("invalid_request", "'custom_id' must not be empty.", "custom_id")
    if _has_surrogate(custom_id):
        raise Wrong("invalid_request", "'custom_id' has half of a surrogate pair.", "custom_id")
    if method != "POST":
        raise Wrong("invalid_method", "'method' must be POST.", "method")
    if url != endpoint:
        raise Wrong("url_mismatch", f"'url' must be the batch's endpoint, {endpoint}.", "url")
    if not isinstance(body, dict):
        raise Wrong("invalid_request", "'body' must be an object.", "body")
    if body.get("stream") not in (None, False):
        raise Wrong("streaming_unsupported", "A batch has no streams: leave 'stream' out.", "body.stream")
    model = body.get("model")
    if model is None:
        raise Wrong("missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model")
    if not isinstance(model, str):
        raise Wrong("invalid_request", "'body.model' must be a string.", "body.model")
    _, start, end = members["body"]
    return Line(custom_id, model, len(text[:start].encode()), len(text[start:end].encode()), _prefix(body))


class _Twice(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# As a float, a number of any length is read in no time; the value itself is not used.
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float, parse_constant=_no_constant)


def _members(raw: bytes, nesting: int) -> tuple[dict[str, tuple[Any, int, int]], str]:
    """The members of the line's object, each with its value's place in the text."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Wrong("invalid_encoding", f"This line is not UTF-8, at its byte {error.start + 1}.") from None
    if _too_deep(text, nesting):
        raise Wrong("invalid_request", f"This line is nested deeper than {nesting} levels.")
    try:
        return _object(text), text
    except _Twice as error:
        name = str(error).encode(errors="backslashreplace").decode()
        raise Wrong("invalid_request", f"The key '{name[:64]}' occurs twice in one object.") from None
    except (ValueError, IndexError):
        raise Wrong("invalid_json_line", "This line is not parseable as valid JSON.") from None


def _object(text: str) -> dict[str, tuple[Any, int, int]]:
    """Members with their places. Raises ValueError or IndexError if the text is not JSON."""
    at = _skip(text, 0)
    if text[at] != "{":
        _decoder.decode(text)
        raise Wrong("invalid_request", "This line is not a JSON object.")
    members: dict[str, tuple[Any, int, int]] = {}
    at = _skip(text, at + 1)
    more = text[at] != "}"
    while more:
        if text[at] != '"':
            raise ValueError
        name, at = _decoder.raw_decode(text, at)
        at = _expect(text, at, ":")
        value, end = _decoder.raw_decode(text, at)
        if name in members:
            raise _Twice(name)
        members[name] = (value, at, end)
        at = _skip(text, end)
        more = text[at] == ","
        if more:
            at = _skip(text, at + 1)
    at = _expect(text, at, "}")
    if at != len(text):
        raise ValueError
    return members


def _skip(text: str, at: int) -> int:
    found = _space(text, at)
    assert found is not None
    return found.end()


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at] != mark:
        raise ValueError
    return _skip(text, at + 1)


def _too_deep(text: str, nesting: int) -> bool:
    """Counted before the parser runs: where that gives up depends on Python's version and on its caller."""
    if text.count("{") + text.count("[") <= nesting:
        return False
    depth = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if mark in _OPEN else -1
        if depth > nesting:
            return True
    return False


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= mark <= "\udfff" for mark in text)


def _prefix(body: dict[str, Any]) -> bytes:
    messages = body.get("messages")
    if isinstance(messages, list) and len(messages) > 1:
        beginning = repr(messages[:-1])
    else:
        beginning = repr(messages or body.get("prompt") or body.get("input"))[:BEGINNING]
    return hashlib.blake2b(beginning.encode(errors="surrogatepass"), digest_size=8).digest()

"""Several attempts at one input: which lines still fail, and the proof that each has its answer exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rigd.base.errors import BadInput, Failed


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSONL file that have a custom_id. Raises BadInput for any other line."""
    # In binary: text files end lines at more characters than JSONL does.
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                found = json.loads(text)
                if not isinstance(found["custom_id"], str):
                    raise TypeError
            except (ValueError, TypeError, KeyError, RecursionError):
                raise BadInput(f"{path}, line {number}: not a JSON object with a custom_id") from None
            yield found


def good(line: dict[str, Any]) -> bool:
    """True for an answer; a line of an error file has an error, or a response with an error's status."""
    response = line.get("response")
    return line.get("error") is None and isinstance(response, dict) and 200 <= response.get("status_code", 0) < 300


def failed(source: Path, results: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The lines of the input that no result answers."""
    done = {line["custom_id"] for path in results for line in read(path) if good(line)}
    return (line for line in read(source) if line["custom_id"] not in done)


def merge(source: Path, results: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """One result for each line of the input, in its order; an answer wins over failures, the last failure over others.

    Raises Failed if a line has two answers or no result, or a result has no line.
    """
    wanted = [line["custom_id"] for line in read(source)]
    known = set(wanted)
    if len(known) != len(wanted):
        raise Failed(f"{source} has a custom_id twice")
    found: dict[str, dict[str, Any]] = {}
    for path in results:
        for line in read(path):
            identity = line["custom_id"]
            if identity not in known:
                raise Failed(f"{path} has a result for '{identity}', which is not in {source}")
            before = found.get(identity)
            if before is not None and good(before):
                if good(line):
                    raise Failed(f"'{identity}' has two answers; the second is in {path}")
                continue
            found[identity] = line
    lacking = [identity for identity in wanted if identity not in found]
    if lacking:
        raise Failed(f"{len(lacking)} lines have no result; the first is '{lacking[0]}'")
    return (found[identity] for identity in wanted)

"""Tables to batches: one request for each row of a CSV or JSONL file, by a template."""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from rigd.base.errors import BadInput

ENDPOINT = "/v1/chat/completions"
LONGEST = 1 << 27
"""Most characters of a cell."""


@dataclass(frozen=True)
class Template:
    """A request, with `{column}` where a row's cells go; `{{` and `}}` are braces."""

    model: str
    prompt: str
    system: str | None = None
    max_tokens: int | None = None
    identity: str | None = None
    """The column with the custom_id; None for the row's number."""

    def columns(self) -> set[str]:
        """The columns that it needs. Raises BadInput if it cannot be read."""
        found = set() if self.identity is None else {self.identity}
        for text in (self.prompt, self.system or ""):
            try:
                fields = [(name, kind) for _, name, kind, _ in string.Formatter().parse(text) if name is not None]
            except ValueError as error:
                raise BadInput(f"the template '{text}' cannot be read ({error}); write {{{{ for a brace") from None
            found |= {name for name, _ in fields}
        return found


def rows(file: TextIO, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, each with its line. Raises BadInput."""
    return _csv(file) if kind == "csv" else _jsonl(file)


def requests(template: Template, table: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The lines of the batch. Raises BadInput for a row that lacks a column, or a custom_id that is not its own."""
    needed, seen = template.columns(), dict[str, int]()
    for number, (line, row) in enumerate(table, 1):
        lacking = sorted(needed - set(row))
        if lacking:
            known = ", ".join(row) or "none"
            raise BadInput(f"line {line} has no column '{lacking[0]}'; its columns are: {known}")
        custom_id = f"row-{number}" if template.identity is None else _text(row[template.identity])
        if not custom_id:
            raise BadInput(f"line {line}: '{template.identity}' is empty, and a custom_id may not be")
        if custom_id in seen:
            raise BadInput(f"line {line}: the custom_id '{custom_id}' is already that of line {seen[custom_id]}")
        seen[custom_id] = line
        messages = [] if template.system is None else [{"role": "system", "content": _fill(template.system, row)}]
        messages.append({"role": "user", "content": _fill(template.prompt, row)})
        body: dict[str, Any] = {"model": template.model, "messages": messages}
        if template.max_tokens is not None:
            body["max_tokens"] = template.max_tokens
        yield {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def _fill(text: str, row: dict[str, Any]) -> str:
    """Only whole columns: a template is not a program that reads attributes."""
    parts = string.Formatter().parse(text)
    return "".join(literal + ("" if name is None else _text(row[name])) for literal, name, _, _ in parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader(file, strict=True)
    try:
        names = reader.fieldnames or []
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise BadInput(f"two columns have the name '{twice}'; rename one")
        for row in reader:
            if None in row or None in row.values():
                raise BadInput(f"line {reader.line_num} has not {len(names)} cells, as the first line has")
            yield reader.line_num, row
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num} is not CSV: {error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8 ({error.reason})") from None


def _jsonl(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise BadInput(f"line {number} is not a JSON object")
            yield number, row
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8 ({error.reason})") from None

"""The check of a whole input file, in bounded memory: every invalid line by its number, or every line for the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rigd.batch import lines
from rigd.batch.config import Limits
from rigd.batch.lines import Line, Wrong
from rigd.batch.objects import BatchError

CHUNK = 1000
"""Lines that are handed over at a time."""
BOM = b"\xef\xbb\xbf"

Numbered = tuple[int, int, Line]
"""A line's number, its first byte's place in the file, and the line."""


@dataclass
class Report:
    """What a file holds."""

    total: int = 0
    models: set[str] = field(default_factory=set)
    errors: list[BatchError] = field(default_factory=list)


def check(
    path: Path, endpoint: str, served: Collection[str], limits: Limits, keep: Callable[[list[Numbered]], None]
) -> Report:
    """Check all lines, and hand over the valid ones until the first invalid one. Raises OSError, and whatever `keep`
    raises, which also ends the check."""
    report, invalid, chunk = Report(), 0, list[Numbered]()
    # The custom_ids themselves may be long.
    seen: set[bytes] = set()
    for number, place, raw in _split(path, limits.line_bytes):
        if not raw.strip(b" \t\r\n"):
            continue
        report.total += 1
        if report.total > limits.lines:
            text = f"The file has more than {limits.lines} requests; split it."
            return Report(errors=[BatchError(code="too_many_tasks", message=text)])
        try:
            if len(raw.rstrip(b"\r\n")) > limits.line_bytes:
                raise Wrong("invalid_request", f"This line is longer than {limits.line_bytes} bytes.")
            line = lines.read(raw, endpoint, limits.nesting)
            if line.model not in served:
                text = f"No engine here serves '{line.model[:100]}'; it is one of: {_names(served)}."
                raise Wrong("model_not_found", text, "body.model")
            identity = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
            if identity in seen:
                text = f"The custom_id '{line.custom_id[:100]}' is already in an earlier line."
                raise Wrong("duplicate_custom_id", text, "custom_id")
            seen.add(identity)
        except Wrong as wrong:
            invalid += 1
            if invalid <= limits.findings:
                found = BatchError(code=wrong.code, line=number, message=wrong.message, param=wrong.param)
                report.errors.append(found)
            continue
        report.models.add(line.model)
        if not invalid:
            chunk.append((number, place, line))
            if len(chunk) == CHUNK:
                keep(chunk)
                chunk = []
    if invalid > limits.findings:
        text = f"{invalid} lines are invalid; the first {limits.findings} of them are listed."
        report.errors.append(BatchError(code="invalid_request", message=text))
    if not report.total:
        report.errors.append(BatchError(code="empty_file", message="The file has no requests."))
    if not report.errors:
        keep(chunk)
    return report


def _split(path: Path, longest: int) -> Iterator[tuple[int, int, bytes]]:
    """Each line with its number and place. Of one that is too long, the first bytes."""
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        place, number = file.tell(), 0
        while raw := file.readline(longest + 2):
            number += 1
            yield number, place, raw
            place += len(raw)
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(longest + 2)
                place += len(raw)


def _names(served: Collection[str]) -> str:
    return ", ".join(sorted(served)) or "none"

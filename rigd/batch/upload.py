"""An upload: multipart/form-data, written to the data disk as it arrives.

Starlette's own form keeps larger files in TMPDIR, which is memory on Debian 13.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from rigd.batch.content import Part
from rigd.batch.errors import Refusal, missing

WRITE = 1 << 20
"""Bytes that are collected for a write."""
SMALL = 64 << 10
"""Most bytes of all fields and headers together."""
DRAIN = 1 << 29
"""Most bytes that are read of a refused upload. A client that is cut off in the middle sees no answer."""


@dataclass
class Form:
    """The fields beside the file, and the file's name."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


async def receive(chunks: AsyncIterator[bytes], content_type: str | None, part: Part, limit: int) -> Form:
    """Write the part `file` into `part`. Raises Refusal, after the upload was read; OSError when the disk is full."""
    try:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refusal("Send the file as multipart/form-data, with the fields 'purpose' and 'file'.")
        reader = _Reader(options[b"boundary"], part, limit)
        async for chunk in chunks:
            reader.feed(chunk)
            if reader.waiting >= WRITE:
                await asyncio.to_thread(reader.flush)
        await asyncio.to_thread(reader.flush)
        return reader.end()
    except Refusal:
        await _drain(chunks)
        raise
    except FormParserError as error:
        await _drain(chunks)
        raise Refusal(f"The body is not multipart/form-data: {error}") from None


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    count = 0
    with suppress(StopAsyncIteration):
        async for chunk in chunks:
            count += len(chunk)
            if count > DRAIN:
                return


class _Reader:
    """The callbacks of the parser."""

    def __init__(self, boundary: bytes, part: Part, limit: int) -> None:
        self.waiting = 0
        self._part, self._limit = part, limit
        self._form = Form()
        self._buffer: list[bytes] = []
        self._size = self._small = 0
        self._header, self._value = b"", b""
        self._name: str | None = None
        self._text = b""
        self._is_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_header,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def flush(self) -> None:
        self._part.write(b"".join(self._buffer))
        self._buffer.clear()
        self.waiting = 0

    def end(self) -> Form:
        if self._parser.state != MultipartState.END:
            raise Refusal("The body ends in the middle of the form.")
        if self._form.filename is None:
            raise missing("file")
        return self._form

    def _begin(self) -> None:
        self._name, self._text, self._is_file = None, b"", False

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode(errors="replace")
            if self._name == "file":
                if self._form.filename is not None:
                    raise Refusal("The form has two parts 'file'; send one.", param="file")
                self._is_file = True
                self._form.filename = options.get(b"filename", b"").decode(errors="replace")
        self._header, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._count(end - start)
            self._text += data[start:end]
            return
        self._size += end - start
        if self._size > self._limit:
            raise Refusal(f"The file is larger than {self._limit} bytes.", 413, "file", "file_too_large")
        self._buffer.append(data[start:end])
        self.waiting += end - start

    def _end_part(self) -> None:
        if not self._is_file and self._name is not None:
            self._form.fields[self._name] = self._text.decode(errors="replace")

    def _count(self, size: int) -> None:
        self._small += size
        if self._small > SMALL:
            raise Refusal(f"The form's fields are larger than {SMALL} bytes.", 413)

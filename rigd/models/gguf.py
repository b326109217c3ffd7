"""GGUF: read a model's header within bounds, list the parts of a model, and find the quantization of its weights."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rigd.models.manifest import Model

NAMED = re.compile(
    r"(?<![A-Za-z0-9])(I?Q\d_(?:K_[SML]|K|XXS|XS|NL|[SM]|\d)|Q\d_K|TQ\d_0|B?F16|F32|MXFP4|NVFP4|FP8|FP4|INT8|INT4|AWQ|GPTQ)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# enum llama_ftype of llama.h.
FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S"} | {
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Numbers per block and bytes per block, by ggml's number of a tensor's type (enum ggml_type of ggml.h)."""
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""llama.cpp's names for the parts of a model (llama_split_path): it gets the first, and finds the others by name."""

LONGEST_HEADER = 1 << 27
"""Bytes. The largest vocabularies of 2026 take some 30 MB."""
MOST_STEPS = 1 << 21
"""Keys, texts of lists and tensors together; a vocabulary of 262,144 with its merges takes some 800,000."""
DEEPEST = 4
"""Lists within lists. No known model has any."""
LONGEST_KEPT = 4096
"""Characters of a text, or members of a list, that are kept: a vocabulary is longer."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9

Value = int | float | bool | str | list[int | float | bool]


class BadHeader(ValueError):
    """The file is not a whole GGUF file; the text completes "the file ..."."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its number of elements and its size in bytes."""

    numbers: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: short values by key, and every tensor by name."""

    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]


def parts(path: str) -> tuple[str, ...]:
    """The names of all parts of the model to which `path` belongs; none for a model in one file."""
    found = PART.fullmatch(path)
    if found is None:
        return ()
    return tuple(
        f"{found['stem']}-{number:05d}-of-{found['count']}.gguf" for number in range(1, int(found["count"]) + 1)
    )


def read(path: Path) -> Header:
    """The header of a model's file, or of all its parts, of which `path` is the first.

    Takes a few seconds and megabytes at most, for any bytes. Raises BadHeader, and OSError if a file cannot be read.
    """
    names = parts(path.name)
    if not names:
        return _read(path)
    if path.name != names[0]:
        raise BadHeader(f"is a part of a model, whose first one is {names[0]}")
    if missing := [name for name in names if not path.with_name(name).is_file()]:
        raise BadHeader(f"is the first of {len(names)} parts, of which {missing[0]} is missing")
    headers = [_read(path.with_name(name)) for name in names]
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    promised = headers[0].values.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise BadHeader(f"promises {promised} tensors, and its {len(names)} parts have {len(tensors)}")
    return Header(headers[0].values, tensors)


def quantization(model: Model, directory: Path) -> str:
    """The quantization, such as Q4_K_M or FP8; "unknown" if neither names nor headers have it. `directory`: the model's
    own folder."""
    for name in (*(file.path for file in model.files), model.repository):
        if match := NAMED.search(name):
            return match[1].upper()
    for file in model.files:
        if file.path.endswith(".gguf") and (found := file_type(directory / file.path)):
            return found
    return "unknown"


def file_type(path: Path) -> str | None:
    """The general.file_type of a GGUF header; None without one."""
    try:
        with path.open("rb") as file:
            reader = _Reader(file)
            values, _ = reader.begin(until="general.file_type")
    except (OSError, BadHeader):
        return None
    found = values.get("general.file_type")
    return FILE_TYPES.get(found) if isinstance(found, int) else None


def _read(path: Path) -> Header:
    with path.open("rb") as file:
        reader = _Reader(file)
        values, count = reader.begin()
        tensors, end = reader.tensors(values, count)
        size = os.fstat(file.fileno()).st_size
    if size < end:
        raise BadHeader(f"has {size} bytes of {end}")
    return Header(values, tensors)


class _Reader:
    """The bytes of a header, read from the front as far as they are needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._steps = 0

    def begin(self, until: str | None = None) -> tuple[dict[str, Value], int]:
        """The short values, up to the key `until` if given; and the number of tensors."""
        if self._take(4) != b"GGUF":
            raise BadHeader("does not begin with GGUF")
        version = self._number("I")
        if version not in (2, 3):
            if int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3):
                raise BadHeader("is written for big-endian machines")
            raise BadHeader(f"is of version {version} of the format, and llama.cpp reads 2 and 3")
        tensors, count = self._number("Q"), self._number("Q")
        values: dict[str, Value] = {}
        for _ in range(count):
            self._step()
            key = self._text()
            value = self._value(self._number("I"), 0)
            if key is not None and value is not None:
                values[key] = value
            if key is not None and key == until:
                break
        return values, tensors

    def tensors(self, values: Mapping[str, Value], count: int) -> tuple[dict[str, Tensor], int]:
        """All tensors, and the byte at which the last one ends in the file."""
        found: dict[str, Tensor] = {}
        end = 0
        for _ in range(count):
            self._step()
            name = self._text()
            dimensions = self._number("I")
            if name is None or not 1 <= dimensions <= 4:
                raise BadHeader(f"has a tensor of {dimensions} dimensions")
            numbers = math.prod(self._number("Q") for _ in range(dimensions))
            kind, offset = self._number("I"), self._number("Q")
            if kind not in BLOCKS:
                raise BadHeader(f"has {name} in the unknown type {kind}")
            block, size = BLOCKS[kind]
            found[name] = Tensor(numbers, numbers // block * size)
            end = max(end, offset + found[name].size)
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise BadHeader(f"is aligned to {alignment} bytes")
        return found, -(-self._at // alignment) * alignment + end

    def _value(self, kind: int, depth: int) -> Value | None:
        """A value; None if it is too long to keep."""
        if kind == _TEXT:
            return self._text()
        if kind == _LIST:
            return self._list(depth)
        if kind not in _SCALARS:
            raise BadHeader(f"has a value of the unknown type {kind}")
        found: int | float | bool = struct.unpack(f"<{_SCALARS[kind]}", self._take(_width(kind)))[0]
        return found

    def _list(self, depth: int) -> Value | None:
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            if count > LONGEST_KEPT:
                self._skip(count * _width(kind))
                return None
            return list(struct.unpack(f"<{count}{_SCALARS[kind]}", self._take(count * _width(kind))))
        if kind not in (_TEXT, _LIST):
            raise BadHeader(f"has a list of the unknown type {kind}")
        if depth == DEEPEST:
            raise BadHeader(f"has lists within lists, more than {DEEPEST} deep")
        for _ in range(count):
            self._step()
            if kind == _TEXT:
                self._skip(self._number("Q"))
            else:
                self._list(depth + 1)
        return None

    def _text(self) -> str | None:
        """A text; None if it is too long to keep."""
        length = self._number("Q")
        if length > LONGEST_KEPT:
            self._skip(length)
            return None
        return self._take(length).decode("utf-8", "replace")

    def _number(self, kind: str) -> int:
        return int.from_bytes(self._take(4 if kind == "I" else 8), "little")

    def _take(self, count: int) -> bytes:
        self._move(count)
        found = self._file.read(count)
        if len(found) < count:
            raise BadHeader("ends within its header")
        return found

    def _skip(self, count: int) -> None:
        self._move(count)
        self._file.seek(count, os.SEEK_CUR)

    def _move(self, count: int) -> None:
        self._at += count
        if self._at > LONGEST_HEADER:
            raise BadHeader(f"has a header of more than {LONGEST_HEADER} bytes")

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise BadHeader(f"has more than {MOST_STEPS} keys, texts and tensors")


def _width(kind: int) -> int:
    return struct.calcsize(f"<{_SCALARS[kind]}")

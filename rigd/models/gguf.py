"""How a model's weights are quantized: by its name, or by the header of a GGUF file."""

from __future__ import annotations

import re
import struct
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
# Bytes of each scalar type of the format's metadata; 8 is text, 9 a list.
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _LIST = 8, 9
_MOST = 1 << 26
"""No text or list of a sound header is longer."""


def quantization(model: Model, directory: Path) -> str:
    """Such as Q4_K_M or FP8; "unknown" where neither names nor headers tell. `directory`: the model's own folder."""
    for name in (*(file.path for file in model.files), model.repository):
        if match := NAMED.search(name):
            return match[1].upper()
    for file in model.files:
        if file.path.endswith(".gguf") and (found := file_type(directory / file.path)):
            return found
    return "unknown"


def file_type(path: Path) -> str | None:
    """What general.file_type of a GGUF header says; None when the file does not tell."""
    try:
        with path.open("rb") as file:
            return _file_type(file)
    except (OSError, struct.error, ValueError, KeyError):
        return None


def _file_type(file: BinaryIO) -> str | None:
    magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2:
        return None
    for _ in range(count):
        key = file.read(_length(file))
        (kind,) = struct.unpack("<I", file.read(4))
        if key == b"general.file_type":
            return FILE_TYPES.get(int.from_bytes(file.read(_WIDTHS[kind]), "little"))
        _skip(file, kind)
    return None


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _TEXT:
        file.seek(_length(file), 1)
    elif kind == _LIST:
        (inner,) = struct.unpack("<I", file.read(4))
        count = _length(file)
        if inner in _WIDTHS:
            file.seek(count * _WIDTHS[inner], 1)
            return
        for _ in range(count):
            _skip(file, inner)
    else:
        file.seek(_WIDTHS[kind], 1)


def _length(file: BinaryIO) -> int:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST:
        raise ValueError("not a sound header")
    return int(length)

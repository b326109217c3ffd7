"""The real numbers of a model, from the header of its GGUF file: architecture, and the size of each part."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader

from rig.capacity.model import Architecture, Model, NotAModel, Weights

INPUT, OUTPUT, BLOCK = "token_embd.weight", "output.weight", "blk."


def read_header(path: Path) -> Model:
    """What the header of a GGUF file says; sizes are those of the tensors, as they lie in memory.

    Raises NotAModel, and OSError when the file cannot be read.
    """
    try:
        return _model(GGUFReader(path))
    except (ValueError, KeyError, IndexError) as error:
        reason = f"is not a complete GGUF file of a language model ({error})"
        raise NotAModel(f"{path} {reason}; give another file") from None


def _model(reader: GGUFReader) -> Model:
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in reader.tensors}
    numbers = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    tied = OUTPUT not in sizes
    hidden = _number(reader, "embedding_length")
    architecture = Architecture(
        layers=_number(reader, "block_count"),
        kv_heads=_number(reader, "attention.head_count_kv"),
        head_dim=_head_dim(reader, hidden),
        hidden=hidden,
        vocabulary=numbers[INPUT] // hidden,
        tied=tied,
        parameters=sum(numbers.values()),
    )
    weights = Weights(
        total=sum(sizes.values()),
        layers=sum(size for name, size in sizes.items() if name.startswith(BLOCK)),
        looked_up=0 if tied else sizes[INPUT],
    )
    return Model(architecture, weights)


def _head_dim(reader: GGUFReader, hidden: int) -> int:
    """Numbers in a head; where the file does not say, the heads share the state evenly, as llama.cpp assumes."""
    field = f"{_family(reader)}.attention.key_length"
    if reader.get_field(field) is not None:
        return _number(reader, "attention.key_length")
    return hidden // _number(reader, "attention.head_count")


def _number(reader: GGUFReader, key: str) -> int:
    """A whole number among the architecture's own keys. Raises KeyError, ValueError when there is none."""
    name = f"{_family(reader)}.{key}"
    field = reader.get_field(name)
    if field is None:
        raise KeyError(name)
    value = field.contents()
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name} is {value}")
    return value


def _family(reader: GGUFReader) -> str:
    field = reader.get_field("general.architecture")
    if field is None:
        raise KeyError("general.architecture")
    return str(field.contents())

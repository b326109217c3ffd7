"""A model as numbers: how it is built, and how its weights divide into parts that are read differently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a transformer is built; names are those of its config.json or GGUF header.

    ``layers``: repeated blocks; ``kv_heads``: heads of keys and values; ``head_dim``: numbers in one head;
    ``hidden``: numbers in one token's state; ``vocabulary``: tokens it knows; ``tied``: one table serves as input
    embedding and as output head; ``parameters``: numbers in all.
    """

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    tied: bool
    parameters: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a model's weights.

    ``total``: all of them; ``layers``: the repeated blocks together; ``looked_up``: the input embedding, of which one
    row is read for a token, so that it takes memory and no time.
    """

    total: int
    layers: int
    looked_up: int

    @property
    def read_per_token(self) -> int:
        """Bytes read for each token: everything but the table that is looked up.

        Source: Llama 3.1 8B FP8 is 9.08 GB, its embedding 128,256 x 4,096 x 2 bytes = 1.05 GB; 8.03 GB are read.
        """
        return self.total - self.looked_up

    @property
    def head(self) -> int:
        """Bytes outside the blocks that are read for each token: the output head, and the norms beside it."""
        return self.total - self.layers - self.looked_up


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model; ``architecture`` is None where nothing but the size of its file is known."""

    architecture: Architecture | None
    weights: Weights

    @property
    def in_8_bits(self) -> bool:
        """Whether its weights have so few bits that an engine may compute with numbers of 8 bits.

        Source: vLLM's FP8 kernels, and llama.cpp's, which multiply any quantized weights as 8-bit integers. Half way
        between 8 and 16 bits a number decides, as some tensors of a quantized model stay finer.
        """
        return self.architecture is not None and self.weights.total * 8 <= 12 * self.architecture.parameters


class NotAModel(Exception):
    """What was given is no language model; the text says what is wrong and what to give instead."""


def estimated_weights(size: int, architecture: Architecture, table_bits: int | None = None) -> Weights:
    """Weights of `size` bytes, before their header can be read.

    An embedding table has vocabulary x hidden numbers, of ``table_bits`` each. Without that, each is taken to have as
    many bits as the rest, which is an assumption: quantizations keep some tensors finer, which moves a few percent
    between the parts and leaves the total. 8-bit checkpoints leave both tables at 16 bits (Llama 3.1 8B FP8: 9.08 GB).
    """
    numbers = architecture.vocabulary * architecture.hidden
    table = round(size * numbers / architecture.parameters) if table_bits is None else numbers * table_bits // 8
    looked_up = 0 if architecture.tied else table
    return Weights(total=size, layers=size - looked_up - table, looked_up=looked_up)


def unknown_weights(size: int) -> Weights:
    """Weights of a file of `size` bytes of which nothing else is known: all of it counts as read for each token."""
    return Weights(total=size, layers=size, looked_up=0)

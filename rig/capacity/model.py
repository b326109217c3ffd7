"""A model in numbers: its architecture, and its weights divided into parts that are read differently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cached:
    """Numbers that attention keeps of the text so far, over all layers together.

    ``full``: for each token; ``local``: for each token in the layers that look back over ``window`` tokens only;
    ``state``: for each sequence of any length, in layers without attention, 32 bits each.
    """

    full: int
    local: int = 0
    window: int = 0
    state: int = 0


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a mixture: `count` in a layer, `active` for a token, and the `parameters` of all in all layers."""

    count: int
    active: int
    parameters: int

    def unread(self, of_all: int) -> int:
        """The part that a token does not read, of an amount that all experts share."""
        return of_all * (self.count - self.active) // self.count


@dataclass(frozen=True, slots=True)
class Architecture:
    """The architecture of a transformer.

    ``layers``: repeated blocks; ``cached``: the numbers that its attention keeps; ``hidden``: numbers in one token's
    state; ``vocabulary``: tokens it knows; ``tied``: one table is both input embedding and output head; ``parameters``:
    numbers in all; ``experts``: None if each token uses all of them.
    """

    layers: int
    cached: Cached
    hidden: int
    vocabulary: int
    tied: bool
    parameters: int
    experts: Experts | None = None

    @property
    def active_parameters(self) -> int:
        """Numbers that a token uses: all except the experts that it does not choose."""
        return self.parameters - (0 if self.experts is None else self.experts.unread(self.experts.parameters))

    @property
    def computed(self) -> int:
        """Numbers that multiply a token of a prompt: neither the embedding table, where one row is looked up, nor the
        head, which only the last token of a prompt needs."""
        return self.active_parameters - self.vocabulary * self.hidden * (1 if self.tied else 2)


def cached(layers: int, kv_heads: int, head_dim: int) -> Cached:
    """Numbers that attention keeps if all layers are alike: keys and values of every head."""
    return Cached(full=2 * layers * kv_heads * head_dim)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a model's weights.

    ``total``: all of them; ``layers``: the repeated blocks together; ``looked_up``: the input embedding: one row is
    read for a token, so that it takes memory and no time; ``idle``: the part of the blocks that a token does not read,
    such as the experts that it does not choose.
    """

    total: int
    layers: int
    looked_up: int
    idle: int = 0

    @property
    def read_per_token(self) -> int:
        """Bytes read for each token: all except the embedding table and the experts that the token does not choose.

        Source: Llama 3.1 8B FP8 is 9.08 GB, its embedding 128,256 x 4,096 x 2 bytes = 1.05 GB; 8.03 GB are read. Of
        gpt-oss-20b's 12.1 GB 2.6 are, with 4 of 32 experts.
        """
        return self.total - self.looked_up - self.idle

    @property
    def head(self) -> int:
        """Bytes outside the blocks that every token reads: the output head, and the norms beside it."""
        return self.total - self.layers - self.looked_up


@dataclass(frozen=True, slots=True)
class Model:
    """A model's figures; ``architecture`` is None if only the size of its file is known."""

    architecture: Architecture | None
    weights: Weights

    @property
    def in_8_bits(self) -> bool:
        """Whether its weights have so few bits that an engine may compute with numbers of 8 bits.

        Source: vLLM's FP8 kernels, and llama.cpp's, which multiply any quantized weights as 8-bit integers. The limit
        is half way between 8 and 16 bits a number, as some tensors of a quantized model stay finer.
        """
        return self.architecture is not None and self.weights.total * 8 <= 12 * self.architecture.parameters


class NotAModel(Exception):
    """The path holds no language model; the text has the reason and the remedy."""


def estimated_weights(
    size: int, architecture: Architecture, table_bits: float | None = None, expert_bits: float | None = None
) -> Weights:
    """Weights of `size` bytes, an estimate before their header can be read.

    An embedding table has vocabulary x hidden numbers of ``table_bits`` each, and the experts have numbers of
    ``expert_bits``. Without these, all numbers are assumed to have the average number of bits. In fact quantizations
    keep some tensors finer, which moves a few percent between the parts and leaves the total. 8-bit checkpoints leave
    both tables at 16 bits (Llama 3.1 8B FP8: 9.08 GB); gpt-oss has experts of 4.25 bits, and everything else at 8.5.
    """
    numbers = architecture.vocabulary * architecture.hidden
    tables = numbers * (1 if architecture.tied else 2)
    chosen = architecture.experts
    known_experts = chosen is not None and expert_bits is not None
    experts = int(chosen.parameters * expert_bits / 8) if chosen is not None and expert_bits is not None else 0
    known_tables = 0 if table_bits is None else int(tables * table_bits / 8)
    rest = max(0, size - experts - known_tables)
    others = architecture.parameters - (tables if table_bits is not None else 0)
    others -= chosen.parameters if known_experts and chosen is not None else 0
    table = round(rest * numbers / max(1, others)) if table_bits is None else int(numbers * table_bits / 8)
    looked_up = 0 if architecture.tied else table
    if chosen is None:
        return Weights(total=size, layers=size - looked_up - table, looked_up=looked_up)
    whole = experts if known_experts else round(rest * chosen.parameters / max(1, others))
    return Weights(size, size - looked_up - table, looked_up, chosen.unread(whole))


def unknown_weights(size: int) -> Weights:
    """Weights of a file of `size` bytes without other data: all of it counts as read for each token."""
    return Weights(total=size, layers=size, looked_up=0)

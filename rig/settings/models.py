"""Settings of the concern `models`: the catalogue of models, each file pinned by revision, size and SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.capacity import Architecture, Cached, Experts, estimated_weights, unknown_weights
from rig.capacity import Model as KnownModel
from rig.settings.types import CatalogueName, Section, Sha256, Shape, Size, Url, sized
from rigd.models.gguf import parts

Repository = Annotated[
    str,
    Shape(
        r"(?!.*/\.{1,2}$)[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9._-]{1,96}", "a repository of the hub", "owner/name"
    ),
]
LARGEST = 10**15
"""Most bytes of a model, and most numbers in it: a thousand times those of the largest there is."""

Revision = Annotated[
    str,
    Shape(
        r"[0-9a-f]{40}|main",
        "a revision",
        "the 40 hexadecimal digits of the commit, or main where only the hash decides",
    ),
]


InnerPath = Annotated[
    str,
    Shape(
        r"(?!(.*/)?\.{1,2}(/|$))(?=.{1,500}$)[A-Za-z0-9._+-]{1,200}(/[A-Za-z0-9._+-]{1,200})*",
        "a path inside the repository",
        "one such as tokenizer.json, without '..'",
    ),
]


class ExpertsShape(Section):
    """The experts of a mixture, of which a token uses a few."""

    count: int = Field(ge=1, le=10_000, description="Experts in a layer (num_experts, num_local_experts), a number.")
    active: int = Field(ge=1, le=10_000, description="Those that a token uses (num_experts_per_tok), a number.")
    parameters: int = Field(
        ge=1, le=LARGEST, description="Numbers that all experts of all layers consist of, a number."
    )
    bits: float | None = Field(
        default=None,
        gt=0,
        le=64,
        description="Bits of a number in them, such as 4.25; null: as many as everywhere else.",
    )


class WindowShape(Section):
    """Layers that look back over a few tokens only."""

    tokens: int = Field(ge=1, le=100_000_000, description="Tokens that they look back over (sliding_window), a number.")
    layers: int = Field(ge=1, le=1000, description="Layers that do so (sliding_attention in layer_types), a number.")
    kv_heads: int | None = Field(
        default=None, ge=1, le=4096, description="Their heads of keys and values, where they have others than the rest."
    )
    head_dim: int | None = Field(
        default=None, ge=1, le=65536, description="Numbers in one of their heads, where it has others than the rest."
    )


class ModelShape(Section):
    """The architecture of a language model, for the plan before the file is there."""

    layers: int = Field(ge=1, le=1000, description="Repeated blocks (num_hidden_layers), a number.")
    kv_heads: int = Field(ge=1, le=4096, description="Heads of keys and values (num_key_value_heads), a number.")
    head_dim: int = Field(ge=1, le=65536, description="Numbers in one head (head_dim), a number.")
    hidden: int = Field(ge=1, le=1_000_000, description="Numbers in a token's state (hidden_size), a number.")
    vocabulary: int = Field(ge=1, le=100_000_000, description="Tokens it knows (vocab_size), a number.")
    tied: bool = Field(
        description="Whether one table is input embedding and output head (tie_word_embeddings), true or false."
    )
    parameters: int = Field(ge=1, le=LARGEST, description="Numbers that it consists of, a number such as 8030261248.")
    table_bits: float | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Bits of a number in the embedding and the head, such as 16; null: as many as everywhere else.",
    )
    experts: ExpertsShape | None = Field(
        default=None, description="The experts of a mixture; null where there are none."
    )
    window: WindowShape | None = Field(
        default=None, description="Layers with a sliding window; null where there are none."
    )
    attention_layers: int | None = Field(
        default=None, ge=0, le=1000, description="Layers that have attention, of a hybrid; null: all layers."
    )
    state: int = Field(
        default=0,
        ge=0,
        le=LARGEST,
        description="Numbers that a hybrid's other layers keep for a sequence, all together.",
    )
    latent: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Numbers that a layer keeps of a token instead of heads (kv_lora_rank + qk_rope_head_dim).",
    )

    @property
    def attending(self) -> int:
        """Layers with attention."""
        return self.layers if self.attention_layers is None else self.attention_layers

    @property
    def cached(self) -> Cached:
        """Numbers that attention keeps."""
        local = 0 if self.window is None else self.window.layers
        kept = 2 * self.kv_heads * self.head_dim if self.latent is None else self.latent
        if self.window is None:
            return Cached(full=kept * self.attending, state=self.state)
        heads, width = self.window.kv_heads or self.kv_heads, self.window.head_dim or self.head_dim
        return Cached(kept * (self.attending - local), 2 * heads * width * local, self.window.tokens, self.state)

    @property
    def architecture(self) -> Architecture:
        """The shape as an architecture to calculate with."""
        mixture = self.experts
        return Architecture(
            layers=self.layers,
            cached=self.cached,
            hidden=self.hidden,
            vocabulary=self.vocabulary,
            tied=self.tied,
            parameters=self.parameters,
            experts=None if mixture is None else Experts(mixture.count, mixture.active, mixture.parameters),
        )

    @property
    def least(self) -> int:
        """Least bytes of its file: the parts whose bits are given."""
        tables = self.tables * (self.table_bits or 0)
        experts = 0 if self.experts is None else self.experts.parameters * (self.experts.bits or 0)
        return int((tables + experts) / 8)

    @property
    def tables(self) -> int:
        """Numbers in the embedding and the head together."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)


def _consistent(shape: ModelShape) -> ModelShape:
    """Refuse parts that are larger than the whole: one of the numbers is mistyped."""
    window, experts = shape.window, shape.experts
    if shape.attending > shape.layers:
        raise ValueError(f"attention_layers are {shape.attending}, and layers {shape.layers}; correct one of them")
    if window is not None and window.layers > shape.attending:
        raise ValueError(f"window.layers are {window.layers} of {shape.attending} with attention; correct one of them")
    if experts is not None and experts.active > experts.count:
        raise ValueError(f"experts.active are {experts.active} of {experts.count}; correct one of them")
    if experts is not None and experts.parameters + shape.tables >= shape.parameters:
        raise ValueError(
            f"experts.parameters and vocabulary x hidden are {experts.parameters + shape.tables} parameters "
            f"already, of {shape.parameters} in all; correct one of them"
        )
    if shape.tables >= shape.parameters:
        raise ValueError(
            f"vocabulary x hidden are {shape.tables} parameters already, of {shape.parameters} in all; "
            "correct one of them"
        )
    return shape


class ModelFile(Section):
    """One file of a model."""

    file: InnerPath = Field(description="Path of the file in the repository.")
    size: int = Field(ge=0, le=LARGEST, description="Size of the file in bytes.")
    sha256: Sha256 = Field(description="SHA-256 of the file, 64 hexadecimal digits.")


class Pin(Section):
    """One version of a model: one file of a repository, or the files of a whole one."""

    revision: Revision = Field(description="Commit of the repository, 40 hexadecimal digits, or main.")
    file: InnerPath | None = Field(
        default=None,
        description="Path of its one file, or of the first of its parts, in the repository; null for a whole one.",
    )
    size: int = Field(
        ge=1, le=LARGEST, description="Size of all its files together, in bytes; an estimate while files is []."
    )
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of its one file, 64 hexadecimal digits.")
    files: tuple[ModelFile, ...] | None = Field(
        default=None,
        description="Files of a whole repository, or all parts of a GGUF, each with file, size and sha256; [] until "
        "rig lock has asked.",
    )

    @property
    def pinned(self) -> tuple[ModelFile, ...]:
        """Its files; none while they are unknown."""
        if self.file is not None and self.sha256 is not None and not self.files:
            return (ModelFile(file=self.file, size=self.size, sha256=self.sha256),)
        return self.files or ()


class Model(Pin):
    """A model on the hub, and its served version."""

    repository: Repository = Field(description="Repository on the hub, owner/name.")
    shape: Annotated[ModelShape, AfterValidator(_consistent)] | None = Field(
        default=None, description="How a language model is built; null when unknown, or for a projector."
    )
    previous: Pin | None = Field(
        default=None, description="The version before this one, which rig lock keeps; null when there is none."
    )
    use: Literal["current", "previous"] = Field(
        default="current", description="Which version is served: current, or previous to go back."
    )

    @property
    def chosen(self) -> Pin:
        """The served version."""
        return self if self.use == "current" or self.previous is None else self.previous

    @property
    def place(self) -> tuple[str, ...]:
        """Keys below the entry to the served version."""
        return () if self.chosen is self else ("previous",)

    @property
    def known(self) -> KnownModel:
        """Facts known before its files are there, as a value to calculate with."""
        if self.shape is None:
            return KnownModel(None, unknown_weights(self.chosen.size))
        architecture = self.shape.architecture
        bits = None if self.shape.experts is None else self.shape.experts.bits
        return KnownModel(architecture, estimated_weights(self.chosen.size, architecture, self.shape.table_bits, bits))


def contradictions(name: str, model: Model) -> Iterator[tuple[tuple[str, ...], str]]:
    """Contradictions in an entry: path below the entry and sentence. `name`: that of the entry."""
    lock = f"run rig lock {name}"
    yield from ((("previous", key), sentence) for key, sentence in _conflicts(model.previous, lock))
    yield from (((key,), sentence) for key, sentence in _conflicts(model, lock))
    known = 0 if model.shape is None else model.shape.least
    for path, pin in ((("size",), model), (("previous", "size"), model.previous)):
        if pin is not None and pin.size <= known:
            mixed = model.shape is not None and model.shape.experts is not None and model.shape.experts.bits is not None
            least = f"vocabulary x hidden x table_bits{' and the experts' if mixed else ''} are {known} bytes already"
            yield path, f"is {pin.size}, and {least}; correct one of them"
    if model.use == "previous" and model.previous is None:
        yield ("use",), "is previous, and there is no previous version; write current"


def _conflicts(pin: Pin | None, lock: str) -> Iterator[tuple[str, str]]:
    """Contradictions in one version: key and sentence. `lock`: the remedy that queries the hub."""
    if pin is None:
        return
    if pin.file is not None and parts(pin.file):
        yield from _wrong_parts(pin, pin.file, lock)
    elif pin.file is not None and pin.files is not None:
        yield "files", "stands beside file; remove one of them: a model is one file or the files of a repository"
    elif pin.file is None and pin.files is None:
        yield "file", "is missing; write the name of the file, or files: [] for a whole repository"
    elif pin.files:
        yield from _wrong_list(pin, pin.files, lock)
    if pin.files is not None and pin.sha256 is not None:
        yield "sha256", "is of one file, and each of files has its own; remove it"


def _wrong_list(pin: Pin, files: tuple[ModelFile, ...], lock: str) -> Iterator[tuple[str, str]]:
    """Problems of a list of files."""
    names = [entry.file for entry in files]
    twice = next((file for file in names if names.count(file) > 1), None)
    total = sum(entry.size for entry in files)
    if twice is not None:
        yield "files", f"has '{twice}' twice; remove one of them, or {lock}"
    if total != pin.size:
        yield "size", f"is {pin.size}, and the files have {total} bytes together; write that, or {lock}"


def _wrong_parts(pin: Pin, file: str, lock: str) -> Iterator[tuple[str, str]]:
    """Problems of a model in several parts, which llama.cpp finds by their names."""
    wanted = parts(file)
    if file != wanted[0]:
        yield "file", f"is a part of a model; write the first one, {wanted[0]}"
    elif pin.files is None:
        yield "files", f"is missing, as the model has {len(wanted)} parts; write files: [], and {lock}"
    elif pin.files:
        names = [entry.file for entry in pin.files]
        missing = next((part for part in wanted if part not in names), None)
        foreign = next((name for name in names if name not in wanted), None)
        if missing is not None:
            yield "files", f"lacks '{missing}', a part of the model; {lock}"
        elif foreign is not None:
            yield "files", f"has '{foreign}', which is no part of the model; remove it, or {lock}"
        else:
            yield from _wrong_list(pin, pin.files, lock)


class Download(Section):
    """Requests to the hub."""

    parallel: int = Field(ge=1, le=16, description="Files that are fetched at the same time, a number.")
    rate: Annotated[Size, sized("100K", "1T", "a model would take months")] | None = Field(
        description="Bytes a second of all files together, as a size such as 20M; null for no limit."
    )
    attempts: int = Field(
        ge=1, le=100, description="Fruitless attempts in a row after which a file is given up, a number."
    )


class Models(Section):
    """Model files and their source."""

    hub: Url = Field(description="Web address of the hub or of a mirror of it.")
    download: Download = Field(description="How downloads use the hub.")
    scrub: Literal["weekly", "monthly", "quarterly", "yearly"] = Field(
        description="How often all models are read again and verified: weekly, monthly, quarterly or yearly."
    )
    catalogue: dict[CatalogueName, Model] = Field(
        description="Models that engines may name; only those of enabled engines are downloaded."
    )

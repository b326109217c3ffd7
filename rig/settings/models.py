"""Settings of the concern `models`: the catalogue of models, each file pinned by revision, size and SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.capacity import Architecture, estimated_weights, unknown_weights
from rig.capacity import Model as KnownModel
from rig.settings.types import CatalogueName, FileName, Section, Sha256, Shape, Size, Url

Repository = Annotated[
    str,
    Shape(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+", "a repository of the hub", "owner/name"),
]
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
        r"(?!(.*/)?\.{1,2}(/|$))[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*",
        "a path inside the repository",
        "one such as tokenizer.json, without '..'",
    ),
]


class ModelShape(Section):
    """How a language model is built: what the plan needs to know before the file is there."""

    layers: int = Field(ge=1, le=1000, description="Repeated blocks (num_hidden_layers), a number.")
    kv_heads: int = Field(ge=1, description="Heads of keys and values (num_key_value_heads), a number.")
    head_dim: int = Field(ge=1, description="Numbers in one head (head_dim), a number.")
    hidden: int = Field(ge=1, description="Numbers in a token's state (hidden_size), a number.")
    vocabulary: int = Field(ge=1, description="Tokens it knows (vocab_size), a number.")
    tied: bool = Field(
        description="Whether one table is input embedding and output head (tie_word_embeddings), true or false."
    )
    parameters: int = Field(ge=1, description="Numbers that it consists of, a number such as 8030261248.")
    table_bits: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Bits of a number in the embedding and the head, such as 16; null: as many as everywhere else.",
    )

    @property
    def architecture(self) -> Architecture:
        """The same as a value to calculate with."""
        return Architecture(**self.model_dump(exclude={"table_bits"}))

    @property
    def tables(self) -> int:
        """Numbers in the embedding and the head together."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)


def _consistent(shape: ModelShape) -> ModelShape:
    """Refuses tables that are larger than the model they belong to: one of the numbers is mistyped."""
    if shape.tables >= shape.parameters:
        raise ValueError(
            f"vocabulary x hidden are {shape.tables} parameters already, of {shape.parameters} in all; "
            "correct one of them"
        )
    return shape


class ModelFile(Section):
    """One file of a model."""

    file: InnerPath = Field(description="Path of the file in the repository.")
    size: int = Field(ge=0, description="Size of the file in bytes.")
    sha256: Sha256 = Field(description="SHA-256 of the file, 64 hexadecimal digits.")


class Pin(Section):
    """One version of a model: one file of a repository, or the files of a whole one."""

    revision: Revision = Field(description="Commit of the repository, 40 hexadecimal digits, or main.")
    file: FileName | None = Field(
        default=None, description="Name of its one file, in the repository and on the machine; null where it has files."
    )
    size: int = Field(ge=1, description="Size of all its files together, in bytes; an estimate while files is [].")
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of its one file, 64 hexadecimal digits.")
    files: tuple[ModelFile, ...] | None = Field(
        default=None,
        description="Files of a whole repository, each with file, size and sha256; [] until rig lock has asked.",
    )

    @property
    def pinned(self) -> tuple[ModelFile, ...]:
        """Its files; none while they are not known."""
        if self.file is not None and self.sha256 is not None:
            return (ModelFile(file=self.file, size=self.size, sha256=self.sha256),)
        return self.files or ()


class Model(Pin):
    """A model of the hub, and the version of it that is served."""

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
        """The version that is served."""
        return self if self.use == "current" or self.previous is None else self.previous

    @property
    def known(self) -> KnownModel:
        """What is known of it before its files are there, as a value to calculate with."""
        if self.shape is None:
            return KnownModel(None, unknown_weights(self.chosen.size))
        architecture = self.shape.architecture
        return KnownModel(architecture, estimated_weights(self.chosen.size, architecture, self.shape.table_bits))


def contradictions(name: str, model: Model) -> Iterator[tuple[tuple[str, ...], str]]:
    """What in an entry does not go together: path below the entry and sentence. `name`: that of the entry."""
    lock = f"run python -m rig lock {name}"
    yield from ((("previous", key), sentence) for key, sentence in _conflicts(model.previous, lock))
    yield from (((key,), sentence) for key, sentence in _conflicts(model, lock))
    tables = 0 if model.shape is None else model.shape.tables * (model.shape.table_bits or 0) // 8
    for path, pin in ((("size",), model), (("previous", "size"), model.previous)):
        if pin is not None and pin.size <= tables:
            least = f"vocabulary x hidden x table_bits are {tables} bytes already"
            yield path, f"is {pin.size}, and {least}; correct one of them"
    if model.use == "previous" and model.previous is None:
        yield ("use",), "is previous, and there is no previous version; write current"


def _conflicts(pin: Pin | None, lock: str) -> Iterator[tuple[str, str]]:
    """What in one version does not go together: key and sentence. `lock`: the remedy that asks the hub."""
    if pin is None:
        return
    if pin.file is not None and pin.files is not None:
        yield "files", "stands beside file; remove one of them: a model is one file or the files of a repository"
    elif pin.file is None and pin.files is None:
        yield "file", "is missing; write the name of the file, or files: [] for a whole repository"
    elif pin.file is not None and pin.sha256 is None:
        yield "sha256", f"is missing; write it, or {lock}"
    elif pin.files:
        names = [entry.file for entry in pin.files]
        twice = next((file for file in names if names.count(file) > 1), None)
        total = sum(entry.size for entry in pin.files)
        if twice is not None:
            yield "files", f"has '{twice}' twice; remove one of them, or {lock}"
        if total != pin.size:
            yield "size", f"is {pin.size}, and the files have {total} bytes together; write that, or {lock}"
    if pin.files is not None and pin.sha256 is not None:
        yield "sha256", "is of one file, and each of files has its own; remove it"


class Download(Section):
    """How the hub is asked."""

    parallel: int = Field(ge=1, le=16, description="Files that are fetched at the same time, a number.")
    rate: Size | None = Field(
        description="Bytes a second of all files together, as a size such as 20M; null for no limit."
    )
    attempts: int = Field(
        ge=1, le=100, description="Fruitless attempts in a row after which a file is given up, a number."
    )


class Models(Section):
    """Model files and where they come from."""

    hub: Url = Field(description="Web address of the hub or of a mirror of it.")
    download: Download = Field(description="How the hub is asked.")
    scrub: Literal["weekly", "monthly", "quarterly", "yearly"] = Field(
        description="How often all models are read again and verified: weekly, monthly, quarterly or yearly."
    )
    catalogue: dict[CatalogueName, Model] = Field(
        description="Models that engines may name; only those of enabled engines are downloaded."
    )

"""Settings of the concern `models`: the catalogue of model files, pinned by revision, size and SHA-256."""

from __future__ import annotations

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

    @property
    def architecture(self) -> Architecture:
        """The same as a value to calculate with."""
        return Architecture(**self.model_dump())


def _consistent(shape: ModelShape) -> ModelShape:
    """Refuses tables that are larger than the model they belong to: one of the numbers is mistyped."""
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    if tables >= shape.parameters:
        raise ValueError(
            f"vocabulary x hidden are {tables} parameters already, of {shape.parameters} in all; correct one of them"
        )
    return shape


class Model(Section):
    """One model file of the hub."""

    repository: Repository = Field(description="Repository on the hub, owner/name.")
    revision: Revision = Field(description="Commit of the repository, 40 hexadecimal digits, or main.")
    file: FileName = Field(description="Name of the file in the repository and on the machine.")
    size: int = Field(ge=1, description="Size of the file in bytes.")
    sha256: Sha256 = Field(description="SHA-256 of the file, 64 hexadecimal digits.")
    shape: Annotated[ModelShape, AfterValidator(_consistent)] | None = Field(
        default=None, description="How a language model is built; null when unknown, or for a projector."
    )

    @property
    def known(self) -> KnownModel:
        """What is known of it before its file is there, as a value to calculate with."""
        if self.shape is None:
            return KnownModel(None, unknown_weights(self.size))
        return KnownModel(self.shape.architecture, estimated_weights(self.size, self.shape.architecture))


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
        description="Model files that engines may name; only those of enabled engines are downloaded."
    )

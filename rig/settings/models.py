"""Settings of the concern `models`: the catalogue of model files, pinned by revision, size and SHA-256."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rig.settings.types import CatalogueName, FileName, Section, Sha256, Shape, Url

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


class Model(Section):
    """One model file of the hub."""

    repository: Repository = Field(description="Repository on the hub, owner/name.")
    revision: Revision = Field(description="Commit of the repository, 40 hexadecimal digits, or main.")
    file: FileName = Field(description="Name of the file in the repository and on the machine.")
    size: int = Field(ge=1, description="Size of the file in bytes.")
    sha256: Sha256 = Field(description="SHA-256 of the file, 64 hexadecimal digits.")


class Models(Section):
    """Model files and where they come from."""

    hub: Url = Field(description="Web address of the hub or of a mirror of it.")
    catalogue: dict[CatalogueName, Model] = Field(
        description="Model files that engines may name; only those of enabled engines are downloaded."
    )

    def url(self, name: str) -> str:
        """Where the hub serves a model of the catalogue."""
        model = self.catalogue[name]
        return f"{self.hub}/{model.repository}/resolve/{model.revision}/{model.file}"

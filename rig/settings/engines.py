"""Settings of the concern `engines`: the llama.cpp servers, in a container or straight on the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.settings.problems import show
from rig.settings.types import CatalogueName, LoopbackAddress, Name, Section, Sha256, Shape, Size, Url

# What the deploy itself passes to llama-server, and the key of the settings that decides it.
OWN_ARGUMENTS = {
    "-m": "model",
    "--model": "model",
    "-mm": "projector",
    "--mmproj": "projector",
    "-a": "the engine's name",
    "--alias": "the engine's name",
    "--host": "address",
    "--port": "port",
    "-c": "context",
    "--ctx-size": "context",
    "-np": "sequences",
    "--parallel": "sequences",
    "-t": "threads",
    "--threads": "threads",
    "--api-key": "the key that secrets generates",
    "--api-key-file": "the key that secrets generates",
}


def _free_argument(value: str) -> str:
    """An argument that the deploy does not already pass. What follows it is not shown: it may be a key."""
    option = value.partition("=")[0]
    if option in OWN_ARGUMENTS:
        raise ValueError(f"{show(option)} is already passed, from {OWN_ARGUMENTS[option]}; remove it here")
    return value


Image = Annotated[
    str,
    Shape(
        r"[a-z0-9][A-Za-z0-9.:/_-]*@sha256:[0-9a-f]{64}",
        "an image with its digest",
        "repository:tag@sha256:<64 hexadecimal digits>",
    ),
]
RelativePath = Annotated[
    str,
    Shape(
        r"(?!(.*/)?\.{1,2}(/|$))[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*",
        "a path inside the archive",
        "one such as llama-b11146/llama-server",
    ),
]
Argument = Annotated[
    str,
    Shape(r"[^\s\"'\\$%]+", "an argument", "it without spaces, quotes, backslashes, $ and %"),
    AfterValidator(_free_argument),
]


class Archive(Section):
    """A release archive of llama.cpp."""

    url: Url = Field(description="Web address of the archive, .tar.gz or .zip.")
    sha256: Sha256 = Field(description="SHA-256 of the archive, 64 hexadecimal digits.")
    binary: RelativePath = Field(description="Path of the server program inside the archive.")


class CommonEngine(Section):
    """What every llama.cpp server has, however it is run."""

    enabled: bool = Field(default=True, description="Whether the engine is deployed, true or false.")
    alternatives: Name | None = Field(
        default=None,
        description="Name of the group of engines of which one runs at a time; null: it runs beside all others.",
    )
    model: CatalogueName = Field(description="Name of its model in models.catalogue.")
    projector: CatalogueName | None = Field(
        default=None,
        description="Name in models.catalogue of the projector of a model that sees; null for none.",
    )
    address: LoopbackAddress = Field(
        default="127.0.0.1", description="IPv4 loopback address it listens on; engines never face a network."
    )
    port: int = Field(ge=1024, le=65535, description="TCP port it listens on, 1024 to 65535.")
    context: int = Field(default=8192, ge=256, description="Longest context of one sequence, in tokens.")
    sequences: int = Field(default=1, ge=1, le=256, description="Requests served at the same time, a number.")
    threads: int = Field(default=12, ge=1, le=1024, description="Threads that compute, a number.")
    memory: Size = Field(default="16G", description="Memory it may take before it is killed, as a size such as 16G.")
    overhead: Size = Field(
        default="1G",
        description="Memory for computing, beside weights and context, as a size such as 1G; an assumption.",
    )
    cpus: float = Field(default=12, gt=0, description="Processors it may keep busy, a number such as 12 or 1.5.")
    health_timeout: int = Field(default=900, ge=1, description="Seconds it may take from start to healthy.")
    arguments: tuple[Argument, ...] = Field(
        default=(), description="Further arguments of llama-server, one word each, as its --help lists them."
    )

    @property
    def model_names(self) -> tuple[str, ...]:
        """What it serves, by names of models.catalogue: the model, and the projector where there is one."""
        return (self.model,) if self.projector is None else (self.model, self.projector)

    @property
    def total_context(self) -> int:
        """Tokens for all sequences together: llama-server divides --ctx-size among them."""
        return self.context * self.sequences


class ContainerEngine(CommonEngine):
    """A llama.cpp server in a container."""

    runtime: Literal["container"] = Field(description="How the engine is run: container.")
    image: Image | None = Field(
        default=None,
        description="Container image with tag and digest, repository:tag@sha256:...; needed when enabled.",
    )


class NativeEngine(CommonEngine):
    """A llama.cpp server as a sandboxed service of the machine."""

    runtime: Literal["native"] = Field(description="How the engine is run: native.")
    archive: Archive | None = Field(default=None, description="Release archive of llama.cpp; needed when enabled.")


Engine = Annotated[ContainerEngine | NativeEngine, Field(discriminator="runtime")]


def alternatives(engines: Mapping[str, Engine]) -> dict[str, tuple[str, ...]]:
    """Those of the engines of which one runs at a time, by the name of their group; groups of one are none."""
    groups: dict[str, list[str]] = {}
    for name, engine in engines.items():
        if engine.alternatives is not None:
            groups.setdefault(engine.alternatives, []).append(name)
    return {group: tuple(names) for group, names in groups.items() if len(names) > 1}

"""Settings of the concern `engines`: llama.cpp in a container or straight on the machine, and vLLM in a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.capacity.units import size_bytes
from rig.settings.arguments import refuse_first, refuse_llama, refuse_vllm
from rig.settings.problems import show
from rig.settings.types import CatalogueName, LoopbackAddress, Name, Section, Sha256, Shape, Size, Url, sized

LLAMA_OWN = {
    "-m": "model",
    "--model": "model",
    "-mm": "projector",
    "--mmproj": "projector",
    "-a": "the model's name",
    "--alias": "the model's name",
    "--host": "address",
    "--port": "port",
    "-c": "context",
    "--ctx-size": "context",
    "-np": "sequences",
    "--parallel": "sequences",
    "-t": "threads",
    "--threads": "threads",
    "-ngl": "gpu_layers",
    "--gpu-layers": "gpu_layers",
    "--n-gpu-layers": "gpu_layers",
    "-ctk": "kv_cache",
    "--cache-type-k": "kv_cache",
    "-ctv": "kv_cache",
    "--cache-type-v": "kv_cache",
    "-cram": "prompt_cache",
    "--cache-ram": "prompt_cache",
    "-ctxcp": "what the plan counts",
    "--ctx-checkpoints": "what the plan counts",
    "--swa-checkpoints": "what the plan counts",
    "--fit": "what fits, which is computed beforehand",
    "-fit": "what fits, which is computed beforehand",
    "--metrics": "the monitoring, which needs it",
    "--no-slots": "the rule that nobody sees the prompts of others",
    "--api-key": "the key that secrets generates",
    "--api-key-file": "the key that secrets generates",
}
"""Options that the deploy itself passes to llama-server, each with its setting."""

VLLM_OWN = {
    "--model": "model",
    "--served-model-name": "the model's name",
    "--host": "address",
    "--port": "port",
    "--max-model-len": "context",
    "--max-num-seqs": "sequences",
    "--model-tag": "model",
    "--gpu-memory-utilization": "gpu_utilization",
    "--kv-cache-dtype": "kv_cache",
    "--api-key": "the key that secrets generates",
}
"""Options that the deploy itself passes to vLLM, each with its setting."""


def _free_llama_argument(value: str) -> str:
    return refuse_llama(value, LLAMA_OWN)


def _free_vllm_argument(value: str) -> str:
    return refuse_vllm(value, VLLM_OWN)


def _tar(value: str) -> str:
    """An archive in a format of tar's."""
    if value.lower().endswith(".zip"):
        raise ValueError(f"{show(value)} is a zip archive, which is not unpacked; write the address of a .tar.gz")
    return value


Image = Annotated[
    str,
    Shape(
        r"(?=.{1,400}$)[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}",
        "an image with its digest",
        "repository:tag@sha256:<64 hexadecimal digits>",
    ),
]
RelativePath = Annotated[
    str,
    Shape(
        r"(?!(.*/)?\.{1,2}(/|$))(?=.{1,500}$)[A-Za-z0-9._+-]{1,200}(/[A-Za-z0-9._+-]{1,200})*",
        "a path inside the archive",
        "one such as llama-b11146/llama-server",
    ),
]
Word = Annotated[str, Shape(r"[^\s\"'\\$%]{1,1000}", "an argument", "it without spaces, quotes, backslashes, $ and %")]
LlamaArgument = Annotated[Word, AfterValidator(_free_llama_argument)]
VllmArgument = Annotated[Word, AfterValidator(_free_vllm_argument)]


SizeOrNone = Size | Literal[0]
"""A size, or 0 for none."""


class Archive(Section):
    """A release archive of llama.cpp."""

    url: Annotated[Url, AfterValidator(_tar)] = Field(description="Web address of the archive, a .tar.gz.")
    sha256: Sha256 = Field(description="SHA-256 of the archive, 64 hexadecimal digits.")
    binary: RelativePath = Field(description="Path of the server program inside the archive.")


class CommonEngine(Section):
    """Settings of every engine, in a container or native."""

    enabled: bool = Field(default=True, description="Whether the engine is deployed, true or false.")
    alternatives: Name | None = Field(
        default=None,
        description="Name of the group of engines of which one runs at a time; null: it runs beside all others.",
    )
    model: CatalogueName = Field(description="Name of its model in models.catalogue.")
    address: LoopbackAddress = Field(
        default="127.0.0.1", description="IPv4 loopback address it listens on; engines never face a network."
    )
    port: int = Field(ge=1024, le=65535, description="TCP port it listens on, 1024 to 65535.")
    context: int = Field(
        default=8192, ge=256, le=100_000_000, description="Longest context of one sequence, in tokens."
    )
    sequences: int = Field(default=1, ge=1, le=256, description="Requests served at the same time, a number.")
    memory: Annotated[Size, sized("64M", "1000T", "no server fits into it")] = Field(
        default="16G", description="RAM it may take before it is killed, as a size such as 16G."
    )
    overhead: Size = Field(
        default="1G",
        description="Memory for computing, beside weights and context, as a size such as 1G; an assumption.",
    )
    cpus: float = Field(
        default=12, ge=0.1, le=1024, description="Processors it may keep busy, a number such as 12 or 1.5."
    )
    health_timeout: int = Field(
        default=900, ge=1, le=86_400, description="Seconds it may take from start to healthy, a day at most."
    )

    @property
    def model_names(self) -> tuple[str, ...]:
        """Its models, by names of models.catalogue."""
        return (self.model,)

    @property
    def on_card(self) -> bool:
        """Whether it uses the graphics card, at least in part."""
        return False


class LlamaEngine(CommonEngine):
    """A llama.cpp server, in a container or native."""

    projector: CatalogueName | None = Field(
        default=None,
        description="Name in models.catalogue of the projector of a model that sees; null for none.",
    )
    threads: int = Field(default=12, ge=1, le=1024, description="Threads that compute, a number.")
    kv_cache: Literal["f16", "q8_0"] = Field(
        default="f16", description="Kind of the numbers in the KV cache: f16 (16 bits) or q8_0 (8.5 bits)."
    )
    prompt_cache: SizeOrNone = Field(
        default="1G",
        description="RAM for earlier prompts, as a size such as 1G, so as not to compute them again; 0: none.",
    )
    arguments: Annotated[tuple[LlamaArgument, ...], AfterValidator(refuse_first)] = Field(
        default=(), description="Further arguments of the server, one word each, as its --help lists them."
    )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The model, and the projector if there is one."""
        return (self.model,) if self.projector is None else (self.model, self.projector)

    @property
    def prompt_cache_bytes(self) -> int:
        """Bytes of RAM for earlier prompts."""
        return 0 if self.prompt_cache == 0 else size_bytes(str(self.prompt_cache))

    @property
    def total_context(self) -> int:
        """Tokens for all sequences together: llama-server divides --ctx-size among them."""
        return self.context * self.sequences

    @property
    def layers_on_card(self) -> int:
        """Layers of the model on the graphics card."""
        return 0


class ContainerEngine(LlamaEngine):
    """A llama.cpp server in a container."""

    runtime: Literal["container"] = Field(description="How the engine is run: container.")
    image: Image | None = Field(
        default=None,
        description="Container image with tag and digest, repository:tag@sha256:...; needed when enabled.",
    )
    gpu_layers: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Layers of the model on the graphics card, a number; 0: none. The output head counts as the first.",
    )

    @property
    def on_card(self) -> bool:
        return self.gpu_layers > 0

    @property
    def layers_on_card(self) -> int:
        return self.gpu_layers


class NativeEngine(LlamaEngine):
    """A llama.cpp server as a sandboxed service of the machine, on the processor: upstream's archives have no CUDA."""

    runtime: Literal["native"] = Field(description="How the engine is run: native.")
    archive: Archive | None = Field(default=None, description="Release archive of llama.cpp; needed when enabled.")


class VllmEngine(CommonEngine):
    """vLLM in a container, on the graphics card."""

    runtime: Literal["vllm"] = Field(description="How the engine is run: vllm.")
    image: Image | None = Field(
        default=None,
        description="Container image with tag and digest, repository:tag@sha256:...; needed when enabled.",
    )
    gpu_utilization: float = Field(
        default=0.80,
        ge=0.05,
        le=1,
        description="Part of the graphics card's memory that it takes for itself at its start, 0 to 1.",
    )
    kv_cache: Literal["auto", "fp8"] = Field(
        default="auto", description="Kind of the numbers in the KV cache: auto (16 bits, as the model's) or fp8 (8)."
    )
    arguments: Annotated[tuple[VllmArgument, ...], AfterValidator(refuse_first)] = Field(
        default=(), description="Further arguments of the server, one word each, as its --help lists them."
    )

    @property
    def on_card(self) -> bool:
        return True


Containerised = ContainerEngine | VllmEngine
"""Engines in containers."""
Engine = Annotated[ContainerEngine | NativeEngine | VllmEngine, Field(discriminator="runtime")]


def alternatives(engines: Mapping[str, Engine]) -> dict[str, tuple[str, ...]]:
    """Engines of which one runs at a time, by the name of their group; groups of one are left out."""
    groups: dict[str, list[str]] = {}
    for name, engine in engines.items():
        if engine.alternatives is not None:
            groups.setdefault(engine.alternatives, []).append(name)
    return {group: tuple(names) for group, names in groups.items() if len(names) > 1}

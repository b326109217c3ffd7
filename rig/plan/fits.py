"""Models of the catalogue that fit one machine by themselves, with placement and upper speed limit: best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from rig.capacity import Demand, Model, largest_split
from rig.capacity.units import in_words, size_bytes, size_text
from rig.plan.figures import NOTHING, EnginePlan, engine_plan
from rig.settings import Settings
from rig.settings.demand import llama_demand, ram_for_engines
from rig.settings.engines import ContainerEngine, Engine, VllmEngine
from rig.settings.machine import Hardware
from rig.settings.models import Model as Entry

PORT = 8000
"""Port of an engine that exists only in calculations."""
DEFAULTS: Mapping[str, Any] = MappingProxyType({"port": PORT, "context": 8192, "sequences": 1})
"""Settings of an engine without its own: one sequence of the usual context."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One model on this machine. Sizes are bytes; ``on_card`` of ``layers`` lie on the graphics card.

    ``missing``: why it does not fit, None if it does; the figures are None then.
    """

    model: str
    missing: str | None
    on_card: int | None
    layers: int | None
    gpu: Demand | None
    ram: Demand | None
    context: int
    longest_context: int | None
    tokens_per_second: float | None

    def as_json(self) -> dict[str, Any]:
        """The fit for programs: bytes, tokens, tokens/s; null for unknown values."""
        return asdict(self)


def fits(settings: Settings, prompt: int, read: Mapping[str, Model] = NOTHING) -> list[Fit]:
    """Every language model of the catalogue, the fastest first, then those that do not fit.

    Each has the machine for itself, with as many layers on the graphics card as fit there. `read` has the models from
    files' headers, by catalogue name. An entry without a shape is left out: it may not be a language model.
    """
    models = {name: entry.known for name, entry in settings.models.catalogue.items()} | dict(read)
    found = [
        _fit(name, entry, models, settings.machine.hardware, prompt)
        for name, entry in settings.models.catalogue.items()
        if models[name].architecture is not None
    ]
    return sorted(found, key=lambda fit: (fit.missing is not None, -(fit.tokens_per_second or 0), fit.model))


def _fit(name: str, entry: Entry, models: Mapping[str, Model], hardware: Hardware, prompt: int) -> Fit:
    ram = ram_for_engines(hardware)
    engine = _engine(name, entry, models[name], hardware)
    if engine is None:
        return _missing(name, "is for vLLM, which needs a graphics card")
    planned = engine_plan(name, engine, models, hardware, prompt)
    card = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    if isinstance(engine, VllmEngine) and not planned.sequences_that_fit:
        return _missing(name, f"needs {_least(planned)} of GPU memory, and {in_words(card)} are there")
    if planned.ram.known > ram:
        return _missing(name, f"needs {in_words(planned.ram.known)} of RAM, and {in_words(ram)} are there for engines")
    return Fit(
        model=name,
        missing=None,
        on_card=planned.gpu_layers,
        layers=planned.layers,
        gpu=planned.gpu,
        ram=planned.ram,
        context=engine.context,
        longest_context=planned.longest_context,
        tokens_per_second=planned.tokens_per_second,
    )


def _missing(name: str, why: str) -> Fit:
    return Fit(name, why, None, None, None, None, int(DEFAULTS["context"]), None, None)


def _least(planned: EnginePlan) -> str:
    return f"more than {in_words(planned.gpu.weights + planned.gpu.overhead)}"


def _engine(name: str, entry: Entry, model: Model, hardware: Hardware) -> Engine | None:
    """The engine for an entry: vLLM for a checkpoint, llama.cpp for a GGUF; None if there is none."""
    ram = size_text(max(1 << 20, ram_for_engines(hardware) >> 20 << 20))
    if entry.chosen.file is None:
        if hardware.gpu is None:
            return None
        return VllmEngine(runtime="vllm", model=name, gpu_utilization=0.95, **DEFAULTS)
    engine = ContainerEngine(
        runtime="container", model=name, threads=hardware.cores, cpus=hardware.cores, memory=ram, **DEFAULTS
    )
    if hardware.gpu is None or model.architecture is None:
        return engine
    room = size_bytes(hardware.gpu.memory)
    layers = largest_split(model.weights, llama_demand(engine, model), model.architecture.layers, room)
    return engine.model_copy(update={"gpu_layers": layers})

"""The figures of a plan, computed from the settings alone and, where given, from the headers of model files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from rig.capacity import (
    Demand,
    Device,
    Model,
    Share,
    decode_ceiling,
    first_token_seconds,
    largest_at_once,
    prefill_operations,
    sets_that_fit,
)
from rig.capacity.units import GB, TERA, size_bytes
from rig.settings import Settings
from rig.settings.demand import placed, ram_for_engines
from rig.settings.engines import Engine, LlamaEngine, VllmEngine, alternatives
from rig.settings.machine import Gpu, Hardware

PROMPT = 512
"""Default length of the prompt for the time to the first token, in tokens."""

SETS = 24
"""Most sets of engines that fit together: more than anybody reads."""

LONGEST_PROMPT = 100_000_000
"""Tokens of the longest prompt: as many as the longest context of the settings."""

NOTHING: Mapping[str, Model] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine in its placement. Sizes are bytes; None: unknown, because the model's architecture is.

    ``gpu_layers`` of ``layers`` are on the graphics card; ``ram`` and ``gpu``: its demand there; ``limit``: its setting
    `memory`; ``sequences_that_fit``: of its whole context, on both sides; ``longest_context``: of a single sequence, in
    tokens, however far the model was trained; ``tokens_per_second``: upper limit of one stream;
    ``first_token_seconds``: lower limit for the first token; None for both without the required card.
    """

    name: str
    model: str
    enabled: bool
    alternatives: str | None
    gpu_layers: int
    layers: int | None
    ram: Demand
    gpu: Demand
    limit: int
    context: int
    sequences: int
    sequences_that_fit: int | None
    longest_context: int | None
    tokens_per_second: float | None
    first_token_seconds: float | None


@dataclass(frozen=True, slots=True)
class Total:
    """Bytes taken by all enabled engines that may run at once, and the machine's bytes; None if unknown."""

    taken: int
    there: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One machine. ``together``: the largest sets of engines that fit beside each other, including disabled ones."""

    machine: str
    hardware: Hardware
    prompt: int
    engines: tuple[EnginePlan, ...]
    ram: Total
    gpu: Total | None
    disk: Total
    together: list[tuple[str, ...]]
    more_together: bool = False
    """There are more such sets, which are left out."""

    def as_json(self) -> dict[str, Any]:
        """The plan for programs: bytes, seconds, tokens/s; null for unknown values."""
        return {
            "hardware": self.hardware.model_dump(),
            "prompt": self.prompt,
            "engines": [asdict(engine) for engine in self.engines],
            "ram": asdict(self.ram),
            "gpu": None if self.gpu is None else asdict(self.gpu),
            "disk": asdict(self.disk),
            "together": self.together,
            "more_together": self.more_together,
        }


def plan(machine: str, settings: Settings, prompt: int = PROMPT, read: Mapping[str, Model] = NOTHING) -> Plan:
    """The plan of one machine; `read` has the models from files' headers, by catalogue name."""
    hardware = settings.machine.hardware
    models = {name: model.known for name, model in settings.models.catalogue.items()} | dict(read)
    engines = tuple(engine_plan(name, engine, models, hardware, prompt) for name, engine in settings.engines.items())
    card = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    limits = {engine.name: engine.limit for engine in engines if engine.enabled}
    on_card = {engine.name: engine.gpu.known for engine in engines if engine.enabled}
    together = sets_that_fit(
        {engine.name: (engine.limit, engine.gpu.known) for engine in engines},
        (ram_for_engines(hardware), card),
        list(alternatives(settings.engines).values()),
        most=SETS + 1,
    )
    return Plan(
        machine=machine,
        hardware=hardware,
        prompt=prompt,
        engines=engines,
        ram=Total(_at_once(limits, settings), ram_for_engines(hardware)),
        gpu=Total(_at_once(on_card, settings), card) if card else None,
        disk=Total(
            sum(model.chosen.size for model in settings.needed_models.values()),
            None if hardware.disk is None else size_bytes(hardware.disk),
        ),
        together=together[:SETS],
        more_together=len(together) > SETS,
    )


def _at_once(taken: Mapping[str, int], settings: Settings) -> int:
    """Bytes that the enabled engines take when the largest of each group of alternatives runs."""
    return sum(taken[name] for name in largest_at_once(taken, settings.alternatives.values()))


def engine_plan(
    name: str, engine: Engine, models: Mapping[str, Model], hardware: Hardware, prompt: int
) -> EnginePlan:
    """The plan of one engine; `models` has its models, by catalogue name."""
    lies, model = placed(engine, models, hardware), models[engine.model]
    processor = (lies.ram, _processor(hardware, engine))
    parts = [processor] if hardware.gpu is None else [processor, (lies.card, _card(hardware.gpu, model))]
    nowhere = hardware.gpu is None and isinstance(engine, VllmEngine)
    return EnginePlan(
        name=name,
        model=engine.model,
        enabled=engine.enabled,
        alternatives=engine.alternatives,
        gpu_layers=lies.on_card,
        layers=lies.layers,
        ram=lies.ram.memory,
        gpu=lies.card.memory,
        limit=lies.ram_limit,
        context=engine.context,
        sequences=engine.sequences,
        sequences_that_fit=lies.sequences_that_fit(engine.context),
        longest_context=lies.context_that_fits(1),
        tokens_per_second=None if nowhere else _decode(parts),
        first_token_seconds=None if nowhere else _first_token(model, parts, prompt),
    )


def _processor(hardware: Hardware, engine: Engine) -> Device:
    """The engine's share of the processor; a few cores already take the RAM's whole bandwidth."""
    threads = engine.threads if isinstance(engine, LlamaEngine) else hardware.cores
    cores = min(threads, engine.cpus, hardware.cores)
    return Device(hardware.ram_bandwidth * GB, hardware.cpu_compute * TERA * cores / hardware.cores)


def _card(gpu: Gpu, model: Model) -> Device:
    """The card, at its speed for the model's type of numbers."""
    compute = gpu.compute_8bit if model.in_8_bits else gpu.compute
    return Device(gpu.bandwidth * GB, compute * TERA)


def _decode(parts: Iterable[tuple[Share, Device]]) -> float:
    return decode_ceiling(*((share.read_per_token, device.bandwidth) for share, device in parts))


def _first_token(model: Model, parts: Iterable[tuple[Share, Device]], prompt: int) -> float | None:
    if model.architecture is None:
        return None
    work = prefill_operations(model.architecture.computed, prompt)
    return first_token_seconds(*((work * share.computing, share.read_per_token, device) for share, device in parts))

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
    all_in_ram,
    decode_ceiling,
    first_token_seconds,
    largest_split,
    prefill_operations,
    room_for_cache,
    sequences_that_fit,
    sets_that_fit,
    split,
)
from rig.capacity.units import GB, TERA, size_bytes
from rig.settings import Settings
from rig.settings.demand import cache_per_token, demand, ram_for_engines
from rig.settings.engines import Engine
from rig.settings.machine import Gpu, Hardware

PROMPT = 512
"""Tokens of the prompt whose first answer is estimated, unless another length is asked for."""

NOTHING: Mapping[str, Model] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine in one placement. Sizes are bytes; None: unknown, as the model's architecture is.

    ``limit``: its setting `memory`; ``sequences_that_fit``: of its context, within that limit; ``tokens_per_second``:
    ceiling of one stream; ``first_token_seconds``: what the first token takes at least.
    """

    name: str
    model: str
    enabled: bool
    gpu_layers: int
    layers: int | None
    ram: Demand
    gpu: Demand
    limit: int
    context: int
    sequences: int
    sequences_that_fit: int | None
    tokens_per_second: float
    first_token_seconds: float | None


@dataclass(frozen=True, slots=True)
class Total:
    """Bytes taken by all enabled engines, and bytes there are; None where the settings do not say."""

    taken: int
    there: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One machine. ``on_card`` and ``together_on_card`` tell what the graphics card could do; engines leave it idle."""

    machine: str
    hardware: Hardware
    prompt: int
    engines: tuple[EnginePlan, ...]
    ram: Total
    gpu: Total | None
    disk: Total
    together: list[tuple[str, ...]]
    on_card: tuple[EnginePlan, ...]
    together_on_card: list[tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        """The same for programs: bytes, seconds, tokens/s; null where something is unknown."""
        return {
            "hardware": self.hardware.model_dump(),
            "prompt": self.prompt,
            "engines": [asdict(engine) for engine in self.engines],
            "ram": asdict(self.ram),
            "gpu": None if self.gpu is None else asdict(self.gpu),
            "disk": asdict(self.disk),
            "together": self.together,
            "on_card": [asdict(engine) for engine in self.on_card],
            "together_on_card": self.together_on_card,
        }


def plan(machine: str, settings: Settings, prompt: int = PROMPT, read: Mapping[str, Model] = NOTHING) -> Plan:
    """The plan of one machine; `read` has what is known from a file's header, by catalogue name."""
    hardware = settings.machine.hardware
    models = {name: model.known for name, model in settings.models.catalogue.items()} | dict(read)
    engines = tuple(
        _engine(name, engine, models, hardware, prompt, gpu_layers=0) for name, engine in settings.engines.items()
    )
    on_card = tuple(_on_card(settings, models, prompt))
    card = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    return Plan(
        machine=machine,
        hardware=hardware,
        prompt=prompt,
        engines=engines,
        ram=Total(sum(engine.limit for engine in engines if engine.enabled), ram_for_engines(hardware)),
        gpu=Total(sum(engine.gpu.known for engine in engines if engine.enabled), card) if card else None,
        disk=Total(
            sum(model.size for model in settings.needed_models.values()),
            None if hardware.disk is None else size_bytes(hardware.disk),
        ),
        together=sets_that_fit({engine.name: engine.limit for engine in engines}, ram_for_engines(hardware)),
        on_card=on_card,
        together_on_card=sets_that_fit({engine.name: engine.gpu.known for engine in on_card}, card),
    )


def _on_card(settings: Settings, models: Mapping[str, Model], prompt: int) -> Iterable[EnginePlan]:
    """Each engine with as many layers on the card as fit there while it has the card to itself."""
    hardware = settings.machine.hardware
    for name, engine in settings.engines.items():
        model = models[engine.model]
        if hardware.gpu is None or model.architecture is None:
            continue
        need, layers = demand(engine, models), model.architecture.layers
        gpu_layers = largest_split(model.weights, need, layers, size_bytes(hardware.gpu.memory))
        yield _engine(name, engine, models, hardware, prompt, gpu_layers)


def _engine(
    name: str, engine: Engine, models: Mapping[str, Model], hardware: Hardware, prompt: int, gpu_layers: int
) -> EnginePlan:
    model, need = models[engine.model], demand(engine, models)
    parts = _parts(model, need, engine, hardware, gpu_layers)
    limit, per_token = size_bytes(engine.memory), cache_per_token(engine, model.architecture)
    left = room_for_cache(limit, need.weights, need.overhead)
    return EnginePlan(
        name=name,
        model=engine.model,
        enabled=engine.enabled,
        gpu_layers=gpu_layers,
        layers=None if model.architecture is None else model.architecture.layers,
        ram=parts[0][0].memory,
        gpu=parts[1][0].memory if gpu_layers else Demand(0, 0, 0),
        limit=limit,
        context=engine.context,
        sequences=engine.sequences,
        sequences_that_fit=None if per_token is None else sequences_that_fit(left, per_token, engine.context),
        tokens_per_second=decode_ceiling(*((share.read_per_token, device.bandwidth) for share, device in parts)),
        first_token_seconds=_first_token(model, parts, prompt),
    )


def _parts(
    model: Model, need: Demand, engine: Engine, hardware: Hardware, gpu_layers: int
) -> list[tuple[Share, Device]]:
    """The share of RAM and, where it has layers, that of the card, each with the device that computes it."""
    processor = _processor(hardware, engine)
    if model.architecture is None or hardware.gpu is None or gpu_layers == 0:
        return [(all_in_ram(model.weights, need), processor)]
    card, ram = split(model.weights, need, model.architecture.layers, gpu_layers)
    return [(ram, processor), (card, _card(hardware.gpu))]


def _processor(hardware: Hardware, engine: Engine) -> Device:
    """The processor as far as this engine may use it; a few cores already take the RAM's whole bandwidth."""
    cores = min(engine.threads, engine.cpus, hardware.cores)
    return Device(hardware.ram_bandwidth * GB, hardware.cpu_compute * TERA * cores / hardware.cores)


def _card(gpu: Gpu) -> Device:
    return Device(gpu.bandwidth * GB, gpu.compute * TERA)


def _first_token(model: Model, parts: Iterable[tuple[Share, Device]], prompt: int) -> float | None:
    if model.architecture is None:
        return None
    work = prefill_operations(model.architecture.parameters, prompt)
    return first_token_seconds(*((work * share.computing, share.read_per_token, device) for share, device in parts))

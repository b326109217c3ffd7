"""Rules of physical limits: each broken one is reported with its arithmetic and the nearest setting that fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rig.capacity import Demand, Model, largest_at_once, largest_split, room_for_cache
from rig.capacity.units import in_words, size_at_least, size_bytes, size_text
from rig.settings.demand import Placed, llama_demand, placed, ram_for_engines
from rig.settings.engines import ContainerEngine, Engine, LlamaEngine, VllmEngine, alternatives
from rig.settings.machine import Hardware
from rig.settings.models import Models
from rig.settings.tree import Step

Finding = tuple[tuple[Step, ...], str]
Advice = tuple[str, str]
"""A key of an engine, and its new value or the sentence about it."""

CONTEXT_STEP = 256
"""Tokens by which llama-server rounds a context, and the shortest context in the settings."""

UTILIZATION = 0.95
"""Largest part of the card's memory for vLLM: a screen needs the rest (an assumption)."""

EIGHT_BITS = {"f16": "q8_0", "auto": "fp8"}
"""Types of KV cache, each with the same engine's type of about half the size."""


@dataclass(frozen=True)
class _Wish:
    """An enabled engine, the machine's hardware, and the models in the catalogue."""

    name: str
    engine: Engine
    models: Mapping[str, Model]
    hardware: Hardware

    @property
    def placed(self) -> Placed:
        return placed(self.engine, self.models, self.hardware)

    def changed(self, **changes: object) -> _Wish:
        """The engine with other settings."""
        return _Wish(self.name, self.engine.model_copy(update=changes), self.models, self.hardware)

    @property
    def card_is_short(self) -> bool:
        """Whether the graphics card cannot hold the engine's part there; vLLM needs room for one sequence at least."""
        lies = self.placed
        if isinstance(self.engine, VllmEngine) and lies.cache is not None:
            return lies.card.memory.fixed + lies.cache.of(self.engine.context) > lies.card_limit
        return lies.card.memory.known > lies.card_limit

    @property
    def ram_is_short(self) -> bool:
        """Whether the engine's RAM limit, or the machine's RAM, cannot hold the rest."""
        return self.placed.ram.memory.known > self.ram_limit

    @property
    def ram_limit(self) -> int:
        """Bytes of RAM for the engine: its own limit, or the machine's RAM if that is less."""
        return min(self.placed.ram_limit, ram_for_engines(self.hardware))


def misfits(engines: Mapping[str, Engine], models: Models | None, hardware: Hardware) -> Iterator[Finding]:
    """Every enabled engine, and every sum of them, that needs more than the machine has."""
    if ram_for_engines(hardware) == 0:
        sentence = f"{hardware.ram_reserve} leaves nothing of the {hardware.ram} of machine.hardware.ram; write less"
        yield ("machine", "hardware", "ram_reserve"), sentence
        return
    wishes = {} if models is None else _wishes(engines, models, hardware)
    impossible = dict(_impossible(wishes))
    short = {name: finding for name, wish in wishes.items() if name not in impossible and (finding := _shortage(wish))}
    for name, (key, sentence) in (impossible | short).items():
        yield ("engines", name, key), sentence
    yield from _too_many_threads(engines, hardware)
    # Engines that do not fit alone must change first; if the others are too much already, that is certain now.
    fitting = {name: engine for name, engine in engines.items() if name not in short and name not in impossible}
    yield from _too_much_together(fitting, wishes, hardware)
    yield from _too_much_on_card(fitting, {name: wishes[name] for name in fitting if name in wishes}, hardware)
    if models is not None:
        yield from _too_small_disk(engines, models, hardware)


def _wishes(engines: Mapping[str, Engine], models: Models, hardware: Hardware) -> dict[str, _Wish]:
    """Enabled engines whose models are in the catalogue; the others are reported elsewhere."""
    known = {name: model.known for name, model in models.catalogue.items()}
    return {
        name: _Wish(name, engine, known, hardware)
        for name, engine in engines.items()
        if all(model in known for model in engine.model_names)
    }


def _impossible(wishes: Mapping[str, _Wish]) -> Iterator[tuple[str, Advice]]:
    """Placements that are impossible at any size: key and sentence by engine."""
    for name, wish in wishes.items():
        engine, layers = wish.engine, wish.placed.layers
        if not engine.on_card:
            continue
        if wish.hardware.gpu is None:
            reason = "machine.hardware.gpu says that there is no graphics card"
            if isinstance(engine, ContainerEngine):
                yield name, ("gpu_layers", f"is {engine.gpu_layers}, and {reason}; write 0")
            else:
                yield name, ("enabled", f"is true, vLLM computes on a graphics card, and {reason}; write false")
        elif layers is None:
            sentence = f"'{engine.model}' has no shape in models.catalogue, without which nobody knows what it takes"
            yield name, ("model", f"{sentence} on the graphics card; write its shape there")
        elif isinstance(engine, ContainerEngine) and engine.gpu_layers > layers:
            sentence = f"{engine.gpu_layers} are more than the {layers} of {engine.model}; write {layers}"
            yield name, ("gpu_layers", sentence)


def _shortage(wish: _Wish) -> Advice | None:
    """Key and sentence for an engine with too little memory somewhere, None if it has enough."""
    if wish.card_is_short:
        return _vllm_shortage(wish, wish.engine) if isinstance(wish.engine, VllmEngine) else _card_shortage(wish)
    return _ram_shortage(wish) if wish.ram_is_short else None


def _vllm_shortage(wish: _Wish, engine: VllmEngine) -> Advice:
    """vLLM's part of the card is too small for one sequence: shorten the context, or enlarge the part."""
    lies = wish.placed
    need, card = lies.card.memory, _card(wish)
    fixed = need.fixed
    cache = 0 if lies.cache is None else lies.cache.of(engine.context)
    enough = math.ceil((fixed + cache) / card * 100) / 100
    larger = f"gpu_utilization: {enough:.2f}" if enough <= UTILIZATION else None
    context = (lies.context_that_fits(1) or 0) // CONTEXT_STEP * CONTEXT_STEP
    part = f"utilization {engine.gpu_utilization:.2f}"
    if context:
        left = f"{in_words(room_for_cache(lies.card_limit, need.fixed))} are left at {part}"
        offers = [str(context), _with_8_bits(wish, "context"), larger]
        return "context", f"{_cache(engine, cache, 1)}, {left} after {_fixed(need)}; write {_either(offers)}"
    granted = f"{part} is {in_words(lies.card_limit)} of the graphics card's {in_words(card)}"
    needs = f"the engine needs {in_words(fixed + cache)}: {in_words(cache)} of KV cache for 1 sequence, {_fixed(need)}"
    if larger is not None:
        return "gpu_utilization", f"{granted}, and {needs}; write {enough:.2f}"
    if fixed < card * UTILIZATION and engine.gpu_utilization < UTILIZATION:
        return "gpu_utilization", f"{granted}, and {needs}; write {UTILIZATION:.2f} and a shorter context"
    return (
        "model",
        f"{needs}, and the graphics card has {in_words(card)}; write a smaller model, or correct machine.hardware.gpu",
    )


def _card_shortage(wish: _Wish) -> Advice:
    """The card cannot hold the layers and their cache: fewer layers, or, if it has all of them, a smaller cache."""
    engine, lies = wish.engine, wish.placed
    assert isinstance(engine, ContainerEngine) and lies.layers is not None
    need, card = lies.card.memory, _card(wish)
    layers = _layers(wish, card)
    left = room_for_cache(card, need.fixed)
    smaller = _smaller_cache(wish)
    if lies.on_card == lies.layers and smaller is not None:
        key, value = smaller
        offers = [value, _with_8_bits(wish, key), f"gpu_layers: {layers}"]
        whose = f"{in_words(left)} are left of the graphics card's {in_words(card)} after {_fixed(need)}"
        return key, f"{_cache(engine, need.kv_cache or 0, engine.sequences)}, {whose}; write {_either(offers)}"
    whole = f"{engine.gpu_layers} layers need {_whole(need)}"
    eight = EIGHT_BITS.get(engine.kv_cache)
    more = 0 if eight is None else _layers(wish.changed(kv_cache=eight), card)
    offers = [str(layers), f"{more} with kv_cache: {eight}" if more > layers else None]
    offers += [f"{smaller[0]}: {smaller[1]}"] if smaller is not None and smaller[0] == "sequences" else []
    return "gpu_layers", f"{whole}, and the graphics card has {in_words(card)}; write {_either(offers)}"


def _ram_shortage(wish: _Wish) -> Advice:
    """RAM cannot hold the rest: shrink the KV cache if that is enough, or raise the limit."""
    engine, need, limit = wish.engine, wish.placed.ram.memory, wish.ram_limit
    left = room_for_cache(limit, need.fixed)
    larger = _larger_memory(need, limit, wish.hardware)
    smaller = _smaller_cache(wish)
    if smaller is not None and isinstance(engine, LlamaEngine):
        key, value = smaller
        whose = f"memory {engine.memory}" if limit == size_bytes(engine.memory) else f"the machine's {in_words(limit)}"
        arithmetic = f"{_cache(engine, need.kv_cache or 0, engine.sequences)}, {in_words(left)} are left of {whose}"
        enough = larger is not None and size_bytes(larger) >= need.known
        offers = [value, _with_8_bits(wish, key), f"memory: {larger}" if enough else None]
        return key, f"{arithmetic} after {_fixed(need)}; write {_either(offers)}"
    if larger is not None:
        return "memory", f"is {engine.memory}, and the engine needs {_whole(need)}; write {larger}"
    return (
        "model",
        f"needs {_whole(need)}, and {_room(wish.hardware)}; write a smaller model, or correct machine.hardware.ram",
    )


def _room(hardware: Hardware) -> str:
    room = in_words(ram_for_engines(hardware))
    return f"the machine has {room} for engines ({hardware.ram} less {hardware.ram_reserve})"


def _card(wish: _Wish) -> int:
    """Bytes of memory of the graphics card."""
    gpu = wish.hardware.gpu
    return 0 if gpu is None else size_bytes(gpu.memory)


def _sequences(wish: _Wish) -> int:
    """Sequences of the engine's context whose KV cache fits its limits; 0 if unknown."""
    return replace(wish.placed, ram_limit=wish.ram_limit).sequences_that_fit(wish.engine.context) or 0


def _context(wish: _Wish, sequences: int) -> int:
    """Tokens, in whole steps, of each of `sequences` sequences whose KV cache fits; 0 if unknown."""
    fitting = replace(wish.placed, ram_limit=wish.ram_limit).context_that_fits(sequences) or 0
    return fitting // CONTEXT_STEP * CONTEXT_STEP


def _layers(wish: _Wish, room: int) -> int:
    """Layers of a llama.cpp engine that fit into `room` bytes of the card, with its cache and its projector."""
    lies, engine = wish.placed, wish.engine
    assert isinstance(engine, LlamaEngine) and lies.layers is not None
    projector = sum(wish.models[name].weights.total for name in engine.model_names[1:])
    model = wish.models[engine.model]
    return largest_split(model.weights, llama_demand(engine, model), lies.layers, room - projector)


def _larger_memory(need: Demand, limit: int, hardware: Hardware) -> str | None:
    """The size that is enough; all of the machine's if the KV cache must shrink, too; None if no size helps."""
    enough = size_at_least(need.known)
    room = ram_for_engines(hardware)
    if size_bytes(enough) <= room:
        return enough
    return size_text(room) if limit < room and need.fixed < room else None


def _smaller_cache(wish: _Wish) -> Advice | None:
    """Key and value of the nearest setting whose KV cache fits into RAM and card; None if there is none.

    None, too, if the cache fits as it is: then something else is too large. If sequences and context are both too much,
    the advice is one sequence, whose context is judged next time.
    """
    engine = wish.engine
    sequences = _sequences(wish)
    if isinstance(engine, LlamaEngine) and sequences >= engine.sequences:
        return None
    if sequences:
        return "sequences", str(sequences)
    if context := _context(wish, engine.sequences):
        return "context", str(context)
    return ("sequences", "1") if _context(wish, 1) else None


def _with_8_bits(wish: _Wish, key: str) -> str | None:
    """The same key's value with an 8-bit KV cache; None if the cache has 8 bits already, or gains nothing."""
    kind = EIGHT_BITS.get(wish.engine.kv_cache)
    if kind is None:
        return None
    smaller = wish.changed(kv_cache=kind)
    if key == "sequences":
        value = min(_sequences(smaller), wish.engine.sequences)
    else:
        sequences = 1 if isinstance(wish.engine, VllmEngine) else wish.engine.sequences
        value = min(_context(smaller, sequences), wish.engine.context)
    return f"{value} with kv_cache: {kind}" if value else None


def _either(offers: list[str | None]) -> str:
    return ", or ".join(offer for offer in offers if offer is not None)


def _cache(engine: Engine, size: int, sequences: int) -> str:
    if sequences == 1:
        return f"1 sequence of {engine.context:,} tokens needs {in_words(size)} of KV cache"
    return f"{sequences} sequences of {engine.context:,} tokens need {in_words(size)} of KV cache"


def _fixed(need: Demand) -> str:
    weights, overhead = f"{in_words(need.weights)} of weights", f"{in_words(need.overhead)} of overhead"
    if need.prompts == 0:
        return f"{weights} and {overhead}"
    return f"{weights}, {overhead} and {in_words(need.prompts)} of prompt cache"


def _whole(need: Demand) -> str:
    if need.kv_cache is None:
        return f"{in_words(need.known)} besides its KV cache: {_fixed(need)}"
    return f"{in_words(need.known)}: {in_words(need.kv_cache)} of KV cache, {_fixed(need)}"


def _too_many_threads(engines: Mapping[str, Engine], hardware: Hardware) -> Iterator[Finding]:
    """Engines with more threads than cores: the threads only wait for each other."""
    for name, engine in engines.items():
        if isinstance(engine, LlamaEngine) and engine.threads > hardware.cores:
            sentence = f"{engine.threads} are more than the {hardware.cores} of machine.hardware.cores"
            yield ("engines", name, "threads"), f"{sentence}; write {hardware.cores}"


def _too_much_together(
    engines: Mapping[str, Engine], wishes: Mapping[str, _Wish], hardware: Hardware
) -> Iterator[Finding]:
    """Limits that exceed the RAM together: lower that of the engine with most to spare, or switch one engine off.

    Of alternatives only the largest counts, as one of them runs at a time.
    """
    limits = {name: size_bytes(engine.memory) for name, engine in engines.items()}
    at_once = largest_at_once(limits, alternatives(engines).values())
    room = ram_for_engines(hardware)
    excess = sum(limits[name] for name in at_once) - room
    if excess <= 0:
        return
    arithmetic = (
        f"{_sum(limits, at_once)} are more than the {in_words(room)} for engines ({hardware.ram} of RAM less "
        f"{hardware.ram_reserve} of ram_reserve)"
    )
    spare = {name: limits[name] - wishes[name].placed.ram.memory.known for name in at_once if name in wishes}
    giver = max(spare, key=lambda name: spare[name], default=None)
    if giver is not None and spare[giver] >= excess:
        yield ("engines", giver, "memory"), f"{arithmetic}; write {size_text(limits[giver] - excess)}"
    else:
        goer = min(at_once, key=lambda name: (limits[name] < excess, limits[name]))
        yield (
            ("engines", goer, "enabled"),
            f"{arithmetic}; write false here or at another of them, or make them alternatives (alternatives: NAME at "
            "each), of which one runs at a time; or correct machine.hardware.ram",
        )


def _too_much_on_card(
    engines: Mapping[str, Engine], wishes: Mapping[str, _Wish], hardware: Hardware
) -> Iterator[Finding]:
    """Engines that exceed the graphics card's memory together, unless they are alternatives."""
    taken = {name: wish.placed.card.memory.known for name, wish in wishes.items() if wish.engine.on_card}
    groups = [[name for name in group if name in taken] for group in alternatives(engines).values()]
    at_once = largest_at_once(taken, [group for group in groups if group])
    room = 0 if hardware.gpu is None else size_bytes(hardware.gpu.memory)
    if sum(taken[name] for name in at_once) <= room:
        return
    arithmetic = f"{_sum(taken, at_once)} are more than the {in_words(room)} of the graphics card"
    goer = at_once[-1]
    wish = wishes[goer]
    fewer = 0
    if isinstance(wish.engine, ContainerEngine):
        fewer = _layers(wish, room - sum(taken[name] for name in at_once[:-1]))
    others = " and ".join(at_once[:-1])
    remedy = f"write the same name here and at {others}: of alternatives one runs at a time"
    yield ("engines", goer, "alternatives"), f"{arithmetic}; {remedy}{f', or gpu_layers: {fewer}' if fewer else ''}"


def _sum(sizes: Mapping[str, int], names: list[str]) -> str:
    return " + ".join(f"{in_words(sizes[name])} of {name}" for name in names)


def _too_small_disk(engines: Mapping[str, Engine], models: Models, hardware: Hardware) -> Iterator[Finding]:
    """A disk that cannot hold the files of all enabled engines."""
    named = {name for engine in engines.values() for name in engine.model_names}
    needed = sum(model.chosen.size for name, model in models.catalogue.items() if name in named)
    if hardware.disk is not None and needed > size_bytes(hardware.disk):
        sentence = f"is {hardware.disk}, and the models of the enabled engines take {in_words(needed)}"
        yield ("machine", "hardware", "disk"), f"{sentence}; write {size_at_least(needed)} or more, or enable less"

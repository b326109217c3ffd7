"""Rules of what physically fits: each broken one is told with its arithmetic and the nearest setting that fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rig.capacity import Demand, largest_at_once, room_for_cache, sequences_that_fit, tokens_that_fit
from rig.capacity.units import in_words, size_at_least, size_bytes, size_text
from rig.settings.demand import cache_per_token, demand, ram_for_engines
from rig.settings.engines import Engine, alternatives
from rig.settings.machine import Hardware
from rig.settings.models import Models
from rig.settings.tree import Step

Finding = tuple[tuple[Step, ...], str]

CONTEXT_STEP = 256
"""Tokens by which llama-server rounds a context, and the shortest one that the settings allow."""


@dataclass(frozen=True)
class _Wish:
    """An engine, what it needs, and its KV cache a token, in bytes."""

    engine: Engine
    need: Demand
    per_token: int | None


def misfits(engines: Mapping[str, Engine], models: Models | None, hardware: Hardware | None) -> Iterator[Finding]:
    """Every enabled engine, and every sum of them, that asks for more than there is."""
    wishes = {} if models is None else _wishes(engines, models)
    short = [name for name, wish in wishes.items() if wish.need.known > _limit(wish.engine, hardware)]
    for name in short:
        key, sentence = _shortage(wishes[name], hardware)
        yield ("engines", name, key), sentence
    if hardware is None:
        return
    yield from _too_many_threads(engines, hardware)
    if not short:
        yield from _too_much_together(engines, wishes, hardware)
    if models is not None:
        yield from _too_small_disk(engines, models, hardware)


def _wishes(engines: Mapping[str, Engine], models: Models) -> dict[str, _Wish]:
    """What engines need whose models the catalogue has; the others are told elsewhere."""
    known = {name: model.known for name, model in models.catalogue.items()}
    return {
        name: _Wish(engine, demand(engine, known), cache_per_token(engine, known[engine.model].architecture))
        for name, engine in engines.items()
        if engine.model in known and (engine.projector is None or engine.projector in known)
    }


def _limit(engine: Engine, hardware: Hardware | None) -> int:
    """Bytes that the engine can have: its own limit, or the machine's RAM where that is less."""
    memory = size_bytes(engine.memory)
    return memory if hardware is None else min(memory, ram_for_engines(hardware))


def _shortage(wish: _Wish, hardware: Hardware | None) -> tuple[str, str]:
    """Key and sentence for an engine that has too little memory: its KV cache gives way where that is enough."""
    engine, need = wish.engine, wish.need
    limit = _limit(engine, hardware)
    left = room_for_cache(limit, need.weights, need.overhead)
    larger = _larger_memory(need, limit, hardware)
    smaller = None if wish.per_token is None else _smaller_cache(engine, left, wish.per_token)
    if smaller is not None:
        key, value = smaller
        whose = f"memory {engine.memory}" if limit == size_bytes(engine.memory) else f"the machine's {in_words(limit)}"
        arithmetic = f"{_cache(wish)}, and {in_words(left)} are left of {whose} after {_fixed(need)}"
        enough = larger is not None and size_bytes(larger) >= need.known
        return key, f"{arithmetic}; write {value}{f', or memory: {larger}' if enough else ''}"
    if larger is not None:
        return "memory", f"is {engine.memory}, and the engine needs {_whole(need)}; write {larger}"
    room = limit if hardware is None else ram_for_engines(hardware)
    return "model", f"needs {_whole(need)}, and the machine has {in_words(room)} for engines; write a smaller model"


def _larger_memory(need: Demand, limit: int, hardware: Hardware | None) -> str | None:
    """The size that is enough; all the machine has where the KV cache must shrink too; None where no size helps."""
    enough = size_at_least(need.known)
    room = size_bytes(enough) if hardware is None else ram_for_engines(hardware)
    if size_bytes(enough) <= room:
        return enough
    return size_text(room) if limit < room and need.weights + need.overhead < room else None


def _smaller_cache(engine: Engine, left: int, per_token: int) -> tuple[str, int] | None:
    """Key and value of the nearest setting whose KV cache fits into `left` bytes; None when there is none.

    Where sequences and context are both too much, one sequence is left, whose context is judged next time.
    """
    if sequences := sequences_that_fit(left, per_token, engine.context):
        return "sequences", sequences
    tokens = tokens_that_fit(left, per_token)
    if context := tokens // engine.sequences // CONTEXT_STEP * CONTEXT_STEP:
        return "context", context
    return ("sequences", 1) if tokens >= CONTEXT_STEP else None


def _cache(wish: _Wish) -> str:
    engine, cache = wish.engine, in_words(wish.need.kv_cache or 0)
    if engine.sequences == 1:
        return f"1 sequence of {engine.context:,} tokens needs {cache} of KV cache"
    return f"{engine.sequences} sequences of {engine.context:,} tokens need {cache} of KV cache"


def _fixed(need: Demand) -> str:
    return f"{in_words(need.weights)} of weights and {in_words(need.overhead)} of overhead"


def _whole(need: Demand) -> str:
    if need.kv_cache is None:
        return f"{in_words(need.known)} besides its KV cache: {_fixed(need)}"
    return f"{in_words(need.known)}: {in_words(need.kv_cache)} of KV cache, {_fixed(need)}"


def _too_many_threads(engines: Mapping[str, Engine], hardware: Hardware) -> Iterator[Finding]:
    """Engines with more threads than cores: the threads only wait for each other."""
    for name, engine in engines.items():
        if engine.threads > hardware.cores:
            sentence = f"{engine.threads} are more than the {hardware.cores} of machine.hardware.cores"
            yield ("engines", name, "threads"), f"{sentence}; write {hardware.cores}"


def _too_much_together(
    engines: Mapping[str, Engine], wishes: Mapping[str, _Wish], hardware: Hardware
) -> Iterator[Finding]:
    """Limits that exceed the RAM together: who has most to spare gives way, or one of them is switched off.

    Of alternatives only the largest counts, as one of them runs at a time.
    """
    limits = {name: size_bytes(engine.memory) for name, engine in engines.items()}
    at_once = largest_at_once(limits, alternatives(engines).values())
    room = ram_for_engines(hardware)
    excess = sum(limits[name] for name in at_once) - room
    if excess <= 0:
        return
    arithmetic = (
        f"{' + '.join(f'{in_words(limits[name])} of {name}' for name in at_once)} are more than the "
        f"{in_words(room)} for engines ({hardware.ram} of RAM less {hardware.ram_reserve} of ram_reserve)"
    )
    spare = {name: limits[name] - wishes[name].need.known for name in at_once if name in wishes}
    giver = max(spare, key=lambda name: spare[name], default=None)
    if giver is not None and spare[giver] >= excess:
        yield ("engines", giver, "memory"), f"{arithmetic}; write {size_text(limits[giver] - excess)}"
    else:
        goer = min(at_once, key=lambda name: (limits[name] < excess, limits[name]))
        yield (
            ("engines", goer, "enabled"),
            f"{arithmetic}; write false here or at another of them, or make them alternatives (alternatives: NAME at "
            "each), of which one runs at a time",
        )


def _too_small_disk(engines: Mapping[str, Engine], models: Models, hardware: Hardware) -> Iterator[Finding]:
    """A disk that cannot hold the files of all enabled engines."""
    named = {name for engine in engines.values() for name in (engine.model, engine.projector)}
    needed = sum(model.size for name, model in models.catalogue.items() if name in named)
    if hardware.disk is not None and needed > size_bytes(hardware.disk):
        sentence = f"is {hardware.disk}, and the models of the enabled engines take {in_words(needed)}"
        yield ("machine", "hardware", "disk"), f"{sentence}; write {size_at_least(needed)} or more, or enable less"

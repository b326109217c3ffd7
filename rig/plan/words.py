"""The figures of a plan as short texts, the same for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable

from rig.capacity import Demand
from rig.capacity.units import in_words, size_bytes
from rig.plan.figures import EnginePlan
from rig.plan.fits import Fit
from rig.settings.demand import LONGEST_CONTEXT
from rig.settings.machine import Hardware

UNKNOWN = "unknown"
NO_CARD = "no card"

NOTES = (
    "< and > are what the hardware allows, for one stream and a short context; no engine can pass them. Engines that "
    "compute at the same time share it.",
    "Sequences that fit have their whole context; vLLM serves more of shorter ones at once. Memory for computing "
    "(overhead) is an assumption. A model without a shape in the catalogue counts without its "
    "KV cache.",
)


FITS_NOTE = (
    "Each model by itself, with one sequence of 8,192 tokens, as many layers on the graphics card as fit, and the "
    "default overhead and prompt cache. < is what the hardware allows. The longest context is what memory allows, "
    "whatever the model was trained for. A model without a shape in the catalogue is left out."
)


def context(fit: Fit) -> str:
    """The longest context that fits the memory, in thousands of tokens; "any" if all layers keep a window."""
    if fit.longest_context is None:
        return UNKNOWN
    return "any" if fit.longest_context >= LONGEST_CONTEXT else f"{fit.longest_context // 1000:,}k"


def hardware(of: Hardware) -> str:
    """The machine's hardware, in one line."""
    gpu = of.gpu
    card = "no graphics card" if gpu is None else f"{gpu.name} ({_size(gpu.memory)} at {gpu.bandwidth:g} GB/s)"
    return f"{of.cores} cores, {_size(of.ram)} RAM at {of.ram_bandwidth:g} GB/s, {card}"


def memory(demand: Demand) -> str:
    """Bytes needed, marked if an unknown part comes on top."""
    if demand.total == 0:
        return "none"
    return in_words(demand.known) if demand.total is not None else f"> {in_words(demand.known)}"


def sequences(engine: EnginePlan) -> str:
    """Sequences served at once, and those that would fit within the limit."""
    fitting = UNKNOWN if engine.sequences_that_fit is None else f"{engine.sequences_that_fit:,} fit"
    return f"{engine.sequences:,} ({fitting})"


def speed(engine: EnginePlan) -> str:
    """Upper limit of tokens/s."""
    return NO_CARD if engine.tokens_per_second is None else f"< {engine.tokens_per_second:,.1f}"


def first_token(engine: EnginePlan) -> str:
    """Lower limit of the time to the first token, with as many digits as are worth reading."""
    seconds = engine.first_token_seconds
    if engine.tokens_per_second is None:
        return NO_CARD
    if seconds is None:
        return UNKNOWN
    return f"> {seconds:.1f} s" if seconds >= 1 else f"> {seconds * 1000:.0f} ms"


def name(engine: EnginePlan) -> str:
    """The engine's name, with a mark if it is disabled."""
    return engine.name if engine.enabled else f"{engine.name} (off)"


def layers(engine: EnginePlan) -> str:
    """Layers on the card, of all layers."""
    return f"{engine.gpu_layers} of {UNKNOWN if engine.layers is None else engine.layers}"


def sets(names: Iterable[tuple[str, ...]], more: bool = False) -> str:
    """Sets of engines, one of which can run at a time; `more`: there are others."""
    written = [" + ".join(together) for together in names]
    return "; or ".join([*written, *(["another set"] if more else [])]) or "none"


def _size(size: str) -> str:
    return in_words(size_bytes(size)).replace(".0 ", " ")

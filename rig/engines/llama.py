"""Arguments of llama.cpp's server, the same for a container and for a native service."""

from __future__ import annotations

from collections.abc import Mapping

from rig.capacity import CHECKPOINTS
from rig.capacity.units import MIB
from rig.settings.engines import LlamaEngine


def arguments(engine: LlamaEngine, files: Mapping[str, str], *, host: str, layers: int | None) -> list[str]:
    """llama-server's command line without the program.

    ``files``: path of each catalogue name as the server sees it; ``host``: address it listens on; ``layers``: those of
    the model, None where unknown. The key never stands here, as arguments show in `ps`. llama-server divides
    --ctx-size among its slots, so the total is asked for.
    """
    projector = ["--mmproj", files[engine.projector]] if engine.projector else []
    return [
        "--model",
        files[engine.model],
        *projector,
        "--alias",
        engine.model,
        "--host",
        host,
        # The default port moved between releases: never left to it.
        "--port",
        str(engine.port),
        "--ctx-size",
        str(engine.total_context),
        "--parallel",
        str(engine.sequences),
        "--threads",
        str(engine.threads),
        "--cache-type-k",
        engine.kv_cache,
        "--cache-type-v",
        engine.kv_cache,
        # Its own default is 8 GiB of RAM, which nobody would have counted.
        "--cache-ram",
        str(-(-engine.prompt_cache_bytes // MIB)),
        "--ctx-checkpoints",
        str(CHECKPOINTS),
        "--n-gpu-layers",
        _on_card(engine, layers),
        # What fits is known beforehand: a server that changes its own settings to fit in would hide that it is wrong.
        "--fit",
        "off",
        "--metrics",
        # /slots shows other clients' prompts, and is on by default.
        "--no-slots",
        *engine.arguments,
    ]


def _on_card(engine: LlamaEngine, layers: int | None) -> str:
    """llama.cpp counts the output head as a layer, the first on the card: the number of blocks alone leaves one out."""
    return "all" if engine.on_card and engine.layers_on_card == layers else str(engine.layers_on_card)

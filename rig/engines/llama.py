"""Arguments of llama.cpp's server, the same for a container and for a native service."""

from __future__ import annotations

from collections.abc import Mapping

from rig.capacity import CHECKPOINTS
from rig.capacity.units import MIB
from rig.settings.engines import LlamaEngine


def arguments(engine: LlamaEngine, files: Mapping[str, str], *, host: str, layers: int | None) -> list[str]:
    """llama-server's command line without the program.

    ``files``: path of each catalogue name in the server's file system; ``host``: listening address; ``layers``: those
    of the model, None if unknown. The key is never an argument, as `ps` shows arguments. llama-server divides
    --ctx-size among its slots, so it gets the total.
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
        # The default port has changed between releases.
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
        # llama-server's default is 8 GiB of RAM, which the plan does not count.
        "--cache-ram",
        str(-(-engine.prompt_cache_bytes // MIB)),
        "--ctx-checkpoints",
        str(CHECKPOINTS),
        "--n-gpu-layers",
        _on_card(engine, layers),
        # The settings are checked to fit: a server that changes them to fit would hide a mistake.
        "--fit",
        "off",
        "--metrics",
        # /slots shows other clients' prompts, and is enabled by default.
        "--no-slots",
        *engine.arguments,
    ]


def _on_card(engine: LlamaEngine, layers: int | None) -> str:
    """The value of --n-gpu-layers: llama.cpp counts the output head as one more layer, the first on the card."""
    return "all" if engine.on_card and engine.layers_on_card == layers else str(engine.layers_on_card)

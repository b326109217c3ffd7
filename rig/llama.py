"""Arguments of llama.cpp's server, the same for a container and for a native service."""

from __future__ import annotations

from collections.abc import Mapping

from rig.settings.engines import CommonEngine


def arguments(engine: CommonEngine, files: Mapping[str, str], *, host: str) -> list[str]:
    """llama-server's command line without the program.

    ``files``: path of each catalogue name as the server sees it; ``host``: address it listens on. The key never stands
    here, as arguments show in `ps`. llama-server divides --ctx-size among its slots, so the total is asked for.
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
        "--n-gpu-layers",
        "0",
        "--metrics",
        # /slots shows other clients' prompts, and is on by default.
        "--no-slots",
        *engine.arguments,
    ]

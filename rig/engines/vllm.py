"""Arguments and environment of vLLM's server, which runs in a container."""

from __future__ import annotations

from collections.abc import Sequence

from rig.settings.engines import VllmEngine

USER = "2000:0"
"""The image's own user: any other outside group 0 has no name there, and vLLM stops without one."""

HOME = "/home/vllm"
CACHE = f"{HOME}/.cache"
"""vLLM's cache of compiled kernels, which take minutes to make."""

ENTRYPOINT = ["vllm", "serve"]
"""Given explicitly, because the image's own has changed between releases."""

ENVIRONMENT = {
    "HOME": HOME,
    # The models are local and verified: no look-ups, no telemetry.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

KEY = "VLLM_API_KEY"
"""The variable with its key. An argument would show in `ps`."""


def arguments(engine: VllmEngine, path: str, *, host: str, aliases: Sequence[str] = ()) -> list[str]:
    """The arguments of `vllm serve`; ``path``: the folder of the checkpoint; ``host``: listening address.

    ``aliases``: further names that requests may have for the model, as vLLM refuses any other.

    No --quantization: the checkpoint declares its quantization. vLLM itself chooses the attention backend.
    """
    return [
        path,
        "--served-model-name",
        engine.model,
        *aliases,
        "--host",
        host,
        "--port",
        str(engine.port),
        "--max-model-len",
        str(engine.context),
        "--max-num-seqs",
        str(engine.sequences),
        "--gpu-memory-utilization",
        f"{engine.gpu_utilization:g}",
        "--kv-cache-dtype",
        engine.kv_cache,
        *engine.arguments,
    ]

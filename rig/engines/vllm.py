"""Arguments and environment of vLLM's server, which runs in a container."""

from __future__ import annotations

from rig.settings.engines import VllmEngine

USER = "2000:0"
"""The user that the image was made for: any other outside group 0 has no name there, and vLLM stops at that."""

HOME = "/home/vllm"
CACHE = f"{HOME}/.cache"
"""Where it keeps compiled kernels, which take minutes to make."""

ENTRYPOINT = ["vllm", "serve"]
"""Said here, because the image's own has changed between releases."""

ENVIRONMENT = {
    "HOME": HOME,
    # Models are there, verified; nothing is to be looked up or sent.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

KEY = "VLLM_API_KEY"
"""Variable of its key. An argument would show in `ps`."""


def arguments(engine: VllmEngine, path: str, *, host: str) -> list[str]:
    """What follows `vllm serve`; ``path``: the folder of the checkpoint; ``host``: address it listens on.

    No --quantization: the checkpoint says how it is quantized. The attention backend is chosen by vLLM itself.
    """
    return [
        path,
        "--served-model-name",
        engine.model,
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

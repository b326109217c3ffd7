"""The compose file of the model servers' containers, as a plain value computed from the settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any

from rig.engines import llama, vllm
from rig.settings import Settings
from rig.settings.engines import ContainerEngine, Containerised, VllmEngine
from rig.settings.secrets import key_variable

PATH = "/etc/rig/compose.yaml"
"""Its path on a machine."""

BRIDGE = "rig0"
"""Interface of the containers' network. A fixed name, so that the firewall's rules can name it."""

MODELS = "/models"
"""The models' folder inside a container."""

CPU_PERIOD = 100_000
"""Microseconds over which an engine's CPU time is counted; Docker's own default."""

STRANGER = "61000:61000"
"""User and group of every engine: a number that neither Debian nor systemd assigns. With that of `nobody`, the
machine's own processes of that name could read the engine's key in /proc/PID/environ (seen in the lab)."""


OPEN_FILES = {"nofile": {"soft": 16384, "hard": 16384}}
"""Docker 29 lowers nofile to 1024, too few for a server with many streams. No more than needed: where the container
engine itself runs in a container, it cannot grant more than its own limit (seen: 20000), and the container fails to
start."""

CARD = "nvidia.com/gpu=all"
"""The graphics card, by its name in the CDI specification of the vendor's toolkit."""

CACHES = PurePosixPath("/var/lib/rig/caches")
"""The engines' caches of compiled kernels, which take long to compute; one folder for each engine."""


def engines(settings: Settings) -> dict[str, Containerised]:
    """Enabled engines that run in containers, by name."""
    enabled = settings.enabled_engines
    return {name: engine for name, engine in enabled.items() if isinstance(engine, Containerised)}


def document(settings: Settings) -> dict[str, Any]:
    """The whole compose file; each service carries the hash of its own definition as a label."""
    services = {name: service(settings, name, engine) for name, engine in engines(settings).items()}
    return {
        "name": "rig",
        "services": services,
        "networks": {
            "rig": {"driver": "bridge", "driver_opts": {"com.docker.network.bridge.name": BRIDGE}},
        },
    }


def service(settings: Settings, name: str, engine: Containerised) -> dict[str, Any]:
    """One engine's service; its label ``rig.settings`` shows a later run whether the container is current."""
    labels = {"rig.engine": name, "rig.settings": fingerprint(settings, name, engine)}
    return _definition(settings, name, engine) | {"labels": labels}


def fingerprint(settings: Settings, name: str, engine: Containerised) -> str:
    """SHA-256 of the engine's definition; a running container with another one is outdated.

    Changed bytes of a model are another version, whose folder is part of the definition.
    """
    canonical = json.dumps(_definition(settings, name, engine), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def cache(name: str, engine: Containerised) -> PurePosixPath | None:
    """The engine's folder for compiled kernels on the machine; None if it keeps none."""
    return CACHES / name if isinstance(engine, VllmEngine) else None


def _definition(settings: Settings, name: str, engine: Containerised) -> dict[str, Any]:
    served = _vllm(settings, name, engine) if isinstance(engine, VllmEngine) else _llama(settings, name, engine)
    card = {"driver": "cdi", "device_ids": [CARD], "capabilities": ["gpu"]}
    return {
        "image": engine.image,
        "container_name": f"rig-{name}",
        **served,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges=true"],
        **({"deploy": {"resources": {"reservations": {"devices": [card]}}}} if engine.on_card else {}),
        "ports": [f"{engine.address}:{engine.port}:{engine.port}"],
        "networks": ["rig"],
        "mem_limit": engine.memory.lower(),
        # Equal to mem_limit: no swap, so that a model that does not fit fails at once and does not crawl.
        "memswap_limit": engine.memory.lower(),
        # Not `cpus`: without such a limit in the kernel Docker refuses it outright, and only warns of this one.
        "cpu_period": CPU_PERIOD,
        "cpu_quota": round(engine.cpus * CPU_PERIOD),
        "restart": "on-failure",
        "stop_grace_period": "30s",
        # The image's own check requests a port of its choice.
        "healthcheck": {
            "test": ["CMD", "curl", "--fail", "--silent", "--output", "/dev/null", _health_url(engine)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{engine.health_timeout}s",
            "start_interval": "1s",
        },
    }


def _llama(settings: Settings, name: str, engine: ContainerEngine) -> dict[str, Any]:
    """llama.cpp's own keys of the service."""
    names = engine.model_names
    seen_as = {model: _inside(settings, model) for model in names}
    architecture = settings.models.catalogue[engine.model].known.architecture
    layers = None if architecture is None else architecture.layers
    # Weights locked in RAM count against this limit.
    memlock = {"memlock": -1} if "mlock" in " ".join(engine.arguments) else {}
    return {
        "command": llama.arguments(engine, seen_as, host="0.0.0.0", layers=layers),
        "environment": {"TZ": settings.machine.timezone, "LLAMA_API_KEY": _key(name)},
        "user": STRANGER,
        "tmpfs": ["/tmp:size=256m,mode=1777"],
        "volumes": [_models(settings, model) for model in names],
        "pids_limit": 512,
        "ulimits": OPEN_FILES | memlock,
    }


def _vllm(settings: Settings, name: str, engine: VllmEngine) -> dict[str, Any]:
    """vLLM's own keys of the service."""
    return {
        "entrypoint": vllm.ENTRYPOINT,
        "command": vllm.arguments(
            engine, _inside(settings, engine.model), host="0.0.0.0", aliases=settings.aliases(name)
        ),
        "environment": {"TZ": settings.machine.timezone, **vllm.ENVIRONMENT, vllm.KEY: _key(name)},
        "user": vllm.USER,
        # Docker's default is 64 MB and noexec, and vLLM compiles there and loads the result.
        "tmpfs": ["/tmp:exec,size=2g,mode=1777"],
        "shm_size": "2g",
        "volumes": [
            _models(settings, engine.model),
            _bind(str(cache(name, engine)), vllm.CACHE, read_only=False),
        ],
        "pids_limit": 4096,
        "ulimits": OPEN_FILES,
    }


def _key(name: str) -> str:
    """The key variable, filled in by compose from /etc/rig/keys.env: an engine sees its own key and no other."""
    return f"${{{key_variable(name)}:?no key for {name} in /etc/rig/keys.env}}"


def _models(settings: Settings, model: str) -> dict[str, Any]:
    return _bind(str(settings.model_folder(model)), f"{MODELS}/{model}", read_only=True)


def _bind(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    # Docker would create a missing directory, and the engine would fail for another reason.
    bind = {"create_host_path": False}
    return {"type": "bind", "source": source, "target": target, "read_only": read_only, "bind": bind}


def _inside(settings: Settings, model: str) -> str:
    """A model's path in its container: its one file, or the folder of its repository."""
    below = settings.model_path(model).relative_to(settings.model_folder(model))
    return str(PurePosixPath(MODELS) / model / below)


def _health_url(engine: Containerised) -> str:
    return f"http://127.0.0.1:{engine.port}/health"

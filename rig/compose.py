"""The compose file of the containers that serve models, as a plain value computed from the settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rig import llama
from rig.settings import Settings
from rig.settings.engines import ContainerEngine
from rig.settings.secrets import key_variable

BRIDGE = "rig0"
"""Interface of the containers' network. A fixed name, so that the firewall's rules can name it."""

MODELS = "/models"
"""Where a container sees its models."""

CPU_PERIOD = 100_000
"""Microseconds over which an engine's processors are counted; Docker's own default."""

STRANGER = "61000:61000"
"""User and group of every engine: a number that neither Debian nor systemd gives to anybody. With that of `nobody`, the
machine's own processes of that name could read the engine's key in /proc/PID/environ (seen in the lab)."""


def engines(settings: Settings) -> dict[str, ContainerEngine]:
    """Enabled engines that run in containers, by name."""
    enabled = settings.enabled_engines
    return {name: engine for name, engine in enabled.items() if isinstance(engine, ContainerEngine)}


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


def service(settings: Settings, name: str, engine: ContainerEngine) -> dict[str, Any]:
    """One engine's service, with the label ``rig.settings`` by which a later run sees whether it is current."""
    labels = {"rig.engine": name, "rig.settings": fingerprint(settings, name, engine)}
    return _definition(settings, name, engine) | {"labels": labels}


def fingerprint(settings: Settings, name: str, engine: ContainerEngine) -> str:
    """SHA-256 of the engine's definition and of its models: what a running container must carry to be current.

    The models' own hashes belong to it, as a file of the same name with other bytes is served only after a restart.
    """
    models = [settings.models.catalogue[model].sha256 for model in engine.model_names]
    canonical = json.dumps([_definition(settings, name, engine), models], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _definition(settings: Settings, name: str, engine: ContainerEngine) -> dict[str, Any]:
    names = engine.model_names
    seen_as = {model: f"{MODELS}/{model}/{settings.models.catalogue[model].file}" for model in names}
    variable = key_variable(name)
    return {
        "image": engine.image,
        "container_name": f"rig-{name}",
        "command": llama.arguments(engine, seen_as, host="0.0.0.0"),
        # The variable is filled in by compose from /etc/rig/keys.env: this engine sees its own key and no other.
        "environment": {
            "TZ": settings.machine.timezone,
            "LLAMA_API_KEY": f"${{{variable}:?no key for {name} in /etc/rig/keys.env}}",
        },
        "user": STRANGER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges=true"],
        "tmpfs": ["/tmp:size=256m,mode=1777"],
        "volumes": [
            {
                "type": "bind",
                "source": str(settings.model_path(model).parent),
                "target": f"{MODELS}/{model}",
                "read_only": True,
                # Docker would make a missing directory, and the engine would fail for another reason.
                "bind": {"create_host_path": False},
            }
            for model in names
        ],
        "ports": [f"{engine.address}:{engine.port}:{engine.port}"],
        "networks": ["rig"],
        "mem_limit": engine.memory.lower(),
        # Equal to mem_limit: no swap, so that a model that does not fit fails at once and not by crawling.
        "memswap_limit": engine.memory.lower(),
        # Not `cpus`: Docker refuses that outright where the kernel has no such limit, and only warns of this.
        "cpu_period": CPU_PERIOD,
        "cpu_quota": round(engine.cpus * CPU_PERIOD),
        "pids_limit": 512,
        # Docker 29 lowers nofile to 1024, which a server with many streams reaches. No more than enough: where the
        # engine itself runs in a container, it cannot give away more than it has (seen: 20000), and fails to start.
        "ulimits": {"nofile": {"soft": 16384, "hard": 16384}},
        "restart": "on-failure",
        "stop_grace_period": "30s",
        # The image's own check asks a port of its choice.
        "healthcheck": {
            "test": ["CMD", "curl", "--fail", "--silent", "--output", "/dev/null", _health_url(engine)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{engine.health_timeout}s",
            "start_interval": "1s",
        },
    }


def _health_url(engine: ContainerEngine) -> str:
    return f"http://127.0.0.1:{engine.port}/health"

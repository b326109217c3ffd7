"""A running container, compared with its service in the compose file.

compose itself compares only a label: it accepts a container that was made by hand with the same labels, got other
limits from `docker update`, or was connected to a further network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

POWERS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def differences(service: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How a container (`found`: the value of the fact Inspected) differs from the `service` of a compose file.

    Empty for a container that Docker does not know: whether one runs at all is another question.
    """
    if not found:
        return []
    host = found["HostConfig"]
    pairs = {
        "privileges": (False, bool(host.get("Privileged"))),
        "capabilities": (
            (sorted(service.get("cap_add", [])), sorted(service.get("cap_drop", []))),
            (_names(host.get("CapAdd")), _names(host.get("CapDrop"))),
        ),
        "security options": (
            sorted(map(_option, service.get("security_opt", []))),
            sorted(map(_option, host.get("SecurityOpt") or [])),
        ),
        "write access to its image": (not service.get("read_only", False), not host.get("ReadonlyRootfs")),
        "networks": (sorted(f"rig_{name}" for name in service["networks"]), sorted(found.get("Networks") or {})),
        "namespaces": ([], [key for key in ("PidMode", "UsernsMode", "UTSMode") if host.get(key)]),
        "mounts": (_wanted_mounts(service), _mounts(host)),
        "devices": (0, len(host.get("Devices") or [])),
        "ports": (sorted(service.get("ports", [])), _ports(host.get("PortBindings") or {})),
        "memory": (_bytes(service.get("mem_limit", 0)), host.get("Memory") or 0),
        "swap": (_bytes(service.get("memswap_limit", 0)), host.get("MemorySwap") or 0),
        "cpus": (
            (service.get("cpu_quota", 0), 0, ""),
            (host.get("CpuQuota") or 0, host.get("NanoCpus") or 0, host.get("CpusetCpus") or ""),
        ),
        "processes": (service.get("pids_limit", 0), host.get("PidsLimit") or 0),
        "restarts": (service.get("restart", "no"), (host.get("RestartPolicy") or {}).get("Name") or "no"),
        "user": (service.get("user", ""), found.get("User", "")),
        "command": ([str(word).replace("$$", "$") for word in service.get("command", [])], found.get("Cmd") or []),
        "image": (service.get("image", ""), found.get("Image", "")),
    }
    # Docker only warns of a limit that the kernel lacks.
    lacking = found.get("Unlimited", [])
    return [name for name, (wanted, there) in pairs.items() if wanted != there and name not in lacking]


def _names(found: list[str] | None) -> list[str]:
    return sorted(name.removeprefix("CAP_") for name in found or [])


def _option(option: str) -> str:
    """The one spelling of `no-new-privileges`, `no-new-privileges:true` and `no-new-privileges=true`."""
    name, _, value = option.replace(":", "=", 1).partition("=")
    return f"{name}={value or 'true'}"


def _wanted_mounts(service: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    return sorted((mount["source"], mount["target"], bool(mount["read_only"])) for mount in service.get("volumes", []))


def _mounts(host: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Bind mounts in both of Docker's notations."""
    found = [
        (mount.get("Source", ""), mount["Target"], bool(mount.get("ReadOnly"))) for mount in host.get("Mounts") or []
    ]
    for bind in host.get("Binds") or []:
        source, target, *options = bind.split(":")
        found.append((source, target, "ro" in ",".join(options).split(",")))
    return sorted(found)


def _ports(bindings: Mapping[str, Any]) -> list[str]:
    return sorted(
        f"{binding.get('HostIp', '')}:{binding.get('HostPort', '')}:{port.partition('/')[0]}"
        for port, published in bindings.items()
        for binding in published or []
    )


def _bytes(size: str | int) -> int:
    """A size in compose's notation, in bytes: powers of 1024, letters of either case."""
    number, unit = re.fullmatch(r"([0-9.]+)([kmgt]?)b?", str(size).lower()).groups()  # type: ignore[union-attr]
    return int(float(number) * POWERS[unit])

"""Packages of the container engine, from its vendor and from the distributions. Plain values."""

from __future__ import annotations

from collections.abc import Iterable

from rig.settings.containers import Containers

VENDOR = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
DISTRIBUTION = {
    "debian": ["docker.io", "docker-cli", "docker-compose", "containerd", "runc"],
    "ubuntu": ["docker.io", "docker-compose-v2", "containerd", "runc"],
}
CONFLICTING = ["docker.io", "docker-cli", "docker-compose", "podman-docker", "containerd", "runc"]
"""Packages whose files the vendor's replace."""


def replaced(settings: Containers, there: Iterable[str]) -> list[str]:
    """Those of the packages that the settings' source of the engine replaces."""
    return sorted(set(CONFLICTING if settings.source == "vendor" else VENDOR) & set(there))

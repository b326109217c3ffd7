"""The container engine's packages, from its vendor and from the distributions, and which need an upgrade."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rig.apt.sources import Repository
from rig.settings.containers import Containers, Vendor
from rig.settings.packages import CONFLICTING, VENDOR

__all__ = ["CONFLICTING", "VENDOR"]

DISTRIBUTION = {
    "debian": ["docker.io", "docker-cli", "docker-compose", "containerd", "runc"],
    "ubuntu": ["docker.io", "docker-compose-v2", "containerd", "runc"],
}
"""The engine itself comes first in each."""

KEYRING = "/etc/apt/keyrings/docker.asc"
SOURCES = "/etc/apt/sources.list.d/docker.sources"
PIN = "/etc/apt/preferences.d/00rig-docker"
PINNED = {
    "vendor": ["docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"],
    "distribution": ["docker.io", "docker-cli"],
}
"""Packages that must have exactly the engine's version."""


def repository(vendor: Vendor, os_id: str, codename: str) -> Repository:
    """The vendor's repository for a distribution, by ID and VERSION_CODENAME of /etc/os-release."""
    address = f"{vendor.repository}/{os_id}"
    key, fingerprints = f"{vendor.keys}/{os_id}/gpg", vendor.key_fingerprints
    return Repository(address, codename, SOURCES, KEYRING, key, fingerprints, "containers.vendor")


@dataclass(frozen=True)
class Offered:
    """A package in apt's view."""

    installed: str | None
    """Installed version; None if it is not installed."""
    candidate: str | None
    """Version that apt would install, by its lists and pins; None if there is none."""
    held: bool = False
    """The owner has put it on hold."""


def pattern(version: str) -> str:
    """A regular expression for versions that begin with ``version``; the same for apt's pins, grep -E and Python."""
    upstream = re.sub(r"^[0-9]+:", "", version)
    return f"^([0-9]+:)?{re.sub(r'[.+]', lambda found: chr(92) + found[0], upstream)}([.+~-]|$)"


def due(packages: Sequence[str], there: Mapping[str, Offered], version: str) -> list[str]:
    """The packages that are missing, or not in apt's candidate version; `packages` begins with the engine."""
    found = []
    for name in packages:
        seen = there.get(name, Offered(None, None))
        other = seen.installed != seen.candidate or (
            name == packages[0] and not re.search(pattern(version), seen.installed or "")
        )
        if seen.installed is None or (other and not seen.held):
            found.append(name)
    return found


def no_such_version(package: str, version: str) -> str:
    """Message: no package repository has this version."""
    return (
        f"the package repositories of this machine have no {package} {version}; write another containers.version "
        f"(apt-cache madison {package} lists them)"
    )


def replaced(settings: Containers, there: Iterable[str]) -> list[str]:
    """The installed packages that the settings' source of the engine replaces."""
    return sorted(set(CONFLICTING if settings.source == "vendor" else VENDOR) & set(there))


def outdated(settings: Containers, there: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Packages of the engine whose version differs from the settings: name, setting, its value."""
    wanted = settings.version
    if wanted is None:
        return []
    others = [name for name in PINNED[settings.source] if name in there and not re.search(pattern(wanted), there[name])]
    return [(name, "containers.version", wanted) for name in others]

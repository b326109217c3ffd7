"""Packages of the container engine, from its vendor and from the distributions, and which are due. Plain values."""

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
"""The engine itself is the first of each."""

KEYRING = "/etc/apt/keyrings/docker.asc"
SOURCES = "/etc/apt/sources.list.d/docker.sources"
PIN = "/etc/apt/preferences.d/00rig-docker"
PINNED = {
    "vendor": ["docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"],
    "distribution": ["docker.io", "docker-cli"],
}
"""Packages that have the engine's version, and fit it in that one only."""


def repository(vendor: Vendor, os_id: str, codename: str) -> Repository:
    """The vendor's repository for a distribution, by ID and VERSION_CODENAME of /etc/os-release."""
    address = f"{vendor.repository}/{os_id}"
    key, fingerprints = f"{vendor.keys}/{os_id}/gpg", vendor.key_fingerprints
    return Repository(address, codename, SOURCES, KEYRING, key, fingerprints, "containers.vendor")


@dataclass(frozen=True)
class Offered:
    """A package as apt sees it."""

    installed: str | None
    """Version that is installed; None without one."""
    candidate: str | None
    """Version that apt would install, by its lists and pins; None without one."""
    held: bool = False
    """Its owner has put it on hold."""


def pattern(version: str) -> str:
    """What versions of packages match that begin with ``version``, for apt's pins, grep -E and Python alike."""
    upstream = re.sub(r"^[0-9]+:", "", version)
    return f"^([0-9]+:)?{re.sub(r'[.+]', lambda found: chr(92) + found[0], upstream)}([.+~-]|$)"


def due(packages: Sequence[str], there: Mapping[str, Offered], version: str) -> list[str]:
    """Those of the packages, the engine first, that are not there, or not in the version that apt would install."""
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
    """The lists have been fetched, and none has it."""
    return (
        f"the package repositories of this machine have no {package} {version}; write another containers.version "
        f"(apt-cache madison {package} lists them)"
    )


def replaced(settings: Containers, there: Iterable[str]) -> list[str]:
    """Those of the packages that the settings' source of the engine replaces."""
    return sorted(set(CONFLICTING if settings.source == "vendor" else VENDOR) & set(there))


def outdated(settings: Containers, there: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Packages of the engine whose versions are not the settings': name, setting, its value."""
    wanted = settings.version
    if wanted is None:
        return []
    others = [name for name in PINNED[settings.source] if name in there and not re.search(pattern(wanted), there[name])]
    return [(name, "containers.version", wanted) for name in others]

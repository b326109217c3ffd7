"""Names and patterns of packages: apt's marks in place of a name, and patterns that block every update."""

from __future__ import annotations

import re
import warnings
from typing import Annotated

from pydantic import AfterValidator

from rig.settings.problems import show
from rig.settings.types import Shape

VENDOR = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
"""The container engine's packages from its vendor; the engine itself comes first."""
CONFLICTING = ["docker.io", "docker-cli", "docker-compose", "podman-docker", "containerd", "runc"]
"""Packages whose files the vendor's replace."""
MONITORING_PACKAGES = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
"""The monitoring programs, removed if nothing is monitored."""
DRIVERS = ("nvidia-", "libnvidia-", "libcuda", "cuda-drivers")
"""Prefixes of the driver's packages, all of which have its version."""

WITH_PLUS = ("memtest86+",)
"""Packages whose names end in a single plus; a double plus is for C++."""

EVERYDAY = ("7zip", "apt", "base-files", "libc6", "linux-image-amd64", "openssl", "xz-utils", "zlib1g")
"""Packages that have nothing in common except security updates."""


def _no_mark(name: str) -> str:
    """A name without apt's marks: curl- removes curl, htop+ is htop, and a dot at the end is a pattern."""
    bare = name.rstrip("+-.")
    if name[-1] in "-." or (name.endswith("+") and not name.endswith("++") and name not in WITH_PLUS):
        raise ValueError(f"{show(name)} ends in a mark of apt's, which no name of a package does; write {bare}")
    return name


def _pattern(value: str) -> str:
    """A Python regular expression, for unattended-upgrades, that does not match everything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(value)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        remedy = f"write {show(re.escape(value))} for these very letters"
        raise ValueError(f"{show(value)} is not a regular expression ({error}); {remedy}") from None
    if all(compiled.match(name) for name in EVERYDAY):
        sentence = f"{show(value)} matches every package, so that none is updated"
        raise ValueError(f"{sentence}; write the names of some, or security_updates.enabled: false")
    return value


PackageName = Annotated[
    str, Shape(r"[a-z0-9][a-z0-9+.-]{1,127}", "a package name", "one such as htop"), AfterValidator(_no_mark)
]
BlockedPackage = Annotated[
    str,
    Shape(r"[!#-&(-:<-~]{1,200}", "a package pattern", "one such as nvidia-, without spaces, quotes and semicolons"),
    AfterValidator(_pattern),
]
